"""Limits on code that others wrote, such as a model's chat template: seconds and memory."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

try:
    import resource
except ImportError:  # Windows does not have this module
    resource = None  # type: ignore[assignment]

PAGES = "/proc/self/statm"  # its first number: pages of memory that the process has allocated


class TooLong(Exception):
    """The time limit is exceeded. It never leaves the function that set the limit."""


@contextmanager
def at_most(seconds: float, memory: int) -> Iterator[None]:
    """Raise `TooLong` inside after `seconds`, and MemoryError where more than `memory` further bytes are allocated.

    Only the main thread of a Unix system is limited, and memory only on Linux. An outer timer that ends earlier is respected.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        raise TooLong

    left, interval = signal.getitimer(signal.ITIMER_REAL)
    if 0 < left <= seconds:
        yield
        return
    began, before = time.monotonic(), signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        with _bounded(memory):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-6), interval)


@contextmanager
def _bounded(memory: int) -> Iterator[None]:
    try:
        with open(PAGES, encoding="ascii") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (OSError, ValueError, AttributeError):
        yield
        return
    limit = used + memory
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
