"""Write facts that are not said again: in other layers, with another strength."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput, Diverged
from perdure.editing.spec import EditSpec
from perdure.workflows.edit.state import Place
from perdure.workflows.edit.write import written

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet
    from perdure.editing.measures import Verdict

Verdicts = Mapping[str, "Verdict"]


def tries(spec: EditSpec, depth: int) -> Iterator[EditSpec]:
    """Yield the settings to try, one after the other, for a fact that does not pass when it is written by `spec`.

    First a stronger change: in the layers above, then in the layers below, or in the layers that the settings name. Then a
    gentler change in the first layers, which changes fewer neighbours of a fact.

    Args:
        spec: Settings that were tried.
        depth: Number of the model's blocks.
    """
    strong = replace(spec, steps=2 * spec.steps, until=spec.until / 2, clamp=1.5 * spec.limit)
    first = spec.at(depth)
    step = max(len(first), depth // 8)  # distance in layers, so that two groups of facts share none
    if spec.layers:
        yield strong
    for away in () if spec.layers else (step, -step):
        moved = tuple(layer + away for layer in first)
        if moved[0] >= 0 and moved[-1] < depth - 1:
            yield replace(strong, layers=moved)
    yield replace(spec, until=2 * spec.until, clamp=0.6 * spec.limit)


def strengthened(
    place: Place, edit_set: "EditSet", verdicts: Verdicts, wanted: Sequence[str], first: Mapping[str, EditSpec]
) -> tuple["EditSet", Verdicts]:
    """Write the facts of `wanted` again that are not said. Return the set and its verdicts; it never says fewer facts.

    Args:
        place: Where the set is in force.
        edit_set: The set, written on the state of `place`.
        verdicts: How it answers its live facts.
        wanted: Ids of the facts that the model shall say.
        first: Settings of the user's edit, by id. A fact's own settings may come from an earlier retry.

    Cost: for each attempt, the lost facts written and all verified twice.
    """
    if not lost(verdicts, wanted):
        return edit_set, verdicts
    place.load()
    with place.site() as site:
        depth = site.layout.depth
    begun = {w.id: _others(first.get(w.id, w.spec), w.spec, depth) for w in edit_set.live if w.id in wanted}
    for attempt in range(max(map(len, begun.values()), default=0)):
        groups: dict[EditSpec, list[str]] = {}
        for fact_id in lost(verdicts, wanted):
            if attempt < len(begun[fact_id]):
                groups.setdefault(begun[fact_id][attempt], []).append(fact_id)
        for spec, ids in groups.items():
            trial = _tried(place, edit_set, [n for n in ids if n in lost(verdicts, wanted)], spec)
            if trial and len(lost(trial[1], wanted)) < len(lost(verdicts, wanted)):
                edit_set, verdicts = trial
    return edit_set, verdicts


def lost(verdicts: Verdicts, wanted: Sequence[str]) -> list[str]:
    """Return the facts of `wanted` that were verified and are not said, in order."""
    return [fact_id for fact_id in wanted if fact_id in verdicts and not verdicts[fact_id].efficacy]


def _others(first: EditSpec, now: EditSpec, depth: int) -> list[EditSpec]:
    """Return the settings to try for a fact, without those that it was written with."""
    return [spec for spec in (first, *tries(first, depth)) if spec != now]


def _tried(place: Place, edit_set: "EditSet", ids: Sequence[str], spec: EditSpec) -> "tuple[EditSet, Verdicts] | None":
    """Write some facts by `spec`. Return the set with those that are then said, and its verdicts; None if none is said."""
    if not ids:
        return None
    rest = replace(edit_set, written=tuple(w for w in edit_set.written if w.id not in ids))
    place.load()
    try:
        trial, _ = written(place, [edit_set.find(fact_id).fact for fact_id in ids], spec, rest)
        answers = place.verify(trial)
        new = {w.id: w for w in trial.written if w.id in ids and answers[w.id].efficacy}
        if len(new) == len(ids):
            return trial, answers
        all_written = tuple(new.get(w.id, w) for w in edit_set.written)
        made = place.settle(replace(edit_set, modules=trial.modules, written=all_written))
        return (made, place.verify(made)) if new else None
    except (BadInput, Diverged):  # with these settings a key is too like another's, or a loss is not finite
        return None
