"""N-LoRA: a new adapter for each task, whose update keeps off the entries that those of the tasks before change.

Source: Yang et al., "Is Parameter Collision Hindering Continual Learning in LLMs?", 2024.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import Strength
from perdure.core.plan import AdapterPlan, Bare, module_of_down, module_of_up, sum_plan
from perdure.core.seams import Method, Model, State
from perdure.core.step import Step
from perdure.maths.low_rank import Patch, from_tensors
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class NLora(Method):
    """Penalise collisions: entries of a weight that the new update changes, and an earlier one changed.

    With D = s B A the new update of module m, and D_i those of the k earlier tasks, the penalty is strength x the mean over
    modules of   1/k sum_i <|D_i|, |D|> / ||D_i||^2,   where <,> sums over entries. It is 0 exactly where no entry is changed
    twice (so that D and D_i are orthogonal too), and 1 where D is as D_i is. It does not depend on the number of tasks or
    modules, on a weight's shape, or on a scale that all updates share. It shrinks the new update where it collides, and nowhere
    else.

    Seams: adapter, prepare, loss. State: `down/` and `up/<number>/<module>`, the earlier adapters, for the task alone.
    Cost: the product of each adapter's factors, old and new, one module at a time, each update (0.2 to 0.3 CPU s with one earlier
    adapter and 0.43 with four, at rank 8 on all modules of SmolLM2-135M, one thread); no forward. The frozen rank grows by
    `lora_r` a task.
    When to use: as `o_lora`; entries of the weights are kept apart instead of directions of the input.
    Deviation: the paper adds lambda sum |D| from the first task on, so that sparse updates seldom collide by chance; lambda was
    chosen by position in the stream. Here the same sum is weighed by what the earlier updates have at each entry, and a first
    task has no penalty. The published code multiplies A with B, which has the shape (rank, rank) and exists only where a
    layer is as wide as it is high; the formula here is of B A, for any shape. AdamW makes no entry exactly 0.
    """

    name: ClassVar[str] = "n_lora"
    family: ClassVar[str] = "adapters"
    seams: ClassVar[tuple[str, ...]] = ("adapter", "prepare", "loss")
    source: ClassVar[str] = "Yang et al. 2024, arXiv 2410.10179"
    carries: ClassVar[bool] = False

    strength: Strength = Field(default=1.0, description="factor of the penalty, which is 1 where an update is repeated")

    def adapter(self, bare: Bare, state: State) -> AdapterPlan:
        """Return the plan of the slot `sum:<task>`."""
        return sum_plan(bare)

    def prepare(self, model: Model, state: State) -> State:
        """Return the factors of the earlier adapters, scaled so that the product of a pair is s D_i / (k ||D_i||^2).

        D_i = s_i B_i A_i of the earlier adapter, and s is the scale of the one that trains, whose B A `collision` takes.
        """
        old: dict[str, list[tuple[Patch, Tensor]]] = {}
        for name in sorted(model.slots):
            for module, patch in from_tensors(model.slots[name]).items():
                if (square := patch.delta.square().sum()) > 0:
                    old.setdefault(module, []).append((patch, square))
        device, prepared = next(iter(model.params.values())).device, {}
        for module, patches in old.items():
            for number, (patch, square) in enumerate(patches):
                prepared[f"down/{number}/{module}"] = patch.down.to(device)
                prepared[f"up/{number}/{module}"] = (
                    patch.up * (patch.scale * model.scale) / (len(patches) * square)
                ).to(device)
        return prepared

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the mean collision of the modules; None without earlier adapters."""
        old = _old(state)
        downs = {module_of_down(name): value for name, value in step.params.items()}
        ups = {module_of_up(name): value for name, value in step.params.items()}
        terms = [collision(downs[module], ups[module], pairs) for module, pairs in old.items() if module in ups]
        return step.once(self.strength * torch.stack(terms).mean()) if terms else None


def collision(down: Tensor, up: Tensor, old: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return <W, |up @ down|> for W = sum |up_i @ down_i| over `old`; one dense matrix lives at a time, and none afterwards.

    The value is linear in each factor while no entry changes its sign, so its gradient is known with it:
    G down^T for `up` and up^T G for `down`, where G = W * sign(up @ down).
    """
    with torch.no_grad():
        weight = sum(((b @ a).abs() for a, b in old[1:]), (old[0][1] @ old[0][0]).abs())
        pull = weight * (up @ down).sign()
        for_up, for_down = pull @ down.mT, up.mT @ pull
        value = (for_up * up).sum()
    return (for_up * up).sum() + (for_down * down).sum() - value


def _old(state: Mapping[str, Tensor]) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Return down and up of each earlier adapter, by module."""
    pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for key in sorted(state):
        factor, _, rest = key.partition("/")
        if factor == "down":
            pairs.setdefault(rest.partition("/")[2], []).append((state[key], state[f"up/{rest}"]))
    return pairs
