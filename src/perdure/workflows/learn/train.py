"""Train: the adapter, the recipe's host, and the settled weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from perdure.core.plan import Bare
from perdure.core.slots import is_dense, measured_slot, view_of
from perdure.ledger import row_key
from perdure.ledger.runs import CHECKPOINT, START, note
from perdure.workflows.learn.labels import counted_keys
from perdure.workflows.learn.prepare import Prepared
from perdure.workflows.learn.remember import states_at
from perdure.workflows.learn.run import Run
from perdure.workflows.slots import SlotTensors

if TYPE_CHECKING:
    from torch import Tensor

    from perdure.bridges.trackers import Tracking
    from perdure.core.seams import State
    from perdure.data.encode import Encoded
    from perdure.memory.pool import Pool
    from perdure.train.checkpoint import Keeper
    from perdure.train.learner import Learner

CLOSE_OFF = 20.0  # seconds of training from which the end is checkpointed too: scoring may take as long


@dataclass(frozen=True)
class Trained:
    """A settled learn; the runtime's model has its weights.

    Args:
        learner: What was trained, with its heartbeats.
        nll_before: Losses of the task's train rows before training, if memory is admitted by them.
        seconds: Seconds of training, of all processes together.
        cpu_seconds: The processor's seconds.
        tracking: Runs in the trackers that the recipe names; None without one.
    """

    learner: "Learner"
    nll_before: list[float] | None
    seconds: float
    cpu_seconds: float
    tracking: "Tracking | None" = None


def train(run: Run, prepared: Prepared) -> Trained:
    """Train under the recipe's host and settle; goes on from this learn's checkpoint if there is one.

    Raises:
        Interrupted: A signal came; the checkpoint is on disk.
        Diverged: A loss is not finite.
    """
    from perdure.train.checkpoint import Keeper

    if not run.plan.recipe.trains:
        return _measured_alone(run, prepared)
    session, plan = run.session, run.plan
    runtime, settings = session.runtime, plan.recipe.settings
    path = run.folder / CHECKPOINT
    note(path.parent, plan.task.name, plan.parent.id)
    with run.stages.stage("start", f"losses of {run.called} before training"):
        learner = start(run, prepared)
        nll_before = learner.inference.nll(plan.encoded) if plan.recipe.needs("nll_before") else None
    keeper = Keeper(path, learner, stop=run.stop, clock=run.clock)
    tracking = _tracking(run)
    tracked = {"tracking": tracking} if tracking else {}
    with run.stages.stage("updates"):
        host(settings.host)(learner, keeper, _progress(run, keeper), **tracked)
    runtime.freeze()
    if run.clock.read()["seconds"] > CLOSE_OFF:
        keeper.save(None, learner.total)
    took = run.clock.read()
    return Trained(learner, nll_before, round(took["seconds"], 3), round(took["cpu_seconds"], 3), tracking)


def _measured_alone(run: Run, prepared: Prepared) -> Trained:
    """Settle a learn without updates: its methods measure the base model. Interrupted, it begins anew."""
    learner = start(run, prepared)
    learner.settle()
    took = run.clock.read()
    return Trained(learner, None, round(took["seconds"], 3), round(took["cpu_seconds"], 3))


def _tracking(run: Run) -> "Tracking | None":
    """Return the runs in the trackers that the recipe names, called by workspace and task; the second of a task has a number."""
    from perdure.bridges.trackers import Tracking

    ledger, plan = run.session.ledger, run.plan
    if not plan.recipe.settings.trackers:
        return None
    before = [entry for entry in ledger.ancestors(plan.parent) if (entry.kind, entry.task) == ("learn", plan.task.name)]
    number = f" {len(before) + 1}" if before else ""
    return Tracking(f"{ledger.root.resolve().name}/{plan.task.name}{number}", ledger.root / "trackers")


def start(run: Run, prepared: Prepared) -> "Learner":
    """Load the weights that training starts from, and return the learner of this task, not begun."""
    session, plan = run.session, run.plan
    states = states_at(session.ledger, plan.continued, session.runtime.base.device) | _measured_before(run)
    pools = _pools(run, prepared)
    if any(method.slot for method in plan.recipe.methods):
        session.runtime.layer  # noqa: B018  # refuses a model without a list of blocks, before it is trained
    if not plan.recipe.trains:
        session.load(session.ledger.resolve("base"))
        return make_learner(run, prepared, {}, states, pools, {})
    params, effects = _start_adapter(run, prepared, states, pools) if plan.adapter else (_start_dense(run), {})
    return make_learner(run, prepared, params, session.runtime.as_trained(states), pools, effects)


def _unmeasured(run: Run, prepared: Prepared) -> "list[Encoded] | None":
    """Return the rows that no method has measured in a slot of this task; None where all are new to it."""
    known = counted_keys(run.session.ledger, run.plan.parent, run.plan.task.name, run.plan.slots)
    if not known:
        return None
    pairs = zip(prepared.rows, run.plan.training.rows, strict=True)
    return [encoded for encoded, row in pairs if row_key(row) not in known]


def _measured_before(run: Run) -> "dict[str, State]":
    """Return the state of each method with a slot that measured this task when it was learned last.

    Another method's content of that slot is not its state: a recipe that answers with labels begins anew after one that trained.
    """
    slots, task, ledger = run.plan.slots, run.plan.task.name, run.session.ledger
    if bool(ledger.labelled_by(run.plan.parent, [task])) == run.plan.recipe.trains:
        return {}
    named = {m.name: measured_slot(m.slot, task) for m in run.plan.recipe.owners("measure") if m.slot}
    return {method: ledger.objects.get(slots[name]) for method, name in named.items() if name in slots}


def _start_adapter(
    run: Run, prepared: Prepared, states: "Mapping[str, State]", pools: "Mapping[str, Pool]"
) -> "tuple[dict[str, Tensor], Mapping[str, float]]":
    """Load what lies under the adapter; return the parameters that it trains by name, and numbers that describe their start."""
    from perdure.train.adapter_start import computed_once, effects_of
    from perdure.train.loaded_model import ModelBefore

    session, plan = run.session, run.plan
    runtime, settings, slots = session.runtime, plan.recipe.settings, SlotTensors(session.ledger, plan.slots)
    sets = {name: pool.rows for name, pool in pools.items()} | {"new": prepared.rows, "validation": prepared.validation}
    model = ModelBefore(lambda: runtime.trainable({}), sets, session.seed, plan.task.name, run.stages.show)
    bare = Bare(plan.task.name, session.seed, settings, runtime.shapes(settings), slots, model)
    adapter = plan.recipe.adapter_plan(bare, states)
    if adapter.start is None:
        return runtime.begin(adapter, slots, settings, session.seed, plan.task.name), {}
    once = computed_once(run.folder / START, adapter.start)
    params = runtime.begin(replace(adapter, start=once), slots, settings, session.seed, plan.task.name)
    return params, effects_of(once())


def _pools(run: Run, prepared: Prepared) -> "Mapping[str, Pool]":
    """Return memory by pool, where a method draws from it."""
    plan = run.plan
    return (
        prepared.memory.pools(lambda rows: plan.encoder.all(own.row for own in rows))
        if plan.recipe.owners("draw")
        else {}
    )


def _start_dense(run: Run) -> "dict[str, Tensor]":
    """Load what is trained on; return every weight by name."""
    run.session.load_slots(view_of(run.plan.slots))
    return run.session.runtime.start_dense()


def make_learner(
    run: Run,
    prepared: Prepared,
    params: "Mapping[str, Tensor]",
    states: "Mapping[str, State]",
    pools: "Mapping[str, Pool]",
    effects: Mapping[str, float],
) -> "Learner":
    """Return the learner of this task, not begun.

    Args:
        run: The learn.
        prepared: Its rows and memory.
        params: What is trained, by name.
        states: State of each method, by name.
        pools: Memory by pool.
        effects: Numbers that describe the start of the adapter.
    """
    from perdure.train.learner import Learner
    from perdure.train.task import TaskInputs

    session, plan = run.session, run.plan
    under = [name for name in plan.adapter.beneath if not is_dense(name)] if plan.adapter else []
    beneath = SlotTensors(
        session.ledger, {name: plan.slots[name] for name in under}
    )  # read where a method looks at them
    goes_on = plan.adapter is not None and plan.adapter.slot in plan.slots and plan.recipe.owner("adapter")
    own = session.ledger.objects.get(plan.slots[plan.adapter.slot]) if plan.adapter and goes_on else {}
    inputs = TaskInputs(
        plan.task.name,
        prepared.rows,
        validation=prepared.validation,
        pools=pools,
        columns=prepared.columns,
        state=states,
        first=plan.first,
        beneath=beneath,
        effects=effects,
        own=own,
        seed=session.seed,
        unmeasured=_unmeasured(run, prepared),
    )
    settings = plan.recipe.settings
    trainable = session.runtime.trainable(
        params,
        gradient_checkpointing=settings.gradient_checkpointing or plan.recompute,
        packing=settings.packing,
    )
    return Learner(trainable, plan.recipe, inputs, stages=run.stages)


def host(name: str) -> Callable[..., None]:
    """Return the function that runs the training loop."""
    if name == "loop":
        from perdure.bridges.optimizers import FACTORIES
        from perdure.train import loop

        return partial(loop.train, factories=FACTORIES)
    from perdure.bridges import transformers_host

    return transformers_host.train


def _progress(run: Run, keeper: "Keeper") -> Any:
    def progress(done: int, total: int, loss: float) -> None:
        if run.tick:
            what = f"learning {run.called}, loss {loss:.3f}, {keeper.speed:,.0f} tokens/s"
            run.tick(what, done, total)

    return progress
