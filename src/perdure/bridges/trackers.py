"""Experiment trackers: which are installed, how the runs of a learn are named, and what is added to them after the training."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from perdure.core.errors import BadSpec
from perdure.core.plain_text import clipped
from perdure.core.recipe import nearest

EXTRAS = ("tensorboard", "mlflow", "wandb", "trackio")  # those of perdure that bring a tracker
PROJECT = "perdure"  # of runs, where a tracker has projects and the user named none
PACKAGES = {  # what pip calls them, where it is another name
    "azure_ml": "azureml-core azureml-mlflow",
    "flyte": "flytekit flytekitplugins-deck-standard",
}


def refuse_missing(names: Sequence[str]) -> None:
    """Refuse trackers that transformers would fail to set up, which it does after the model was loaded.

    Args:
        names: As `TrainingArguments.report_to` takes them; "all" means those that are installed.

    Raises:
        BadSpec: One is not known (the nearest known one is named), or not installed.
    """
    if not set(names) - {"all"}:
        return
    from transformers import integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    known = {"all": True, "none": True}
    for name in INTEGRATION_TO_CALLBACK:
        is_there = {"azure_ml": "azureml", "comet_ml": "comet", "flyte": "flytekit"}.get(name, name)
        known[name] = bool(getattr(integrations, f"is_{is_there}_available")())
    for name in names:
        if name not in known:
            raise BadSpec(f"report_to: no tracker {name!r}{nearest(name, list(known))}")
        if not known[name]:
            raise BadSpec(f"report_to: {name} is not {_there(name)}, or set report_to: none")


def _there(name: str) -> str:
    if name == "kubeflow":
        return "there, as this is no job of Kubeflow's trainer; run it as one"
    if name in EXTRAS:
        return f"installed: pip install 'perdure[{name}]'"
    return f"installed: pip install {PACKAGES.get(name, name)}"


@dataclass(frozen=True)
class Outcome:
    """What came of a learn, for its run.

    Args:
        entry: Id of the entry, or of the candidate.
        verdict: Verdict of the gate.
        step: The number of this learn, counted from the base model.
        scores: Score of every task now, by "eval/TASK/METRIC".
    """

    entry: str
    verdict: str
    step: int
    scores: Mapping[str, float]


class Tracking:
    """The runs of one learn in the trackers that its recipe names.

    Args:
        run: Name of the runs.
        folder: Where trackers store what they store locally, unless the user named a place.
    """

    def __init__(self, run: str, folder: Path):
        self.run, self.folder = run, folder
        self.reports: list[Callable[[Outcome], None]] = []

    @property
    def options(self) -> dict[str, Any]:
        """Options of `TrainingArguments` that name the run."""
        return {"output_dir": str(self.folder), "run_name": self.run, "project": PROJECT}

    @contextmanager
    def following(self, callbacks: Sequence[object]) -> Iterator[None]:
        """Name and place the runs while a Trainer trains.

        Args:
            callbacks: Those of the Trainer; of trackers that are not among `_FOLLOWED` the run has the training alone.
        """
        with ExitStack() as stack:
            for callback in callbacks:
                if follow := _FOLLOWED.get(type(callback).__name__):
                    stack.enter_context(follow(self, callback))
            yield

    def report(self, outcome: Outcome) -> list[str]:
        """Add what came of the learn to each run, and return warnings: a tracker that fails must not undo the learn."""
        warnings = []
        for report in self.reports:
            try:
                report(outcome)
            except (
                Exception
            ) as error:  # whatever a tracker's client raises: no network, a full disk, a run that was deleted
                words = clipped(" ".join(str(error).split()), 300)
                warnings.append(f"the scores could not be reported to a tracker: {type(error).__name__}: {words}")
        return warnings


@contextmanager
def _follow_tensorboard(tracking: Tracking, callback: Any) -> Iterator[None]:
    started = datetime.now(UTC).strftime("%Y-%m-%d %H.%M.%S.%f")
    callback.logging_dir = callback.logging_dir or str(tracking.folder / "runs" / tracking.run / started)
    tracking.reports.append(partial(_to_tensorboard, callback.logging_dir))
    yield


def _to_tensorboard(folder: str, outcome: Outcome) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(log_dir=folder) as writer:
        for name, score in outcome.scores.items():
            writer.add_scalar(name, score, outcome.step)
        writer.add_text("entry", outcome.entry, outcome.step)
        writer.add_text("verdict", outcome.verdict, outcome.step)


@contextmanager
def _follow_mlflow(tracking: Tracking, callback: Any) -> Iterator[None]:
    import mlflow

    local = not mlflow.is_tracking_uri_set()
    if (
        local
    ):  # the default of mlflow 3 is a database here, whose migrations need packages that mlflow-skinny does not bring
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow.set_tracking_uri((tracking.folder / "mlruns").absolute().as_uri())
    try:
        yield
        if callback._initialized and (run := mlflow.active_run() or mlflow.last_active_run()):
            tracking.reports.append(partial(_to_mlflow, mlflow.get_tracking_uri(), run.info.run_id))
    finally:
        if local:
            mlflow.set_tracking_uri("")


def _to_mlflow(uri: str, run: str, outcome: Outcome) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    for name, score in outcome.scores.items():
        client.log_metric(run, re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII), score, step=outcome.step)
    client.set_tag(run, "perdure.entry", outcome.entry)
    client.set_tag(run, "perdure.verdict", outcome.verdict)


@contextmanager
def _follow_wandb(tracking: Tracking, callback: Any) -> Iterator[None]:
    import wandb

    ours = wandb.run is None
    try:
        yield
    except BaseException:
        if ours:
            wandb.finish()
        raise
    if callback._initialized:
        tracking.reports.append(partial(_to_wandb, ours))


def _to_wandb(ours: bool, outcome: Outcome) -> None:
    import wandb

    if (run := wandb.run) is None:
        return
    run.log(dict(outcome.scores))
    run.tags = (*(run.tags or ()), outcome.entry[:12])  # a tag has at most 64 characters
    run.config.update({"perdure": {"entry": outcome.entry, "verdict": outcome.verdict}}, allow_val_change=True)
    if ours:  # else the next learn of this process would go on in it
        wandb.finish()


@contextmanager
def _follow_trackio(tracking: Tracking, callback: Any) -> Iterator[None]:
    yield
    tracking.reports.append(partial(_to_trackio, tracking.run))


def _to_trackio(run: str, outcome: Outcome) -> None:
    import trackio

    trackio.init(project=PROJECT, name=run, resume="allow")  # transformers ended the run with the training
    trackio.log(dict(outcome.scores))
    trackio.config.update({"perdure": {"entry": outcome.entry, "verdict": outcome.verdict}}, allow_val_change=True)
    trackio.finish()


_FOLLOWED: dict[
    str, Callable[[Tracking, Any], AbstractContextManager[None]]
] = {  # by the names of transformers' callbacks
    "TensorBoardCallback": _follow_tensorboard,
    "MLflowCallback": _follow_mlflow,
    "WandbCallback": _follow_wandb,
    "TrackioCallback": _follow_trackio,
}
