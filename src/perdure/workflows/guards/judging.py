"""Judges that are asked over a network or a pipe: an OpenAI-style chat endpoint, or a command of JSON lines."""

import json
import os
import queue
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urldefrag, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from perdure.core.errors import BadInput
from perdure.core.plain_text import clipped, quoted, visible
from perdure.core.rows import Row
from perdure.evaluate.judge import Ask, Judged, Pair, judge
from perdure.ledger.records import Score
from perdure.workflows.guards.drift import question_of

WAIT = 120.0  # seconds for one reply
TRIES = 3  # of a request that a server was too busy for
PAUSE = 2.0  # seconds before the second try; the third waits twice as long
KEY = "PERDURE_JUDGE_KEY"  # environment variable with the key of an endpoint
FILE = "judged.jsonl"  # in the workspace: a line a verdict, of hashes and not of texts
BUSY = (429, 500, 502, 503, 504)


def judge_answers(
    pairs: Sequence[Pair],
    where: str,
    root: Path,
    *,
    wait: float = WAIT,
    tick: Callable[[int], None] | None = None,
) -> Judged:
    """Let a judge compare pairs of answers; verdicts are stored in the workspace, and none is asked for twice.

    Args:
        pairs: The pairs.
        where: `http(s)://HOST/v1#MODEL` of an OpenAI-style chat endpoint, or a command; see `judge_at`.
        root: Folder of the workspace.
        wait: Seconds for one reply.
        tick: Called with the number of pairs done.

    Raises:
        BadInput: The judge cannot be reached, does not reply in time, or gives no verdict; what was judged is stored.
    """
    with judge_at(where, wait) as ask:
        return judge(pairs, ask, name=where, known=StoredVerdicts(root / FILE), tick=tick)


@contextmanager
def judge_at(where: str, wait: float = WAIT) -> Iterator[Ask]:
    """Yield the function that sends a request to a judge and returns its reply.

    An endpoint gets `{"messages": [{"role": "user", "content": ...}], "temperature": 0}` and the model after "#", and the key in
    PERDURE_JUDGE_KEY. A command is started at the first request, without a shell; it reads `{"prompt": ...}` a line and writes
    `{"reply": ...}` a line.

    Raises:
        BadInput: `where` is empty or no address. Sending raises it where no reply comes in time.
    """
    if not where.strip():
        raise BadInput("no judge is named; give the address of an endpoint (http://HOST/v1#MODEL), or a command")
    if "://" in where.split()[0]:
        yield _endpoint(where.strip(), wait)
        return
    command = _Command(where, wait)
    try:
        yield command
    finally:
        command.close()


def pairs_of(rows: Sequence[Row], before: Score, now: Score) -> list[Pair]:
    """Return the answers of two states to the rows of a guard, as pairs for a judge.

    Args:
        rows: The rows of both scores, in their order.
        before: The score of the reference.
        now: The score now.
    """
    answers = zip(rows, before.predictions, now.predictions, strict=True)
    return [Pair(question_of(row), then, present) for row, then, present in answers]


class StoredVerdicts(MutableMapping[str, str]):
    """Verdicts by key in a file of JSON lines, each written when it is known. A last line that was cut off is left out.

    Args:
        path: The file; it need not exist.

    Raises:
        BadInput: A line in the middle is none of its lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, str] = {}
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        self._torn = bool(lines and lines[-1])  # by a process that was killed: the next line must not continue it
        for number, line in enumerate(lines, start=1):
            try:
                self._known |= {str(key): str(word) for key, word in json.loads(line).items()} if line else {}
            except (ValueError, AttributeError) as error:
                if number < len(lines):
                    raise BadInput(f"{path}, line {number} is no verdict; delete the line") from error

    def __getitem__(self, key: str) -> str:
        return self._known[key]

    def __setitem__(self, key: str, word: str) -> None:
        self._known[key] = word
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if self._torn else "") + json.dumps({key: word}) + "\n")
        self._torn = False

    def __delitem__(self, key: str) -> None:
        raise TypeError("verdicts are never deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


class _SamePlace(HTTPRedirectHandler):
    """Refuses redirections, which would carry the key and the texts to another place."""

    def redirect_request(self, *given: Any, **more: Any) -> None:
        return None


def _endpoint(where: str, wait: float) -> Ask:
    """Return the function that asks an OpenAI-style chat endpoint."""
    address, model = urldefrag(where)
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise BadInput(
            f"the judge {quoted(where)} is no address of an endpoint; write http://HOST/v1#MODEL or https://..."
        )
    if parts.username or parts.password:
        raise BadInput(
            f"the address of the judge holds a password; give the key in the environment variable {KEY} instead"
        )
    url = address.rstrip("/")
    url = url if url.endswith("/chat/completions") else f"{url}/chat/completions"
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {key}"
    opener = build_opener(_SamePlace)

    def ask(request: str) -> str:
        body = {
            "messages": [{"role": "user", "content": request}],
            "temperature": 0,
            **({"model": model} if model else {}),
        }
        sent = Request(url, json.dumps(body).encode(), headers)  # noqa: S310  # the scheme was checked above
        return _reply_in(_sent(opener.open, sent, url, wait), url)

    return ask


def _sent(send: Callable[..., Any], request: Request, url: str, wait: float) -> bytes:
    """Return the body of an endpoint's response; a server that is busy is asked again."""
    for number in range(1, TRIES + 1):
        try:
            with send(request, timeout=wait) as response:
                body: bytes = response.read()
                return body
        except HTTPError as error:
            told = visible(clipped(error.read().decode("utf-8", "replace"), 200))
            if error.code not in BUSY or number == TRIES:
                refusal = f"the judge at {url} refused a request ({error.code} {error.reason}: {told})"
                raise BadInput(refusal + _advice(error.code)) from error
            time.sleep(PAUSE * number)
        except TimeoutError as error:
            raise BadInput(f"the judge at {url} gave no reply in {wait:g} s{_GO_ON}") from error
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise BadInput(f"the judge at {url} gave no reply in {wait:g} s{_GO_ON}") from error
            raise BadInput(
                f"the judge at {url} cannot be reached ({reason}); start it, or correct the address"
            ) from error
    raise AssertionError("the last try returns or raises")


_GO_ON = "; see whether it works on requests at all, then run this again: verdicts so far are stored"


def _advice(code: int) -> str:
    if code in (401, 403):
        return f"; give its key in the environment variable {KEY}"
    if code in (400, 404, 422):
        return "; write the address up to /v1 and the model after '#': http://HOST/v1#MODEL"
    return _GO_ON if code in BUSY else "; correct the address"


def _reply_in(body: bytes, url: str) -> str:
    """Return the text of the reply in an endpoint's response."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        told = visible(clipped(body.decode("utf-8", "replace"), 200))
        raise BadInput(
            f"the judge at {url} sent {quoted(told)}, which is no response of an OpenAI-style chat endpoint; correct the address"
        ) from error
    return content if isinstance(content, str) else ""


class _Command:
    """A judge that is a process: it reads and writes JSON lines.

    Args:
        command: The command with its arguments.
        wait: Seconds for one reply.
    """

    def __init__(self, command: str, wait: float) -> None:
        try:
            self.parts = shlex.split(command)
        except ValueError as error:
            raise BadInput(f"the judge {quoted(command)} is no command ({error}); close its quotes") from error
        self.command, self.wait = command, wait
        self.process: subprocess.Popen[str] | None = None
        self.lines: queue.Queue[str] = queue.Queue()

    def __call__(self, request: str) -> str:
        """Send a request and return the reply."""
        process = self.process or self._start()
        try:
            assert process.stdin is not None  # noqa: S101  # it is a pipe
            process.stdin.write(json.dumps({"prompt": request}) + "\n")
            process.stdin.flush()
            line = self.lines.get(timeout=self.wait)
        except queue.Empty:
            raise BadInput(f"the judge {quoted(self.command)} wrote no line in {self.wait:g} s{_GO_ON}") from None
        except OSError:
            line = ""
        if not line:
            code = process.wait()
            raise BadInput(
                f"the judge {quoted(self.command)} ended with exit code {code} before it replied; it must write one line "
                '{"reply": "FIRST"} for each line {"prompt": ...} that it reads, without a buffer'
            )
        try:
            return str(json.loads(line)["reply"])
        except (ValueError, LookupError, TypeError) as error:
            raise BadInput(
                f"the judge {quoted(self.command)} wrote {quoted(visible(clipped(line.strip(), 120)))}; it must write one line "
                '{"reply": "FIRST"} for each request, and all else to standard error'
            ) from error

    def _start(self) -> "subprocess.Popen[str]":
        try:
            self.process = process = subprocess.Popen(
                self.parts, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
            )
        except OSError as error:
            raise BadInput(
                f"the judge {quoted(self.command)} cannot be started ({error.strerror}); correct the command, or give http://..."
            ) from error
        threading.Thread(target=self._read, args=(process.stdout,), daemon=True).start()
        return process

    def _read(self, output: Any) -> None:
        """Pass on the lines of the process; an empty one at its end."""
        for line in output:
            self.lines.put(line)
        self.lines.put("")

    def close(self) -> None:
        """End the process."""
        if self.process is None:
            return
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                try:
                    pipe.close()
                except OSError:  # what was not sent is lost with the process
                    continue
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
