"""An adapter of its own for each task, which no later task touches.

Source: the isolation baseline of the field, as in Wang et al., "Orthogonal Subspace Learning for Language Model Continual
Learning", EMNLP 2023 (per-task fine-tuning), with the adapter of Hu et al., 2022.
"""

from typing import ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from perdure.core.plan import AdapterPlan, Bare, task_plan
from perdure.core.seams import Method, State
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class PerTask(Method):
    """Train a fresh adapter, and keep it for this task alone.

    What lies under it is frozen, and is named again with the task: whatever is learned later, a request for the task goes through
    the very same weights. It forgets nothing where the task of a request is known (`predict --task`); a request without a task
    goes through what all tasks share. `revert TASK` takes it out as if it had never been learned.

    Seams: adapter. State: none; an adapter's weights for each task (9.8 MB at rank 8 on a model of 135M).
    Cost: none in training. One adapter file a task to serve (`export --task`).
    When to use: the task of a request is known, tasks are unlike, or a task must be removable. Nothing is transferred between
    tasks that are learned this way.
    Deviation: none.
    """

    name: ClassVar[str] = "per_task"
    family: ClassVar[str] = "adapters"
    seams: ClassVar[tuple[str, ...]] = ("adapter",)
    source: ClassVar[str] = "Wang et al. 2023, arXiv 2310.14152 (baseline); Hu et al. 2022, arXiv 2106.09685"
    carries: ClassVar[bool] = False

    over: Literal["shared", "base"] = Field(
        default="shared",
        description="what lies frozen under it: what all tasks share at that time, or the base model alone",
    )

    def adapter(self, bare: Bare, state: State) -> AdapterPlan:
        """Return the plan of the slot `task:<task>`; a task that is learned again goes on with its adapter."""
        return task_plan(bare, self.over)
