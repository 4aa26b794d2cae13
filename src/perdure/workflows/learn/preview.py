"""The preview of a learn: what a dry run shows."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from pydantic import JsonValue

from perdure.core.progress import Tick
from perdure.core.records import JsonObject, Record
from perdure.editing.facts import Fact
from perdure.editing.routing import RouteGroup
from perdure.train.planned_updates import plan_updates
from perdure.workflows.guards.attach import Mode
from perdure.workflows.learn.changes import changes
from perdure.workflows.learn.estimate import LearnEstimate, estimated
from perdure.workflows.learn.knowledge import Knowledge
from perdure.workflows.learn.plan import Plan
from perdure.workflows.session import Session

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class TokenCounts(Record):
    """Tokens of the train rows.

    Args:
        median: Of a row in the middle, before it is cut.
        longest: Of the longest row, before it is cut.
        trained: Tokens of all rows that are trained.
        total: Tokens that run in all epochs, of the rows to train on. `LearnEstimate.tokens` has the rows from memory too.
    """

    median: int
    longest: int
    trained: int
    total: int


@dataclass(frozen=True)
class TextPart(Record):
    """A part of an example row.

    Args:
        text: The text.
        trained: Whether the model is trained on it; it reads the others.
    """

    text: str
    trained: bool


@dataclass(frozen=True)
class Preview(Record):
    """What a learn would do.

    Args:
        task: Name of the task.
        update: Whether the task is known and gets more data.
        format: Format of its rows.
        rows: Number of rows by part.
        test_made: Whether the test rows are a part of the train rows.
        general: Number of rows of general instructions.
        labels: Number of labels.
        unread: Columns that nothing reads.
        scorer: The scorer with its options.
        tokens: Tokens of the train rows.
        cut: Number of train rows that are cut.
        max_length: Most tokens of a row.
        updates: Number of updates.
        estimate: What the learn takes; None where it does not fit into the memory.
        example: The first train row, in parts.
        recipe: The recipe with all its settings.
        changed: What the user changed in it, by key.
        notices: What the user should know.
    """

    task: str
    update: bool
    format: str
    rows: Mapping[str, int]
    test_made: bool
    general: int
    labels: int
    unread: tuple[str, ...]
    scorer: Mapping[str, JsonValue]
    tokens: TokenCounts
    cut: int
    max_length: int
    updates: int
    estimate: LearnEstimate | None
    example: tuple[TextPart, ...]
    recipe: JsonObject
    changed: JsonObject
    notices: tuple[str, ...]


@dataclass(frozen=True)
class KnowledgePreview(Record):
    """What a learn of facts and skills would do.

    Args:
        task: Name of the task that the skills make.
        routes: Where the rows go, and why.
        facts: The facts to edit.
        skill: How the skills would be learned; None if no row is one.
        notices: What the user should know.
    """

    task: str
    routes: tuple[RouteGroup, ...]
    facts: tuple[Fact, ...]
    skill: Preview | None
    notices: tuple[str, ...]


def preview(session: Session, planned: Plan, tick: Tick | None = None, guards: Mode = "warn") -> Preview:
    """Return what a learn would do, and what it takes; the ledger stays as it is.

    Args:
        session: Of the workspace.
        planned: The learn.
        tick: Called with (what, done, total).
        guards: What a guard that falls does; "none" scores none.
    """
    task, settings, rows = planned.task, planned.recipe.settings, planned.encoded
    tokens = zip(rows[0].ids, rows[0].trained, strict=True)
    parts = [(trained, [i for i, _ in run]) for trained, run in groupby(tokens, key=lambda token: token[1])]
    lengths = [len(row) + row.cut for row in rows]
    total = _tokens(session, planned)
    measured = estimated(session, planned, tick, guards)
    return Preview(
        task=task.name,
        update=planned.known is not None,
        format=task.format,
        rows={part: len(getattr(task, part)) for part in PARTS},
        test_made=task.test_made,
        general=len(planned.general),
        labels=len(task.labels),
        unread=tuple(task.unread),
        scorer=task.scorer,
        tokens=TokenCounts(round(median(lengths)), max(lengths), sum(row.targets for row in rows), total),
        cut=sum(row.cut > 0 for row in rows),
        max_length=settings.max_length,
        updates=planned.updates,
        estimate=measured.estimate,
        example=tuple(TextPart(planned.encoder.tokenizer.decode(ids), trained) for trained, ids in parts),
        recipe=planned.recipe.to_json(),
        changed=changes(session, planned.asked),
        notices=(*planned.notices, *planned.training.notices, *measured.notices),
    )


def _tokens(session: Session, planned: Plan) -> int:
    """Return the tokens of new rows that all updates train on."""
    lengths = [len(row) for row in planned.encoder.all(planned.training.rows)]
    settings = planned.recipe.settings
    if settings.max_steps <= 0 or settings.train == "none":
        return settings.epochs(len(lengths)) * sum(lengths)
    updates = plan_updates(lengths, settings, session.seed, planned.task.name).updates
    return sum(lengths[i] for update in updates for batch in update for i in batch)


def preview_knowledge(
    session: Session, planned: Knowledge, tick: Tick | None = None, guards: Mode = "warn"
) -> KnowledgePreview:
    """Return what a learn of facts and skills would do; for the arguments see `preview`."""
    return KnowledgePreview(
        task=planned.task,
        routes=planned.routing.summary(),
        facts=planned.facts,
        skill=preview(session, planned.skill, tick, guards) if planned.skill else None,
        notices=planned.notices,
    )
