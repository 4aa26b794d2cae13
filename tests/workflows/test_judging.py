"""Judges over HTTP and over a pipe, played by a local server and a command: asked once, and errors that say what to do."""

import json
import shlex
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from perdure.core.errors import BadInput
from perdure.core.rows import Message, Row
from perdure.evaluate.judge import Pair
from perdure.evaluate.scorers import score_record
from perdure.workflows.guards import judging
from perdure.workflows.guards.judging import FILE, StoredVerdicts, judge_answers, judge_at, pairs_of

PAIRS = [Pair("Capital of France?", "Paris", "Lyon"), Pair("2 + 2?", "four", "4!")]


class Endpoint:
    """An OpenAI-style endpoint; `reply` makes (status, body) of a request."""

    def __init__(self):
        self.seen, self.keys, self.paths = [], [], []
        self.reply = lambda body: (200, said("FIRST"))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.seen.append(body)
                outer.keys.append(self.headers.get("Authorization"))
                outer.paths.append(self.path)
                status, answer = outer.reply(body)
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def said(word):
    return {"choices": [{"message": {"role": "assistant", "content": word}}]}


@pytest.fixture
def endpoint(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(judging, "PAUSE", 0.0)
    made = Endpoint()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_an_endpoint_is_asked_in_both_orders_once_for_ever(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("PERDURE_JUDGE_KEY", "secret")
    found = judge_answers(PAIRS, f"{endpoint.url}#small", tmp_path)
    assert found.items == (0.5, 0.5)  # it always prefers the first
    assert found.disagreed == 2
    assert len(endpoint.seen) == 4
    assert set(endpoint.paths) == {"/v1/chat/completions"}
    assert set(endpoint.keys) == {"Bearer secret"}
    assert endpoint.seen[0]["model"] == "small"
    assert endpoint.seen[0]["temperature"] == 0
    assert "Lyon" in endpoint.seen[0]["messages"][0]["content"]
    assert judge_answers(PAIRS, f"{endpoint.url}#small", tmp_path).asked == 0
    assert len(endpoint.seen) == 4
    assert judge_answers(PAIRS, f"{endpoint.url}#other", tmp_path).asked == 4
    stored = (tmp_path / FILE).read_text("utf-8")
    assert "Paris" not in stored
    assert "secret" not in stored


def test_a_server_that_is_busy_is_asked_again(endpoint, tmp_path):
    replies = iter([(503, b"wait"), (429, b"wait"), *[(200, said("SECOND"))] * 4])
    endpoint.reply = lambda body: next(replies)
    assert judge_answers(PAIRS, endpoint.url, tmp_path).items == (0.5, 0.5)
    endpoint.reply = lambda body: (503, b"out of slots")
    with pytest.raises(BadInput, match=r"503.*out of slots.*verdicts so far are stored"):
        judge_answers([Pair("a", "b", "c")], endpoint.url, tmp_path)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        ((401, b"no key"), "PERDURE_JUDGE_KEY"),
        ((404, b"no such model"), "MODEL"),
        ((302, b""), "correct the address"),
        ((200, b"<html>"), "no response of an OpenAI-style"),
        ((200, {"choices": []}), "no response of an OpenAI-style"),
        ((200, said("hm")), "FIRST, SECOND or TIE"),
        ((200, said(None)), "FIRST, SECOND or TIE"),
    ],
)
def test_what_an_endpoint_does_wrong_is_an_error_that_says_what_to_do(endpoint, tmp_path, reply, message):
    endpoint.reply = lambda body: reply
    with pytest.raises(BadInput, match=message):
        judge_answers(PAIRS, endpoint.url, tmp_path)
    assert "/elsewhere" not in endpoint.paths


def test_an_endpoint_that_does_not_reply_is_given_up(endpoint, tmp_path):
    done = threading.Event()
    endpoint.reply = lambda body: (done.wait(30), (200, said("TIE")))[1]
    with pytest.raises(BadInput, match=r"no reply in 0\.2 s"):
        judge_answers(PAIRS, endpoint.url, tmp_path, wait=0.2)
    done.set()


def test_an_endpoint_that_is_not_there_is_an_error(endpoint, tmp_path):
    endpoint.server.server_close()
    endpoint.server.shutdown()
    with pytest.raises(BadInput, match="cannot be reached"):
        judge_answers(PAIRS, endpoint.url, tmp_path)


@pytest.mark.parametrize("where", ["ftp://host/v1", "http://", "https://name:pass@host/v1", " "])
def test_an_address_that_is_none_is_refused(where):
    with pytest.raises(BadInput, match=r"endpoint|password"), judge_at(where):
        pass


def command(code):
    return shlex.join([sys.executable, "-u", "-c", code])


LONGER = """
import json, re, sys
for line in sys.stdin:
    text = json.loads(line)["prompt"]
    first, second = re.search(r"FIRST ANSWER\\n(.*)\\n####.*SECOND ANSWER\\n(.*)\\n####", text).groups()
    print(json.dumps({"reply": "FIRST" if len(first) > len(second) else "SECOND"}))
"""


def test_a_command_reads_and_writes_json_lines_in_one_process(tmp_path):
    starts = tmp_path / "starts"
    found = judge_answers(PAIRS, command(f"open({str(starts)!r}, 'a').write('x')\n{LONGER}"), tmp_path)
    assert found.items == (0.0, 0.0)  # Paris and four are the longer ones
    assert starts.read_text() == "x"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("input(); print('FIRST')", r'write one line \{"reply"'),
        ("import time; input(); time.sleep(30)", "wrote no line in 0.5 s"),
    ],
)
def test_what_a_command_does_wrong_is_an_error_that_says_what_to_do(tmp_path, code, message):
    with pytest.raises(BadInput, match=message):
        judge_answers(PAIRS, command(code), tmp_path, wait=0.5 if "sleep" in code else 60)


@pytest.mark.parametrize(
    ("where", "message"), [("no-such-program-here", "cannot be started"), ("'open", "close its quotes")]
)
def test_a_command_that_cannot_be_started_is_refused(tmp_path, where, message):
    with pytest.raises(BadInput, match=message):
        judge_answers(PAIRS, where, tmp_path)


def test_verdicts_survive_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / FILE
    StoredVerdicts(path)["a"] = "tie"
    with path.open("a") as file:
        file.write('{"b": "fi')
    again = StoredVerdicts(path)
    again["c"] = "first"
    again["d"] = "second"
    path.write_text("\n".join(line for line in path.read_text().split("\n") if line != '{"b": "fi'))
    assert dict(StoredVerdicts(path)) == {"a": "tie", "c": "first", "d": "second"}


def test_a_damaged_file_of_verdicts_is_an_error_that_names_the_line(tmp_path):
    (tmp_path / FILE).write_text('{"a": "tie"}\nnothing\n')
    with pytest.raises(BadInput, match="line 2"):
        StoredVerdicts(tmp_path / FILE)


def test_pairs_have_the_question_and_both_answers():
    rows = [
        Row(prompt="2 + 2?"),
        Row(messages=(Message("system", "x"), Message("user", "Hi"), Message("assistant", ""))),
    ]
    hashes = [row.hash for row in rows]
    then, now = (score_record("same", [1, 1], texts, hashes, 0) for texts in (["4", "Hello"], ["four", "Hi"]))
    assert pairs_of(rows, then, now) == [Pair("2 + 2?", "4", "four"), Pair("Hi", "Hello", "Hi")]
