"""Search for the facts that pass: write, verify, try again, and leave out facts that undo an earlier fact or change too much."""

from typing import TYPE_CHECKING

from perdure.core.errors import BadInput
from perdure.workflows.edit.again import Verdicts
from perdure.workflows.edit.outcome import Draft, Outcome
from perdure.workflows.edit.request import EditRequest
from perdure.workflows.edit.rewrite import write_again
from perdure.workflows.edit.state import Place
from perdure.workflows.edit.trials import Trials

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet


def search(place: Place, request: EditRequest) -> Outcome:
    """Return the set with the facts in force and the new facts that pass; the loaded model is then the state with that set.

    Raises:
        BadInput: More facts than one layer can take, or keys that are too alike, whichever of the facts are left out.
    """
    if not request.fresh:
        return Outcome(request.in_force)
    base = write_again(place, request)
    if base.problem:
        return Outcome(request.in_force, why=dict.fromkeys((fact.id for fact in request.fresh), base.problem))
    trials = Trials(place, request, base, *_before(place, request, base.edit_set))
    draft, left = Draft(base.edit_set), list(request.fresh)
    for spec in trials.attempts():
        if left:
            try:
                draft = trials.attempt(draft, left, spec)
            except BadInput:  # a retry that cannot be made leaves every fact its reason
                if spec is request.spec:
                    raise
            left = [fact for fact in left if fact.id in draft.why]
    return trials.settle(draft)


def _before(place: Place, request: EditRequest, base: "EditSet") -> tuple[Verdicts, int, int]:
    """Return how the new facts are answered without them, and the model's number of blocks and width of its keys."""
    from perdure.editing.overlay import overlaid
    from perdure.editing.verification import verify

    with place.site() as site, overlaid(site, base.factors()):
        verdicts = verify(site, request.fresh, generation=False)
        layout = site.layout
    return {fact.id: verdict for fact, verdict in zip(request.fresh, verdicts, strict=True)}, layout.depth, layout.inner
