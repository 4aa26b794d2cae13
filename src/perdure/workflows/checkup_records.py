"""What a checkup measures, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from perdure.core.records import Record, omitted, omitted_mapping
from perdure.core.tables import Grid, Tabular, cells_of
from perdure.ledger.records import CHECKUP, Verdict
from perdure.workflows.guards.kinds import KindChange

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger


@dataclass(frozen=True)
class Change(Record):
    """How much a reading changed, paired over its rows.

    Args:
        mean: The reading now minus the reading at the reference.
        low: Lower bound of its 95% interval.
        high: Upper bound.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Reading(Record):
    """One line of a checkup.

    Args:
        base: Value at the state that is compared with, which is the base model unless another was given.
        now: Value at the entry.
        low: Lower bound of the 95% interval of `now`.
        high: Upper bound.
        n: Number of rows.
        blind: The value at the base is not above chance, so that a fall cannot be seen.
        change: `now - base`, paired over the rows; None where `base` was not measured on the same rows.
        selected: The rows were selected at the base, so that the values are those of no benchmark.
        unrelated: What answers to different prompts have, where that is far from 0; None of all readings but `embedding`.
    """

    base: float | None
    now: float
    low: float
    high: float
    n: int
    blind: bool = False
    change: Change | None = omitted(None)
    selected: bool = omitted(False)
    unrelated: float | None = omitted(None)


@dataclass(frozen=True, kw_only=True)
class TaskReading(Reading):
    """A task that was learned.

    Args:
        learned: Its score at the entry that learned it last.
    """

    learned: float | None = None


@dataclass(frozen=True, kw_only=True)
class GuardReading(Reading):
    """One guard.

    Args:
        ability: What it measures.
        groups: Number of groups of rows that were resampled; 0 where rows are independent.
        seconds: Seconds that scoring took in this checkup; 0 where every score was stored.
        kept: Of a guard of knowledge or facts: its reading over the rows that the reference answered rightly. It can only fall,
            and does a little after any change. None of other guards, and of answers that are neither right nor wrong.
        reference: Id of the entry that it is compared with, where `perdure guard accept` moved it there; empty where that is the
            base model, or the state that the checkup compares every guard with.
        kinds: Where rows come in groups, as kinds of instructions: what each group gained and lost, those that changed most
            first. Empty of drift.
    """

    ability: str
    groups: int = 0
    seconds: float = 0.0
    kept: Reading | None = omitted(None)
    reference: str = omitted("")
    kinds: tuple[KindChange, ...] = omitted(())


@dataclass(frozen=True)
class Abilities(Record):
    """Abilities of the base model; None where a checkup did not measure one. Several guards of one ability are averaged.

    Args:
        instruction_following: Guards of the ability "instruction".
        commonsense_reasoning: Of "commonsense".
        code_generation: Of "code".
        mathematical_reasoning: Of "maths".
    """

    instruction_following: Reading | None = None
    commonsense_reasoning: Reading | None = None
    code_generation: Reading | None = None
    mathematical_reasoning: Reading | None = None


@dataclass(frozen=True)
class DriftReadings(Record):
    """How far the model's behaviour is from the reference, without right or wrong; None where it was not measured.

    Args:
        same: 1 - JS / ln 2 along the reference's answers: 1 for the same distributions.
        kl: KL divergence of the state from the reference, nats a token; a lower bound (32 tokens and a tail).
        length: The shorter answer's length divided by the longer one's.
        ends: Share of answers that end by themselves exactly where the reference's do.
        sound: Share of answers that have the form of an answer.
        declines: Share of requests that are declined exactly where they should be.
        judge: Share of answers that a judge prefers to the reference's, a tie counted half.
        embedding: (1 + cos) / 2 of hidden states of the base over the answer and the reference's answer.
    """

    same: Reading | None = None
    kl: Reading | None = None
    length: Reading | None = None
    ends: Reading | None = None
    sound: Reading | None = None
    declines: Reading | None = None
    judge: Reading | None = omitted(None)
    embedding: Reading | None = omitted(None)


@dataclass(frozen=True)
class Cost(Record):
    """What a checkup cost.

    Args:
        seconds: Seconds of scoring, that of the reference included; stored scores cost nothing.
        items: Number of rows that the readings are made of.
        next_budget: Name of the next larger budget; None after "full".
        next_seconds: Seconds that it would take, by the seconds a row took; None where no row was timed.
        next_decides: Guards that it would decide if their drops stay as they are, "mean" for the mean over abilities.
    """

    seconds: float
    items: int
    next_budget: str | None = omitted(None)
    next_seconds: float | None = omitted(None)
    next_decides: tuple[str, ...] = omitted(())


@dataclass(frozen=True, kw_only=True)
class Checkup(Record, Tabular):
    """What the model at an entry can do, compared with a reference.

    Args:
        ref: The ref, as given.
        against: The ref of the state that guards are compared with: "base", the one that was given, the start of the id of
            the entry that every reference was moved to, or "each guard's reference" where these differ.
        tasks: By task.
        pretraining_abilities: Abilities that a base model brings along.
        knowledge_retention: Guards of the abilities "knowledge" and "facts".
        instruction_drift: The drift readings.
        other: Further abilities.
        guards: By guard.
        gate: The verdict on tasks and guards.
        cost: What it cost.
        entry: Id of the entry.
        budget: Name of the budget, or its seconds.
        metrics: Metrics of the matrix by name, such as ACC and BWT; None where one is not defined.
        warnings: What the user should know.
    """

    ref: str
    against: str
    tasks: Mapping[str, TaskReading]
    pretraining_abilities: Abilities
    knowledge_retention: Reading | None
    instruction_drift: DriftReadings
    gate: Verdict
    cost: Cost
    other: Mapping[str, Reading] = omitted_mapping()
    guards: Mapping[str, GuardReading] = omitted_mapping()
    entry: str = ""
    budget: str = ""
    metrics: Mapping[str, float | None] = omitted_mapping()
    warnings: tuple[str, ...] = ()

    def grid(self) -> Grid:
        """Return a row for each task, each guard and each drift reading."""
        columns = ("base", "now", "low", "high", "n", "blind")
        drift = {field.name: getattr(self.instruction_drift, field.name) for field in fields(self.instruction_drift)}
        rows = [
            *(("task", name, *cells_of(reading, columns)) for name, reading in self.tasks.items()),
            *((guard.ability, name, *cells_of(guard, columns)) for name, guard in self.guards.items()),
            *(("drift", name, *cells_of(reading, columns)) for name, reading in drift.items() if reading is not None),
        ]
        title = f"checkup of {self.ref} against {self.against}: {self.gate.verdict}"
        return Grid(("kind", "name", *columns), tuple(rows), title)


def last_checkup(ledger: "Ledger", entry: "Entry") -> Checkup | None:
    """Return what checkups of an entry measured last, guard by guard; None where there was none."""
    return ledger.note(entry.id, CHECKUP, Checkup)
