"""Traces as plain JSON: of one prompt, and averaged over facts."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perdure.editing.facts import Fact
from perdure.editing.traces import ROLES, Average, Kind, Trace, average, mean_over
from perdure.workflows.inspect.trace_notes import Json
from perdure.workflows.inspect.trace_spec import TraceSpec


def plain(values: NDArray[np.float64]) -> Any:
    """Return an array as nested lists in which None stands for NaN."""
    return np.where(np.isnan(values), np.array(None), values).tolist()


def interval(found: Average) -> Json:
    """Return an average of single numbers as {"value", "low", "high", "n"}."""
    return {"value": plain(found.mean), "low": plain(found.low), "high": plain(found.high), "n": int(found.n)}


def about_kind(trace: Trace) -> Json:
    """Return what was restored by tracing one kind of state."""
    roles = zip(ROLES, plain(trace.by_role()), strict=True)
    return {
        "window": trace.window,
        "restored": trace.restored.tolist(),
        "strongest": _strongest(trace, 0, len(trace.tokens)),
        "strongest_subject": _strongest(trace, *trace.subject),
        "by_role": {role: None if effects[0] is None else effects for role, effects in roles},
    }


def _strongest(trace: Trace, first: int, stop: int) -> Json:
    """Return the token of a span, and the layer, whose restoration brings back most."""
    token, layer = np.unravel_index(int(trace.restored[first:stop].argmax()), trace.restored[first:stop].shape)
    position = first + int(token)
    told = {"token": trace.tokens[position], "position": position, "layer": int(layer)}
    return {**told, "restored": float(trace.restored[position, layer])}


def averaged(facts: Sequence[Fact], found: Sequence[dict[Kind, Trace]], spec: TraceSpec) -> Json:
    """Return the averages over the traces of several facts, with an interval each, and the facts traced."""
    ones = [next(iter(traces.values())) for traces in found]
    means = {kind: average([traces[kind] for traces in found]) for kind in spec.kinds}
    return {
        "n": len(facts),
        "clean": interval(mean_over(np.array([one.clean for one in ones]))),
        "corrupted": interval(mean_over(np.array([one.corrupted for one in ones]))),
        "total_effect": interval(mean_over(np.array([one.total_effect for one in ones]))),
        **settings_of(spec),
        "roles": list(ROLES),
        "kinds": {
            kind: {
                "window": found[0][kind].window,
                **{name: plain(getattr(mean, name)) for name in ("mean", "low", "high")},
                "n": mean.n[:, 0].tolist(),
            }
            for kind, mean in means.items()
        },
        "traced": [
            {
                "fact": fact.id,
                "subject": fact.subject,
                "prompt": fact.question,
                "answer": one.answer,
                "clean": one.clean,
                "corrupted": one.corrupted,
            }
            for fact, one in zip(facts, ones, strict=True)
        ],
    }


def settings_of(spec: TraceSpec) -> Json:
    """Return the settings that a result repeats."""
    return {name: value for name, value in asdict(spec).items() if name in ("noise", "samples", "seed")}
