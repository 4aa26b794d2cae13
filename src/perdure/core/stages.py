"""The stages of long work: the seconds of each, and how far the running one is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from perdure.core.clock import Clock
from perdure.core.progress import Tick

SILENT = 1.0  # seconds of a stage before which it shows nothing


class Stages:
    """Counts the seconds of stages, and shows the progress of those that take longer than a second.

    Args:
        clock: Has the seconds; a new one unless given.
        tick: Called with (what, done, total); None shows nothing.
    """

    def __init__(self, clock: Clock | None = None, tick: Tick | None = None):
        self.clock, self.tick = clock or Clock(), tick
        self._what, self._began = "", 0.0

    @contextmanager
    def stage(self, name: str, what: str = "") -> Iterator[None]:
        """Count the seconds inside as those of a stage.

        Args:
            name: The stage, by which its seconds are recorded.
            what: What is shown while it runs; "" shows nothing.
        """
        outer = self._what, self._began
        self._what, self._began = what, time.perf_counter()
        try:
            with self.clock.stage(name):
                yield
        finally:
            self._what, self._began = outer

    def show(self, done: int, total: int) -> None:
        """Show how far the running stage is."""
        if self.tick and self._what and time.perf_counter() - self._began >= SILENT:
            self.tick(self._what, done, total)
