"""Programs that a model wrote, and their tests: passed or not, in processes of their own, never in this one.

A program is code that nobody has read. It runs only where the user demands it (`--run-code`), on Linux, without network, without
the user's files, with limits, in processes that end with it. A program that tries anything else did not pass.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perdure.core.errors import BadInput
from perdure.core.rows import Row
from perdure.data.programs import PROGRAM
from perdure.evaluate import program_child

RunCode = Literal["no", "isolated", "unsafe"]
"""Whether programs run: never; in namespaces of their own; or with limits alone, where the system allows no namespaces."""

SECONDS = 5  # of processor, of each process
WALL = 10  # seconds until everything is ended
LIMITS = {
    "RLIMIT_CPU": SECONDS,
    "RLIMIT_AS": 512 << 20,
    "RLIMIT_FSIZE": 1 << 20,
    "RLIMIT_NOFILE": 64,
    "RLIMIT_CORE": 0,
    "RLIMIT_NPROC": 16,
}
SPACES = ("--net", "--pid", "--fork", "--mount", "--ipc", "--uts", "--kill-child")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    Args:
        passed: Whether its test held.
        reason: Why it did not; empty where it did.
    """

    passed: bool
    reason: str = ""


def program_outcome(row: Row, answer: str, run_code: RunCode) -> Outcome:
    """Return whether a row's test holds for an answer.

    Args:
        row: A row with a check `PROGRAM`. Its prompt is the beginning of a function; after a conversation, the answer is a whole
            function.
        answer: What the model answered.
        run_code: As in `run_program`.

    Raises:
        BadInput: The row has no test, or programs may not run; see `run_program`.
    """
    test = next((check.given for check in row.checks if check.kind == PROGRAM), None)
    if test is None:
        raise BadInput(f"{row.source or 'a row'} has no test; scorer 'programs' needs rows of the format programs")
    return run_program(row.prompt, answer, test["test"], test["entry_point"], run_code)


def not_run(name: str) -> str:
    """Return the notice of a task or guard that is not scored, as its programs may not run."""
    return f"{name} is not scored: answers to it are programs, which run only where you demand it (--run-code)"


def check_run_code(run_code: RunCode) -> None:
    """Run two small programs, of which one is right, as others will be run.

    Raises:
        BadInput: Programs may not run, or cannot run here in that way; the message has the reason.
    """
    right, wrong = (
        run_program("def two():\n", f"    return {n}", "assert two() == 2", "two", run_code) for n in (2, 3)
    )
    if not right.passed or wrong.passed:
        raise BadInput(f"programs cannot be run here: a right program was judged {right}, a wrong one {wrong}")


def run_program(prompt: str, answer: str, test: str, entry_point: str, run_code: RunCode) -> Outcome:
    """Return whether the test of a program holds.

    The program has a process of its own, and so has the test, so that a program reads nothing of its test and forges no verdict:
    what passes between them are arguments and return values of built-in types. Limits: 5 s of processor, 512 MiB and files of
    1 MiB a process, 16 processes, 10 s in all; an empty working folder of 4 MiB, which is removed; no environment.

    Args:
        prompt: Beginning of a function.
        answer: What the model wrote after it; see `program_child.program_of`.
        test: Statements that raise where a program is wrong; or they define `check`, which is called with the function.
        entry_point: Name of the function.
        run_code: "isolated" demands namespaces for network, processes and files; "unsafe" does without them: such a program can
            read, write and send whatever the user can, and end all processes of the user. Root is refused.

    Returns:
        The outcome. A program that breaks a limit, ends its process or writes anything else did not pass.

    Raises:
        BadInput: Programs may not run, or not in this way on this system.

    Cost: two interpreters, about .1 s.
    Source: Chen et al., "Evaluating Large Language Models Trained on Code", 2021, for prompt, test and entry point.
    Deviation: The test gets copies of return values of built-in types, and the program copies of arguments.
    """
    if run_code == "no":
        raise BadInput("programs that a model writes run only where you demand it: --run-code")
    if sys.platform != "linux":
        raise BadInput("programs run on Linux alone, which can limit them; leave --run-code out")
    root = os.geteuid() == 0
    if root and run_code == "unsafe":
        raise BadInput(
            "programs of a model are not run as root without namespaces, where one line can end every process of the machine; "
            "run perdure as another user, or with --run-code alone"
        )
    source = Path(program_child.__file__).read_text(encoding="utf-8")
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    command = [python, "-I", "-S", "-c", source, "judge"]
    if run_code == "isolated":
        command = [_unshare(), *([] if root else ["--user", "--map-root-user"]), *SPACES, "--", *command]
    job = {
        "prompt": prompt,
        "answer": answer,
        "test": test,
        "entry_point": entry_point,
        "source": source,
        "isolated": run_code == "isolated",
        "root": root,
        "folders": [*program_child.SYSTEM, os.path.realpath(sys.base_prefix)],
        "limits": LIMITS,
        "seconds": WALL,
    }
    folder = tempfile.mkdtemp(prefix="perdure-program-")
    try:
        written, errors = _run(command, json.dumps({**job, "folder": folder}), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _outcome(written, errors)


def _unshare() -> str:
    found = shutil.which("unshare", path=PATH)
    if found is None or shutil.which("pivot_root", path=PATH) is None:
        raise BadInput(
            "programs cannot be isolated here, as unshare and pivot_root are missing; install util-linux, or accept that "
            "programs of a model read, write and end all that you can: --run-code=unsafe"
        )
    return found


def _run(command: list[str], job: str, folder: str) -> tuple[bytes, bytes]:
    """Return what the judge writes to stdout and stderr; it and what it started have ended."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={"PATH": PATH},
        start_new_session=True,
    )
    try:
        return process.communicate(job.encode(), timeout=WALL + 2)
    except subprocess.TimeoutExpired:
        return b"", b""
    finally:
        with suppress(ProcessLookupError):  # a group of which nothing is left
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


def _outcome(written: bytes, errors: bytes) -> Outcome:
    """Return the outcome that a judge wrote.

    Raises:
        BadInput: It could not be isolated.
    """
    try:
        verdict = json.loads(written)
    except ValueError:
        if b"unshare: " in errors.partition(b"\n")[0]:
            verdict = {"refused": errors.decode(errors="replace").strip()}
        else:
            return Outcome(False, "it ran out of time")
    if "refused" in verdict:
        raise BadInput(
            f"programs cannot be isolated here ({verdict['refused']}); run perdure where namespaces are allowed, or accept that "
            "programs of a model read, write and end all that you can: --run-code=unsafe"
        )
    return Outcome(bool(verdict["passed"]), str(verdict["reason"]))
