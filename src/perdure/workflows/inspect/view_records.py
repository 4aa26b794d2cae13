"""The types of what `status`, `show`, `diff` and `gate` print."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

from perdure.core.records import JsonObject, Record, in_stored_order, omitted, plain
from perdure.core.tables import Grid, Tabular
from perdure.ledger.lock import Writer
from perdure.ledger.records import (
    EditNote,
    EditsRecord,
    Evidence,
    GateOff,
    LearnRecord,
    RevertNote,
    RowCounts,
    ScoreSummary,
    Signature,
    Verdict,
)
from perdure.workflows.inspect.guard_lines import GuardsView
from perdure.workflows.inspect.memory_views import MemoryDiff, RowsKept
from perdure.workflows.inspect.score_views import Pair, ScoreCells

if TYPE_CHECKING:
    from perdure.ledger import Entry


@dataclass(frozen=True)
class HeadView(Record):
    """The entry that head names.

    Args:
        entry: Its id.
        kind: Its kind.
        task: The task that it learned.
        about: What it is about, for people.
        time: When it was recorded, as ISO 8601.
    """

    entry: str
    kind: str
    task: str | None
    about: str | None
    time: str


@dataclass(frozen=True)
class EditsView(Record):
    """The edited facts in force.

    Args:
        facts: How many.
        held: How many were said when they were last verified.
    """

    facts: int
    held: int


@dataclass(frozen=True)
class GateWord(Record):
    """What a gate decided, in a word and a sentence.

    Args:
        verdict: The word.
        reason: The sentence.
    """

    verdict: str
    reason: str


@dataclass(frozen=True)
class CandidateView(Record):
    """An entry that its gate put aside.

    Args:
        entry: Its id.
        task: The task that it learned.
        reason: Why the gate failed.
        kind: The verb that made it.
    """

    entry: str
    task: str | None
    reason: str
    kind: str = omitted("learn")


@dataclass(frozen=True)
class UnfinishedLearn(Record):
    """A learn that was stopped.

    Args:
        task: What it learns; None where it is not known.
        time: When its checkpoint was written, as ISO 8601.
        goes_on: Whether the same command goes on from it at this head.
    """

    task: str | None
    time: str
    goes_on: bool


@dataclass(frozen=True)
class InitialView(Record):
    """The adapter that a workspace was made with.

    Args:
        folder: Name of its folder, or its hub id.
        modules: Number of layers with factors.
        rank: Largest rank among them.
        object: Hash of its tensors as they are stored.
        revision: Its commit on the hub; left out of the JSON for a local folder.
    """

    folder: str
    modules: int
    rank: int
    object: str
    revision: str | None = omitted(None)


@dataclass(frozen=True)
class StatusView(Record):
    """Where a workspace is.

    Args:
        workspace: Its folder.
        model: Name or path of the base model.
        dtype: Dtype of the frozen weights.
        base: Hash of the base model.
        head: The entry that head names.
        entries: Number of entries.
        refs: Entry id by ref.
        tasks: Score of each task at head; None where not measured.
        memory: Rows that head remembers.
        rows: Rows that the workspace keeps.
        edits: The edited facts in force.
        gate: What the gate of head decided; None where head has been through none.
        candidate: The entry that waits for `accept` or `discard`.
        writer: Who writes now.
        unfinished: Learns that were stopped.
        quantization: Format of the weights of linear layers, "nf4" or "int8"; left out of the JSON for plain weights.
        aliases: Alias of each renamed task, by the name under which it was learned; left out of the JSON without one.
        adapter: The adapter that it was made with; left out of the JSON without one.
        guard_scores: The guards, with what they scored at head; left out of the JSON without one.
    """

    workspace: str
    model: str
    dtype: str
    base: str
    head: HeadView
    entries: int
    refs: Mapping[str, str]
    tasks: Mapping[str, ScoreSummary | None]
    memory: RowCounts
    rows: RowsKept
    edits: EditsView
    gate: GateWord | None
    candidate: CandidateView | None
    writer: Writer | None
    unfinished: tuple[UnfinishedLearn, ...]
    quantization: str | None = omitted(None)
    aliases: Mapping[str, str] | None = omitted(None)
    adapter: InitialView | None = omitted(None)
    guard_scores: GuardsView | None = omitted(None)


@dataclass(frozen=True)
class SlotView(Record):
    """A slot.

    Args:
        kind: What it is; see `core.slots.kind_of_slot`.
        object: Hash of its object.
        bytes: Size of the object.
    """

    kind: str
    object: str
    bytes: int


@dataclass(frozen=True)
class EntryView:
    """All that is known of an entry or of the candidate, but for test items and row texts.

    Args:
        entry: The entry.
        about: What it is about, for people.
        time: When it was recorded, as ISO 8601; None of a candidate.
        refs: Names that stand for it.
        state: Hash of the model state.
        slots: The slots that it writes.
        view: All slots in force there, whichever entry wrote them.
        memory: Rows that it remembers.
        scores: Of each of its tasks.
        learned: What came of the learn; None where it is none.
        gate: What a gate decided on a learn, or said of an edit or a revert; None where there was none.
        edits: The facts in force there; None where it changed none of them.
        edit: The request of an edit.
        revert: What a revert took out.
        notes: All other notes, and the JSON of the last three.
        signature: Who made it, and why.
        guard_scores: The guards of the workspace, with what they scored there; None without one.
    """

    entry: "Entry"
    about: str | None
    time: str | None
    refs: tuple[str, ...]
    state: str
    slots: Mapping[str, SlotView]
    view: Mapping[str, SlotView]
    memory: RowCounts
    scores: Mapping[str, ScoreCells]
    learned: LearnRecord | None
    gate: Verdict | GateOff | None
    edits: EditsRecord | None
    edit: EditNote | None
    revert: RevertNote | None
    notes: JsonObject
    signature: Signature
    guard_scores: GuardsView | None = None

    def to_json(self) -> JsonObject:
        """Return what `perdure show --json` prints: notes in the order in which the ledger stores their keys."""
        entry = self.entry
        learned = None if self.learned is None else in_stored_order(self.learned.to_json())
        if isinstance(learned, dict):
            del learned["gate"]
        return {
            "entry": entry.id,
            "parent": entry.parent,
            "kind": entry.kind,
            "task": entry.task,
            "about": self.about,
            "time": self.time,
            "author": self.signature.author,
            "message": self.signature.message,
            "refs": list(self.refs),
            "seed": entry.seed,
            "base": entry.base,
            "state": self.state,
            "tasks": plain(entry.tasks),
            "data": plain(entry.data),
            "recipe": plain(entry.recipe),
            "slots": plain(self.slots),
            "view": plain(self.view),
            "memory": plain(self.memory),
            "scores": plain(self.scores),
            "gate": in_stored_order(self.gate.to_json()) if self.gate else None,
            "record": learned,
            **self.notes,
            **({"guard_scores": plain(self.guard_scores)} if self.guard_scores else {}),
        }


@dataclass(frozen=True)
class DiffView(Record, Tabular):
    """How an entry differs from another one: pairs of values, the first entry's and the second's; None where one has no value.

    Args:
        a: Id of the first.
        b: Id of the second.
        tasks: Task versions that differ.
        recipe: Settings that differ, by dotted keys.
        scores: Of every task.
        memory: How the remembered rows differ.
        slots: Objects that differ, by slot.
    """

    a: str
    b: str
    tasks: Mapping[str, tuple[str | None, str | None]]
    recipe: Mapping[str, tuple[JsonValue, JsonValue]]
    scores: Mapping[str, Pair]
    memory: MemoryDiff
    slots: Mapping[str, tuple[str | None, str | None]]

    def grid(self) -> Grid:
        """Return a row for each task, with its scores at both entries and the change."""
        columns = ("task", "a", "b", "change", "low", "high", "n")
        return Grid(
            columns,
            tuple((name, *_pair(pair)) for name, pair in self.scores.items()),
            f"{self.a[:12]} to {self.b[:12]}",
        )


def _pair(pair: Pair) -> tuple[object, ...]:
    scores = (pair.a and pair.a.score, pair.b and pair.b.score)
    change = pair.change
    return (*scores, change.value, change.low, change.high, change.n) if change else (*scores, None, None, None, None)


@dataclass(frozen=True)
class GateView(Tabular):
    """What a gate decided.

    Args:
        entry: Id of the entry.
        kind: Its kind; the gate of an edit or a revert only warns.
        verdict: The decision.
        evidence: What it judged; None where it was switched off.
    """

    entry: str
    kind: str
    verdict: Verdict | GateOff
    evidence: Evidence | None

    def to_json(self) -> JsonValue:
        """Return what `perdure gate --json` prints."""
        return in_stored_order(self.verdict.to_json())

    def grid(self) -> Grid:
        """Return a row for each guarded task."""
        return self.verdict.grid()
