"""Causal traces and sweeps of layers, as they are printed and stored in the notes of an entry."""

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
        low: Lower end of the interval; None for a single fact.
        high: Upper end; None for a single fact.
        n: Number of facts.
    """

    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Strongest(Record):
    """The token and the layer whose restoration recovers the answer most.

    Args:
        token: The token's text.
        position: Its place in the prompt.
        layer: The layer, or the centre of the window.
        restored: Probability of the answer with it restored.
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
        restored: (tokens, layers) probability of the answer with this token's state restored.
        strongest: Where the probability is largest.
        strongest_subject: Where the probability is largest within the subject.
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
        subject: The name whose tokens got the noise.
        tokens: The prompt's tokens as text.
        span: Index of the subject's first token, and of the token after its last one.
        answer: The model's answer without noise.
        clean: Its probability without noise.
        corrupted: Its mean probability with noise.
        noise: Size of the noise in standard deviations of the embeddings.
        samples: Number of noises.
        seed: Of the noises.
        kinds: By kind of state: "block", "mlp", "attention".
        kept: Whether the trace was stored in the notes of the entry; not part of the note.
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
        subject: The name whose tokens got the noise.
        prompt: The prompt.
        answer: The model's answer without noise.
        clean: Its probability without noise.
        corrupted: Its mean probability with noise.
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
        facts: Number of facts.
        n: Number of facts that were traced.
        clean: Probability of the answer without noise.
        corrupted: The same with noise.
        total_effect: The difference.
        noise: Size of the noise in standard deviations of the embeddings.
        samples: Number of noises.
        seed: Of the noises.
        roles: Roles of a token, in the order of the arrays.
        kinds: By kind of state.
        traced: The facts traced.
        left_out: The other facts.
        kept: Whether the average was stored in the notes of the entry; not part of the note.
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
    """The harmonic mean of several measures, and of the ends of their intervals."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class EditMeasures(Record):
    """Measures of edited facts, see `FactLine`; a measure that no fact has is left out."""

    efficacy: Estimate | None = omitted(None)
    paraphrase: Estimate | None = omitted(None)
    neighbourhood: Estimate | None = omitted(None)
    generation: Estimate | None = omitted(None)


@dataclass(frozen=True, kw_only=True)
class SweptLayer(Record):
    """The quality of single edits in one layer.

    Args:
        layer: The block.
        efficacy: See `EditMeasures`.
        paraphrase: See `EditMeasures`.
        neighbourhood: See `EditMeasures`.
        generation: See `EditMeasures`.
        score: Harmonic mean of efficacy, paraphrase and neighbourhood.
        neighbourhood_drop: Drop of the neighbourhood measure by the edits, paired over facts.
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
        facts: Number of facts.
        method: Editing method.
        seed: Of the edits.
        before: The measures of the unedited model.
        layers: The quality of the edits, by layer.
        best: The layer with the best score, the lowest one on a tie; None where all scores are 0.
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
        kept: Whether the sweep was stored in the notes of the entry.
    """

    tracing: TracedAverage | None
    kept: bool


@dataclass(frozen=True)
class TraceNotes(Record):
    """The note of an entry about traces.

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
    values = {one.name: getattr(record, one.name) for one in fields(EditMeasures)}
    return {name: value for name, value in values.items() if value is not None}
