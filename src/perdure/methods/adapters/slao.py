"""SLAO: one adapter, trained on from an orthonormal basis of its own rows, and merged over time into what is served.

Source: Qiao & Mahdavi, "Merge before Forget: A Single LoRA Continual Learning via Continual Merging", ICLR 2026.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.plan import AdapterPlan, Bare, Factors, module_of_down, module_of_up, shared_plan
from perdure.core.seams import Method, Model, State
from perdure.maths.low_rank import Patch, Patches, from_tensors, relative_error
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class Slao(Method):
    """Train one adapter from task to task, and serve its newest A with a merge over time of its B.

    With A, B the adapter that the last task trained (the chain), task t starts from A' = S Q^T and B' = B, where A^T = Q R and S
    is the sign of R's diagonal, so that the rows of A' are orthonormal and span the same space. Both train. Then A is served as
    it is, and of B   served <- served + (B - served) / sqrt(t).   The chain goes on from what was trained, not from what is
    served.

    Since R is dropped, a task does not start from the function of the chain; the heartbeat `jump` is the distance
    ||B A - B' A'|| / ||B A||, the mean over modules. `keep_r` starts from B' = B R^T S, so that B' A' = B A, and writes the
    served B in the new rows too.

    Seams: adapter, settle, measure. State: `chain.<param>`, 4 bytes per trainable parameter, and `count`, the number of tasks.
    Cost: one QR of (in, rank) a module and task; no forward. The served adapter and its rank stay as large as those of one task.
    When to use: no row may be kept, and one adapter of bounded rank is to serve all tasks.
    Deviation: after a learn without this method the chain starts anew from what head has, as a first task. `keep_r` is ours. The
    paper adapts q and v; here the recipe says which modules.
    """

    name: ClassVar[str] = "slao"
    family: ClassVar[str] = "adapters"
    seams: ClassVar[tuple[str, ...]] = ("adapter", "settle", "measure")
    source: ClassVar[str] = "Qiao & Mahdavi 2026, arXiv 2512.23017"
    carries: ClassVar[bool] = False

    keep_r: bool = Field(default=False, description="start each task from the function that the last one trained")

    def adapter(self, bare: Bare, state: State) -> AdapterPlan:
        """Return the plan of the slot `skill`; from the second task on it starts from orthonormal rows."""
        plan = shared_plan(bare)
        return replace(plan, start=partial(self._starts, bare, plan.slot, state)) if plan.slot in bare.slots else plan

    def settle(self, model: Model, state: State) -> tuple[dict[str, Tensor], State]:
        """Return the merged B of each module, none in the first task, and the chain as it was trained."""
        served, values = from_tensors(model.own), {}
        count = 1 + (_chain(served, state)[1] if served else 0)
        for name, up in model.params.items():
            if (module := module_of_up(name)) in served:
                old = served[module].up.to(up)
                if self.keep_r:
                    old = old @ orthonormal(served[module].down.to(up))[1]
                values[name] = old + (up.detach() - old) / count**0.5
        chain = {f"chain.{name}": value.detach().clone() for name, value in model.params.items()}
        return values, {**chain, "count": torch.tensor(count)}

    def measure(self, model: Model, state: State) -> State:
        """Return the chain and the number of tasks."""
        return state

    def _starts(self, bare: Bare, slot: str, state: State) -> dict[str, Factors]:
        """Return the factors that each module starts from."""
        served = from_tensors(bare.slots[slot])
        ups, _ = _chain(served, state)
        starts = {}
        for module in served.keys() & bare.shapes.keys():
            chain = Patch(served[module].down, ups[module], served[module].scale)
            rows, mixing = orthonormal(chain.down)
            up = chain.up @ mixing if self.keep_r else chain.up
            jump = relative_error({module: chain}, {module: Patch(rows, up, chain.scale)})
            starts[module] = Factors(rows, up, effects={"jump": jump})
        return starts


def orthonormal(down: Tensor) -> tuple[Tensor, Tensor]:
    """Return orthonormal rows (rank, in) of the same space, and the (rank, rank) matrix M with `down` = M @ rows.

    The sign of each row is such that M has a positive diagonal, so the rows are unique and depend on no library. Of experts,
    one basis each.

    Args:
        down: (rank, in) or (experts, rank, in), of full rank.
    """
    basis, upper = torch.linalg.qr(down.detach().cpu().double().mT)  # some devices have no float64
    signs = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(upper)
    rows, mixing = (basis * signs[..., None, :]).mT, (signs[..., :, None] * upper).mT
    return rows.to(down), mixing.to(down)


def _chain(served: Patches, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Return the B of the chain by module, and the number of its tasks; of another method's adapter, its B and 1.

    A chain belongs to the served adapter if it has the same A, to the bit.
    """
    kept = {key.partition(".")[2]: value.to("cpu") for key, value in state.items() if key.startswith("chain.")}
    downs = {module_of_down(name): value for name, value in kept.items()}
    ups = {module_of_up(name): value for name, value in kept.items()}
    if all(name in ups and torch.equal(downs[name], patch.down.cpu()) for name, patch in served.items()):
        return {module: ups[module] for module in served}, int(state["count"])
    return {module: patch.up for module, patch in served.items()}, 1
