"""Drift of the loaded state from a reference: its predictions along the reference's answers, and its own answers beside them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.core.rows import Row
from perdure.data.task import TaskData
from perdure.evaluate.drift import Answered, Readings, readings, same
from perdure.evaluate.scorers import SAME, score_record
from perdure.ledger import Entry
from perdure.ledger.records import Guard
from perdure.workflows.scoring import Measured, cut_notices, prompts_of
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime
    from perdure.data.answers import Reader
    from perdure.model.reference import ReferenceAnswer

NEW_TOKENS = 32  # of an answer, where the guard sets no limit
References = Mapping[str, "ReferenceAnswer"]  # by the hash of the row


@dataclass(frozen=True)
class Compared:
    """Rows whose answers are compared, as tokens.

    Args:
        rows: The rows.
        prompts: Their prompts, none empty, cut to what the model has positions for.
        most: Most tokens of an answer.
        notices: What had to be cut.
    """

    rows: tuple[Row, ...]
    prompts: list[list[int]]
    most: int
    notices: tuple[str, ...]


def drift_piece(
    session: Session, guard: Guard, entry: Entry, task: TaskData, piece: range, tick: Tick | None = None
) -> Measured:
    """Score a piece of a drift guard at an entry. The reference answers first, once for the workspace.

    Args:
        session: Of the workspace.
        guard: The guard.
        entry: An entry or a draft.
        task: The guard's rows.
        piece: Indices of the rows; a piece is always computed whole, so that its bits do not depend on what was stored.
        tick: Called with (what, rows done, rows in all).
    """
    began = time.perf_counter()
    reference = stored_reference(session, guard, task, piece, tick)
    session.load(entry)
    before = time.perf_counter() - began
    these = _piece(session, task, piece)
    is_reference = session.ledger.seen(entry, None) == _state(session, guard)
    measured = measure_drift(session.runtime, these, reference, tick, is_reference=is_reference)
    return replace(measured, score=replace(measured.score, seconds=measured.score.seconds + before))


def stored_reference(
    session: Session, guard: Guard, task: TaskData, piece: range, tick: Tick | None = None
) -> dict[str, "ReferenceAnswer"]:
    """Return what the reference of a drift guard answered, by row, with at least the rows of a piece.

    What is missing is computed with the reference loaded, and stored as the guard's columns; of a guard that the workspace does
    not have in this form, for as long as the session lasts. See `drift_piece`.
    """
    from perdure.model.reference import pack, unpack

    ledger = session.ledger
    own = next((one for one in ledger.guards() if one.name == guard.name), None)  # a piece before may have changed it
    attached = own is not None and (own.version, own.reference) == (guard.version, guard.reference)
    if own is not None and attached:
        stored = unpack(ledger.objects.get(own.columns)) if own.columns else {}
    else:
        stored = session.references.setdefault((guard.version, guard.reference), {})
    if all(task.test[i].hash in stored for i in piece):
        return stored
    session.load(ledger.entry(guard.reference))
    stored |= reference_answers(session.runtime, _piece(session, task, piece), tick)
    if own is not None and attached:
        ledger.change_guard(replace(own, columns=ledger.objects.put(pack(stored))))
    return stored


def _piece(session: Session, task: TaskData, piece: range) -> Compared:
    return compared(session.runtime, task, piece, session.tasks.prompts(task, session.tokenizer))


def _state(session: Session, guard: Guard) -> str:
    """Return the state of a guard's reference."""
    ledger = session.ledger
    return ledger.seen(ledger.entry(guard.reference), None)


def compared(
    runtime: "Runtime",
    task: TaskData,
    only: Sequence[int] | None = None,
    prompts: Sequence[list[int]] | None = None,
    *,
    most: int | None = None,
) -> Compared:
    """Return test rows of a task as tokens.

    Args:
        runtime: Holds the model.
        task: The task.
        only: Indices of the rows; None takes all.
        prompts: The prompts of all test rows as tokens, where the caller has them.
        most: Most tokens of an answer; None takes the task's, or 32.
    """
    from perdure.model.decode import fitted

    base = runtime.base
    chosen = range(len(task.test)) if only is None else only
    rows = tuple(task.test[i] for i in chosen)
    ids = prompts_of(runtime, rows) if prompts is None else [prompts[i] for i in chosen]
    wanted = most or task.spec.max_new_tokens or NEW_TOKENS
    short, room, cut = fitted([one or base.stops[:1] for one in ids], wanted, base.positions)
    return Compared(rows, short, room, tuple(cut_notices(cut, room, wanted, base.positions)))


def reference_answers(runtime: "Runtime", these: Compared, tick: Tick | None = None) -> dict[str, "ReferenceAnswer"]:
    """Return what the loaded state answers, with its distributions, by the hash of the row.

    Args:
        runtime: Holds the model, the reference state loaded.
        these: The rows.
        tick: Called with (what, rows done, rows in all).

    Cost: a generation, and a forward over prompts and answers.
    """
    from perdure.model.reference import answers_with_distributions

    answers = _generated(runtime, these, _counted(tick, "answers of the reference", these))
    ended = [len(answer) < these.most for answer in answers]
    found = answers_with_distributions(
        runtime.model,
        these.prompts,
        answers,
        ended,
        reader=runtime.reader,
        precision=runtime.precision,
        tick=_counted(tick, "distributions of the reference", these),
    )
    return {row.hash: one for row, one in zip(these.rows, found, strict=True)}


def measure_drift(
    runtime: "Runtime", these: Compared, reference: References, tick: Tick | None = None, *, is_reference: bool = False
) -> Measured:
    """Return how like the reference the loaded state is: an item of `evaluate.drift.same` a row, and all other readings.

    Args:
        runtime: Holds the model.
        these: The rows.
        reference: What `reference_answers` returned for these rows and maybe more.
        tick: Called with (what, rows done, rows in all).
        is_reference: The loaded state is the reference: nothing is computed, as every item is 1.

    Raises:
        BadInput: The reference did not answer one of the rows.

    Cost: a forward over prompts and the reference's answers, and a generation.
    """
    from perdure.data.answers import Reader
    from perdure.model.reference import Distance, distances

    began = time.perf_counter()
    then = [_of_row(reference, row) for row in these.rows]
    if is_reference:
        answers, away = [list(one.tokens) for one in then], [Distance(0.0, 0.0)] * len(then)
    else:
        away = distances(
            runtime.model,
            these.prompts,
            then,
            reader=runtime.reader,
            precision=runtime.precision,
            tick=_counted(tick, "predictions", these),
        )
        answers = _generated(runtime, these, _counted(tick, "answers", these))
    reader = Reader.of(runtime.base.tokenizer, these.rows)
    now = [_answered(reader, row, ids, len(ids) < these.most) for row, ids in zip(these.rows, answers, strict=True)]
    before = [_answered(reader, row, one.tokens, one.ended) for row, one in zip(these.rows, then, strict=True)]
    each = [
        readings(question_of(row), *pair, row.label)
        for row, pair in zip(these.rows, zip(now, before, strict=True), strict=True)
    ]
    score = score_record(
        SAME,
        [same(one.js) for one in away],
        [one.text for one in now],
        [row.hash for row in these.rows],
        time.perf_counter() - began,
        {"kl": [one.kl for one in away], **_by_name(each)},
    )
    return Measured(score, these.notices)


def _by_name(each: Sequence[Readings]) -> dict[str, list[float]]:
    values = [asdict(one) for one in each]
    return {name: [one[name] for one in values] for name in values[0]} if values else {}


def _generated(runtime: "Runtime", these: Compared, tick: Callable[[int], None] | None) -> list[list[int]]:
    """Return the greedy answers of the loaded state as tokens, without those that ended them."""
    from perdure.model.decode import generate

    base = runtime.base
    return generate(
        runtime.model,
        these.prompts,
        max_new_tokens=these.most,
        stops=base.stops,
        pad=base.pad,
        precision=runtime.precision,
        tick=tick,
    )


def _answered(reader: "Reader", row: Row, ids: Sequence[int], ended: bool) -> Answered:
    """Return an answer; one that is all thought is read with its thought, since nothing here is right or wrong."""
    text = reader.text(ids, reader.tag(row)) or reader.whole(ids).strip()
    return Answered(text, len(ids), ended)


def question_of(row: Row) -> str:
    """Return what a row asks, as text: its prompt, or the last turn of the user."""
    turns = [turn.content for turn in row.messages if turn.role == "user"]
    return turns[-1] if turns else row.prompt


def _of_row(reference: References, row: Row) -> "ReferenceAnswer":
    if row.hash not in reference:
        raise BadInput(
            f"the reference did not answer {row.source or 'a row'}; let it answer before states are compared with it"
        )
    return reference[row.hash]


def _counted(tick: Tick | None, what: str, these: Compared) -> Callable[[int], None] | None:
    return (lambda done: tick(what, done, len(these.rows))) if tick else None
