"""Learn: from a data file to a new entry, or to nothing at all."""

from collections.abc import Collection

from perdure.core.errors import BadInput, BadSpec
from perdure.core.progress import Tick
from perdure.core.recipe import nearest
from perdure.ledger.records import Gate
from perdure.workflows.author import sign
from perdure.workflows.guards.attach import Mode
from perdure.workflows.guards.judge import mode_for
from perdure.workflows.learn.draft import draft
from perdure.workflows.learn.judge import judge
from perdure.workflows.learn.new_task_kl import new_task_kl
from perdure.workflows.learn.plan import Plan
from perdure.workflows.learn.prepare import prepare
from perdure.workflows.learn.record import LearnResult, record
from perdure.workflows.learn.request import gate_of
from perdure.workflows.learn.run import Run
from perdure.workflows.learn.train import train
from perdure.workflows.session import Session
from perdure.workflows.signals import stop_signal


def learn(
    session: Session,
    planned: Plan,
    *,
    gate: Gate | None,
    tick: Tick | None = None,
    message: str | None = None,
    guards: Mode | None = None,
    scored: Collection[str] | None = None,
) -> LearnResult:
    """Carry out `planned`: train, score, gate, and record one entry.

    With a gate that fails, head stays and the entry becomes the candidate. If this stops half-way, ledger and memory stay
    as they were. Called again, it continues from its checkpoint, to the same final bits.

    Args:
        session: Of the workspace.
        planned: What is to be learned.
        gate: What may not be lost; None accepts every entry.
        tick: Called with (what, done, total) as work goes on.
        message: Text to store with the entry and its author.
        guards: "warn" of a guard that fell, "enforce" to refuse the entry, "none" to score no guard; None takes what the gate,
            else what the workspace says.
        scored: Names of the tasks that are scored afterwards, where there is no gate; None scores every task.

    Raises:
        Busy: Another process writes to the workspace.
        Interrupted: A signal came; a checkpoint is on disk.
        BadInput: A candidate is waiting to be accepted or discarded, or head moved since `plan`.
    """
    from perdure.bridges.models import choose_device
    from perdure.bridges.peak_memory import PeakMemory

    if scored is not None and gate is not None:
        raise ValueError("a gate judges every task; give no gate, or score every task")
    signature, gate = sign(message), gate and gate_of(session.ledger, gate)
    with session.writing(), stop_signal() as stop:
        _refuse_stale(session, planned, gate)
        mode = mode_for(session.ledger, guards, gate)
        run = Run(session, planned, tick, stop, signature=signature, guards=mode)
        peak = PeakMemory(choose_device(session.device))
        prepared = prepare(run)
        trained = train(run, prepared)
        with run.stages.stage("storing"):
            drafted = draft(run, prepared, trained)
        with run.stages.stage("scoring"):
            on_new_task = new_task_kl(run, prepared.on_base, drafted.entry)
        judged = judge(run, drafted, gate, scored)
        return record(run, prepared, trained, drafted, judged, peak, on_new_task)


def _refuse_stale(session: Session, planned: Plan, gate: Gate | None) -> None:
    """Refuse a plan that was made on another head, and a tolerance of a task that is neither learned now nor known to head."""
    session.refuse_candidate()
    if session.ledger.resolve("head").id != planned.parent.id:
        raise BadInput("head moved while this learn was prepared; run it again")
    tasks = {*planned.parent.tasks, planned.task.name}
    for name in gate.tolerances if gate else ():
        if name not in tasks:  # it would hold for nothing
            raise BadSpec(f"gate tolerances name {name!r}, which head does not know{nearest(name, sorted(tasks))}")
