"""Score guards that a task of lm-evaluation-harness scores itself: other answers than one of several choices."""

import time
from functools import partial
from typing import TYPE_CHECKING

from perdure.core.canonical import canonical_json
from perdure.core.progress import Tick
from perdure.data.task import TaskData
from perdure.evaluate.scorers import HARNESS, read_scorer, score_record
from perdure.workflows.scoring import Measured
from perdure.workflows.session import Session
from perdure.workflows.trust import check_tasks

if TYPE_CHECKING:
    from perdure.bridges.harness_items import ScoredTask


def harness_piece(session: Session, task: TaskData, piece: range, tick: Tick | None = None) -> Measured:
    """Score a piece of a guard with the loaded state, as the task of lm-evaluation-harness scores it.

    Args:
        session: Of the workspace.
        task: The guard's rows.
        piece: Indices of the rows.
        tick: Called with (what, rows done, rows in all).

    Raises:
        BadInput: lm-eval or the task is missing, the task changed since the guard was added, or is not trusted here.
    """
    began = time.perf_counter()
    rows = [task.test[i] for i in piece]
    progress = partial(_report, tick, task.name, len(rows)) if tick else None
    items, texts = _loaded(session, task).items(session.runtime, rows, progress)
    seconds = time.perf_counter() - began
    return Measured(score_record(HARNESS, items, texts, [row.hash for row in rows], seconds))


def _loaded(session: Session, task: TaskData) -> "ScoredTask":
    """Return the task of a guard, loaded once in a session."""
    from perdure.bridges.harness import HarnessTask, check_installed

    key, root = canonical_json(task.scorer), session.ledger.root
    if key not in session.harness_tasks:
        check_installed()
        from perdure.bridges.harness_items import ScoredTask

        _, options = read_scorer(task.scorer)
        folder = root / options["folder"] if "folder" in options else None
        if folder is not None:
            check_tasks(root, folder, options["sha256"])
        named = HarnessTask(options["task"], folder)
        session.harness_tasks[key] = ScoredTask.of(named, options["metric"], options["filter"])
    return session.harness_tasks[key]


def _report(tick: Tick, name: str, rows: int, done: int) -> None:
    tick(f"scoring {name}", done, rows)
