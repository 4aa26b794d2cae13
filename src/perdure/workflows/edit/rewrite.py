"""The facts in force, written again if head learned since. New facts join this set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput, Diverged
from perdure.editing.facts import Fact
from perdure.workflows.edit.again import lost, strengthened
from perdure.workflows.edit.request import EditRequest
from perdure.workflows.edit.state import Place
from perdure.workflows.edit.write import diverging

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet

NAMED = 5  # facts that a reason names
REVERT = "'perdure revert FACT' takes one out"


@dataclass(frozen=True)
class Base:
    """The set that new facts join.

    Args:
        edit_set: The set.
        rewritten: How many of its facts were written again.
        problem: Why no fact can join the set; None if it can.
    """

    edit_set: "EditSet"
    rewritten: int = 0
    problem: str | None = None


def write_again(place: Place, request: EditRequest) -> Base:
    """Return the facts in force as they are on head, with the state loaded that they are written on."""
    made = before = request.in_force
    place.load()
    try:
        made = place.current(before)
        if made is before:
            return Base(before)
        verdicts = place.verify(made)
    except (BadInput, Diverged) as error:  # two keys that differed before are almost equal there
        named = _listed(_culprits(place, made, error))
        why = f"the facts in force cannot be written again on the new head: {error} ({named}); {REVERT}"
        return Base(before, problem=why)
    wanted = request.unreplaced
    made, now = strengthened(place, made, verdicts, wanted, request.first_specs)
    place.load()
    gone = lost(now, wanted) if request.gate else []
    problem = _undoing([made.find(fact_id).fact for fact_id in gone]) if gone else None
    return Base(made, len(made.live), problem)


def _culprits(place: Place, edit_set: "EditSet", error: Exception) -> list[Fact]:
    """Return the facts that diverge when they are written again, or the two facts with the most similar keys."""
    if isinstance(error, Diverged):
        place.load()
        specs = {w.spec: [other.fact for other in edit_set.live if other.spec == w.spec] for w in edit_set.live}
        bad = {fact_id for spec, facts in specs.items() for fact_id in diverging(place, facts, spec)}
    else:
        bad = set(max(edit_set.overlap(edit_set.live), key=lambda pair: pair[2], default=())[:2])
    return [w.fact for w in edit_set.live if w.id in bad] or [w.fact for w in edit_set.live]


def _undoing(gone: Sequence[Fact]) -> str:
    """Return the message that names facts which would be lost, so that no new fact can join the set."""
    return (
        f"head learned since the facts in force were written, and with all written again it no longer says {_listed(gone)}; "
        f"{REVERT}, --no-gate records the facts all the same"
    )


def _listed(facts: Sequence[Fact]) -> str:
    """Return the prompts and targets of facts, of many the first."""
    more = [f"{len(facts) - NAMED} more"] if len(facts) > NAMED else []
    return ", ".join([*(f"{fact.question!r} {fact.target!r}" for fact in facts[:NAMED]), *more])
