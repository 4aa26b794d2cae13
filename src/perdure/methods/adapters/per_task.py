"""An adapter of its own for each task, which no later task touches.

Source: the isolation baseline of the field, as in Wang et al., "Orthogonal Subspace Learning for Language Model Continual
Learning", EMNLP 2023 (per-task fine-tuning), with the adapter of Hu et al., 2022.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from perdure.core.errors import BadSpec
from perdure.core.plan import AdapterPlan, Bare, Factors, task_plan
from perdure.core.seams import Method, State
from perdure.core.slots import ROUTE, SKILL, isolated_tasks, measured_tasks, task_slot
from perdure.maths.low_rank import from_tensors
from perdure.maths.routing import Gaussian, Moments
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class PerTask(Method):
    """Train a fresh adapter, and keep it for this task alone.

    What lies under it is frozen, and is named again with the task: whatever is learned later, a request for the task goes through
    the very same weights. It forgets nothing where the task of a request is known (`predict --task`); a request without a task
    goes through what all tasks share. `revert TASK` takes it out as if it had never been learned.

    Seams: adapter. State: none; an adapter's weights for each task (9.8 MB at rank 8 on a model of 135M).
    Cost: none in training; with `start: nearest` a third of a forward per row, once. One adapter file a task to serve
    (`export --task`).
    When to use: the task of a request is known, tasks are unlike, or a task must be removable. Nothing is transferred between
    tasks that are learned this way, unless they start from a copy.
    Deviation: none; `start: shared` and `nearest` are ours.
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

    start: Literal["base", "shared", "nearest"] = Field(
        default="base",
        description="what its factors begin as: fresh ones, a copy of the adapter that all tasks share, or a copy of that of the "
        "nearest task",
    )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON, without `start` at its default, as before it existed."""
        fields = super().to_json()
        return {name: value for name, value in fields.items() if (name, value) != ("start", "base")}

    def adapter(self, bare: Bare, state: State) -> AdapterPlan:
        """Return the plan of the slot `task:<task>`; a task that is learned again goes on with its adapter.

        Raises:
            BadSpec: It is to start from the nearest task, and no router measured one; or, once the start is computed, the rank or
                the modules of the adapter to copy are not those of the settings.
        """
        plan = task_plan(bare, self.over)
        if plan.slot in bare.slots:
            return plan
        if self.start == "shared" and SKILL in bare.slots:
            beneath = tuple(name for name in plan.beneath if name != SKILL)
            return replace(plan, beneath=beneath, start=partial(_copy, bare, SKILL))
        if self.start == "nearest" and (known := _measured(bare)):
            return replace(plan, start=partial(_copy_of_nearest, bare, known))
        return plan


def _measured(bare: Bare) -> list[str]:
    """Return the tasks with an adapter of their own that the router knows, in order of their names.

    Raises:
        BadSpec: There are tasks with an adapter of their own, and the router knows none of them.
    """
    isolated = isolated_tasks(bare.slots)
    known = [task for task in measured_tasks(bare.slots, ROUTE) if task in isolated]
    if isolated and not known:
        raise BadSpec(
            f"per_task with start: nearest compares the rows of {bare.task} with those of tasks that a router measured, and it "
            f"measured none of {', '.join(isolated)}; learn tasks with color: {{}} in the recipe, or set "
            "methods.per_task.start=base"
        )
    return known


def _copy_of_nearest(bare: Bare, known: Sequence[str]) -> dict[str, Factors]:
    return _copy(bare, task_slot(nearest(bare, known)))


def nearest(bare: Bare, known: Sequence[str]) -> str:
    """Return the task of `known` that scores highest for the mean of the new rows' features; the first by name of equals."""
    moments = {task: Moments.from_tensors(bare.slots[measured_tasks(bare.slots, ROUTE)[task]]) for task in known}
    gaussian, (features, _) = Gaussian.of(moments), bare.features("new")
    return gaussian.tasks[int(gaussian.task_scores(features.mean(0, keepdim=True)).argmax())]


def _copy(bare: Bare, slot: str) -> dict[str, Factors]:
    """Return the factors of the adapter in a slot, with the scale of the settings.

    Raises:
        BadSpec: Its rank or its modules are not those of the settings.
    """
    rank, scale, copied = bare.settings.lora_r, bare.settings.lora_scale, from_tensors(bare.slots[slot])
    ranks = sorted({patch.rank for patch in copied.values()})
    if ranks != [rank] or copied.keys() != bare.shapes.keys():
        raise BadSpec(
            f"per_task is to start from the adapter in {slot}, of rank {', '.join(map(str, ranks))} on {len(copied)} modules, "
            f"and the settings want rank {rank} on {len(bare.shapes)}; set lora_r and lora_target_modules as they were, or "
            "methods.per_task.start=base"
        )
    return {
        module: Factors(patch.down, patch.up if patch.scale == scale else patch.up * (patch.scale / scale), copied=slot)
        for module, patch in copied.items()
    }
