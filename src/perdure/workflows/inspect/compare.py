"""Two workspaces side by side: common tasks, differences, and metrics over common test rows."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from perdure.core.config import Config
from perdure.core.words import counted
from perdure.evaluate.matrix import Metric, build_matrix
from perdure.evaluate.subset import over_rows
from perdure.workflows.inspect.matrix import measured
from perdure.workflows.inspect.report_records import Comparison, SharedMetrics

if TYPE_CHECKING:
    from perdure.ledger import Ledger

ONLY_NOW = ("acc",)  # what another order of the tasks leaves comparable


def side_by_side(ours: "Ledger", name: str, theirs: "Ledger") -> Comparison:
    """Return what of another workspace can be compared with ours, and what cannot.

    Args:
        ours: Ledger of this workspace.
        name: What the other is called.
        theirs: Its ledger.
    """
    mine, other = _Side(ours), _Side(theirs)
    rows = {task: mine.newest(task) & other.newest(task) for task in mine.tasks if task in other.tasks}
    scorers = [task for task in rows if mine.scorer(task) != other.scorer(task)]
    shared = [task for task in rows if rows[task] and task not in scorers]
    differs = [
        *_bases(ours, theirs),
        *_tasks(mine, other),
        *[f"{task} is scored by {mine.scorer(task)} here and by {other.scorer(task)} there" for task in scorers],
        *_rows(mine, other, [task for task in rows if task not in scorers], rows),
        *_taught(mine, other, list(rows)),
    ]
    order = mine.learned(shared) == other.learned(shared)
    if shared and not order:
        differs.append(
            f"the tasks were learned in another order: {', '.join(mine.learned(shared))} here, "
            f"{', '.join(other.learned(shared))} there; so only the score now is compared"
        )
    metrics = None
    if shared:
        names = list(mine.matrix.metrics) if order else list(ONLY_NOW)
        metrics = SharedMetrics(*({name: side.over(shared, rows)[name] for name in names} for side in (mine, other)))
    same = _start(ours) == _start(theirs)
    curves = [task for task in shared if mine.every(task) == other.every(task)] if same and order else []
    return Comparison(name, other.matrix, metrics, tuple(differs), tuple(curves))


class _Side:
    """One workspace's matrix at head, with the scores of its cells."""

    def __init__(self, ledger: "Ledger"):
        entry = ledger.resolve("head")
        scored = measured(ledger, entry)
        self.tasks, self.stages, self.scores = scored.tasks, scored.stages, scored.scores
        line = reversed(ledger.ancestors(entry))
        self.taught = [(one.task, one.data.get("train")) for one in line if one.kind == "learn"]
        self.matrix = scored.matrix(parts=True)

    def newest(self, task: str) -> set[str]:
        """Return the test rows of a task that were scored at head."""
        score = self.scores[-1][self.tasks.index(task)]
        return set(score.rows) if score else set()

    def every(self, task: str) -> list[tuple[str, ...]]:
        """Return the test rows that each stage scored."""
        column = self.tasks.index(task)
        return [score.rows for line in self.scores if (score := line[column])]

    def scorer(self, task: str) -> str | None:
        """Return the name of the task's scorer; None where it was never scored."""
        column = self.tasks.index(task)
        return next((cell.scorer for line in reversed(self.scores) if (cell := line[column])), None)

    def learned(self, tasks: Sequence[str]) -> list[str]:
        """Return those of `tasks` that were learned, in that order, each as often as it was."""
        learned = (stage.task for stage in self.stages if stage.kind == "learn")
        return [task for task in learned if task is not None and task in tasks]

    def over(self, tasks: Sequence[str], rows: Mapping[str, set[str]]) -> Mapping[str, Metric]:
        """Return the metrics over some tasks, and of them over some test rows."""
        columns = [self.tasks.index(task) for task in tasks]
        cut = [[(cell := line[j]) and over_rows(cell, rows[self.tasks[j]]) for j in columns] for line in self.scores]
        return build_matrix(tasks, self.stages, cut).metrics


def _start(ledger: "Ledger") -> str:
    """Return the hash of the model state that the work began with."""
    return ledger.state(ledger.resolve("base"))


def _bases(ours: "Ledger", theirs: "Ledger") -> list[str]:
    here, there = ours.config, theirs.config
    if here["base"] == there["base"]:
        other = _start(ours) != _start(theirs)
        return ["the adapter that the work began with ('perdure init --adapter') is another"] if other else []
    if here.get("weights") == there.get("weights"):
        return [f"the base is loaded in {_format(here)} here and in {_format(there)} there"]
    return [f"the base model is another: {here['model']} here, {there['model']} there"]


def _format(config: Config) -> str:
    return " as ".join(part for part in (config["dtype"], config.get("quantization")) if part)


def _tasks(mine: _Side, other: _Side) -> list[str]:
    """Return which tasks one side alone knows."""
    lacking = {
        "here": [task for task in mine.tasks if task not in other.tasks],
        "there": [task for task in other.tasks if task not in mine.tasks],
    }
    return [
        f"{counted(len(names), 'task')} only {where}: {', '.join(names)}" for where, names in lacking.items() if names
    ]


def _rows(mine: _Side, other: _Side, tasks: Sequence[str], rows: Mapping[str, set[str]]) -> list[str]:
    """Return which tasks have other test rows, and how many are compared."""
    texts = []
    for task in tasks:
        here, there, both = mine.newest(task), other.newest(task), rows[task]
        if not here or not there:
            texts.append(f"{task} was not scored at head {'here' if not here else 'there'}")
        elif not both:
            texts.append(f"{task} has no test row in common")
        elif here != there:
            texts.append(
                f"{task} has {counted(len(here), 'test row')} here and {len(there):,} there; {len(both):,} of both are compared"
            )
    return texts


def _taught(mine: _Side, other: _Side, tasks: Sequence[str]) -> list[str]:
    """Return which tasks were learned from other train rows."""
    names = [
        task
        for task in tasks
        if [data for name, data in mine.taught if name == task] != [data for name, data in other.taught if name == task]
    ]
    return [f"learned from other train rows: {', '.join(names)}"] if names else []
