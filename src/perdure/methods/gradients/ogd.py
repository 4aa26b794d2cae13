"""Orthogonal gradient descent: updates stay out of the directions that would change the outputs on rows of past tasks.

Source: Farajtabar et al., "Orthogonal Gradient Descent for Continual Learning", AISTATS 2020.
"""

from collections import defaultdict
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import Positive, Share
from perdure.core.seams import Grads, Method, Model, State
from perdure.maths.projection import extend_basis, project_out
from perdure.methods.registry import register

BASIS = "basis."


@register
@dataclass(frozen=True)
class Ogd(Method):
    """Mask the gradient g to g - sum_k <g, u_k> u_k: no part of it is along a stored direction u_k of past tasks.

    When a task closes, the gradients of the log-likelihood of `size` of its rows, each with length 1, extend the orthonormal
    basis u by as few principal directions as contain the share `keep` of them. No row of text is stored. Dot products are over
    all trainable parameters of one process; sharded ones would have to be reduced.

    Seams: mask, measure. State: `basis.<param>` (directions, *shape) float32: 4 bytes x directions per trainable parameter,
    and at most `size` more directions with every task. Every ledger entry stores it: 0.17 GB after one task and 0.58 GB after
    four at rank 8 on 135M parameters. Lower `size` or `keep` for larger adapters; as it grows, less is left to learn in.
    Cost: two passes over the basis an update; one forward and backward over `size` rows a task. 1.1 x naive's time (clinc5).
    When to use: old rows must not be stored, not even as text, and tasks are few or small. On clinc5 it retained nothing, for 800
    MB.
    Deviation: gradients of the row's log-likelihood, not of its true label's logit: for a well-learned row it is that of its
    margin over the runners-up. Principal directions instead of every row's (keep 1 spans them all). AdamW scales the masked
    gradient entry by entry, so an update is exactly orthogonal for plain SGD only.
    """

    name: ClassVar[str] = "ogd"
    family: ClassVar[str] = "gradients"
    seams: ClassVar[tuple[str, ...]] = ("mask", "measure")
    source: ClassVar[str] = "Farajtabar et al. 2020, arXiv 1910.07104"
    anchors: ClassVar[bool] = True

    size: Positive = Field(default=20, description="rows of a task whose gradients are taken")
    keep: Share = Field(
        default=0.95, description="share of their squared length that the basis holds; 1 is the paper's"
    )

    @property
    def active(self) -> bool:
        """With an empty basis, nothing is masked."""
        return self.keep > 0

    def mask(self, grads: Grads, state: State) -> Grads:
        """Return the gradients without their part in the span of the basis."""
        basis = basis_in(state)
        if not basis:
            return grads
        alone = project_out({name: value[None] for name, value in grads.items()}, basis)
        return {name: value[0] for name, value in alone.items()}

    def measure(self, model: Model, state: State) -> State:
        """Return the basis extended by the gradients of this task's rows."""
        gradients: dict[str, list[Tensor]] = defaultdict(list)
        for batch in model.gradients("new", self.size):
            for name, value in batch.items():
                gradients[name].append(value)
        basis = extend_basis(basis_in(state), {name: torch.cat(rows) for name, rows in gradients.items()}, self.keep)
        return {BASIS + name: value for name, value in basis.items()}


def basis_in(state: State) -> Grads:
    """Return the directions in `state` by parameter name."""
    return {key.removeprefix(BASIS): value for key, value in state.items()}
