"""The seconds of a learn, summed over all processes that worked on it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class Clock:
    """The seconds of a learn, in this process and in earlier ones that it resumed from.

    Attributes:
        scored: Seconds of scoring, which the caller adds; training is counted separately.
        stages: Seconds of each stage without those of the stages inside it, in the order in which they began.
    """

    def __init__(self) -> None:
        self.scored, self.seconds, self.cpu_seconds = 0.0, 0.0, 0.0
        self.stages: dict[str, float] = {}
        self._open: list[str] = []  # the stages that are running, the innermost last
        self._turned = 0.0  # when the innermost one began or went on
        self.start()

    def start(self) -> None:
        """Start the clock for the training of this process."""
        self.began, self.computed = time.perf_counter(), time.process_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds inside as those of a stage; a stage around it does not count them."""
        self._turn()
        self._open.append(name)
        self.stages.setdefault(name, 0.0)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        """Add the seconds since the last turn to the innermost running stage."""
        now = time.perf_counter()
        if self._open:
            self.stages[self._open[-1]] += now - self._turned
        self._turned = now

    def read(self) -> dict[str, float]:
        """Return the wall time and the CPU time of training so far, in seconds, summed over processes."""
        return {
            "seconds": self.seconds + time.perf_counter() - self.began,
            "cpu_seconds": self.cpu_seconds + time.process_time() - self.computed,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the seconds as a checkpoint stores them."""
        self._turn()
        return {**self.read(), "scored": self.scored, "stages": dict(self.stages)}

    def go_on(self, spent: Mapping[str, Any]) -> None:
        """Add the seconds of earlier processes, as `to_json` returned them when the checkpoint was written."""
        self.seconds += spent.get("seconds", 0.0)
        self.cpu_seconds += spent.get("cpu_seconds", 0.0)
        self.scored += spent.get("scored", 0.0)
        for name, seconds in spent.get("stages", {}).items():
            self.stages[name] = self.stages.get(name, 0.0) + seconds
