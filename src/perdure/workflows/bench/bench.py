"""Bench: recipes x seeds on a suite, each run in a process of its own, none of them twice."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from perdure.core.device import ANY
from perdure.core.errors import BadInput
from perdure.core.files import make_folder
from perdure.core.progress import Tick
from perdure.workflows.bench.jobs import Arm, Job, Json, read_result
from perdure.workflows.bench.runner import Runner
from perdure.workflows.bench.suite import Suite
from perdure.workflows.bench.suite_files import check_files, check_tasks


def bench(
    suite: Suite,
    arms: Sequence[Arm],
    seeds: Iterable[int],
    *,
    data: Path,
    out: Path,
    workers: int = 1,
    device: str = ANY,
    tick: Tick | None = None,
) -> Json:
    """Run what is not finished, seed by seed, and leave a JSON file for each run in OUT/<suite>/.

    A failed run leaves its error in its file and all it said beside it (.log); the others go on, and it is tried again
    next time.

    Args:
        suite: What is learned.
        arms: The recipes.
        seeds: Each arm runs with each.
        data: Folder of the data files.
        out: Folder of results.
        workers: Processes at once; more than one makes each single-threaded.
        device: Where models are loaded; a suite of features runs on the CPU.
        tick: Called with (what, tasks learned, of how many).

    Returns:
        Labels and seeds of the runs: "ran", "kept" (finished before) and "failed".

    Raises:
        BadInput: Two arms have one label, there is no such device, or a data file is missing (told only if something has to run).
    """
    wanted = [Job(suite, arm, seed) for seed in dict.fromkeys(seeds) for arm in arms]
    if len({job.path(out) for job in wanted}) < len(wanted):
        raise BadInput(f"two arms have the same label: {[arm.label for arm in arms]}; name one as LABEL=RECIPE")
    missing = [job for job in wanted if not job.finished(read_result(job.path(out)))]
    if missing:
        check_tasks(suite)
        check_files(suite, data)
        if device != ANY:
            from perdure.bridges.models import choose_device

            choose_device(device)
        make_folder(out / suite.name)
    errors = Runner(data.resolve(), out, workers, tick, len(missing) * len(suite.tasks), device).run(missing)
    begun = {job.name for job in missing}
    return {
        "ran": [job.told for job in missing if job.name not in errors],
        "kept": [job.told for job in wanted if job.name not in begun],
        "failed": [{**job.told, "error": errors[job.name]} for job in missing if job.name in errors],
    }
