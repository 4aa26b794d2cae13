"""lm-evaluation-harness: its tasks as rows of a guard, and its evaluation of the loaded model. The package is the extra `eval`.

Its caches are never used: one is a pickle whose key leaves out the model. Items are stored like those of any guard.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.bridges.harness_task import Loaded, moved, written_row
from perdure.core.errors import BadInput
from perdure.core.rows import Row
from perdure.evaluate.scorers import HARNESS

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime


CHOICE = {
    "acc": {"name": "choice"},
    "acc_norm": {"name": "choice", "normalise": "characters"},
}  # perdure's own, by metric


@dataclass(frozen=True)
class HarnessTask:
    """A task of lm-evaluation-harness.

    Args:
        name: Its name.
        folder: Folder of task files (YAML) that defines it; None where the harness ships it.
    """

    name: str
    folder: Path | None = None

    @classmethod
    def of(cls, written: str, place: Path = Path()) -> "HarnessTask":
        """Return the task that is written as NAME, or as FOLDER/NAME with a folder relative to `place`."""
        folder, slash, name = written.rpartition("/")
        return cls(name, place / (folder or "/") if slash else None)


@dataclass(frozen=True)
class HarnessRows:
    """The items of a task as rows of a guard, and how they are scored.

    Args:
        rows: The rows.
        scorer: `choice`, where the rows hold all that the metric needs; else `harness`, with the metric and the filter: the
            task itself computes the item of a row, see `harness_items`.
        chance: Expected score by chance; None where chance has no part.
    """

    rows: tuple[Row, ...]
    scorer: dict[str, str]
    chance: float | None


def harness_rows(task: HarnessTask, metric: str | None = None, filter: str | None = None) -> HarnessRows:
    """Return the items of a task as its own prompts and few-shots write them; of a group, those of its tasks.

    Args:
        task: The task.
        metric: Metric of the score; None takes `acc_norm` where the task has it, else its first metric that is a mean over items.
        filter: Filter of the answers before the metric; None takes the task's first.

    Raises:
        BadInput: The package or the task is missing, its data cannot be read, it has no metric of single items, or it runs
            programs or wants samples.
    """
    parts = load_tasks(task)
    chosen = {(part.metric(metric), part.filter(filter)) for part in parts}
    if len(chosen) > 1:
        raise BadInput(
            f"the tasks of {task.name} have different metrics or filters: "
            f"{', '.join(f'{measure} of {after}' for measure, after in sorted(chosen))}; add them one by one"
        )
    ((measure, after),) = chosen
    native = filter is None and all(part.plain(measure) for part in parts)
    rows = [
        replace(_choice_row(part, n) if native else written_row(part, n), group=part.name if len(parts) > 1 else "")
        for part in parts
        for n in part.requests
    ]
    if native:
        return HarnessRows(tuple(rows), CHOICE[measure], None)
    levels = [level for part in parts for level in part.chances(measure)]
    chance = math.fsum(levels) / len(levels) if levels else None
    return HarnessRows(tuple(rows), {"name": HARNESS, "metric": measure, "filter": after}, chance)


def evaluate_harness(
    runtime: "Runtime", tasks: Sequence[HarnessTask], *, limit: int | None = None, chat: bool = False
) -> dict[str, Any]:
    """Return what lm-evaluation-harness measures of the model that is loaded, in its own result schema, with every item.

    Args:
        runtime: Holds the model.
        tasks: Tasks, all shipped or all of one folder.
        limit: First items of each task that are scored; None scores all.
        chat: Give the prompts in the model's chat template.

    Raises:
        BadInput: The package or a task is missing, or its data cannot be read.
    """
    check_installed()
    from lm_eval import simple_evaluate

    from perdure.bridges.harness_lm import RuntimeLM

    (folder,) = {task.folder for task in tasks}
    found: dict[str, Any] = simple_evaluate(
        model=RuntimeLM(runtime),
        tasks=[task.name for task in tasks],
        task_manager=_manager(folder),
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=chat,
    )
    return found


def check_installed() -> None:
    """Refuse to go on without the package.

    Raises:
        BadInput: It is missing.
    """
    if find_spec("lm_eval") is None:
        raise BadInput("tasks of lm-evaluation-harness need the package lm-eval; pip install 'perdure[eval]'")


def _manager(folder: Path | None) -> Any:
    """Return the index of tasks: of a folder alone, else of those that are shipped, which takes ten seconds."""
    from lm_eval.tasks import TaskManager

    if folder is None:
        return TaskManager()
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder} with tasks of lm-evaluation-harness (YAML)")
    return TaskManager(include_path=str(folder), include_defaults=False)


def load_tasks(task: HarnessTask) -> "list[Loaded]":
    """Return a task with its requests, or the tasks of a group.

    Raises:
        BadInput: The package or the task is missing, its data cannot be read, or it is none that a guard can be.
    """
    return [Loaded.of(name, own) for name, own in _tasks(task)]


def _tasks(task: HarnessTask) -> Iterator[tuple[str, Any]]:
    """Yield the names and objects of a task, or of the tasks of a group."""
    check_installed()
    manager = _manager(task.folder)
    if task.name not in manager.all_tasks:
        place = f"in {task.folder}" if task.folder else "of lm-evaluation-harness"
        raise BadInput(f"there is no task {task.name!r} {place}; write harness:NAME, or harness:FOLDER/NAME")
    try:
        found = manager.load([task.name])["tasks"]
    except (OSError, ValueError, ImportError, ConnectionError) as error:
        first = str(error).strip().split("\n")[0]
        raise BadInput(f"task {task.name} of lm-evaluation-harness cannot be read: {first}") from error
    yield from found.items()


def _choice_row(part: Loaded, number: int) -> Row:
    """Return an item with choices as a row; white space at the end of the prompt begins every choice, as in the harness."""
    requests = part.requests[number]
    pairs = [moved(*request.args) for request in requests]
    choices, gold = tuple(text for _, text in pairs), part.gold(number)
    assert isinstance(gold, int)  # noqa: S101  # `Loaded.plain` has checked it
    source = f"harness:{part.name}:{number}"
    return Row(prompt=pairs[0][0], completion=choices[gold], choices=choices, gold=gold, source=source)
