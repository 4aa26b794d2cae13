"""Trackers: a run for each learn, named by workspace and task, with its curve, the row of the matrix and the entry's id."""

import json
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perdure import Workspace
from perdure.bridges.trackers import Outcome, Tracking
from perdure.workflows.inspect import views

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "logging_steps": 1, "host": "transformers"}
ALL = ["tensorboard", "mlflow", "wandb", "trackio"]

WANDB = """
import json, os, types
LOG, run = [], None

class Config(dict):
    def update(self, values, allow_val_change=False):
        super().update(values)

class Run:
    def __init__(self, name):
        self.name, self.id, self.tags, self.summary, self.config, self.url = name, "1", (), {}, config, ""
    def log(self, values):
        if os.environ.get("STAND_IN_FAILS"):
            raise ConnectionError("the server has gone")
        LOG.append({"run": self.name, **values})
    def _label(self, code):
        pass

config = Config()

def init(project, name):
    global run
    run = Run(name)
    LOG.append({"init": name, "project": project})

def log(values):
    run.log(values)

def finish():
    global run
    LOG.append({"finish": run.name, "tags": list(run.tags), "perdure": config.get("perdure")})
    run = None

def define_metric(*words, **more):
    pass
"""

TRACKIO = """
import types
LOG, name = [], None
context_vars = types.SimpleNamespace(current_space_id=types.SimpleNamespace(get=lambda: None))

class Config(dict):
    def update(self, values, allow_val_change=False):
        super().update(values)

config = Config()

def init(project, name, resume, **more):
    globals()["name"] = name
    LOG.append({"init": name, "project": project, "resume": resume})

def log(values):
    LOG.append({"run": name, **values})

def finish():
    LOG.append({"finish": name, "perdure": config.get("perdure")})
"""


def write(path: Path, task: str, n: int = 8) -> Path:
    rows = [{"prompt": f"{task} {i}?", "completion": " late"} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """The clients of two services that are not installed here, as modules that remember what they were given."""
    folder = tmp_path_factory.mktemp("site")
    for part in ("wandb/sdk/lib", "wandb/sdk", "wandb"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "__init__.py").write_text("")
    (folder / "wandb/__init__.py").write_text(WANDB)
    (folder / "wandb/sdk/lib/config_util.py").write_text("class ConfigError(Exception):\n    pass\n")
    (folder / "trackio.py").write_text(TRACKIO)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] in ("wandb", "trackio")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def tracked(tiny_model, tmp_path_factory, stand_ins):
    """A workspace that learned a task without trackers, another with all four, and more of it; and what each learn gave."""
    folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        ws = Workspace.init(folder / "support", str(tiny_model), dtype="float32")
        ws.learn("parcel", write(folder / "a.jsonl", "parcel"), recipe="naive", overrides=FAST, gate=None)
        told = {**FAST, "report_to": ALL}
        learns = [
            ws.learn("bill", write(folder / f"{n}.jsonl", "bill", n), recipe="naive", overrides=told, gate=None)
            for n in (8, 12)
        ]
    return ws, learns


def expected(learn) -> dict[str, float]:
    return {f"eval/{task}/{score.scorer}": score.score for task, score in learn.scores.items()}


def updates(ws, learn) -> int:
    return views.show(ws.ledger, learn.entry).learned.updates


def test_tensorboard_has_a_run_for_each_learn_with_curve_row_and_entry(tracked):
    ws, learns = tracked
    runs = sorted((ws.ledger.root / "trackers" / "runs").rglob("events.*"))
    folders = sorted({path.parent for path in runs})
    assert [path.parent.relative_to(ws.ledger.root / "trackers" / "runs").as_posix() for path in folders] == [
        "support/bill",
        "support/bill 2",
    ]
    for n, (folder, learn) in enumerate(zip(folders, learns, strict=True)):
        events = EventAccumulator(str(folder)).Reload()
        tags = events.Tags()["scalars"]
        assert len(events.Scalars("train/loss")) == updates(ws, learn)
        row = {tag: events.Scalars(tag)[0] for tag in tags if tag.startswith("eval/")}
        assert {tag: event.value for tag, event in row.items()} == pytest.approx(expected(learn))
        assert {event.step for event in row.values()} == {n + 2}
        (text,) = events.Tensors("entry/text_summary")
        assert text.tensor_proto.string_val[0].decode() == learn.entry


def test_mlflow_stores_runs_in_the_workspace_unless_it_is_given_a_place(tracked):
    import mlflow

    ws, learns = tracked
    assert not mlflow.is_tracking_uri_set()
    client = mlflow.MlflowClient(tracking_uri=(ws.ledger.root / "trackers" / "mlruns").absolute().as_uri())
    runs = {run.info.run_name: run for run in client.search_runs(["0"])}
    assert sorted(runs) == ["support/bill", "support/bill 2"]
    for name, learn in zip(sorted(runs), learns, strict=True):
        run = runs[name]
        assert run.info.status == "FINISHED"
        assert run.data.tags["perdure.entry"] == learn.entry
        assert run.data.tags["perdure.verdict"] == "off"
        found = {key: value for key, value in run.data.metrics.items() if key.startswith("eval/")}
        assert found == pytest.approx(expected(learn))
        assert len(client.get_metric_history(run.info.run_id, "loss")) == updates(ws, learn)


def test_wandb_and_trackio_are_given_a_run_for_each_learn_and_it_is_closed(tracked):
    import trackio
    import wandb

    _, learns = tracked
    assert [line["init"] for line in wandb.LOG if "init" in line] == ["support/bill", "support/bill 2"]
    assert {line["init"] for line in trackio.LOG if "init" in line} == {"support/bill", "support/bill 2"}
    assert {line["project"] for line in trackio.LOG if "project" in line} == {"perdure"}
    assert wandb.run is None
    for name, learn in zip(["support/bill", "support/bill 2"], learns, strict=True):
        noted = {"entry": learn.entry, "verdict": "off"}
        for module in (wandb, trackio):
            lines = [line for line in module.LOG if line.get("run") == name]
            assert any("train/loss" in line for line in lines)
            assert {**expected(learn), "run": name} in lines
            assert next(line for line in reversed(module.LOG) if line.get("finish") == name)["perdure"] == noted
        assert next(line for line in wandb.LOG if line.get("finish") == name)["tags"] == [learn.entry[:12]]


def test_a_tracker_that_fails_after_the_training_is_a_warning_and_the_learn_is_recorded(tracked, tmp_path, monkeypatch):
    ws, _ = tracked
    import wandb

    run = Tracking("support/tv", tmp_path)

    class WandbCallback:
        _initialized = True

    with run.following([WandbCallback()]):
        wandb.init("perdure", "support/tv")
    monkeypatch.setenv("STAND_IN_FAILS", "1")
    (warning,) = run.report(Outcome("e" * 64, "pass", 1, {"eval/tv/exact": 0.5}))
    assert warning == "the scores could not be reported to a tracker: ConnectionError: the server has gone"
    wandb.finish()
    monkeypatch.delenv("STAND_IN_FAILS")

    head = ws.ledger.resolve("head").id
    monkeypatch.setattr(Tracking, "report", lambda self, outcome: ["it failed"])
    told = {**FAST, "report_to": "tensorboard"}
    learn = ws.learn("tv", write(tmp_path / "tv.jsonl", "tv"), recipe="naive", overrides=told, gate=None)
    assert "it failed" in learn.warnings
    assert ws.ledger.resolve("head").id == learn.entry != head


def test_a_run_that_the_caller_opened_is_left_open(stand_ins, tmp_path):
    import wandb

    wandb.init("mine", "my run")
    run = Tracking("support/tv", tmp_path)

    class WandbCallback:
        _initialized = True

    with run.following([WandbCallback()]):
        pass
    assert run.report(Outcome("e" * 64, "pass", 1, {"eval/tv/exact": 0.5})) == []
    assert wandb.run.name == "my run"
    wandb.finish()
