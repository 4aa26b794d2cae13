"""Ctrl-C and SIGTERM as a wish to stop: the update in progress ends, a checkpoint is written, and the verb returns."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

CAUGHT = (signal.SIGINT, signal.SIGTERM)
_HEARD = [float("-inf")]  # when a handler last ran; signals belong to the whole process, and so does this


def heard() -> None:
    """Note that the main thread came to handle a signal."""
    _HEARD[0] = time.monotonic()


def heard_since(moment: float) -> bool:
    """Return whether the main thread handled a signal since `moment` (of `time.monotonic`)."""
    return _HEARD[0] >= moment


@contextmanager
def asked_to_stop() -> Iterator[Callable[[], str | None]]:
    """Yield a function that names the signal that came, or None; a second one interrupts at once.

    Outside the main thread signals cannot be caught, and the function returns None.
    """
    came: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def note(number: int, frame: FrameType | None) -> None:
        heard()
        if came:
            if callable(handler := before[signal.Signals(number)]):
                handler(number, frame)  # which knows when raising would do harm
            raise KeyboardInterrupt
        came.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in CAUGHT}
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
