"""Elastic weight consolidation: weights that the last tasks' likelihood depends on are held where those tasks left them.

Source: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017; Schwarz et al., "Progress &
Compress", ICML 2018, for the online form; van de Ven, "On the Computation of the Fisher Information in Continual Learning",
2025, for what is often computed instead; Zheng et al., "Revisiting Weight Regularization for Low-Rank Continual Learning"
(EWC-LoRA), ICLR 2026, for the product.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.errors import BadSpec
from perdure.core.fields import Positive, Share, Strength
from perdure.core.seams import Method, Model, State
from perdure.core.step import Step
from perdure.maths.anchors import joined, quadratic, weighted_product_gap
from perdure.maths.importance import added, copies, from_state, mean_square, to_state, unit_mean
from perdure.maths.lora_pairs import factors, up_of
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class Ewc(Method):
    """Add strength x 1/2 sum_i F_i (w_i - w*_i)^2, F the diagonal Fisher information of the tasks before.

    F_i = mean over rows x of (d log p(y | x) / d w_i)^2 on the settled model, the log-likelihood summed over a row's label
    tokens, y sampled from the model (`labels: sampled`) or the written answer (`data`, the empirical Fisher). Each task's F is
    divided by its mean over all trainable weights, so that a strength of 1 is a plain 1/2 ||w - w*||^2 spread unevenly, in
    every model. `mode: offline` sums one penalty a task, each with its own w*: stored as one quadratic, which is the same
    function. `online` stores F = decay x F + F_task, and the last weights as w*.

    With `on: product` (EWC-LoRA, recipe `ewc_lora`) the weights of a LoRA pair are the entries of B A, since many B, A give one:
    strength x 1/2 sum_ij F_ij (B A - B* A*)_ij^2. F would be as large as the model; its row sums u and column sums v are stored,
    and F_ij = u_i v_j / sum(u). The sums are exact, from each row's squares, and add up over tasks as F does. Weights that are no
    LoRA pair of a linear layer are held one by one.

    Seams: loss, measure. State: `fisher.<param>`, `anchor.<param>`, 8 bytes per trainable parameter, stored; `rest`. With
    `on: product` `anchor.<param>`, `rows/<param>`, `columns/<param>` and `product`: 4.5 bytes at rank 8.
    Cost: no forward in training; after each task one forward and backward over `size` rows. 1.4 x naive's time (clinc5).
    When to use: old rows may not be stored, and tasks share their weights; hler with lwf retained more (clinc5). On tasks of few
    updates it retains little at any strength that lets an adapter learn, and together with replay or lwf it lowered both.
    Deviation: each token of y is sampled after the written ones before it, not after sampled ones; F has mean 1 per task; with
    `on: factors` F is of the adapter's factors, a proxy of the product's. From EWC-LoRA: F is the matrix of rank one with the row
    and column sums of the paper's; labels are sampled by default and squares are of single rows; the new update begins at the
    last one, which the task goes on training, not at zero after a merge.
    """

    name: ClassVar[str] = "ewc"
    family: ClassVar[str] = "regularisation"
    seams: ClassVar[tuple[str, ...]] = ("loss", "measure")
    source: ClassVar[str] = (
        "Kirkpatrick et al. 2017, arXiv 1612.00796; Schwarz et al. 2018, arXiv 1805.06370; Zheng et al. 2026, arXiv 2602.17559"
    )
    anchors: ClassVar[bool] = True
    later: ClassVar[tuple[str, ...]] = ("on",)

    strength: Strength = Field(default=0.03, description="factor, at a Fisher information of mean 1")
    mode: Literal["offline", "online"] = Field(
        default="offline", description="one penalty a task, or one that is carried along"
    )
    decay: Share = Field(
        default=1.0, description="online: what is left of the older tasks' information after each task"
    )
    labels: Literal["sampled", "data"] = Field(
        default="sampled", description="whose labels are scored: the model's, or the written answers"
    )
    size: Positive = Field(default=256, description="rows of a task that are measured")
    on: Literal["factors", "product"] = Field(
        default="factors",
        description="what is held of a LoRA pair: each factor, or their product; the product needs mode: online",
    )

    def __post_init__(self) -> None:
        if self.on == "product" and self.mode == "offline":
            raise ValueError("on: product carries one penalty along, as EWC-LoRA does; set mode: online")

    @property
    def active(self) -> bool:
        """No strength, no method."""
        return self.strength > 0

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the penalty; None before a task is known.

        Raises:
            BadSpec: What is known of the tasks before is of the other `on`.
        """
        if "rest" not in state:
            return None
        if ("product" in state) != (self.on == "product"):
            known = "product" if "product" in state else "factors"
            raise BadSpec(f"ewc held the {known} of LoRA pairs in the tasks before; set on: {known}, or start: base")
        anchors, fisher, pairs = from_state(state, "anchor"), from_state(state, "fisher"), _sums(state)
        terms = [quadratic(step.params, anchors, fisher)] if fisher else []
        if pairs:
            now, then = ([factors(weights, down) for down in pairs] for weights in (step.params, anchors))
            terms.append(weighted_product_gap(now, then, list(pairs.values())))
        return step.once(self.strength * (torch.stack(terms).sum() + state["rest"]))

    def measure(self, model: Model, state: State) -> State:
        """Fold the Fisher information of this task into what is known of the older ones."""
        if self.on == "product":
            return self._measure_products(model, state)
        fisher, now = unit_mean(mean_square(model.gradients("new", self.size, self.labels))), copies(model.params)
        known, rest = from_state(state, "fisher"), torch.zeros(())
        if self.mode == "online":
            fisher, anchors = added(known, fisher, self.decay), now
        else:
            fisher, anchors, more = joined(known, from_state(state, "anchor"), fisher, now)
            rest = state.get("rest", rest) + more
        return {"rest": rest, **to_state("fisher", fisher), **to_state("anchor", anchors)}

    def _measure_products(self, model: Model, state: State) -> State:
        """Return the sums of each pair's Fisher information, added to those of older tasks, with the last weights as anchors."""
        sums = model.product_squares("new", self.size, self.labels)
        alone = [name for name in model.params if not any(name in (down, up_of(down)) for down in sums)]
        rest = model.gradients("new", self.size, self.labels) if alone else ()
        fisher = mean_square({name: grads[name] for name in alone} for grads in rest)
        fresh = {f"fisher.{name}": value for name, value in fisher.items()}
        fresh |= {f"rows/{name}": rows for name, (rows, _) in sums.items()}
        fresh |= {f"columns/{name}": columns for name, (_, columns) in sums.items()}
        weights = sum(rows.numel() * columns.numel() for rows, columns in sums.values())
        weights += sum(value.numel() for value in fisher.values())
        total = sum(value.sum().item() for key, value in fresh.items() if not key.startswith("columns/"))
        fresh = {key: value * (weights / total if total else 1.0) for key, value in fresh.items()}
        known = {key: value for key, value in state.items() if key in fresh}
        return {
            "rest": torch.zeros(()),
            "product": torch.ones(()),
            **added(known, fresh, self.decay),
            **to_state("anchor", copies(model.params)),
        }


def _sums(state: State) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the row and column sums that are stored, by the name of A, in one order whatever a checkpoint made of it."""
    names = sorted(key.removeprefix("rows/") for key in state if key.startswith("rows/"))
    return {name: (state[f"rows/{name}"], state[f"columns/{name}"]) for name in names}
