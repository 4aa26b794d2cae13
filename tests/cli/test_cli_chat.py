"""A conversation over pipes and at a terminal: what the model is given, what commands do, and what Ctrl-C stops."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from shell import run, run_json, settings

from perdure.cli import stdin
from perdure.model import decode

SHORT = ["--max-new-tokens", "6"]


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, ws: Path) -> list[str]:
    """What the model is given at each turn, as text."""
    from perdure.workspace.facade import Workspace

    tokenizer, seen, generate = Workspace.open(ws).tokenizer, [], decode.generate

    def watched(model, prompts, **options):
        seen.append(tokenizer.decode(prompts[0]))
        return generate(model, prompts, **options)

    monkeypatch.setattr(decode, "generate", watched)
    return seen


def chat(ws: Path, *lines: str, words: tuple[object, ...] = (), code: int = 0):
    return run("-w", ws, "chat", *SHORT, *words, input="".join(f"{line}\n" for line in lines), code=code)


def turn(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


OPEN = "<|im_start|>assistant\n"


def test_lines_are_answered_as_predict_answers_them_and_are_remembered(ws: Path, given: list[str]):
    alone = run("-w", ws, "predict", "hello", *SHORT).stdout
    told = chat(ws, "hello", "", "and you?")
    assert told.stdout.startswith(alone)
    answer = alone.removesuffix("\n")
    assert given[1:] == [
        turn("user", "hello") + OPEN,
        turn("user", "hello") + turn("assistant", answer) + turn("user", "and you?") + OPEN,
    ]
    assert "the answer was cut after 6 tokens" in told.stderr


def test_commands_set_the_system_turn_forget_switch_the_state_and_end(ws: Path, given: list[str]):
    told = chat(ws, "/system Be brief.", "hi", "/reset", "//at is", "/system", "/reset", "ho", "/quit", "never")
    assert given == [
        turn("system", "Be brief.") + turn("user", "hi") + OPEN,
        turn("system", "Be brief.") + turn("user", "/at is") + OPEN,
        turn("user", "ho") + OPEN,
    ]
    assert "conversation forgotten" in told.stderr
    assert chat(ws, words=("--system", "Be long.")).stdout == ""
    at_base = run("-w", ws, "predict", "hello", "--at", "base", *SHORT).stdout
    at_head = run("-w", ws, "predict", "hello", *SHORT).stdout
    assert at_base != at_head
    assert chat(ws, "hello", "/reset", "/at base", "hello").stdout == at_head + at_base
    assert "/save FILE" in chat(ws, "/help").stderr


def test_two_states_answer_each_line_in_conversations_of_their_own(ws: Path, given: list[str]):
    told = chat(ws, "hello", "and you?", words=("--compare", "base"))
    entries = [line["entry"][:12] for line in run_json("-w", ws, "log")]
    for name, entry in (("head", entries[0]), ("base", entries[-1])):
        assert f"{name} {entry} answers in the chat template\n" in told.stderr
    heads = [line for line in told.stdout.splitlines() if line.startswith(("head ", "base "))]
    assert heads == [f"head {entries[0]}:", f"base {entries[-1]}:"] * 2
    assert given[0] == given[1]
    assert given[2] != given[3]  # each goes on from its own answer


def test_a_saved_conversation_is_learned(ws: Path, tmp_path: Path):
    file, held = tmp_path / "chats.jsonl", tmp_path / "held.jsonl"
    chat(ws, "/system Be brief.", "hello", f"/save {file}", "/reset", "and you?", f"/save {file}", f"/save {held}")
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [[turn["role"] for turn in row["messages"]] for row in rows] == [["system", "user", "assistant"]] * 2
    words = ["--test", held, "--allow-leaks", "--no-gate", *settings()]
    done = run_json("-w", ws, "learn", "chats", file, *words)
    assert "chats" in done["scores"]
    assert done["tokens"] > 0


def test_what_cannot_be_saved_is_named_and_nothing_is_written(ws: Path, tmp_path: Path):
    (tmp_path / "other.jsonl").write_text('{"text": "mine"}\n')
    refused = {
        f"/save {tmp_path}/other.jsonl": "holds no conversations; name another file",
        f"/save {tmp_path}/chats.txt": "give a name that ends in .jsonl",
        f"/save {tmp_path}/gone/chats.jsonl": "there is no folder",
        f"/save {ws}/perdure.json": "belongs to the workspace",
        "/save": "needs the name of a file",
    }
    for line, said in refused.items():
        assert said in chat(ws, "hi", line, code=1).stderr
    assert "no answer yet" in chat(ws, f"/save {tmp_path}/chats.jsonl", code=1).stderr
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["other.jsonl"]
    assert (tmp_path / "other.jsonl").read_text() == '{"text": "mine"}\n'


def test_over_pipes_a_wrong_line_is_named_and_the_chat_goes_on_and_ends_with_1(ws: Path, given: list[str]):
    wrong = {"/at hed": "nearest refs: head", "/at": "needs the name", "/nope x": "/nope is no command"}
    told = chat(ws, "hi", *wrong, "and you?", code=1)
    for said in wrong.values():
        assert said in told.stderr
    assert told.stderr.endswith("3 lines could not be carried out\n")
    assert len(given) == 2
    assert given[1].startswith(turn("user", "hi"))  # no turn is lost by a wrong line
    assert "could not be carried out" not in chat(ws, "hi").stderr


def test_an_empty_answer_keeps_the_turn_and_is_not_saved(
    ws: Path, given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from perdure.data.answers import Reader

    whole = Reader.whole
    monkeypatch.setattr(Reader, "whole", lambda self, ids: "" if len(given) == 1 else whole(self, ids))
    told = chat(ws, "hello", "and you?", f"/save {tmp_path / 'chats.jsonl'}")
    assert "the answer is empty; the conversation goes on after it" in told.stderr
    assert given[1] == turn("user", "hello") + turn("assistant", "") + turn("user", "and you?") + OPEN
    (row,) = (json.loads(line) for line in (tmp_path / "chats.jsonl").read_text("utf-8").splitlines())
    assert next(one["content"] for one in row["messages"]) == "and you?"
    assert len(row["messages"]) == 2


def test_the_oldest_turns_are_left_out_with_a_notice_when_there_is_no_room(ws: Path, given: list[str]):
    words = [f"turn {n} " + "far " * 20 for n in range(6)]
    told = chat(ws, *words, words=("--system", "Be brief."))
    assert all(one.startswith(turn("system", "Be brief.") + "<|im_start|>user\nturn ") for one in given)
    assert "turn 5" in given[-1]
    assert "turn 0" not in given[-1]
    assert "the oldest 2 turns left out: no room among 256 positions" in told.stderr
    assert "lost the start" not in told.stderr


def test_a_model_without_a_chat_template_has_no_conversation(tmp_path: Path):
    from shell import init_people

    ws = init_people(tmp_path, "llama")
    told = run("-w", ws, "chat", input="hello\n", code=1).stderr
    assert "no chat template" in told
    assert "perdure predict TEXT" in told
    assert "prompted as plain text" in run("-w", ws, "predict", "Ann Lee lives in", "--max-new-tokens", "1").stderr
    assert "no chat template" in run("-w", ws, "predict", "hi", "--system", "x", code=1).stderr


def test_escape_sequences_in_an_answer_are_shown(ws: Path, monkeypatch: pytest.MonkeyPatch):
    from perdure.data.answers import Reader

    monkeypatch.setattr(Reader, "whole", lambda self, ids: "\x1b[31mred"[: len(ids) + 3])
    told = chat(ws, "hello").stdout
    assert "\\x1b[31mred" in told
    assert "\x1b" not in told


def at_a_terminal(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Let the chat believe that somebody types these lines."""
    left = iter(lines)
    monkeypatch.setattr("perdure.cli.chat.at_terminal", lambda: True)
    monkeypatch.setattr("perdure.cli.chat.read_line", lambda prompt: next(left, None))


def stopped_after(tokens: int, monkeypatch: pytest.MonkeyPatch, *args: object) -> None:
    """Interrupt the first answer after some tokens, as a signal does."""
    from perdure.data.streaming import TextStream

    add, count = TextStream.add, iter(range(1, 1000))

    def interrupted(self, token):
        add(self, token)
        if next(count) == tokens:
            raise KeyboardInterrupt(*args)

    monkeypatch.setattr(TextStream, "add", interrupted)


def test_ctrl_c_stops_the_answer_and_not_the_chat(ws: Path, given: list[str], monkeypatch: pytest.MonkeyPatch):
    at_a_terminal(monkeypatch, "hello", "and you?", "/at hed", "still there?")
    stopped_after(3, monkeypatch)
    told = run("-w", ws, "chat", *SHORT)
    assert "(stopped; Ctrl-D ends the chat)" in told.stderr
    assert "nearest refs: head" in told.stderr  # where somebody can try again, an error ends no chat
    assert given[1] == turn("user", "and you?") + OPEN  # the turn that was stopped is forgotten
    assert len(given) == 3


def test_sigterm_and_ctrl_c_over_a_pipe_end_the_chat(ws: Path, monkeypatch: pytest.MonkeyPatch):
    at_a_terminal(monkeypatch, "hello", "and you?")
    stopped_after(3, monkeypatch, signal.SIGTERM)
    assert "stopped" in run("-w", ws, "chat", *SHORT, code=130).stderr
    monkeypatch.undo()
    stopped_after(3, monkeypatch)
    assert chat(ws, "hello", "and you?", code=130).stderr.endswith("stopped\n")


@pytest.mark.parametrize("both", [True, False])
def test_at_a_terminal_a_line_is_read_with_a_prompt(both: bool, monkeypatch: pytest.MonkeyPatch, capsys):
    lines = iter(["hello\n", ""])
    typed = SimpleNamespace(isatty=lambda: True, readline=lambda: next(lines))
    monkeypatch.setattr(stdin.sys, "stdin", typed)
    monkeypatch.setattr(stdin.sys.stdout, "isatty", lambda: both)
    asked = []
    monkeypatch.setattr("builtins.input", lambda prompt: asked.append(prompt) or next(lines))
    assert stdin.read_line("> ") == "hello\n"
    assert asked == (["> "] if both else [])
    assert capsys.readouterr().err == ("" if both else "> ")


def test_what_is_typed_at_a_terminal_before_the_prompt_is_read(monkeypatch: pytest.MonkeyPatch):
    ours, theirs = pty.openpty()
    with open(theirs, encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        os.write(ours, b"hello\n\x04")  # as while an answer is written: a line, and then the end
        assert stdin.read_line("> ") == "hello\n"
        assert stdin.read_line("> ") is None
    os.close(ours)


def test_a_chat_in_a_process_and_at_a_pseudo_terminal(ws: Path):
    command = [sys.executable, "-m", "perdure.cli.main", "chat", "-w", str(ws), *SHORT]
    done = subprocess.run(command, input=b"hello\n", capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == run("-w", ws, "predict", "hello", *SHORT).stdout

    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        read_until(ours, "/help lists the commands")
        os.write(ours, b"hello\n")
        read_until(ours, "cut after 6 tokens")
        os.kill(process.pid, signal.SIGINT)  # at the prompt: the chat goes on
        read_until(ours, "Ctrl-D ends the chat")
        assert ends_by_ctrl_d(process, ours) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def ends_by_ctrl_d(process: subprocess.Popen, terminal: int) -> int:
    """Type Ctrl-D until the process ends: one between the look at what was typed and the prompt is lost."""
    for _ in range(60):
        os.write(terminal, b"\x04")
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=1)
    return process.wait(timeout=1)


def read_until(terminal: int, text: str, seconds: float = 120) -> str:
    seen, end = "", time.monotonic() + seconds
    while text not in seen:
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 1)[0]:
            seen += os.read(terminal, 4096).decode(errors="replace")
    return seen
