"""Draft: store what was trained, the memory after it and the edits on it, as the entry that would be recorded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.core.canonical import content_hash
from perdure.core.slots import DENSE, EDITS, INITIAL, ROUTE, is_isolated, measured_slot, own_slots, task_slot, view_of
from perdure.core.words import counted
from perdure.ledger import Entry, Ledger, row_key
from perdure.workflows.edit.carry import Carried, carry
from perdure.workflows.learn import remember
from perdure.workflows.learn.kept_rows import parts_to_keep
from perdure.workflows.learn.prepare import Prepared
from perdure.workflows.learn.run import Run
from perdure.workflows.learn.train import Trained

if TYPE_CHECKING:
    from perdure.train.learner import Learner


@dataclass(frozen=True)
class Draft:
    """An entry that could be recorded: its objects, rows and manifest are stored.

    Args:
        entry: The entry.
        memory: What it remembers.
        carried: The facts in force on the new state; None where there are none.
        notices: What the user should know.
    """

    entry: Entry
    memory: remember.LedgerMemory
    carried: Carried | None
    notices: tuple[str, ...]


def draft(run: Run, prepared: Prepared, trained: Trained) -> Draft:
    """Store objects, rows and manifest, and return the entry that would be recorded."""
    session, plan, learner = run.session, run.plan, trained.learner
    ledger, task, parent = session.ledger, plan.task, plan.parent
    with run.stages.stage("memory", f"losses of {task.name} after training"):
        memory = remember.after(
            prepared.memory,
            task,
            remember.Teachers(plan.recipe, plan.encoder, session.runtime, run.stages),
            learner,
            stage=len(ledger.ancestors(parent)),
            nll_before=trained.nll_before,
            tests=prepared.tests,
        )
    slots = _stored_slots(run) | _measured(
        session.ledger, learner
    )  # objects before rows: a full disk then leaves no row behind
    carried = carry(session, parent, slots, run.tick)
    if carried and carried.slot:
        slots[EDITS] = carried.slot
    ledger.put_task(task.name, task.version, task.to_json(), parts_to_keep(ledger, task))
    manifest, columns = memory.save(ledger)
    entry = Entry(
        parent=parent.id,
        kind="learn",
        base=parent.base,
        task=task.name,
        recipe=plan.recipe.to_json(),
        tasks={**parent.tasks, task.name: task.version},
        data={"train": task.fingerprint, "general": content_hash([row_key(row) for row in plan.general])},
        seed=session.seed,
        slots=slots,
        memory=manifest,
        columns=columns,
        state=remember.store_states(ledger, plan.continued, session.runtime.as_stored(learner.measured_state)),
    )
    return Draft(entry, memory, carried, (*_left_out(run, prepared), *_given_up(run)))


def _stored_slots(run: Run) -> dict[str, str | None]:
    """Store what was trained; return the slots that the entry writes, or takes away."""
    session, plan, adapter = run.session, run.plan, run.plan.adapter
    task, known = plan.task.name, session.ledger.slots(plan.parent)
    slots: dict[str, str | None] = {}
    if plan.continued is None and not plan.isolated:  # what was trained from the base has nothing under it, or over it
        slots = dict.fromkeys(view_of(known).keys() - {EDITS, INITIAL})
    if plan.continued is None or not plan.isolated:  # a request goes through what the task was learned in last
        slots |= dict.fromkeys(own_slots(known, task))
    if labelled := session.ledger.labelled_by(plan.parent, [task]):
        slots |= dict.fromkeys(measured_slot(ROUTE, name) for name in labelled)  # unless this learn measures it anew
    if not plan.recipe.trains:
        return slots
    if adapter is None:
        return {**slots, DENSE: session.ledger.objects.put(session.runtime.weights())}
    slots[adapter.slot] = session.ledger.objects.put(session.runtime.trained())
    if plan.isolated:  # what lies under it is named again with the task, and stays so whatever is learned later
        pinned = own_slots(known, task)
        slots |= {task_slot(task, name): known[name] for name in adapter.beneath if name not in pinned}
    return slots


def _measured(ledger: Ledger, learner: "Learner") -> dict[str, str]:
    """Store what methods measured of the task in slots; return the slots."""
    return {name: ledger.objects.put(tensors) for name, tensors in learner.measured_slots.items()}


def _given_up(run: Run) -> tuple[str, ...]:
    """Say that the task's own adapter is gone, or its labels, where it had them and was learned in another way now."""
    task, ledger = run.plan.task.name, run.session.ledger
    if run.plan.recipe.trains and ledger.labelled_by(run.plan.parent, [task]):
        return (
            f"{task} was answered with labels by the untrained model; from now on the trained model generates its answers",
        )
    if run.plan.isolated or not is_isolated(ledger.slots(run.plan.parent), task):
        return ()
    return (
        f"{task} had an adapter of its own, and was learned without one now: requests for it no longer go through that adapter",
    )


def _left_out(run: Run, prepared: Prepared) -> tuple[str, ...]:
    tested = sum(row.question in prepared.tests for row in run.plan.task.train)
    if not tested or not run.plan.recipe.remembers:
        return ()
    return (f"trained on, and not remembered, as a test row asks the same: {counted(tested, 'train row')}",)
