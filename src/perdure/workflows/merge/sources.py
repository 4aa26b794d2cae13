"""Which slots a merge reads, and which it replaces."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.core.errors import BadInput, NotFound
from perdure.core.recipe import nearest
from perdure.core.slots import (
    EDITS,
    INITIAL,
    SKILL,
    is_dense,
    isolated_tasks,
    own_slots,
    sum_slot,
    summed_tasks,
    task_slot,
    view_of,
)
from perdure.ledger import Entry, Ledger
from perdure.workflows.merge.copies import Copied, copies
from perdure.workflows.merge.request import MergeRequest
from perdure.workflows.merges import about, own_merge_of


@dataclass(frozen=True)
class Sources:
    """The slots of a merge.

    Args:
        adapters: Slots of each task whose adapter is merged, by task.
        common: Slots that all tasks share and that are added to the merge as they are; they go, too.
        copied: The adapter that a task's own one began as a copy of, by task: it is taken off again, since the merge has it too.
        beneath: Slots that stay under the merged adapter: the initial one, and those of other tasks in the sum.
        own: Tasks of `adapters` that have an adapter of their own.
        notices: What the user should know.
    """

    adapters: Mapping[str, tuple[str, ...]]
    common: tuple[str, ...]
    copied: Mapping[str, Copied]
    beneath: tuple[str, ...]
    own: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def summed(self) -> tuple[str, ...]:
        """Tasks whose adapter is one of a sum."""
        return tuple(sorted(self.adapters.keys() - set(self.own)))

    @property
    def added(self) -> tuple[str, ...]:
        """Tasks whose adapter is in the merge: those of `adapters`, and those of a sum that all tasks share."""
        return tuple(sorted({*self.adapters, *summed_tasks(self.common)}))


def sources(ledger: Ledger, head: Entry, request: MergeRequest) -> Sources:
    """Return the slots that a merge at `head` reads.

    Tasks with adapters of their own are merged if there are any, and what all tasks share is added as it is; else the adapters of
    the sum are merged. An adapter that an earlier merge added already is left out.

    Raises:
        BadInput: There is nothing to merge, every weight was trained, or a task that was named cannot be merged.
        NotFound: Head does not know a task that was named.
    """
    slots = ledger.slots(head)
    if dense := [name for name in slots if is_dense(name)]:
        raise BadInput(
            f"every weight was trained under {', '.join(dense)}; only adapters over the base model can be merged"
        )
    own = [name for name in isolated_tasks(slots) if name in head.tasks]
    in_sum = sorted(name for name in head.tasks if sum_slot(name) in slots)
    merged = {task: entry for task in own if (entry := own_merge_of(ledger, head, task))}
    if request.tasks:
        names = _named(ledger, head, request.tasks, [*own, *in_sum], merged)
        notices: tuple[str, ...] = ()
    else:
        names = [task for task in own if task not in merged] or in_sum
        notices = tuple(_left_out(ledger, task, entry, slots) for task, entry in merged.items())
    if not names:
        raise BadInput(_nothing(ledger, head, notices))
    if unknown := sorted(request.weights.keys() - set(names)):
        under = unknown[0] in in_sum and not request.tasks
        why = "whose adapter in the sum is added as it is" if under else "which is not merged"
        raise BadInput(f"a weight is given for {unknown[0]}, {why}; weights are for {', '.join(sorted(names))}")
    adapters = {task: _slots_of(task, slots) for task in sorted(names)}
    taken = {name for part in adapters.values() for name in part}
    stay = [sum_slot(task) for task in in_sum if task not in names] if request.tasks else []
    stay += [INITIAL]
    beneath = tuple(sorted(name for name in slots if name in stay or name.removesuffix("/repair") in stay))
    common = tuple(name for name in view_of(slots) if name != EDITS and name not in taken and name not in beneath)
    mine = tuple(task for task in adapters if task in own)
    if request.drop and not mine:
        raise BadInput("drop takes adapters of single tasks away, and those of a sum go anyway; leave it out")
    _check_weights(request, adapters)
    copied, told = copies(ledger, head, mine, adapters.keys(), request.how)
    return Sources(adapters, common, copied, beneath, mine, (*notices, *told))


def replaced_slots(ledger: Ledger, head: Entry, found: Sources, drop: bool) -> dict[str, str | None]:
    """Return the slots that a merge takes away."""
    slots = ledger.slots(head)
    gone = [*found.common, *(name for task in found.summed for name in found.adapters[task])]
    if drop:
        gone += [name for task in found.own for name in own_slots(slots, task)]
    return dict.fromkeys(sorted(set(gone) - {SKILL}))


def _slots_of(task: str, slots: Mapping[str, str]) -> tuple[str, ...]:
    """Return the slots of the adapter of a task, without what is frozen under it."""
    adapter = task_slot(task) if task_slot(task) in slots else sum_slot(task)
    return tuple(name for name in (adapter, f"{adapter}/repair") if name in slots)


def _named(
    ledger: Ledger, head: Entry, names: Sequence[str], there: Sequence[str], merged: Mapping[str, Entry]
) -> list[str]:
    for task in names:
        if task not in head.tasks:
            raise NotFound(f"no task {task!r} is known at head{nearest(task, sorted(head.tasks))}")
        if task not in there:
            raise BadInput(
                f"task {task} has no adapter that could be merged: what it learned is in the adapter that all tasks share, which "
                "stays in the merge anyway"
            )
        if task in merged:
            raise BadInput(_left_out(ledger, task, merged[task], ledger.slots(head)))
    return list(names)


def _left_out(ledger: Ledger, task: str, merge: Entry, slots: Mapping[str, str]) -> str:
    """Return why the own adapter of a task is not merged again."""
    name, called = merge.id[:12], ledger.shown_name(task)
    since = ", and was learned again since" if learned_since(merge, task, slots) else ""
    return (
        f"{called} is in the shared adapter already, through merge {name}{since}; to merge it anew, 'perdure rollback {name}~1' "
        f"goes back to before that merge; 'perdure merge --drop --tasks {called}' drops its own adapter"
    )


def learned_since(merge: Entry, task: str, slots: Mapping[str, str]) -> bool:
    """Return whether the own adapter of a task is another one than the merge added."""
    return bool(about(merge)["adapters"][task] != objects_of(task, slots))


def objects_of(task: str, slots: Mapping[str, str]) -> list[str]:
    """Return the objects of the adapter of a task."""
    return [slots[name] for name in _slots_of(task, slots)]


def _nothing(ledger: Ledger, head: Entry, notices: Sequence[str]) -> str:
    if notices:
        return "; ".join(notices)
    nothing = "head has no adapter of a single task, alone or in a sum, so there is nothing to merge"
    if SKILL in ledger.slots(head):
        return f"{nothing}; 'perdure export --rank R' truncates the adapter that all tasks share"
    if ledger.labelled_by(head):
        return f"{nothing}: its tasks answer from a classifier, which 'perdure export --classifier' writes"
    return f"{nothing}; learn tasks first, with a recipe such as isolated or incremental"


def _check_weights(request: MergeRequest, adapters: Mapping[str, object]) -> None:
    if request.how == "slerp" and len(adapters) != 2:
        count = f"there are {len(adapters)}" if len(adapters) > 2 else "there is one"
        which = "name two with --tasks" if len(adapters) > 2 else "learn another task with an adapter to merge"
        raise BadInput(f"slerp merges two adapters, and {count} ({', '.join(adapters)}); {which}, or take another way")
    if not any(request.weights.get(task, 1.0) for task in adapters):
        raise BadInput("every weight is 0, so that nothing would be left; give one above 0")
