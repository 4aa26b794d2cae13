"""The two processes of `run_code`: a judge, which has the test, and a candidate, which has the program. Standard library alone.

`run_code` starts the judge with the text of this file, as `python -I -S -c`. The judge leaves the file system, gives up its
rights, and starts the candidate in the same way. The candidate never has the test or what the test expects: it gets calls with
arguments through a socket, and returns plain values. The judge alone can write the verdict, and the candidate cannot read its
memory.
"""

import builtins
import ctypes
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

NOBODY = 65534
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MNT_DETACH = 2
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 4, 24, 38
CAPABILITIES_V3 = 0x20080522
LOCKED = {
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "noatime": 1024,
    "nodiratime": 2048,
    "relatime": 1 << 21,
}
SYSTEM = ("/usr", "/lib", "/lib64", "/lib32")  # folders with the libraries of an interpreter, beside its own
LARGEST = 1 << 20  # bytes of one message of the candidate
FENCE = re.compile(r"```[^\n]*\n(.*?)(?:\n```|\Z)", re.DOTALL)


class Failed(BaseException):
    """The program does not pass; the message has the reason. No `except Exception` of a test catches it."""


class Refused(Exception):
    """The system does not allow the isolation; the message has the reason."""


def program_of(prompt: str, answer: str, entry_point: str) -> str:
    """Return the program of a prompt that is the beginning of a function, and an answer. The text is compiled, and not run.

    An answer in a fence (```), or one that defines the function itself, replaces the prompt; the prompt's lines of imports stay.
    Any other answer continues the prompt up to its first line that is not indented. An answer without its first indentation is
    indented by four spaces.
    """
    fenced = FENCE.search(answer)
    text = fenced[1] if fenced else answer
    if re.search(rf"^(async )?def {re.escape(entry_point)}\b", text, re.MULTILINE):
        imports = [line for line in prompt.splitlines() if line.startswith(("import ", "from "))]
        return "\n".join([*imports, text if fenced else _parsed_part(text)])
    lines = text.strip("\n").split("\n")
    rest = next((n for n, line in enumerate(lines) if n and line.strip() and not line[0].isspace()), len(lines))
    body = "\n".join(lines[:rest])
    gap = "" if prompt.endswith("\n") or not prompt else "\n"
    leads = [gap + "    ", "", gap] if body[:1].strip() else ["", gap]
    choices = [prompt + lead + body for lead in leads]
    return next((choice for choice in choices if _parses(choice)), choices[0])


def _parsed_part(text: str) -> str:
    """Return the longest beginning of a text, in lines, that is a program; models go on to talk."""
    lines = text.split("\n")
    return next(("\n".join(lines[:n]) for n in range(len(lines), 0, -1) if _parses("\n".join(lines[:n]))), text)


def _parses(text: str) -> bool:
    try:
        compile(text, "program", "exec")  # which runs nothing, and finds a return outside a function too
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def to_plain(value: Any) -> Any:
    """Return a value as JSON can hold it; only exact built-in types, so that no object with an `__eq__` of its own passes.

    Raises:
        TypeError: The value has another type.
    """
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        return {"float": repr(value)}
    if kind is complex:
        return {"complex": [repr(value.real), repr(value.imag)]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind in (list, tuple, set, frozenset):
        return {kind.__name__: [to_plain(item) for item in value]}
    if kind is dict:
        return {"dict": [[to_plain(key), to_plain(item)] for key, item in value.items()]}
    raise TypeError(f"a value of type {kind.__name__} is not passed between program and test; use built-in types")


def from_plain(data: Any) -> Any:
    """Return the value that `to_plain` wrote.

    Raises:
        ValueError, TypeError, AttributeError, KeyError: It did not write this.
    """
    if not isinstance(data, dict):
        return data
    ((kind, content),) = data.items()
    if kind == "float":
        return float(content)
    if kind == "complex":
        return complex(*map(float, content))
    if kind == "bytes":
        return bytes.fromhex(content)
    if kind == "dict":
        return {from_plain(key): from_plain(item) for key, item in content}
    makers: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
    return makers[kind](map(from_plain, content))


def candidate(channel: Any) -> None:
    """Run a program, and then answer the calls of its functions that come through a channel, one JSON text a line."""
    names: dict[str, Any] = {"__name__": "program"}
    for line in channel:
        job = json.loads(line)
        try:
            if "program" in job:
                exec(compile(job["program"], "program", "exec"), names)  # noqa: S102 (isolated; see the module)
                reply: dict[str, Any] = {"functions": [name for name, value in names.items() if callable(value)]}
            else:
                args, options = from_plain(job["args"]), from_plain(job["options"])
                reply = {"value": to_plain(names[job["call"]](*args, **options))}
        except BaseException as error:  # a program may raise anything, SystemExit too
            reply = {"raised": type(error).__name__, "text": str(error)[:200]}
        channel.write(json.dumps(reply).encode() + b"\n")
        channel.flush()


def judge(job: dict[str, Any], start: Callable[[], Any]) -> None:
    """Run the test of a program that the candidate runs.

    Args:
        job: "prompt", "answer", "test" and "entry_point".
        start: Starts a candidate, and returns the channel to it.

    Raises:
        Failed: The program cannot be run, or the test does not hold.
    """
    entry = job["entry_point"]
    channel = start()
    reply = _sent(channel, {"program": program_of(job["prompt"], job["answer"], entry)})
    if "raised" in reply:
        raise Failed(f"the program raised {reply['raised']}")
    functions = [name for name in reply.get("functions", ()) if isinstance(name, str)]
    if entry not in functions:
        raise Failed(f"the program has no function {entry}")
    names: dict[str, Any] = {name: _caller(channel, name) for name in functions if not name.startswith("__")}
    own = names[entry]
    names["__name__"] = "test"
    try:
        exec(compile(job["test"], "test", "exec"), names)  # noqa: S102 (the test of a row; isolated all the same)
        if names.get("check") is not None and "check" not in functions:
            names["check"](own)
    except Failed:
        raise
    except BaseException as error:
        raise Failed(f"the test raised {type(error).__name__}") from None


def _caller(channel: Any, name: str) -> Callable[..., Any]:
    """Return a function that calls the candidate's function `name`."""

    def call(*args: Any, **options: Any) -> Any:
        reply = _sent(channel, {"call": name, "args": to_plain(args), "options": to_plain(options)})
        if "raised" in reply:
            raise _error(str(reply["raised"]), str(reply.get("text")))
        try:
            return from_plain(reply["value"])
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            raise Failed("the program sent what is no value") from None

    return call


def _error(name: str, text: str) -> Exception:
    """Return an error of the program as the built-in one of this name, so that a test can expect it."""
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        with suppress(TypeError):  # UnicodeDecodeError takes five arguments
            return kind(text)
    return RuntimeError(name)


def _sent(channel: Any, message: dict[str, Any]) -> dict[str, Any]:
    """Send a message to the candidate and return its reply."""
    try:
        channel.write(json.dumps(message).encode() + b"\n")
        channel.flush()
        line = channel.readline(LARGEST)
        reply = json.loads(line)
    except (OSError, ValueError, RecursionError):
        raise Failed("the program ended, or sent what is no reply") from None
    if not isinstance(reply, dict):
        raise Failed("the program sent what is no reply")
    return reply


def _libc(name: str, *args: Any) -> None:
    """Call a function of the C library.

    Raises:
        Refused: It fails.
    """
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*args) != 0:
        raise Refused(f"{name}: {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    _libc("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


def _bind(path: str, root: str) -> None:
    """Show a folder below a new root, read only, with whatever is mounted in it."""
    target = root + path
    if os.path.islink(path):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.symlink(os.readlink(path), target)
        return
    os.makedirs(target, exist_ok=True)
    _mount(path, target, "", MS_BIND | MS_REC)
    for place, options in _mounts(target):
        locked = sum(flag for name, flag in LOCKED.items() if name in options)
        _mount("", place, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | locked)


def _mounts(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the options of each mount at or below a folder."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        lines = [line.split() for line in file]
    for fields in lines:
        place = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[4])
        if place == folder or place.startswith(folder + "/"):
            yield place, fields[5].split(",")


def leave_files(root: str, folders: list[str]) -> None:
    """Make `root` the whole file system: some folders read only, and an empty working folder of 4 MiB. No other file is there.

    Raises:
        Refused: The system does not allow it.
    """
    _mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for folder in folders:
        if os.path.lexists(folder) and not os.path.lexists(root + folder):
            _bind(folder, root)
    for name, mode in (("work", 0o777), ("old", 0o700)):
        os.mkdir(f"{root}/{name}")
        os.chmod(f"{root}/{name}", mode)
    _mount("tmpfs", f"{root}/work", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4m,mode=777")
    done = subprocess.run(["pivot_root", root, f"{root}/old"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(done.stderr.strip())
    os.chdir("/")
    _libc("umount2", b"/old", MNT_DETACH)
    os.rmdir("/old")
    _mount("", "/", "", MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir("/work")


def give_up_rights(*, root: bool) -> None:
    """Give up every capability and the way back to it, and root where the process is root outside its namespaces too.

    Raises:
        Refused: The system does not allow it.
    """
    number = 0
    while (
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, number, 0, 0, 0) == 0
    ):  # each there is; else a new program has them again
        number += 1
    if root:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    header = (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0)
    _libc("capset", header, (ctypes.c_uint32 * 6)())
    _libc("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def limit(limits: dict[str, int]) -> None:
    """Set limits of this process and those that it starts, by their names in `resource`."""
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))


def _starter(source: str, limits: dict[str, int], nothing: int) -> Callable[[], Any]:
    """Return what starts a candidate: a fresh interpreter, which has nothing of the judge but a channel.

    Args:
        source: Text of this file.
        limits: Limits of the candidate.
        nothing: The null device, open. With a stdout of the judge, a candidate would write the verdict.
    """

    def start() -> Any:
        mine, its = socket.socketpair()
        command = [sys.executable, "-I", "-S", "-c", source, "candidate", str(its.fileno()), json.dumps(limits)]
        subprocess.Popen(command, env={}, pass_fds=[its.fileno()], stdin=nothing, stdout=nothing, stderr=nothing)
        its.close()
        return mine.makefile("rwb")

    return start


def _end(*_: object) -> None:
    os._exit(1)  # without a verdict, which is one


def main(role: str, *args: str) -> None:
    """Be the candidate, or the judge, which reads its job from stdin and writes its verdict to stdout."""
    if role == "candidate":
        limit(json.loads(args[1]))
        candidate(socket.socket(fileno=int(args[0])).makefile("rwb"))
        return
    job = json.loads(sys.stdin.buffer.read())
    signal.signal(signal.SIGALRM, _end)  # the first process of a namespace gets no signal that it has no handler for
    signal.alarm(job["seconds"])
    nothing = os.open(os.devnull, os.O_RDWR)
    verdict = {"passed": True, "reason": ""}
    try:
        if job["isolated"]:
            if os.getpid() != 1:  # else a program could end every process of the user
                raise Refused("no namespace of processes")
            leave_files(job["folder"], job["folders"])
            give_up_rights(root=job["root"])
        _libc("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)  # no process of the same user reads or writes its memory
        limit({name: value for name, value in job["limits"].items() if name != "RLIMIT_NPROC"})
        judge(job, _starter(job["source"], job["limits"], nothing))
    except Failed as error:
        verdict = {"passed": False, "reason": str(error)}
    except (Refused, OSError) as error:
        verdict = {"refused": str(error)}
    os.write(1, json.dumps(verdict).encode())
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
