"""Leaks: test rows that are also trained on, which would make their scores worthless."""

from collections.abc import Iterable, Mapping, Sequence

from perdure.core.errors import BadInput
from perdure.core.rows import Row, RowName
from perdure.data.task import TaskData


def refuse_leaks(new: TaskData, others: Iterable[TaskData], *, itself: bool = True) -> None:
    """Raise if a test row of `new` is in any train part, or one of its train rows is in another task's test part.

    Two rows are the same when they have the same question or the same text, or one has choices and the other their prompt alone.
    Validation rows count as trained on, since they choose the weights. `others` includes earlier versions of `new`.

    Args:
        new: The task to check.
        others: The tasks that it must not share rows with.
        itself: Check its own parts against each other too.

    Raises:
        BadInput: Such rows exist; the message counts them and names the first on both sides.
    """
    for other in (*([new] if itself else []), *others):
        _refuse(new.test, other.learned, f"test rows of task {new.name!r}", f"the train part of {_called(other, new)}")
        if other is not new:
            _refuse(
                new.learned, other.test, f"train rows of task {new.name!r}", f"the test part of {_called(other, new)}"
            )


def _called(other: TaskData, new: TaskData) -> str:
    if other is new:
        return "the same task"
    return f"its version {other.version[:8]}" if other.name == new.name else f"task {other.name!r}"


def _refuse(rows: Sequence[Row | RowName], against: Sequence[Row | RowName], what: str, where: str) -> None:
    taken = {key: row for row in reversed(against) for key in (row.question, row.hash)}
    prompts = {key: row for row in reversed(against) for key in row.questions}
    twins = [(row, _twin(row, taken, prompts)) for row in rows]
    leaked = [(row, twin) for row, twin in twins if twin is not None]
    if leaked:
        first, twin = leaked[0]
        raise BadInput(
            f"{len(leaked)} of {len(rows)} {what} are also in {where}, the first {first.source} as {twin.source}; "
            "remove them from one of the two, or pass --allow-leaks"
        )


def _twin(
    row: Row | RowName, taken: Mapping[str, Row | RowName], prompts: Mapping[str, Row | RowName]
) -> Row | RowName | None:
    """Return the row of the other part that asks or is the same; None where there is none."""
    same = (taken.get(key) for key in (*row.questions, row.hash))
    return next((twin for twin in (*same, prompts.get(row.question)) if twin is not None), None)
