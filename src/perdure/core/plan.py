"""The plan of a task's adapter: what it starts from, the slots that are frozen under it, and the slot it is stored in."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from perdure.core.settings import Settings
from perdure.core.slots import EDITS, INITIAL, SKILL, own_slots, sum_slot, task_slot, view_of

if TYPE_CHECKING:
    from torch import Tensor


PREFIX = "base_model.model."  # of parameters, as PEFT names them


@dataclass(frozen=True)
class Factors:
    """The initial factors of the adapter of one module.

    Args:
        down: (rank, in), PEFT's lora_A; of experts (experts, rank, in).
        up: (out, rank), PEFT's lora_B; of experts (experts, out, rank).
        trains: Which of the two are trained.
        effects: Numbers that describe this start, under names of `Heartbeat`. The heartbeat has their means over modules.
        copied: The slot whose adapter this is a copy of; empty where it is none.
    """

    down: "Tensor"
    up: "Tensor"
    trains: Literal["both", "up", "down"] = "both"
    effects: Mapping[str, float] = field(default_factory=dict)
    copied: str = ""


class SecondMoment(NamedTuple):
    """The uncentred second moment of the inputs of a module.

    Args:
        mean: E[x x^T] over tokens, (in, in) in float32, on the CPU. Modules that read the same input have the same tensor.
        tokens: Number of tokens.
    """

    mean: "Tensor"
    tokens: float


class LoadedModel(Protocol):
    """The base model and the frozen slots under the task's adapter, in eval mode. Read only."""

    def weight(self, module: str) -> "Tensor":
        """Return the weight of the base model in a module, (out, in), or (experts, out, in), in float32, on the CPU."""
        ...

    def moments(
        self, rows: str, modules: Sequence[str], tokens: Literal["own", "all"] = "own", size: int | None = None
    ) -> Mapping[str, SecondMoment]:
        """Return the second moment of the inputs of each module; nothing where there are no rows.

        Args:
            rows: "new" (the task's train rows), "validation", or a memory pool.
            modules: Names of linear layers, as in `Bare.shapes`.
            tokens: "own" leaves out the tokens with which all the rows begin, such as a template; "all" does not.
            size: Number of rows, keyed; all of them if None.

        Raises:
            BadSpec: A module does not read each token once, as experts do.
            OutOfMemory: One row alone does not fit.

        Cost: one forward per row, tokens x in^2 products per input, and 8 in^2 bytes of memory for each input of the modules.
        """
        ...

    def features(
        self, rows: str, layer: int | None = None, size: int | None = None
    ) -> "tuple[Tensor, list[str | None]]":
        """Return a feature vector of each row under the bare base, and the rows' labels; see `core.seams.Model.features`."""
        ...


Start = Callable[[], Mapping[str, Factors]]  # factors by module; other modules start as without it


@dataclass(frozen=True)
class AdapterPlan:
    """The result of the seam `adapter`. `slot` and `beneath` depend only on the names of slots, so they are known early.

    Args:
        slot: Slot of the trained adapter: "skill", "sum:<task>" or "task:<task>".
        beneath: Slots that are frozen under it while it trains, and in its view.
        start: Computes the initial factors. A host calls it once per learn, before the first update, and stores the result, so
            that a resumed learn has the same factors. None takes the slot's content at head, else fresh factors (Kaiming down,
            zero up).
    """

    slot: str = SKILL
    beneath: tuple[str, ...] = ()
    start: Start | None = None

    def is_first(self, slots: Container[str]) -> bool:
        """Return whether no task went before: no task's slot is under it, and its own slot is not among `slots`."""
        return self.slot not in slots and all(_is_initial(name) for name in self.beneath)


@dataclass(frozen=True)
class Bare:
    """The input of the seam `adapter`: the model before the task has parameters. Read only.

    Args:
        task: Name of the task.
        seed: Seed of the learn.
        settings: Training settings.
        shapes: (out, in) of each module that the settings give an adapter; of experts, (experts, out, in).
        slots: Tensors of each slot at head, without edits; an adapter's are `<module>.down`, `.up` and `.scale`.
        model: The loaded model, which `AdapterPlan.start` may read; None where a plan is made before a model is loaded.
    """

    task: str
    seed: int
    settings: Settings
    shapes: Mapping[str, tuple[int, ...]]
    slots: "Mapping[str, Mapping[str, Tensor]]"
    model: LoadedModel | None = None

    def weight(self, module: str) -> "Tensor":
        """Return the base weight of a module; see `LoadedModel.weight`. Call it in `AdapterPlan.start` only."""
        return self._loaded.weight(module)

    def moments(
        self, rows: str, modules: Sequence[str], tokens: Literal["own", "all"] = "own", size: int | None = None
    ) -> Mapping[str, SecondMoment]:
        """Return second moments of inputs; see `LoadedModel.moments`. Call it in `AdapterPlan.start` only."""
        return self._loaded.moments(rows, modules, tokens, size)

    def features(
        self, rows: str, layer: int | None = None, size: int | None = None
    ) -> "tuple[Tensor, list[str | None]]":
        """Return features of rows, and their labels; see `LoadedModel.features`. Call it in `AdapterPlan.start` only.

        The moments that earlier tasks have stored are in `slots`, as `route:<task>`; `maths.routing.Moments.from_tensors` reads
        them.
        """
        return self._loaded.features(rows, layer, size)

    @property
    def _loaded(self) -> LoadedModel:
        if self.model is None:
            raise RuntimeError(
                f"the plan of {self.task} read the model before one was loaded; read it in AdapterPlan.start"
            )
        return self.model


def module_of_down(parameter: str) -> str | None:
    """Return the module whose A is the trainable parameter of this name; None where the parameter is no A."""
    return _module_of(parameter, "A")


def module_of_up(parameter: str) -> str | None:
    """Return the module whose B is the trainable parameter of this name; None where the parameter is no B."""
    return _module_of(parameter, "B")


def _module_of(parameter: str, factor: Literal["A", "B"]) -> str | None:
    module, separator, _ = parameter.removeprefix(PREFIX).partition(f".lora_{factor}.")
    owner, dot, end = module.rpartition(".")
    return (
        f"{owner}{dot}{end.removeprefix('lora_')}" if separator else None
    )  # of experts: `experts.lora_up_proj.lora_A.new.weight`


def shared_plan(bare: Bare) -> AdapterPlan:
    """Return the plan of one adapter that all tasks continue to train, over the other slots that all tasks share."""
    return AdapterPlan(SKILL, _shared(bare, SKILL))


def sum_plan(bare: Bare) -> AdapterPlan:
    """Return the plan of the task's own adapter, which is summed with the frozen adapters of earlier tasks."""
    slot = sum_slot(bare.task)
    return AdapterPlan(slot, _shared(bare, slot))


def task_plan(bare: Bare, over: Literal["shared", "base"] = "shared") -> AdapterPlan:
    """Return the plan of an adapter that only this task uses.

    Args:
        bare: The model before the task.
        over: The slots frozen under it: those that all tasks share, or none. A task that is learned again keeps the slots that
            were under it the first time.
    """
    slot = task_slot(bare.task)
    if slot in bare.slots:
        return AdapterPlan(slot, tuple(sorted(name for name in own_slots(bare.slots, bare.task) if name != slot)))
    return AdapterPlan(slot, _shared(bare, slot) if over == "shared" else ())


def over_initial(plan: AdapterPlan, bare: Bare) -> AdapterPlan:
    """Return the plan with the adapter that the workspace was made with under it, whatever the policy put there."""
    if INITIAL not in bare.slots or any(map(_is_initial, plan.beneath)):
        return plan
    return replace(plan, beneath=tuple(sorted((INITIAL, *plan.beneath))))


def _is_initial(slot: str) -> bool:
    """Return whether a slot has the adapter that the workspace was made with, shared or under one task's adapter."""
    return slot == INITIAL or (slot.startswith("task:") and slot.endswith(f"/{INITIAL}"))


def _shared(bare: Bare, slot: str) -> tuple[str, ...]:
    names = {name: name for name in bare.slots}  # contents are read when they are needed
    return tuple(sorted(name for name in view_of(names) if name not in (slot, EDITS)))
