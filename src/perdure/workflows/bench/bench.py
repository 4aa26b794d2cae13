"""Bench: recipes x seeds on a suite, each run in a process of its own, none of them twice."""

from collections.abc import Iterable, Sequence

from perdure.core.device import ANY
from perdure.core.errors import BadInput
from perdure.core.files import make_folder
from perdure.core.progress import Tick
from perdure.workflows.bench.guards import check_guards
from perdure.workflows.bench.jobs import Arm, Job, read_result
from perdure.workflows.bench.records import BenchResult, RunError
from perdure.workflows.bench.runner import BenchPlace, Runner
from perdure.workflows.bench.suite import Suite
from perdure.workflows.bench.suite_files import check_files, check_tasks


def bench(
    suite: Suite,
    arms: Sequence[Arm],
    seeds: Iterable[int],
    place: BenchPlace,
    *,
    tick: Tick | None = None,
) -> BenchResult:
    """Run what is not finished, seed by seed, and leave a JSON file for each run in OUT/<suite>/.

    A failed run leaves its error in its file and all it said beside it (.log); the others go on, and it is tried again
    next time.

    Args:
        suite: What is learned.
        arms: The recipes.
        seeds: Each arm runs with each.
        place: Where it runs.
        tick: Called with (what, tasks learned, of how many).

    Raises:
        BadInput: Two arms have one label, there is no such device, or a data file is missing (told only if something has to run).
    """
    out, device = place.out, place.device
    wanted = [Job(suite, arm, seed) for seed in dict.fromkeys(seeds) for arm in arms]
    if len({job.path(out) for job in wanted}) < len(wanted):
        raise BadInput(f"two arms have the same label: {[arm.label for arm in arms]}; name one as LABEL=RECIPE")
    missing = [job for job in wanted if not job.finished(read_result(job.path(out)))]
    if missing:
        if device != ANY:
            from perdure.bridges.models import choose_device

            choose_device(device)
        check_tasks(suite)
        check_files(suite, place.data)
        check_guards(suite, place.data)
        make_folder(out / suite.name)
    errors = Runner(place, tick, len(missing) * len(suite.tasks)).run(missing)
    begun = {job.name for job in missing}
    return BenchResult(
        ran=tuple(job.name for job in missing if job.name not in errors),
        kept=tuple(job.name for job in wanted if job.name not in begun),
        failed=tuple(RunError(name.arm, name.seed, error) for name, error in errors.items()),
    )
