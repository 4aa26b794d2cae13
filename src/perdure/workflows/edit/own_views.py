"""Facts with the adapters of single tasks: a fact is solved on the slots that all tasks share, and is loaded with these adapters.

Such an adapter may contradict a fact. Nothing is written again for it: the line of the fact names the task.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from perdure.core.slots import EDITS, isolated_tasks, view_of, without_task
from perdure.ledger.entry import state_hash
from perdure.ledger.records import EditsRecord
from perdure.workflows.edit.state import Place

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet

Said = Mapping[str, Mapping[str, bool]]  # whether a fact is said with the adapter of a task: by fact id, and by task


@dataclass(frozen=True)
class OwnView:
    """The slots of requests for one task, or for several whose adapters are equal, without edits.

    Args:
        tasks: Names of the tasks.
        slots: Object hash by slot.
    """

    tasks: tuple[str, ...]
    slots: Mapping[str, str]


def own_views(slots: Mapping[str, str], base: str, before: Mapping[str, str] | None = None) -> list[OwnView]:
    """Return the views of the tasks that have an adapter of their own, equal ones once.

    Args:
        slots: Object hash by slot.
        base: Hash of the base model.
        before: Object hash by slot at the entry before; views that are equal there are left out.
    """
    by_state: dict[str, OwnView] = {}
    for task in isolated_tasks(slots):
        view = _without_edits(view_of(slots, task))
        if before is not None and view == _without_edits(view_of(before, task)):
            continue
        state = state_hash(base, without_task(view, task))
        known = by_state.get(state)
        by_state[state] = OwnView((*(known.tasks if known else ()), task), known.slots if known else view)
    return list(by_state.values())


def said_in(place: Place, views: Sequence[OwnView], edit_set: "EditSet", fact_ids: Iterable[str]) -> Said:
    """Return whether facts are said in these views. Cost: the prompt of each fact, for each view."""
    facts = [edit_set.find(fact_id).fact for fact_id in fact_ids]
    said: dict[str, dict[str, bool]] = {fact.id: {} for fact in facts}
    for view in views if facts else ():
        verdicts = replace(place, others=dict(sorted(view.slots.items()))).verify(edit_set, facts, full=())
        for fact in facts:
            said[fact.id] |= dict.fromkeys(view.tasks, verdicts[fact.id].efficacy)
    return said


def with_views(record: EditsRecord, before: EditsRecord, said: Said, slots: Mapping[str, str]) -> EditsRecord:
    """Return the record of an entry whose lines name the tasks with whose adapter a fact is not said (`lost_in`).

    Args:
        record: The record.
        before: The record before, for facts that were not verified again.
        said: The new verdicts.
        slots: Object hash by slot at the entry.
    """
    isolated, old = isolated_tasks(slots), {line.fact: line.lost_in for line in before.facts}
    facts = []
    for line in record.facts:
        by_task = said.get(line.fact, {})
        stays = {task for task in old.get(line.fact, ()) if task in isolated and task not in by_task}
        lost = stays | {task for task, is_said in by_task.items() if not is_said}
        facts.append(replace(line, lost_in=tuple(sorted(lost))))
    return replace(record, facts=tuple(facts))


def _without_edits(view: Mapping[str, str]) -> dict[str, str]:
    return {name: slot for name, slot in view.items() if name != EDITS}
