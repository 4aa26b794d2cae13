"""InfLoRA: the input directions of a new adapter are the task's own, outside those of the tasks before, and stay fixed.

Source: Liang and Li, "InfLoRA: Interference-Free Low-Rank Adaptation for Continual Learning", CVPR 2024.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.errors import BadSpec
from perdure.core.fields import Positive, ShareAboveZero
from perdure.core.plan import AdapterPlan, Bare, Factors, SecondMoment, module_of_up, sum_plan
from perdure.core.seams import Method, Model, State
from perdure.maths.low_rank import from_tensors
from perdure.maths.subspaces import energy_outside, extended, leading_outside
from perdure.methods.registry import register

BASIS, GENERAL = "basis/", "general"  # the second is there once the inputs of general rows are in the bases


@register
@dataclass(frozen=True)
class InfLora(Method):
    """Train B alone, over an A that no input of an earlier task passes.

    For the inputs x of a module on the task's rows, H = E[x x^T], and for M, the orthonormal directions of the inputs of earlier
    tasks, P = I - M^T M: the rows of A are the leading eigenvectors of P H P, divided by sqrt(3), which is the length that a
    random A has. A M^T = 0, so B A x = 0 for each x in the span of M, whatever B becomes. When the task closes, M is extended by
    the fewest directions with which it has `energy` of the inputs of the task. Inputs are those of a row's own tokens: the words
    with which all rows begin are left out. The heartbeat's `outside` is the share of E||x||^2 that P leaves; where it is below
    0.05, the learn ends with a warning, since little can be learned there.

    `protect: base` adds the inputs of general rows to M, in the first task that is learned with it: no adapter from then on
    changes what the base model does with these. It needs general rows, and so a method that draws them (instruction_replay).

    `revert TASK` takes the task's adapter out. Its directions stay in M, as later tasks were kept outside all of M: they take
    room, and protect an input that no longer matters. A task that is learned again goes on with its A, and trains B; tasks that
    were learned since are not protected from this.

    Seams: adapter, measure. State: `basis/<module>` (directions, in) in float32, stored: one for modules that read the same
    input, such as the queries, keys and values of a block; it grows with each task, up to in x in.
    Cost: forwards over `size` rows before the task and after it, and for each input an eigendecomposition (in x in). Half of the
    parameters train. The frozen rank grows by `lora_r` a task.
    When to use: as `incremental`, where old inputs are unlike new ones, so that something is left to learn in; set
    lora_target_modules to queries, keys and values, as the recipe does, since all modules take 4 to 10 times the room.
    Deviation: the energy is that of x (the authors' code squares it) and the same for all tasks (theirs rises with the number of
    tasks to come); M is stored as it is, never as its complement; only a row's own tokens count. `protect: base` follows
    LoRA-Null (Tang et al. 2025, arXiv 2503.02659), which takes A and B from the weight's projection on that null space.
    """

    name: ClassVar[str] = "inf_lora"
    family: ClassVar[str] = "adapters"
    seams: ClassVar[tuple[str, ...]] = ("adapter", "measure")
    source: ClassVar[str] = "Liang and Li 2024, arXiv 2404.00228"
    carries: ClassVar[bool] = False

    energy: ShareAboveZero = Field(default=0.95, description="share of E||x||^2 of each task that is protected later")
    protect: Literal["tasks", "base"] = Field(
        default="tasks", description="whose inputs are protected: those of earlier tasks, or those of general rows too"
    )
    size: Positive = Field(default=256, description="rows of a task that are measured")

    def adapter(self, bare: Bare, state: State) -> AdapterPlan:
        """Return the plan of the slot `sum:<task>`, whose A is computed from the task's inputs and does not train.

        Computing it raises BadSpec where a module has too few directions left, or `protect: base` finds no general rows.
        """
        plan = sum_plan(bare)
        return replace(plan, start=partial(self._starts, bare, state, plan.slot))

    def measure(self, model: Model, state: State) -> State:
        """Return the directions of earlier inputs, extended by those of this task."""
        modules = [module for name in model.params if (module := module_of_up(name))]
        moments = model.moments("new", modules, size=self.size)
        before = self._before(model, modules, state)
        new = {
            BASIS + group[0]: extended(_of(group, before, moment), moment.mean, self.energy)
            for group, moment in _groups(moments)
        }
        shared = {BASIS + module for group, _ in _groups(moments) for module in group}
        marked = {GENERAL: torch.ones(())} if self.protect == "base" or GENERAL in state else {}
        return {**{key: value for key, value in before.items() if key not in shared}, **new, **marked}

    def _starts(self, bare: Bare, state: State, slot: str) -> dict[str, Factors]:
        """Return the factors that each module starts from; of a task that is learned again, its own.

        Raises:
            BadSpec: See `adapter`.
        """
        if slot in bare.slots:
            own = from_tensors(bare.slots[slot])
            return {
                module: Factors(patch.down, patch.up, "up") for module, patch in own.items() if module in bare.shapes
            }
        modules, rank = list(bare.shapes), bare.settings.lora_r
        before, starts = self._before(bare, modules, state), {}
        for group, moment in _groups(bare.moments("new", modules, size=self.size)):
            basis = _of(group, before, moment)
            _check_room(group[0], basis, rank)
            down = (leading_outside(moment.mean, basis, rank) / 3**0.5).float()
            effects = {"outside": energy_outside(moment.mean, basis)}
            for module in group:
                starts[module] = Factors(down, torch.zeros(bare.shapes[module][0], rank), "up", effects)
        return starts

    def _before(self, model: Bare | Model, modules: Sequence[str], state: State) -> State:
        """Return the directions to protect, on the CPU; with `protect: base`, those of general rows too.

        Raises:
            BadSpec: There are no general rows.
        """
        known = {key: value.cpu() for key, value in state.items() if key.startswith(BASIS)}
        if GENERAL in state or self.protect == "tasks" or not modules:
            return known
        general = model.moments("general", modules, size=self.size)
        if not general:
            raise BadSpec(
                "inf_lora with protect: base reads general rows, and this learn has none: name 'general' in the task file and "
                "add a method that draws these (methods.instruction_replay), or set protect: tasks"
            )
        grown = {
            BASIS + group[0]: extended(_of(group, known, moment), moment.mean, self.energy)
            for group, moment in _groups(general)
        }
        shared = {BASIS + module for group, _ in _groups(general) for module in group}
        return {**{key: value for key, value in known.items() if key not in shared}, **grown}


def _groups(moments: Mapping[str, SecondMoment]) -> list[tuple[list[str], SecondMoment]]:
    """Return the modules that read the same input, with its moment; the first of a group has its basis."""
    groups: dict[int, tuple[list[str], SecondMoment]] = {}
    for module, moment in moments.items():
        groups.setdefault(id(moment.mean), ([], moment))[0].append(module)
    return list(groups.values())


def _of(group: Sequence[str], bases: State, moment: SecondMoment) -> Tensor:
    """Return the basis (k, in) of an input, whichever module of the group has it; (0, in) where none has."""
    known = [bases[BASIS + module] for module in group if BASIS + module in bases]
    return known[0] if known else torch.zeros(0, len(moment.mean))


def _check_room(module: str, basis: Tensor, rank: int) -> None:
    """Refuse a rank for which too few directions are left.

    Raises:
        BadSpec: With the count.
    """
    taken, width = basis.shape
    if width - taken < rank:
        raise BadSpec(
            f"inf_lora: of the {width} input directions of {module} the tasks before take {taken}, which leaves "
            f"{width - taken} for a rank of {rank}; lower lora_r, or begin a new workspace with a lower methods.inf_lora.energy"
        )
