"""O-LoRA: a new adapter for each task, held orthogonal to those of the tasks before.

Source: Wang et al., "Orthogonal Subspace Learning for Language Model Continual Learning", EMNLP 2023.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.errors import BadSpec
from perdure.core.fields import Strength
from perdure.core.keyed import keyed
from perdure.core.plan import AdapterPlan, Bare, Factors, module_of_down, module_of_up, sum_plan
from perdure.core.seams import Grads, Method, Model, State
from perdure.core.step import Step
from perdure.maths.low_rank import from_tensors
from perdure.maths.projection import HELD, outside, row_basis
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class OLora(Method):
    """Keep the rows of the new A out of the row space of the earlier ones.

    With Q_m an orthonormal basis of the rows of all earlier A of module m, and a_j the rows of the new one, the penalty is
    strength x mean over modules and rows of ||Q_m a_j||^2 / ||a_j||^2: the share of the new rows that lies in the old space, 0
    where they are orthogonal and 1 where they lie in it, whatever the length of a_j and the number of tasks. `exact` adds no
    penalty. It starts the new A outside the old space, removes the gradient's part in it, and removes it from the weights after
    every optimizer step, because momentum and decay move what has no gradient. An adapter that was learned without `exact` and
    shares directions with the others is not gone on with: the first step would cut what it learned.

    Seams: adapter, prepare, loss, mask, hold. State: `basis/<module>`, (earlier rank, in), rebuilt for each task and not kept.
    Cost: two small products a module and update; the frozen rank grows by `lora_r` a task.
    When to use: as `incremental`, where tasks are so alike that their updates would otherwise undo each other.
    Deviation: the paper adds the absolute entries of A_i A_t^T over all pairs, which grows with the number of tasks and modules
    and sinks with the length of A_t; its strength was chosen by position in the stream. The exact form is ours.
    """

    name: ClassVar[str] = "o_lora"
    family: ClassVar[str] = "adapters"
    seams: ClassVar[tuple[str, ...]] = ("adapter", "prepare", "loss", "mask", "hold")
    source: ClassVar[str] = "Wang et al. 2023, arXiv 2310.14152"
    carries: ClassVar[bool] = False

    strength: Strength = Field(default=0.5, description="factor of the penalty, whose value is a share between 0 and 1")
    exact: bool = Field(default=False, description="hold the new rows outside the old space, instead of a penalty")

    def adapter(self, bare: Bare, state: State) -> AdapterPlan:
        """Return the plan of the slot `sum:<task>`; with `exact` its A starts outside the row space of the earlier ones.

        Computing that start raises BadSpec where a module has too few directions left.
        """
        plan = sum_plan(bare)
        if not self.exact or plan.slot in bare.slots or not plan.beneath:
            return plan
        return replace(plan, start=partial(_starts, bare, plan.beneath))

    def prepare(self, model: Model, state: State) -> State:
        """Return the bases of the earlier rows, by module.

        Raises:
            BadSpec: With `exact`, the task's adapter goes on and does not lie outside them.
        """
        bases = _bases(model.slots, model.slots)
        device = next(iter(model.params.values())).device
        prepared = {f"basis/{module}": basis.to(device) for module, basis in bases.items()}
        if self.exact:
            _refuse_cut(model, prepared)
        return prepared

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the share of the new rows that lies in the old space; None without older rows, or with `exact`."""
        pairs = [] if self.exact else _pairs(step.params, state)
        if not pairs:
            return None
        shares = [((rows @ basis.mT).square().sum(-1) / rows.square().sum(-1)).mean() for _, rows, basis in pairs]
        return step.once(self.strength * torch.stack(shares).mean())

    def mask(self, grads: Grads, state: State) -> Grads:
        """Return the gradients without the part of A's in the old space, with `exact`."""
        if not self.exact:
            return grads
        return {**grads, **{name: outside(grad, basis) for name, grad, basis in _pairs(grads, state)}}

    def hold(self, step: Step, state: State) -> dict[str, Tensor]:
        """Return the rows of A without their part in the old space, with `exact`."""
        if not self.exact:
            return {}
        return {name: outside(rows, basis) for name, rows, basis in _pairs(step.params, state)}


def _bases(slots: Mapping[str, Mapping[str, Tensor]], names: Iterable[str]) -> dict[str, Tensor]:
    """Return an orthonormal basis (k, in) of the rows of A in these slots together, by module; of experts one each."""
    rows: dict[str, list[Tensor]] = {}
    for name in sorted(names):
        for module, patch in from_tensors(slots[name]).items():
            rows.setdefault(module, []).append(patch.down)
    return {module: row_basis(torch.cat(found, -2)) for module, found in rows.items()}


def _starts(bare: Bare, beneath: Iterable[str]) -> dict[str, Factors]:
    """Return what each module starts from whose earlier adapters take some directions.

    Raises:
        BadSpec: They leave fewer than the rank.
    """
    bases = _bases(bare.slots, beneath)
    return {module: _start(module, basis, bare) for module, basis in bases.items() if module in bare.shapes}


def _start(module: str, basis: Tensor, bare: Bare) -> Factors:
    """Return rows drawn as PEFT draws them, without their part in the old space, and B = 0.

    Raises:
        BadSpec: The old space leaves fewer directions than the rank.
    """
    rank, (*experts, out, width) = bare.settings.lora_r, bare.shapes[module]
    if (left := width - basis.shape[-2]) < rank:
        raise BadSpec(
            f"o_lora with exact: of the {width} input directions of {module} the earlier adapters take {basis.shape[-2]}, which "
            f"leaves {left} for a rank of {rank}; lower lora_r, set exact: false, or begin a new workspace"
        )
    drawn = keyed(bare.seed, bare.task, "o_lora", module).uniform(-1, 1, (*experts, rank, width)) / width**0.5
    down = outside(torch.from_numpy(drawn).float(), basis.cpu())
    return Factors(down, torch.zeros(*experts, out, rank))


def _refuse_cut(model: Model, state: State) -> None:
    """Refuse an adapter of which the first hold would cut something that it learned.

    Raises:
        BadSpec: Its rows do not lie outside the old space; where B is 0 nothing is learned, and they may lie anywhere.
    """
    learned = {module for name, value in model.params.items() if (module := module_of_up(name)) and value.any()}
    for name, rows, basis in _pairs(model.params, state):
        was = rows.detach()
        inside = ((was - outside(was, basis)).norm() / was.norm().clamp(min=1e-30)).item()
        if inside > HELD and module_of_down(name) in learned:
            raise BadSpec(
                f"o_lora with exact cannot go on with the adapter of {model.task}: {inside:.0%} of {name} lies in the space of "
                "the other adapters and would be cut, as it was learned without exact, or one of these was learned so "
                f"since; set methods.o_lora.exact: false, or revert {model.task} and learn it anew"
            )


def _pairs(values: Mapping[str, Tensor], state: State) -> list[tuple[str, Tensor, Tensor]]:
    """Return name, value and old basis of each A among `values` whose module earlier adapters patch."""
    named = [(name, f"basis/{module_of_down(name)}") for name in values]
    return [(name, values[name], state[key]) for name, key in named if key in state]
