"""Write facts without those whose loss is not finite, so that one bad fact does not end a file of facts."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput, Diverged, Unsolvable
from perdure.editing.batches import batches
from perdure.editing.facts import Fact
from perdure.editing.spec import EditSpec
from perdure.workflows.edit.state import Place

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet


def written(place: Place, facts: Sequence[Fact], spec: EditSpec, onto: "EditSet") -> "tuple[EditSet, dict[str, str]]":
    """Return a set joined by the facts whose loss is finite, and why the others did not join it, by id.

    If the statistics of a layer cannot be used to solve, no fact joins it.

    Args:
        place: The workspace's model, loaded without edits.
        facts: What to write.
        spec: Settings.
        onto: The set.

    Cost: where a loss is not finite, all is written twice, and the facts of its batch alone as well.
    """
    why: dict[str, str] = {}
    left = list(facts)
    while left:
        try:
            return place.write(left, spec, onto), why
        except Unsolvable as error:  # a layer that takes no fact; another may
            return onto, {**why, **{fact.id: str(error) for fact in left}}
        except Diverged as error:
            reasons = diverging(place, left, spec)
            if not reasons and spec.batch == 1:  # no fact is finite together with the others
                reasons = {fact.id: str(error) for fact in left}
            spec = spec if reasons else replace(spec, batch=1)
            why |= reasons
            left = [fact for fact in left if fact.id not in why]
    return onto, why


def diverging(place: Place, facts: Sequence[Fact], spec: EditSpec) -> dict[str, str]:
    """Return how the facts diverge, by id, that do so by themselves, in batches that do."""
    known = {fact.id: fact for fact in facts}
    suspects = [ids for ids in batches(list(known), spec.batch) if _error(place, [known[one] for one in ids], spec)]
    return {one: error for ids in suspects for one in ids if (error := _error(place, [known[one]], spec))}


def _error(place: Place, facts: Sequence[Fact], spec: EditSpec) -> str | None:
    """Return how facts diverge when they are written alone; None if they do not."""
    from perdure.editing.edit_set import EditSet

    try:
        place.write(facts, spec, EditSet())
    except Diverged as error:
        return str(error)
    except BadInput:  # their keys are too alike: the error comes again where they are written
        pass
    return None
