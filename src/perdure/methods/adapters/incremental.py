"""A new adapter for each task, summed with those of the tasks before, which stay frozen.

Source: the baseline IncLoRA of Wang et al., "Orthogonal Subspace Learning for Language Model Continual Learning", EMNLP 2023.
"""

from typing import ClassVar

from pydantic.dataclasses import dataclass

from perdure.core.plan import AdapterPlan, Bare, sum_plan
from perdure.core.seams import Method, State
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class Incremental(Method):
    """Train a fresh adapter on top of the frozen sum of the earlier ones: h = W x + sum_{i<t} s_i B_i A_i x + s B_t A_t x.

    No request needs to name its task. `revert TASK` leaves exactly the sum of the others.

    Seams: adapter. State: none; an adapter's weights for each task.
    Cost: the frozen rank grows by `lora_r` a task, and a step with it.
    When to use: a history from which single tasks can be taken out again, with one adapter to serve.
    Deviation: none.
    """

    name: ClassVar[str] = "incremental"
    family: ClassVar[str] = "adapters"
    seams: ClassVar[tuple[str, ...]] = ("adapter",)
    source: ClassVar[str] = "Wang et al. 2023, arXiv 2310.14152 (baseline IncLoRA)"
    carries: ClassVar[bool] = False

    def adapter(self, bare: Bare, state: State) -> AdapterPlan:
        """Return the plan of the slot `sum:<task>`."""
        return sum_plan(bare)
