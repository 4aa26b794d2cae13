"""The guards of a benchmark's run in its result file, as typed values."""

from collections.abc import Mapping
from dataclasses import dataclass

from perdure.core.records import Record, omitted, omitted_mapping


@dataclass(frozen=True, kw_only=True)
class GuardScores(Record):
    """What one state scores on the rows of a guard.

    Args:
        items: The score of each row, in [0, 1].
        readings: Other numbers of each row by name, as "kl" in nats a token.
        seconds: Wall time that scoring took.
    """

    items: tuple[float, ...]
    readings: Mapping[str, tuple[float, ...]] = omitted_mapping()
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunGuard(Record):
    """The scores of a guard at the states of a run.

    Args:
        ability: What the guard measures: "drift" for the distance from the base, else an ability.
        version: Version of the guard's rows and settings.
        chance: Expected score of an answer by chance; None where chance has no part.
        rows: The first 16 digits of each row's hash.
        groups: The group of each row; empty where no rows belong together.
        base: Scores of the base model.
        stages: Scores after each task; None for a stage at which the guard was not scored.
    """

    ability: str
    version: str
    chance: float | None = omitted(None)
    rows: tuple[str, ...]
    groups: tuple[str, ...] = omitted(())
    base: GuardScores
    stages: tuple[GuardScores | None, ...]

    def by_row(self, state: GuardScores, reading: str = "") -> dict[str, float]:
        """Return the items of a state by row, or one of its readings."""
        values = state.readings[reading] if reading else state.items
        return dict(zip(self.rows, values, strict=True))
