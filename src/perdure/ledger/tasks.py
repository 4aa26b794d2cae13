"""Restoring a task version from what the ledger keeps of it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perdure.core.errors import BadSpec, BrokenStore
from perdure.core.rows import Row, RowName

if TYPE_CHECKING:
    from perdure.data.task import TaskData


def read_task(
    name: str, version: str, spec: Any, parts: Mapping[str, Sequence[Row]], names: Sequence[RowName] = ()
) -> "TaskData":
    """Return a task version.

    Args:
        name: Name of the task.
        version: The version.
        spec: What is kept of the version beside its rows.
        parts: Its rows with text, by part.
        names: Its rows without text.

    Raises:
        BrokenStore: `spec` is not what was recorded.
    """
    from perdure.data.task import TaskData  # here, as most verbs that read need no task

    try:
        task = TaskData.from_json(spec, **parts, names=names)
    except (AttributeError, BadSpec, KeyError, TypeError, ValueError) as error:
        raise damaged_task(version, name) from error
    if (task.name, task.version) != (name, version) or not _is_typed(task):
        raise damaged_task(version, name)
    return task


def scoring_of(name: str, version: str, spec: Any) -> int | None:
    """Return the scoring version that is kept of a task version, None in a task of before there were any.

    Raises:
        BrokenStore: `spec` is not what was recorded.
    """
    if not isinstance(spec, dict) or not isinstance(found := spec.get("scoring"), int | None):
        raise damaged_task(version, name)
    return found


def damaged_task(version: str, name: str) -> BrokenStore:
    """Return the error of a task version that is not what was recorded."""
    return BrokenStore(
        f"version {version[:12]} of task '{name}' is damaged in ledger.sqlite; restore it from a backup, or roll back to an "
        "entry before it ('perdure log')"
    )


def _is_typed(task: "TaskData") -> bool:
    texts = (task.format, task.fingerprint, task.default, *task.choices)
    return all(isinstance(text, str) for text in texts) and isinstance(task.scoring, int)
