"""The entry of a merge or of a drop, before it is judged and recorded."""

from collections.abc import Mapping
from typing import Any

from perdure.core.progress import Tick
from perdure.core.recipe import Recipe
from perdure.core.slots import EDITS
from perdure.ledger import Entry
from perdure.ledger.records import MERGE
from perdure.workflows.edit.carry import Carried, carry
from perdure.workflows.merge.state import unchanged_state
from perdure.workflows.session import Session


def draft(
    session: Session,
    head: Entry,
    slots: Mapping[str, str | None],
    about: Mapping[str, Any],
    tick: Tick,
    recipe: Recipe | None = None,
) -> tuple[Entry, Carried | None, tuple[str, ...]]:
    """Return an entry of kind merge on head, the facts in force on it, and what the user should know of facts and state.

    Args:
        session: Of the workspace; the caller holds its write lock.
        head: The entry that it is made on.
        slots: The slots that it writes, or takes away (None).
        about: What the entry says of itself.
        tick: Called with (what, done, total) while facts are written again.
        recipe: The recipe that trained the merged adapter.
    """
    carried = carry(session, head, slots, tick)
    edits = {EDITS: carried.slot} if carried and carried.slot else {}
    state, gone = unchanged_state(session.ledger, head)
    entry = Entry(
        parent=head.id,
        kind="merge",
        base=head.base,
        recipe=recipe.to_json() if recipe else None,
        tasks=head.tasks,
        data={MERGE: about},
        seed=session.seed,
        slots={**slots, **edits},
        memory=head.memory,
        columns=head.columns,
        state=state,
    )
    return entry, carried, (*gone, *(carried.warnings if carried else ()))
