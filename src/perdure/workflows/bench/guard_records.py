"""The guards of a benchmark's run in its result file, as typed values."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from perdure.core.records import Record, omitted, omitted_mapping
from perdure.evaluate.scorers import LOG, text_score

EARLIER = ("b6f4af6823872583", "e966a509e09107f0")  # versions of the guard `language` with items exp(-nats a token)
VOCABULARY = {"smollm2-135m": 49152}  # number of tokens, by the models of results of these versions


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


def on_log_scale(guard: RunGuard, model: str) -> RunGuard:
    """Return a guard of a result; of an earlier version of `language` with the items and the chance of today's.

    It was scored by exp(-nats a token), on which a base model is near 0 and cannot fall. The scores have the nats of each
    passage, so that nothing has to run again; see `evaluate.scorers.text_score`.

    Args:
        guard: The guard as the result has it.
        model: Name of the base model. A guard of a model that is not in `VOCABULARY` stays as it is.
    """
    if guard.version not in EARLIER or model not in VOCABULARY:
        return guard

    def scaled(state: GuardScores) -> GuardScores:
        items = tuple(text_score(nats, LOG, VOCABULARY[model]) for nats in state.readings["nats"])
        return replace(state, items=items)

    stages = tuple(stage and scaled(stage) for stage in guard.stages)
    return replace(guard, chance=0.0, base=scaled(guard.base), stages=stages)
