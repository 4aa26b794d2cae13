"""Task versions, restored from their records in the ledger."""

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
        spec: The stored settings of the version.
        parts: Its rows with text, by part.
        names: Its rows without text.

    Raises:
        BrokenStore: `spec` is damaged.
    """
    from perdure.data.task import TaskData  # imported here, since most commands that read need no task

    try:
        task = TaskData.from_json(spec, **parts, names=names)
    except (AttributeError, BadSpec, KeyError, TypeError, ValueError) as error:
        raise damaged_task(version, name) from error
    if (task.name, task.version) != (name, version) or not _is_typed(task):
        raise damaged_task(version, name)
    return task


def scoring_of(name: str, version: str, spec: Any) -> int | None:
    """Return the stored scoring version of a task version; None for a task from before scoring versions.

    Raises:
        BrokenStore: `spec` is damaged.
    """
    if not isinstance(spec, dict) or not isinstance(scoring := spec.get("scoring"), int | None):
        raise damaged_task(version, name)
    return scoring


def damaged_task(version: str, name: str) -> BrokenStore:
    """Return the error of a damaged task version."""
    return BrokenStore(
        f"version {version[:12]} of task '{name}' is damaged in ledger.sqlite; restore it from a backup, or roll back to an "
        "entry before it ('perdure log')"
    )


def _is_typed(task: "TaskData") -> bool:
    texts = (task.format, task.fingerprint, task.default, *task.choices)
    return all(isinstance(text, str) for text in texts) and isinstance(task.scoring, int)
