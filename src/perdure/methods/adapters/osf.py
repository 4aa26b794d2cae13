"""OSF: an adapter that stays outside the leading singular directions of the weights, which hold what the model can do.

Source: Nayak et al., "Sculpting Subspaces: Constrained Full Fine-Tuning in LLMs for Continual Learning", 2025.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.errors import BadSpec
from perdure.core.fields import ShareBelowOne
from perdure.core.keyed import keyed
from perdure.core.plan import (
    AdapterPlan,
    Bare,
    Factors,
    module_of_down,
    module_of_up,
    shared_plan,
    sum_plan,
    task_plan,
)
from perdure.core.seams import Grads, Method, Model, State
from perdure.core.step import Step
from perdure.maths.low_rank import from_tensors
from perdure.maths.projection import HELD, joined_basis, outside
from perdure.maths.subspaces import high_spaces
from perdure.methods.registry import register

PLANS: dict[str, Callable[[Bare], AdapterPlan]] = {"shared": shared_plan, "sum": sum_plan, "task": task_plan}


@register
@dataclass(frozen=True)
class Osf(Method):
    """Keep B A outside the leading singular directions U_h, V_h of the weight W: U_h^T B = 0 and A V_h = 0.

    U_h and V_h are the `kept` x min(out, in) left and right singular vectors of W with the largest singular values. V_h also has
    the rows of A of each adapter that lies frozen underneath. So the update U_l X V_l^T changes no output along U_h, and none for
    an input in V_h. The start, the gradients (mask) and the weights after every optimizer step (hold) are projected, because
    momentum and decay move what has no gradient.

    `on` says where the adapter is: "shared" goes on from task to task, "sum" trains one a task in a sum, "task" one that the
    task has for itself. With "sum" the updates of two tasks have no input direction in common, as with o_lora; with "shared"
    only what the base model can do is protected, and no earlier task: add replay.

    Seams: adapter, prepare, mask, hold. State: `rows/<module>` (directions, in) and `columns/<module>` (directions, out) in
    float32, computed from the weights for each learn and not stored: 3.2 MB a block of SmolLM2 for queries, keys, values and
    output, 10 MB for all modules. A checkpoint of a learn in progress has it.
    Cost: two eigendecompositions min(out, in)^3 of each weight a learn, one where the adapter goes on: 3.5 s of a processor for
    one pass over the attention of SmolLM2, 11 s for all modules; and 0.08 or 0.23 s an update for the projections.
    When to use: what the model could do before must stay, and its rows are not at hand; measure it first. On clinc5 (SmolLM2, the
    default rate) it learned less than naive and kept less of the model (docs/benchmarks.md). About half of the gradient is masked
    at the default (42 to 47% on SmolLM2), so give it more updates than a plain adapter. It goes with replay of earlier tasks:
    perdure learn TASK DATA --recipe dual_replay --set methods.osf.kept=0.5 --set lora_target_modules='.*(attn|attention)[.].*'.
    Deviation: the paper trains all of the low singular triples, and projects the gradient, from which AdamW departs; this is a
    LoRA of rank lora_r inside, and exact. An input direction to which W is blind (in > out) is free too. The paper keeps
    rho = 0.1 + 0.7 I of a layer's directions, I the cosine of its inputs and outputs with a mean of 1 over layers, of the weights
    as each task left them; here the share is one for all modules, and of the base model's weights.
    """

    name: ClassVar[str] = "osf"
    family: ClassVar[str] = "adapters"
    seams: ClassVar[tuple[str, ...]] = ("adapter", "prepare", "mask", "hold")
    source: ClassVar[str] = "Nayak et al. 2025, arXiv 2504.07097"

    kept: ShareBelowOne = Field(
        default=0.5, description="share of the singular directions of each weight that stay as they are"
    )
    on: Literal["shared", "sum", "task"] = Field(
        default="shared",
        description="the adapter that all tasks share, one a task in a sum, or one for each task alone",
    )

    @property
    def carries(self) -> bool:
        """One adapter goes on where all tasks share it."""
        return self.on == "shared"

    def adapter(self, bare: Bare, state: State) -> AdapterPlan:
        """Return the plan of the slot that `on` names; a fresh A starts outside V_h.

        Computing that start raises BadSpec where a module has too few directions left.
        """
        plan = PLANS[self.on](bare)
        if plan.slot in bare.slots:
            return plan
        return replace(plan, start=partial(self._starts, bare, plan.beneath))

    def prepare(self, model: Model, state: State) -> State:
        """Return U_h and V_h as rows, by module.

        Raises:
            BadSpec: The adapter that goes on does not lie outside them.
        """
        earlier, spaces = _rows(model.slots, model.slots), dict[str, Tensor]()
        device = next(iter(model.params.values())).device
        for module in sorted({module for name in model.params if (module := module_of_down(name))}):
            columns, rows = self._spaces(model, module, earlier)
            spaces |= {f"columns/{module}": columns.to(device), f"rows/{module}": rows.to(device)}
        self._refuse_other(model, spaces)
        return spaces

    def mask(self, grads: Grads, state: State) -> Grads:
        """Return the gradients without what would move B along U_h, or A along V_h."""
        return {**grads, **_projected(grads, state)}

    def hold(self, step: Step, state: State) -> dict[str, Tensor]:
        """Return A and B without their parts along V_h and U_h."""
        return _projected(step.params, state)

    def _refuse_other(self, model: Model, spaces: State) -> None:
        """Refuse an adapter of which the first hold would cut something that it learned.

        Raises:
            BadSpec: It does not lie outside the spaces; one whose B is 0 has learned nothing, and may lie anywhere.
        """
        learned = {module for name, value in model.params.items() if (module := module_of_up(name)) and value.any()}
        for name, value in _projected(model.params, spaces).items():
            was = model.params[name].detach()
            inside = ((was - value).norm() / was.norm().clamp(min=1e-30)).item()
            if inside > HELD and {module_of_down(name), module_of_up(name)} & learned:
                raise BadSpec(
                    f"osf cannot go on with this adapter: {inside:.0%} of {name} lies in the space that osf protects, as it was "
                    f"learned without osf, or with another kept than {self.kept:g}; set methods.osf.on: sum, or start: base"
                )

    def _spaces(self, model: Bare | Model, module: str, earlier: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return U_h (..., k, out) and V_h with the rows of earlier adapters (..., k, in), orthonormal rows."""
        columns, rows = high_spaces(model.weight(module), self.kept)
        return columns, joined_basis(rows, earlier[module]) if module in earlier else rows

    def _starts(self, bare: Bare, beneath: Iterable[str]) -> dict[str, Factors]:
        """Return for each module rows drawn as PEFT draws them, without their part in V_h, and B = 0.

        Raises:
            BadSpec: A module has fewer free directions than the rank.
        """
        earlier, rank, starts = _rows(bare.slots, beneath), bare.settings.lora_r, {}
        for module, (*experts, out, width) in bare.shapes.items():
            columns, rows = self._spaces(bare, module, earlier)
            free = min(width - rows.shape[-2], out - columns.shape[-2])
            if free < rank:
                raise BadSpec(
                    f"osf: {module} ({out} x {width}) has {free} free directions, as {columns.shape[-2]} singular ones stay and "
                    f"earlier adapters take {rows.shape[-2] - columns.shape[-2]}; the rank is {rank}: lower lora_r or "
                    "methods.osf.kept"
                )
            drawn = keyed(bare.seed, bare.task, "osf", module).uniform(-1, 1, (*experts, rank, width)) / width**0.5
            starts[module] = Factors(outside(torch.from_numpy(drawn).float(), rows), torch.zeros(*experts, out, rank))
        return starts


def _rows(slots: Mapping[str, Mapping[str, Tensor]], names: Iterable[str]) -> dict[str, Tensor]:
    """Return the rows of A of these slots together (..., rows, in), by module."""
    rows: dict[str, list[Tensor]] = {}
    for name in sorted(names):
        for module, patch in from_tensors(slots[name]).items():
            rows.setdefault(module, []).append(patch.down.cpu())
    return {module: torch.cat(found, -2) for module, found in rows.items()}


def _projected(values: Mapping[str, Tensor], state: State) -> dict[str, Tensor]:
    """Return A and B among `values`, or gradients of theirs, without their part in the protected spaces."""
    projected = {}
    for name, value in values.items():
        if (rows := state.get(f"rows/{module_of_down(name)}")) is not None:
            projected[name] = outside(value, rows)
        elif (columns := state.get(f"columns/{module_of_up(name)}")) is not None:
            projected[name] = outside(value.mT, columns).mT
    return projected
