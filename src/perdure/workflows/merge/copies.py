"""Adapters that began as a copy of one that a merge has too, so that it would be added twice."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from perdure.core.slots import SKILL, isolated_tasks, task_slot
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import LearnRecord
from perdure.workflows.merges import about, begins_anew, merges_in_force

SUMS = ("svd", "dare")  # ways that add updates; the others average them, or elect among them


@dataclass(frozen=True)
class Copied:
    """What is taken off an adapter before it is merged.

    Args:
        content: Object of the adapter that it began as a copy of.
        share: Share of that which it has, as an update that was scaled down has less.
    """

    content: str
    share: float = 1.0


def copies(
    ledger: Ledger, head: Entry, own: Iterable[str], together: Collection[str], how: str
) -> tuple[dict[str, Copied], list[str]]:
    """Return what is taken off the own adapters of tasks, and what the user should know.

    A copy of the adapter that all tasks share (`per_task` with `start: shared`) is taken off while they share it. A copy of
    another task's adapter (`start: nearest`) is taken off where `how` adds updates and this task's adapter is in the merge too.

    Args:
        ledger: Of the workspace.
        head: The entry that is merged.
        own: Tasks with an adapter of their own that is merged.
        together: All tasks whose adapters are merged.
        how: How they are merged.
    """
    found, notices = dict[str, Copied](), []
    for task in own:
        if (began := _began(ledger, head, task)) is None:
            continue
        start = (began.recipe or {}).get("methods", {}).get("per_task", {}).get("start")
        before = ledger.slots(ledger.entry(began.parent)) if began.parent else {}
        record = ledger.note(began.id, "record", LearnRecord)
        share = record.repair.scale if record and record.repair and record.repair.by == "scale" else None
        if start == "shared" and SKILL in before and _is_shared(ledger, head, began):
            found[task] = Copied(before[SKILL], share or 1.0)
        elif start == "nearest" and how in SUMS and record and record.copied:
            if _is_merged(ledger, head, record.copied, before[record.copied], together):
                found[task] = Copied(before[record.copied], share or 1.0)
        elif start == "nearest" and how in SUMS and set(isolated_tasks(before)) - {task}:
            notices.append(
                f"{ledger.shown_name(task)} began as a copy of another task's adapter (start: nearest), and an older perdure did "
                "not record of which: the sum may have that twice; --how average does not add them"
            )
    return found, notices


def _began(ledger: Ledger, head: Entry, task: str) -> Entry | None:
    """Return the learn that began the adapter which a task has of its own; None where no learn did."""
    slot = task_slot(task)
    for entry in ledger.ancestors(head):
        if entry.kind == "learn" and entry.task == task and entry.slots.get(slot):
            anew = (entry.recipe or {}).get("start") == "base"
            if anew or entry.parent is None or slot not in ledger.slots(ledger.entry(entry.parent)):
                return entry
    return None


def _is_shared(ledger: Ledger, head: Entry, began: Entry) -> bool:
    """Return whether what all tasks shared when an adapter was begun is in what they share now."""
    if (began.recipe or {}).get("start") == "base":
        return False
    line = ledger.ancestors(head)
    return not any(begins_anew(entry) for entry in line[: [entry.id for entry in line].index(began.id)])


def _is_merged(ledger: Ledger, head: Entry, slot: str, content: str, together: Collection[str]) -> bool:
    """Return whether an adapter, or what a task learned on from it, is merged together with others or was before."""
    task = slot.removeprefix("task:")
    if task in together and _went_on(ledger, head, slot, content):
        return True
    return any(
        task in about(merge)["adapters"] and _went_on(ledger, ledger.entry(str(merge.parent)), slot, content)
        for merge in merges_in_force(ledger, head)
    )


def _went_on(ledger: Ledger, entry: Entry, slot: str, content: str) -> bool:
    """Return whether a slot has a content at an entry, or what was learned on from it."""
    for one in ledger.ancestors(entry):
        if slot in one.slots:
            if one.slots[slot] == content:
                return True
            if one.slots[slot] is None or (one.recipe or {}).get("start") == "base":
                return False
    return False
