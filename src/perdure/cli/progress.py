"""Progress on stderr: a bar on a terminal, else plain lines, few enough for a log file."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from perdure.cli.output import print_message
from perdure.core.plain_text import visible
from perdure.core.progress import Tick

EVERY = 5.0  # seconds between plain lines of one phase


def progress(first: str) -> AbstractContextManager[Tick]:
    """Show work while the context is open; call what it gives as the work goes on.

    A new phase begins when the part of `what` before the first comma changes; the rest of it may change with each call.

    Args:
        first: What is done before the first call.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one bar is enough, and none in a log file
    return _bar(first) if sys.stderr.isatty() else _lines(first)


@contextmanager
def late_progress(first: str) -> Iterator[Tick]:
    """Show work as `progress` does, and nothing unless there is some."""
    with ExitStack() as stack:
        shown: list[Tick] = []

        def tick(what: str, done: int, total: int) -> None:
            if not shown:
                shown.append(stack.enter_context(progress(first)))
            shown[0](what, done, total)

        yield tick


@contextmanager
def _bar(first: str) -> Iterator[Tick]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task, phase = bar.add_task(first, total=None), first

        def tick(what: str, done: int, total: int) -> None:
            nonlocal phase
            what = visible(what)
            if phase != (phase := _phase(what)):
                bar.reset(task, total=total, completed=done, description=what)
            bar.update(task, total=total, completed=done, description=what)

        yield tick


@contextmanager
def _lines(first: str) -> Iterator[Tick]:
    phase, began, start, printed = first, 0.0, 0, 0.0
    print_message(first)

    def tick(what: str, done: int, total: int) -> None:
        nonlocal phase, began, start, printed
        now = time.monotonic()
        if phase != (phase := _phase(what)):
            began, start, printed = now, done, now
            print_message(f"{what}: {done} of {total}")
        elif now - printed >= EVERY and done > start:
            printed = now
            left = (now - began) / (done - start) * (total - done)
            print_message(f"{what}: {done} of {total}, {left:,.0f} s left")

    yield tick


def _phase(what: str) -> str:
    return what.partition(",")[0]
