"""The seconds of a learn, summed over all processes that worked on it."""

import time
from collections.abc import Mapping


class Clock:
    """The seconds of a learn, in this process and in earlier ones that it resumed from.

    Attributes:
        scored: Seconds of scoring, which the caller adds; training is counted separately.
    """

    def __init__(self) -> None:
        self.scored, self.seconds, self.cpu_seconds = 0.0, 0.0, 0.0
        self.start()

    def start(self) -> None:
        """Start the clock for the training of this process."""
        self.began, self.computed = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Return the wall time and the CPU time of training so far, in seconds, summed over processes."""
        return {
            "seconds": self.seconds + time.perf_counter() - self.began,
            "cpu_seconds": self.cpu_seconds + time.process_time() - self.computed,
        }

    def to_json(self) -> dict[str, float]:
        """Return the seconds as a checkpoint stores them."""
        return {**self.read(), "scored": self.scored}

    def go_on(self, spent: Mapping[str, float]) -> None:
        """Add the seconds of earlier processes, as `to_json` returned them when the checkpoint was written."""
        self.seconds += spent.get("seconds", 0.0)
        self.cpu_seconds += spent.get("cpu_seconds", 0.0)
        self.scored += spent.get("scored", 0.0)
