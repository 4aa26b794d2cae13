"""What rules a recipe out whatever its score."""

from perdure.core.slots import SKILL
from perdure.workflows.advise.candidates import Candidate
from perdure.workflows.advise.guidance import Needs
from perdure.workflows.learn.adapter import planned_adapter


def refusal(candidate: Candidate, needs: Needs) -> str | None:
    """Return why a recipe cannot be advised whatever its score; None where it can be."""
    settings, measured = candidate.recipe.settings, candidate.measured
    if settings.data == "all":
        return "it learns all tasks again each time, from all their rows: the upper bound, and no way to go on"
    if settings.train == "full":
        return "it trains and stores every weight of the model for each task: a baseline"
    if settings.train == "none":
        return "it trains nothing, and answers with labels alone: for single tasks of plain labels"
    if candidate.methods == ("per_task",) and not needs.task_known:
        return "each task has an adapter of its own and no router, so that a request must name its task"
    if needs.one_adapter and "per_task" in candidate.methods:
        return (
            "each task has an adapter of its own, and one is to serve all tasks; 'perdure merge --rank R' makes one of them, "
            "which loses accuracy"
        )
    if needs.removable and (why := _irremovable(candidate)):
        return why
    if candidate.recipe.remembers and not needs.rows_allowed:
        drawing = [method.name for method in candidate.recipe.drawing_from("replay")]
        return f"{', '.join(drawing) or 'it'} would store rows of older tasks"
    if needs.time is not None and measured and (ratio := measured.train_ratio) and ratio.value > needs.time:
        return f"training took {ratio.value:.2f} times as long as naive, and you allow {needs.time:g}"
    if needs.memory_mb is not None and measured and measured.state_bytes > 1e6 * needs.memory_mb:
        return f"the state of its methods takes {measured.state_bytes / 1e6:.1f} MB, and you allow {needs.memory_mb:g}"
    if rows_within(candidate, needs) == 0 and candidate.recipe.remembers:
        return "no row fits next to the state of its methods"
    return None


def _irremovable(candidate: Candidate) -> str | None:
    """Return why a task that was learned by a recipe cannot be taken out of head later; None where it can be."""
    plan = planned_adapter({}, candidate.recipe, "task", 0)
    if plan is None or plan.slot == SKILL:
        return "what a task learned is in weights that other tasks train further, so that no task can be taken out"
    if drawing := [method.name for method in candidate.recipe.drawing_from("replay")]:
        return (
            f"{', '.join(drawing)} trains other tasks on rows of a task, which stays in them when the task is taken out"
        )
    return None


def rows_within(candidate: Candidate, needs: Needs) -> int | None:
    """Return how many rows the memory budget holds; None where there is none, or where bytes a row were not measured."""
    limits = [] if needs.memory_rows is None else [needs.memory_rows]
    measured = candidate.measured
    if needs.memory_mb is not None and measured and measured.memory_rows:
        each = measured.memory_bytes / measured.memory_rows
        limits.append(max(0, int((1e6 * needs.memory_mb - measured.state_bytes) / each)))
    return min(limits, default=None)
