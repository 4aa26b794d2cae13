"""Sweep: which layer to edit, by editing; causal tracing does not predict it (Hase et al. 2023, arXiv 2301.04213)."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import harmonic_mean
from typing import TYPE_CHECKING

from perdure.core.estimates import Estimate
from perdure.core.progress import Tick
from perdure.editing.spec import EditSpec
from perdure.ledger.records import EditMeasures, HarmonicMean, Sweep, SweepResult, SweptLayer
from perdure.maths.statistics import paired_difference
from perdure.workflows.edit.records import MEASURES
from perdure.workflows.edit.request import CONTEXTS, Facts, facts_of, refuse_layers
from perdure.workflows.edit.state import Place
from perdure.workflows.inspect.trace import average_facts
from perdure.workflows.inspect.trace_notes import store_note
from perdure.workflows.inspect.trace_spec import TraceSpec
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.editing.measures import Verdict

SCORED = MEASURES[:3]  # what the score is the harmonic mean of, as in the literature
SPREAD = 8  # layers that are tried where none are named


def sweep(
    session: Session,
    facts: Facts,
    layers: Sequence[int] = (),
    *,
    tracing: TraceSpec | None = None,
    seed: int | None = None,
    at: str = "head",
    tick: Tick | None = None,
) -> SweepResult:
    """Edit each fact alone in each layer, verify it there, and name the best layer; nothing is recorded.

    The facts are written, as `edit` would, on the state at the ref without the edits in force there.

    Args:
        session: Of the workspace; no entry is made.
        facts: A file of facts, one fact, or several.
        layers: Blocks to try; without any, eight evenly over the depth and the one that `edit` takes by default.
        tracing: Trace the facts too, so that the average can be shown next to the sweep.
        seed: Of the edits' contexts and statistics; the workspace's unless given.
        at: Ref or entry.
        tick: Called with (what, done, total) as work goes on.

    Raises:
        BadInput: There is no fact, one has texts beyond the model's positions, or the model cannot be edited.
        BadSpec: A layer is beyond the model, or its last.
        NotFound: The ref is not known.

    Cost: each fact's optimisation and verification, for each layer; see `editing.edit.find_values`.
    """
    from perdure.editing.prompts import refuse_long, texts_of
    from perdure.editing.sweep import sweep_layers
    from perdure.editing.verification import verify

    given, entry = facts_of(facts), session.ledger.resolve(at)
    session.refuse_editing()
    spec = EditSpec(seed=session.seed if seed is None else seed)
    for layer in layers:
        refuse_layers(session, replace(spec, layers=(layer,)))
    for fact in given:
        refuse_long(session.tokenizer, fact, texts_of(fact), session.runtime.base.positions, CONTEXTS)
    place = Place.at(session, entry, tick)
    place.load()
    with place.site() as site:
        chosen = _layers(layers, site.layout.depth, spec)
        before = verify(site, given)
    traced = None
    if tracing:
        traced = average_facts(session, given, entry, tracing, tick)
        place.load()
    by_layer = sweep_layers(
        session.runtime.model,
        session.tokenizer,
        given,
        chosen,
        spec,
        generation=True,
        precision=session.runtime.precision,
        statistics=place.statistics(),
        tick=tick,
    )
    lines = tuple(_line(layer, before, verdicts) for layer, verdicts in by_layer.items())
    best = max(lines, key=lambda line: (line.score.value, -line.layer))
    made = Sweep(
        entry=entry.id,
        facts=len(given),
        method=spec.method,
        seed=spec.seed,
        before=EditMeasures(**_measures(before)),
        layers=lines,
        best=best.layer if best.score.value > 0 else None,
    )
    return SweepResult(**vars(made), tracing=traced, kept=store_note(session, entry, made))


def _layers(given: Sequence[int], depth: int, spec: EditSpec) -> list[int]:
    """Return the layers to try, ascending.

    Raises:
        BadSpec: One is beyond the model, or its last.
    """
    if not given:
        usual, last = spec.at(depth)[0], depth - 2
        return sorted({usual, *(round(n * last / (SPREAD - 1)) for n in range(SPREAD))})
    return sorted({EditSpec(layers=(layer,)).at(depth)[0] for layer in given})


def _line(layer: int, before: "Sequence[Verdict]", after: "Sequence[Verdict]") -> SweptLayer:
    """Return what one layer's edits are worth."""
    measures = _measures(after)
    parts = [measures[name] for name in SCORED if name in measures]
    value, low, high = (harmonic_mean([getattr(part, end) for part in parts]) for end in ("value", "low", "high"))
    pairs = [
        (old.neighbourhood, new.neighbourhood)
        for old, new in zip(before, after, strict=True)
        if old.neighbourhood is not None and new.neighbourhood is not None
    ]
    drop = paired_difference([old for old, _ in pairs], [new for _, new in pairs]) if pairs else None
    return SweptLayer(
        layer=layer,
        **measures,
        score=HarmonicMean(value, low, high),
        neighbourhood_drop=Estimate(*drop, len(pairs)) if drop else None,
    )


def _measures(verdicts: "Sequence[Verdict]") -> dict[str, Estimate]:
    """Return mean and interval of each measure that a fact has; Wilson's where each fact is right or wrong."""
    from perdure.editing.measures import summary

    intervals = summary(verdicts)
    counts = {name: sum(getattr(verdict, name) is not None for verdict in verdicts) for name in MEASURES}
    return {name: Estimate(*intervals[name], counts[name]) for name in MEASURES if name in intervals}
