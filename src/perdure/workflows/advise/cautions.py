"""What could make the advice wrong."""

from perdure.workflows.advise.candidates import Candidate
from perdure.workflows.advise.guidance import Needs
from perdure.workflows.advise.table import MeasuredSuite

FAR = 4.0  # a model this many times larger or smaller than the measured one may rank methods otherwise


def cautions(chosen: Candidate, needs: Needs, suite: MeasuredSuite | None) -> list[str]:
    """Return what could make the advice wrong."""
    texts = []
    if suite and needs.parameters and suite.parameters:
        times = needs.parameters / suite.parameters
        if not 1 / FAR <= times <= FAR:
            texts.append(f"measured on {suite.model}; a model {times:.2g} times its size may rank methods otherwise")
    isolated = "per_task" in chosen.methods
    if suite and needs.tasks and needs.tasks > 1.5 * suite.tasks:
        worse = "more is forgotten, and memory is spread thinner"
        if isolated:
            worse = "nothing more is forgotten" + (
                "" if needs.task_known else ", but more requests are sent to a wrong task"
            )
        texts.append(f"measured over {suite.tasks} tasks; over {needs.tasks} {worse}")
    if suite and needs.similarity in ("alike", "different") and suite.tasks_are != needs.similarity:
        texts.append(
            f"measured on tasks that are {suite.tasks_are}; on tasks that are {needs.similarity} too few recipes were "
            "measured to choose from them"
        )
    if needs.similarity == "different" and "lwf" in chosen.methods:
        texts.append(
            "LwF protects through the new rows, and the less they resemble the old ones the less it does (arXiv 1606.09282)"
        )
    if not needs.keep_rows:
        texts.append(
            "test rows stay in the workspace with their text, to score; of train rows it keeps hashes alone, to find leaks, "
            "unless it was made with --keep-rows all, or by an older perdure ('perdure memory prune' drops the text)"
        )
    if needs.time is not None and not (chosen.measured and chosen.measured.train_ratio):
        texts.append(
            "its training time relative to naive was not measured; 'perdure recipe explain' counts its forwards"
        )
    if isolated:
        texts.append(
            "an adapter is stored and served for each task; 'perdure merge --rank R' makes one of them, which loses accuracy"
        )
    if isolated and not needs.task_known and chosen.measured and chosen.measured.acc_routed is None:
        texts.append("it was measured with requests that name their task alone; a router makes mistakes besides")
    if needs.removable:
        texts.append(
            "'perdure revert TASK' takes a task out, 'perdure memory delete --task TASK' erases its rows, and 'perdure "
            "rollback' goes back to entries that still have it; `start: shared` and `start: nearest` of per_task copy weights of "
            "other tasks, which stay"
        )
    if needs.memory_mb is not None and not chosen.measured:
        texts.append(
            "its bytes were not measured, so the megabytes are no promise; 'perdure recipe explain' counts them"
        )
    return texts
