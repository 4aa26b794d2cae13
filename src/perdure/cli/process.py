"""How the process of a command begins and ends: streams, signals, variables of launchers, and the exit code."""

import atexit
import os
import select
import signal
import socket
import sys
import threading
import time
from types import FrameType

from perdure.core.errors import Interrupted
from perdure.core.launcher import forget_launcher
from perdure.workflows import signals

GRACE = 5.0  # seconds that one call outside Python may go on after a signal
STOPPED = Interrupted.exit_code


def run_process() -> None:
    """Run the command line. SIGTERM counts as Ctrl-C, so that whatever it interrupts is cleaned up and exits with 130."""
    _open_streams()
    _catch_signals()
    if not os.environ.get("COLUMNS", "80").isdecimal() or not 40 <= int(os.environ.get("COLUMNS", "80")) <= 1000:
        del os.environ["COLUMNS"]  # tables and help would be cut to nothing, or be padded to gigabytes
    if ignored := forget_launcher():
        names = f"{', '.join(ignored[:4])}{' and others' if len(ignored) > 4 else ''}"
        _print_message(f"notice: perdure runs as one process, and ignores variables of a launcher of several: {names}")
    _leave(_exit_code())


def _exit_code() -> int:
    """Run the command that the arguments name; what it raises without an exit code is printed as Python prints it."""
    try:
        from perdure.cli.main import app

        app()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        _print_message(str(end.code))
        return 1
    except KeyboardInterrupt:
        _print_message("stopped")
        return STOPPED
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _open_streams() -> None:
    """Make stdin, stdout and stderr usable where the caller closed them, and in encodings that lack a character.

    A closed descriptor is taken by /dev/null: else the next file that is opened, such as the ledger, would be stdout.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (open until the process ends)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _catch_signals() -> None:
    """Let SIGINT and SIGTERM interrupt the command; where the main thread does not come back to Python, end the process."""
    for number in signals.CAUGHT:
        signal.signal(number, _interrupt)
    threading.Thread(target=_end_if_deaf, args=(signals.unheard(),), name="signals", daemon=True).start()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, unless a library is being imported: raised through its C++ code it would abort the process."""
    signals.heard()
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            _end_now()
        frame = frame.f_back
    raise KeyboardInterrupt(*(signals.TERMINATED if number == signal.SIGTERM else ()))


def _end_if_deaf(unheard: socket.socket) -> None:
    """End the process when a signal stays unheard for GRACE seconds; those that are not ours are dropped."""
    while True:
        select.select([unheard], [], [])
        since = time.monotonic()
        while came := _peek(unheard):
            if not set(came) & set(signals.CAUGHT):
                unheard.recv(len(came))
            elif time.monotonic() - since > GRACE:
                _end_now()
            time.sleep(0.05)


def _peek(unheard: socket.socket) -> bytes:
    try:
        return unheard.recv(4096, socket.MSG_PEEK)
    except BlockingIOError:
        return b""


def _end_now() -> None:
    """End the process from wherever it is. What it was writing stays aside or in a transaction, as after a kill."""
    show_cursor = "\r\x1b[?25h" if os.isatty(2) else ""  # a progress bar hides it
    _print_message(f"{show_cursor}stopped")
    os._exit(STOPPED)


def _print_message(text: str) -> None:
    """Write a line on stderr without anything that an interrupted import or print may have locked."""
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:  # nobody listens
        return


def _leave(code: int) -> None:
    """End the process as Python does, but for the unloading of libraries: threads that they started abort it now and then."""
    if code != STOPPED:
        for thread in threading.enumerate():
            if not thread.daemon and thread is not threading.main_thread():
                thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # whoever read it went away, or it is closed
            code = code or 1
    os._exit(code)
