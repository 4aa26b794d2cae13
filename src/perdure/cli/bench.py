"""`perdure bench`: recipes x seeds on a suite of tasks."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.names import recipes, suites
from perdure.cli.options import AsJson, Device, Force, WarningCommand
from perdure.cli.output import counted, emit, print_message, print_text, warn
from perdure.cli.progress import progress
from perdure.core.defaults import DEFAULT_RECIPE
from perdure.core.device import ANY
from perdure.core.errors import BadInput

if TYPE_CHECKING:
    from perdure.workflows.bench.records import RunError

RECIPES = ["naive", "replay", DEFAULT_RECIPE]


class Lists(WarningCommand):
    """A command whose repeatable options take several values at once: `--seeds 0 1 2` is `--seeds 0 --seeds 1 --seeds 2`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Write each value with its option before it, and parse that."""
        many = {name for p in self.params if getattr(p, "multiple", False) for name in p.opts}
        spread: list[str] = []
        option, fresh = None, False  # the repeatable option in force, and whether its first value is still to come
        for word in args:
            if word.startswith("-"):
                option, fresh = word if word in many else None, True
            elif option and not fresh:
                spread.append(option)
            else:
                fresh = False
            spread.append(word)
        return super().parse_args(ctx, spread)


def bench(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            autocompletion=suites,
            help="Suite: clinc3, clinc3_instruct, clinc5, clinc5_drift, clinc5_guards, clinc5_instruct, clinc5_instruct_guards, "
            "clinc5_made_guards, clinc10, clinc20, clinc50, digits5, gen6, gen6_guards, olora4, olora15, "
            "olora15_reversed, trace6, trace6_guards, or a YAML file.",
        ),
    ],
    recipes: Annotated[
        list[str] | None,
        typer.Option(
            "--recipes",
            metavar="ARM...",
            autocompletion=recipes,
            show_default=" ".join(RECIPES),
            help="Recipe to compare: [LABEL=]RECIPE[:KEY=VALUE,...], RECIPE a name or a YAML file.",
        ),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(
            "--seeds", min=0, metavar="N...", show_default="0", help="Seeds; each recipe runs with each seed."
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", envvar="PERDURE_DATA", help="Folder of the data files.")
    ] = Path(),
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Results go to DIR/SUITE/.")] = Path("bench"),
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Runs at the same time; above 1, each has one thread.")
    ] = 1,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="ARM", show_default="naive", help="Recipe that the others are compared with."
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            help="Keep each run's workspace in DIR, and score the guards of one that is there without learning it again.",
        ),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Only write the table of existing results.")] = False,
    device: Device = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Run recipes with seeds on a suite, each run in its own process, and write JSON results, table.md and table.html.

    A run that is finished is not repeated; a failed one is tried again. Shipped suites: see docs/how-to/benchmark.md.

    Example: perdure bench clinc5 --recipes naive lora_mlp --seeds 0 1 2
    """
    from perdure.core.files import make_folder
    from perdure.core.outputs import BENCH_PAGE, BENCH_TABLE, check_output, write_output
    from perdure.core.recipe import nearest
    from perdure.report.bench_table import markdown, page
    from perdure.workflows.bench.bench import bench as run
    from perdure.workflows.bench.compare import BASELINE, compare
    from perdure.workflows.bench.jobs import read_arm, results
    from perdure.workflows.bench.runner import BenchPlace
    from perdure.workflows.bench.suite_files import load_suite

    if table and (recipes or seeds):
        warn("--table runs nothing, and shows every arm and seed; --recipes and --seeds are not used")
    chosen = load_suite(suite)
    failed: Sequence[RunError] = ()
    arms = [] if table else [read_arm(text, chosen.settings) for text in recipes or RECIPES]
    if against is not None:
        known = {result.arm for result in results(chosen, out)[0]} | {arm.label for arm in arms}
        if against not in known:
            raise BadInput(f"--against: no arm {against!r}{nearest(against, sorted(known))}")
    folder = out / chosen.name
    for name, kind in (("table.md", BENCH_TABLE), ("table.html", BENCH_PAGE)) if folder.is_dir() else ():
        check_output(folder / name, kind, force=force)
    if not table:
        with progress(f"suite {chosen.name}") as tick:
            done = run(chosen, arms, seeds or [0], BenchPlace(data, out, jobs, device or ANY, keep), tick=tick)
        failed = done.failed
        print_message(f"{len(done.ran)} run, {len(done.kept)} finished before, {len(failed)} failed")
    runs, older = results(chosen, out)
    comparison = compare(runs, against or BASELINE)
    make_folder(folder)
    write_output(folder / "table.md", markdown(comparison), BENCH_TABLE, force=force)
    write_output(folder / "table.html", page(chosen.name, chosen.about, comparison, runs), BENCH_PAGE, force=force)
    if older:
        print_message(f"of another version of this suite, and left out: {counted(older, 'result')} in {folder}")
    print_message(f"table written to {folder / 'table.md'} and {folder / 'table.html'}")
    emit(comparison.to_json()) if as_json else print_text(markdown(comparison), nl=False)
    for one in failed:
        print_message(f"failed: {one.arm} seed {one.seed}: {one.error}", fg=typer.colors.RED)
    if failed:
        raise typer.Exit(1)
