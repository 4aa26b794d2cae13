"""Causal traces and sweeps of layers, as they are printed and noted beside an entry."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

from perdure.core.estimates import Estimate
from perdure.core.records import Record, omitted

Effects = tuple[float | None, ...]  # by layer; None where no prompt has such a token


@dataclass(frozen=True)
class Mean(Record):
    """A mean over facts with Student's 95% interval.

    Args:
        value: The mean.
        low: Lower end of the interval; None of a single fact, and so `high`.
        high: Upper end.
        n: How many facts.
    """

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Strongest(Record):
    """The token and the layer whose restoration brings back most.

    Args:
        token: The token's text.
        position: Its place in the prompt.
        layer: The layer, or the centre of the window.
        restored: Chance of the answer with it restored.
    """

    token: str
    position: int
    layer: int
    restored: float


@dataclass(frozen=True)
class TracedKind(Record):
    """One kind of state restored in a prompt.

    Args:
        window: Layers restored together.
        restored: (tokens, layers) chance of the answer with this token's state restored.
        strongest: Where that is largest.
        strongest_subject: Where that is largest within the subject.
        by_role: Indirect effect by layer, by role of the token; None where the prompt has no such token.
    """

    window: int
    restored: tuple[tuple[float, ...], ...]
    strongest: Strongest
    strongest_subject: Strongest
    by_role: Mapping[str, tuple[float, ...] | None]


@dataclass(frozen=True)
class TracedPrompt(Record):
    """The trace of one prompt.

    Args:
        entry: The entry whose state was traced.
        prompt: The prompt.
        subject: What the noise is put on.
        tokens: The prompt's tokens as text.
        span: First token of the subject, and the one behind its last.
        answer: What the model says without noise.
        clean: Its chance without noise.
        corrupted: Its mean chance with noise.
        noise: Size of the noise in standard deviations of the embeddings.
        samples: Noises drawn.
        seed: Of the noises.
        kinds: By kind of state: "block", "mlp", "attention".
        kept: Whether the trace was noted beside the entry; not in the note itself.
    """

    entry: str
    prompt: str
    subject: str
    tokens: tuple[str, ...]
    span: tuple[int, int]
    answer: str
    clean: float
    corrupted: float
    noise: float
    samples: int
    seed: int
    kinds: Mapping[str, TracedKind]
    kept: bool | None = omitted(None)


@dataclass(frozen=True)
class AverageKind(Record):
    """One kind of state, averaged over facts.

    Args:
        window: Layers restored together.
        mean: (roles, layers) mean indirect effect.
        low: Lower ends of the intervals, None where there is none.
        high: Upper ends.
        n: Facts that have a token of each role.
    """

    window: int
    mean: tuple[Effects, ...]
    low: tuple[Effects, ...]
    high: tuple[Effects, ...]
    n: tuple[int, ...]


@dataclass(frozen=True)
class TracedFact(Record):
    """One fact of an average.

    Args:
        fact: Its id.
        subject: What the noise is put on.
        prompt: The prompt.
        answer: What the model says without noise.
        clean: Its chance without noise.
        corrupted: Its mean chance with noise.
    """

    fact: str
    subject: str
    prompt: str
    answer: str
    clean: float
    corrupted: float


@dataclass(frozen=True)
class LeftOut(Record):
    """A fact that was not traced, and why."""

    fact: str
    subject: str
    reason: str


@dataclass(frozen=True)
class TracedAverage(Record):
    """The mean of the traces of several facts.

    Args:
        entry: The entry whose state was traced.
        facts: How many facts were given.
        n: How many were traced.
        clean: Chance of the answer without noise.
        corrupted: The same with noise.
        total_effect: The difference.
        noise: Size of the noise in standard deviations of the embeddings.
        samples: Noises drawn.
        seed: Of the noises.
        roles: Roles of a token, in the order of the arrays.
        kinds: By kind of state.
        traced: The facts traced.
        left_out: The others.
        kept: Whether the average was noted beside the entry; not in the note itself.
    """

    entry: str
    facts: int
    n: int
    clean: Mean
    corrupted: Mean
    total_effect: Mean
    noise: float
    samples: int
    seed: int
    roles: tuple[str, ...]
    kinds: Mapping[str, AverageKind]
    traced: tuple[TracedFact, ...]
    left_out: tuple[LeftOut, ...]
    kept: bool | None = omitted(None)


@dataclass(frozen=True)
class HarmonicMean(Record):
    """The harmonic mean of several measures, and those of the ends of their intervals."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class EditMeasures(Record):
    """Measures of edited facts; one that no fact has is left out. For each see `FactLine`."""

    efficacy: Estimate | None = omitted(None)
    paraphrase: Estimate | None = omitted(None)
    neighbourhood: Estimate | None = omitted(None)
    generation: Estimate | None = omitted(None)


@dataclass(frozen=True, kw_only=True)
class SweptLayer(Record):
    """What single edits in one layer are worth.

    Args:
        layer: The block.
        efficacy: See `EditMeasures`, and so the next three.
        paraphrase: See above.
        neighbourhood: See above.
        generation: See above.
        score: Harmonic mean of the first three.
        neighbourhood_drop: What the edits cost the neighbours, paired over facts.
    """

    layer: int
    efficacy: Estimate | None = omitted(None)
    paraphrase: Estimate | None = omitted(None)
    neighbourhood: Estimate | None = omitted(None)
    generation: Estimate | None = omitted(None)
    score: HarmonicMean
    neighbourhood_drop: Estimate | None = omitted(None)


@dataclass(frozen=True)
class Sweep(Record):
    """Single edits of each fact in several layers.

    Args:
        entry: The entry on whose state the facts were written.
        facts: How many.
        method: Editing method.
        seed: Of the edits.
        before: The measures of the unedited model.
        layers: What the edits are worth, by layer.
        best: The layer of the best score, the lowest of equals; None where all score 0.
    """

    entry: str
    facts: int
    method: str
    seed: int
    before: EditMeasures
    layers: tuple[SweptLayer, ...]
    best: int | None


@dataclass(frozen=True)
class SweepResult(Sweep):
    """A sweep as it is printed.

    Args:
        tracing: The average of the facts' traces; None where they were not traced.
        kept: Whether the sweep was noted beside the entry.
    """

    tracing: TracedAverage | None
    kept: bool


@dataclass(frozen=True)
class TraceNotes(Record):
    """What is noted of traces beside an entry.

    Args:
        prompts: Traces of prompts, the newest first.
        average: The newest average over facts.
        sweep: The newest sweep.
    """

    prompts: tuple[TracedPrompt, ...] = omitted(())
    average: TracedAverage | None = omitted(None)
    sweep: Sweep | None = omitted(None)


def measures_of(record: EditMeasures | SweptLayer) -> dict[str, Estimate]:
    """Return the measures that some fact has, by name."""
    found = {one.name: getattr(record, one.name) for one in fields(EditMeasures)}
    return {name: value for name, value in found.items() if value is not None}
