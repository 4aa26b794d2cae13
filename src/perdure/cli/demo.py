"""`perdure demo`: the whole story on a small real model, in minutes."""

from pathlib import Path
from typing import Annotated

import typer

from perdure.cli.options import Device
from perdure.cli.output import print_message, print_text
from perdure.cli.progress import progress
from perdure.core.defaults import DEFAULT_RECIPE
from perdure.core.device import ANY


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to make.")] = Path("demo"),
    model: Annotated[str, typer.Option(help="Base model: a folder, a hub id, or the embedded one.")] = "smollm2-135m",
    device: Device = None,
) -> None:
    """Learn four customer-support product lines with the default recipe and with naive, roll back once, and write a report.

    Example: perdure demo --out demo
    """
    from perdure.report import write_report
    from perdure.workflows.bench.demo import demo as run
    from perdure.workflows.inspect.report_data import report_data

    with progress("fetching the model") as tick:
        done = run(out, model=model, device=device or ANY, say=print_text, tick=tick)
    contents = report_data(done.ours.ledger, {"naive": done.plain.ledger})
    write_report(contents, out / "report.html")
    print_message(f"report written to {out / 'report.html'}; look around with 'perdure log -w {out / DEFAULT_RECIPE}'")
