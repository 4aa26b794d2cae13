"""Traces as records: of one kind of state in a prompt, and averaged over facts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perdure.editing.facts import Fact
from perdure.editing.traces import ROLES, Average, Kind, Trace, average, mean_over
from perdure.ledger import Entry
from perdure.ledger.records import AverageKind, Effects, LeftOut, Mean, Strongest, TracedAverage, TracedFact, TracedKind
from perdure.workflows.inspect.trace_spec import TraceSpec


def traced_kind(trace: Trace) -> TracedKind:
    """Return what restoring one kind of state brings back in a prompt."""
    roles = zip(ROLES, trace.by_role().tolist(), strict=True)
    return TracedKind(
        window=trace.window,
        restored=tuple(map(tuple, trace.restored.tolist())),
        strongest=_strongest(trace, 0, len(trace.tokens)),
        strongest_subject=_strongest(trace, *trace.subject),
        by_role={role: None if np.isnan(effects[0]) else tuple(effects) for role, effects in roles},
    )


def traced_average(
    entry: Entry,
    given: Sequence[Fact],
    facts: Sequence[Fact],
    traces: Sequence[dict[Kind, Trace]],
    spec: TraceSpec,
    left_out: Sequence[LeftOut],
) -> TracedAverage:
    """Return the averages over the traces of several facts, with an interval each, and the facts traced.

    Args:
        entry: Whose state was traced.
        given: All facts.
        facts: Those that were traced.
        traces: Of each fact, by kind.
        spec: Settings.
        left_out: The facts that were not traced.
    """
    ones = [next(iter(own.values())) for own in traces]
    means = {kind: average([own[kind] for own in traces]) for kind in spec.kinds}
    return TracedAverage(
        entry=entry.id,
        facts=len(given),
        n=len(facts),
        clean=_mean(mean_over(np.array([one.clean for one in ones]))),
        corrupted=_mean(mean_over(np.array([one.corrupted for one in ones]))),
        total_effect=_mean(mean_over(np.array([one.total_effect for one in ones]))),
        noise=spec.noise,
        samples=spec.samples,
        seed=spec.seed,
        roles=ROLES,
        kinds={
            kind: AverageKind(
                traces[0][kind].window,
                _effects(mean.mean),
                _effects(mean.low),
                _effects(mean.high),
                tuple(mean.n[:, 0].tolist()),
            )
            for kind, mean in means.items()
        },
        traced=tuple(
            TracedFact(fact.id, fact.subject, fact.question, one.answer, one.clean, one.corrupted)
            for fact, one in zip(facts, ones, strict=True)
        ),
        left_out=tuple(left_out),
    )


def _strongest(trace: Trace, first: int, stop: int) -> Strongest:
    """Return the token of a span, and the layer, whose restoration brings back most."""
    token, layer = np.unravel_index(int(trace.restored[first:stop].argmax()), trace.restored[first:stop].shape)
    position = first + int(token)
    return Strongest(trace.tokens[position], position, int(layer), float(trace.restored[position, layer]))


def _mean(average: Average) -> Mean:
    low, high = (None if np.isnan(end) else float(end) for end in (average.low, average.high))
    return Mean(float(average.mean), low, high, int(average.n))


def _effects(values: NDArray[np.float64]) -> tuple[Effects, ...]:
    """Return an array (roles, layers) as tuples in which None stands for NaN."""
    return tuple(tuple(None if np.isnan(value) else value for value in row) for row in values.tolist())
