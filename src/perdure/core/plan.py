"""Which adapter a task trains, what is frozen under it, and the slot it ends in."""

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
    """What the adapter of one module starts from.

    Args:
        down: (rank, in), PEFT's lora_A; of experts (experts, rank, in).
        up: (out, rank), PEFT's lora_B; of experts (experts, out, rank).
        trains: Which of the two are trained.
    """

    down: "Tensor"
    up: "Tensor"
    trains: Literal["both", "up", "down"] = "both"


Start = Callable[[], Mapping[str, Factors]]  # factors by module; the other modules start as they would without it


@dataclass(frozen=True)
class AdapterPlan:
    """What the seam `adapter` returns. `slot` and `beneath` depend on the names of slots alone, so that they are known early.

    Args:
        slot: Where the trained adapter ends: "skill", "sum:<task>" or "task:<task>".
        beneath: Slots that are frozen under it while it trains, and in its view.
        start: Computes what it starts from. A host calls it once for a learn, before the first update, and stores the result: a
            learn that goes on after a stop has the same factors. None for what the slot holds at head, else fresh ones
            (Kaiming down, zero up).
    """

    slot: str = SKILL
    beneath: tuple[str, ...] = ()
    start: Start | None = None

    def is_first(self, slots: Container[str]) -> bool:
        """Say whether it trains on the base model alone: nothing lies under it, and its slot is not among `slots`."""
        return not self.beneath and self.slot not in slots


@dataclass(frozen=True)
class Bare:
    """What the seam `adapter` sees: the model before the task has parameters. Read only.

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
    """Return the module whose A is the trainable parameter of this name; None where it is no A."""
    module, separator, _ = parameter.removeprefix(PREFIX).partition(".lora_A.")
    owner, dot, end = module.rpartition(".")
    return (
        f"{owner}{dot}{end.removeprefix('lora_')}" if separator else None
    )  # of experts: `experts.lora_up_proj.lora_A.new.weight`


def shared_plan(bare: Bare) -> AdapterPlan:
    """Return the plan of one adapter that goes on from task to task, over whatever else all tasks share."""
    return AdapterPlan(SKILL, _shared(bare, SKILL))


def sum_plan(bare: Bare) -> AdapterPlan:
    """Return the plan of an adapter of the task's own, summed with those of the tasks before, which stay frozen."""
    slot = sum_slot(bare.task)
    return AdapterPlan(slot, _shared(bare, slot))


def task_plan(bare: Bare, over: Literal["shared", "base"] = "shared") -> AdapterPlan:
    """Return the plan of an adapter that belongs to the task alone.

    Args:
        bare: The model before the task.
        over: What is frozen under it: what all tasks share, or nothing. A task that is learned again keeps the slots that were
            under it the first time.
    """
    slot = task_slot(bare.task)
    if slot in bare.slots:
        return AdapterPlan(slot, tuple(sorted(name for name in own_slots(bare.slots, bare.task) if name != slot)))
    return AdapterPlan(slot, _shared(bare, slot) if over == "shared" else ())


def _shared(bare: Bare, slot: str) -> tuple[str, ...]:
    names = {name: name for name in bare.slots}  # contents are read when they are needed
    return tuple(sorted(name for name in view_of(names) if name not in (slot, EDITS)))
