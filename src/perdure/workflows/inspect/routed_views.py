"""What a report shows of requests that do not name their task, and of the slots that each task's requests go through."""

from typing import TYPE_CHECKING

from perdure.core.slots import DENSE, EDITS, INITIAL, SKILL, is_isolated, task_slot, view_of
from perdure.workflows.inspect.matrix import matrix
from perdure.workflows.inspect.report_records import RoutedReport, TaskView
from perdure.workflows.routing import routes

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger

WORDS = {
    SKILL: "the shared adapter",
    DENSE: "all weights, trained",
    EDITS: "edited facts",
    INITIAL: "the first adapter",
}


def routed_report(ledger: "Ledger", head: "Entry") -> RoutedReport | None:
    """Return the routed matrix and the views of the tasks; None where there is no router and all tasks have the same weights."""
    slots = ledger.slots(head)
    own = {task: is_isolated(slots, task) for task in head.tasks}
    summed = any(name.startswith("sum:") for name in slots)
    finds = bool(routes(ledger, head))
    routed = matrix(ledger, routed=True) if finds or any(own.values()) else None
    measured = routed is not None and any(score is not None for score in routed.score[-1])
    if not finds and not any(own.values()) and not summed:
        return None
    views = tuple(
        TaskView(
            task,
            own[task],
            tuple(_words(name, task) for name in sorted(view_of(slots, task)) if name != task_slot(task)),
        )
        for task in sorted(head.tasks)
    )
    return RoutedReport(routed if measured else None, views)


def _words(slot: str, task: str) -> str:
    """Return a slot of a task's view in words."""
    name = slot.removeprefix(f"{task_slot(task)}/")
    if name in WORDS:
        return WORDS[name]
    kind, _, owner = name.partition(":")
    return f"the adapter of {owner}" if kind == "sum" and owner else name
