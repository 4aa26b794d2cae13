"""The plan of a task's adapter: what it starts from, the slots that are frozen under it, and the slot it is stored in."""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from perdure.core.settings import Settings
from perdure.core.slots import EDITS, SKILL, own_slots, sum_slot, task_slot, view_of

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
    """

    down: "Tensor"
    up: "Tensor"
    trains: Literal["both", "up", "down"] = "both"


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
        """Return whether it trains directly on the base model: no slot is under it, and its own slot is not among `slots`."""
        return not self.beneath and self.slot not in slots


@dataclass(frozen=True)
class Bare:
    """The input of the seam `adapter`: the model before the task has parameters. Read only.

    Args:
        task: Name of the task.
        seed: Seed of the learn.
        settings: Training settings.
        shapes: (out, in) of each module that the settings give an adapter; of experts, (experts, out, in).
        slots: Tensors of each slot at head, without edits; an adapter's are `<module>.down`, `.up` and `.scale`.
    """

    task: str
    seed: int
    settings: Settings
    shapes: Mapping[str, tuple[int, ...]]
    slots: "Mapping[str, Mapping[str, Tensor]]"


def module_of_down(parameter: str) -> str | None:
    """Return the module whose A is the trainable parameter of this name; None where the parameter is no A."""
    module, separator, _ = parameter.removeprefix(PREFIX).partition(".lora_A.")
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


def _shared(bare: Bare, slot: str) -> tuple[str, ...]:
    names = {name: name for name in bare.slots}  # contents are read when they are needed
    return tuple(sorted(name for name in view_of(names) if name not in (slot, EDITS)))
