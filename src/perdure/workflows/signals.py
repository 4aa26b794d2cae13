"""Ctrl-C and SIGTERM as a wish to stop: the update in progress ends, a checkpoint is written, and the verb returns."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

CAUGHT = (signal.SIGINT, signal.SIGTERM)
TERMINATED = (signal.SIGTERM,)  # arguments of the KeyboardInterrupt that SIGTERM raises; Ctrl-C's has none
_UNHEARD: list[socket.socket] = []  # what the system writes a byte into for each signal; one a process, as signals are


def unheard() -> socket.socket:
    """Return a socket that holds the numbers of the signals that came and that no handler of ours has taken up yet."""
    if not _UNHEARD:
        _UNHEARD.extend(socket.socketpair())
        for end in _UNHEARD:
            end.setblocking(False)
        signal.set_wakeup_fd(_UNHEARD[1].fileno(), warn_on_full_buffer=False)  # written whatever the main thread does
    return _UNHEARD[0]


def heard() -> None:
    """Note that the main thread came to handle the signals until now."""
    with suppress(BlockingIOError):
        for reader in _UNHEARD[:1]:
            reader.recv(4096)


@contextmanager
def stop_signal() -> Iterator[Callable[[], str | None]]:
    """Yield a function that returns the name of the signal that came, or None. A second signal interrupts at once.

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
