"""A guard: an ability, a set of facts or a drift reading that a workspace scores and never learns."""

from dataclasses import dataclass

from perdure.core.records import Record, omitted

CHECKUP = "checkup"  # the note of an entry with its last checkup
CHECKED = "checked guards"  # the note with the guards of its checkups that the workspace does not have


@dataclass(frozen=True)
class GuardBudget(Record):
    """Number of items of a guard that each budget scores: the first rows of its one order, so that budgets are nested.

    Args:
        learn: At each learn, edit and revert.
        quick: At a quick checkup; at least `learn`.
        standard: At a standard checkup; at least `quick`.
        full: At a full checkup: all rows of the guard; at least `standard`.
    """

    learn: int
    quick: int
    standard: int
    full: int

    def of(self, budget: str) -> int:
        """Return the number of items of a budget: "learn", "quick", "standard" or "full"."""
        return {"learn": self.learn, "quick": self.quick, "standard": self.standard, "full": self.full}[budget]


@dataclass(frozen=True)
class Selection(Record):
    """How the rows of a guard were selected: among a pool, by what the base scored on it.

    Args:
        pool: Version of the rows that the base scored.
        rows: Number of these.
        wanted: Number of rows to select; the guard has fewer where fewer were in the range.
        check: Name of the guard of rows that no selection saw.
    """

    pool: str
    rows: int
    wanted: int
    check: str


@dataclass(frozen=True, kw_only=True)
class Guard(Record):
    """A guard of a workspace. It is no part of any entry: adding one changes no id.

    Args:
        name: Its name, which no task has.
        version: Version of its rows and settings, stored as a task version.
        ability: What it measures, one of `data.guard_spec.ABILITIES`.
        items: Number of items by budget.
        chance: Expected score of an answer by chance, in [0, 1]; None where chance has no part.
        reference: Id of the entry that later entries are compared with.
        columns: Hash of the object with what the reference answered, where the scorer compares with that; None before it is
            needed.
        source: Origin of its rows, for people.
        scored: Version under which scores are stored where they depend on the reference; empty where that is `version`.
        selection: How its rows were selected at the base; None where they were not.
    """

    name: str
    version: str
    ability: str
    items: GuardBudget
    chance: float | None = None
    reference: str
    columns: str | None = None
    source: str = ""
    scored: str = omitted("")
    selection: Selection | None = omitted(None)

    @property
    def score_version(self) -> str:
        """Version under which the score book has its scores."""
        return self.scored or self.version


@dataclass(frozen=True)
class CheckedGuards(Record):
    """The guards that checkups of an entry measured and the workspace does not have: `gc` keeps their rows and scores.

    Args:
        guards: The guards, as they were measured last.
    """

    guards: tuple[Guard, ...]
