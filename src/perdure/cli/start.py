"""The entry point of `perdure`. It imports next to nothing before a signal is answered in a line instead of a traceback."""

import os
import signal
from types import FrameType


def run() -> None:
    """Run the command that the arguments name, and end the process with its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    from perdure.cli.process import run_process

    run_process()


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped\n")
    os._exit(130)
