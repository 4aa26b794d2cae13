"""Asking the model: in which template, by which state, one prompt or many, and what is refused."""

import gzip
import json
from pathlib import Path

import pytest
from shell import run, run_json, write_rows

KEYS = ["prompt", "answer", "task", "format", "tokens", "stopped", "at", "routed"]
SHORT = ["--max-new-tokens", "4"]


def log(ws: Path) -> list[str]:
    return [line["entry"] for line in run_json("-w", ws, "log")]


def given_to_the_model(
    ws: Path, monkeypatch: pytest.MonkeyPatch, *words: object, input: str | None = None
) -> list[str]:
    """Return what `perdure predict` gives the model, as text."""
    from perdure.model import decode
    from perdure.workspace.facade import Workspace

    seen: list[list[int]] = []
    generate = decode.generate

    def watched(model, prompts, **options):
        seen.extend(prompts)
        return generate(model, prompts, **options)

    monkeypatch.setattr(decode, "generate", watched)
    run("-w", ws, "predict", *words, *SHORT, input=input)
    return [Workspace.open(ws).tokenizer.decode(ids) for ids in seen]


def test_a_text_is_a_user_turn_unless_a_task_is_named(ws: Path, monkeypatch: pytest.MonkeyPatch):
    chat = "<|im_start|>user\nabout parcel 1?<|im_end|>\n<|im_start|>assistant\n"
    asked = ["about parcel 1?"]
    assert given_to_the_model(ws, monkeypatch, *asked) == [chat]
    assert given_to_the_model(ws, monkeypatch, *asked, "--task", "parcel") == asked  # the template of its rows: none
    assert given_to_the_model(ws, monkeypatch, *asked, "--raw") == asked
    system = "<|im_start|>system\nBe brief.<|im_end|>\n"
    assert given_to_the_model(ws, monkeypatch, *asked, "--system", "Be brief.") == [system + chat]
    assert given_to_the_model(ws, monkeypatch, "-", "--raw", input="a\n\nb\n") == ["a", "b"]


def test_json_is_an_object_for_one_prompt_and_a_list_for_several(ws: Path):
    invoice, parcel, base = log(ws)
    one = run_json("-w", ws, "predict", "about parcel 1?", "--task", "parcel")
    assert list(one) == KEYS
    assert one["prompt"] == "about parcel 1?"
    assert (one["task"], one["format"], one["at"]) == ("parcel", "prompt_completion", invoice)
    assert (one["tokens"], one["stopped"]) == (1, "length")  # the task's max_new_tokens
    past = run_json("-w", ws, "predict", "about parcel 1?", "--task", "parcel", "--at", "head~1")
    assert (past["answer"], past["at"]) == ("parcel", parcel)
    chat = run_json("-w", ws, "predict", "hello", "--at", "base", *SHORT)
    assert (chat["task"], chat["format"], chat["tokens"], chat["at"]) == (None, "chat", 4, base)
    assert run_json("-w", ws, "predict", "hello", "--raw", *SHORT)["format"] == "plain"
    several = json.loads(run("-w", ws, "predict", "-", "--json", *SHORT, input="hello\n\nyou\n").stdout)
    assert [list(answer) for answer in several] == [KEYS] * 3
    assert [answer["prompt"] for answer in several] == ["hello", "", "you"]
    assert several[1] == {**several[1], "answer": "", "tokens": 0, "stopped": "blank"}
    assert len(json.loads(run("-w", ws, "predict", "-", "--json", *SHORT, input="hello\n").stdout)) == 1


def test_the_answer_says_on_stderr_how_it_was_asked(ws: Path, fresh: Path):
    def told(*words: object) -> str:
        return run("-w", ws, "predict", *words, *SHORT).stderr

    how = "prompted as a user turn of the chat template; --task NAME takes a task's template (parcel, invoice)"
    assert how in told("hello")
    assert "prompted in the template of task invoice\n" in told("hello", "--task", "invoice")
    assert "continued as plain text\n" in told("hello", "--raw")
    assert "continued as plain text, by the model of task parcel" in told("hello", "--raw", "--task", "parcel")
    assert "chat template\n" in run("-w", fresh, "predict", "hello", *SHORT).stderr


def test_a_conversation_is_continued_from_a_file_or_stdin(ws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": "parcel"},
    ]
    (tmp_path / "turns.json").write_text(json.dumps(turns, indent=1))
    text = "".join(f"<|im_start|>{t['role']}\n{t['content']}<|im_end|>\n" for t in turns) + "<|im_start|>assistant\n"
    assert given_to_the_model(ws, monkeypatch, "--messages", tmp_path / "turns.json") == [text]
    assert given_to_the_model(ws, monkeypatch, "--messages", "-", input=json.dumps({"messages": turns})) == [text]
    other = given_to_the_model(ws, monkeypatch, "--messages", tmp_path / "turns.json", "--system", "Be long.")
    assert other == [text.replace("Be brief.", "Be long.")]
    asked = ["predict", "--messages", tmp_path / "turns.json", *SHORT]
    wins = "the system turn given with --system (system=) is used in the place of that of turns.json"
    assert wins in run("-w", ws, *asked, "--system", "Be long.").stderr
    assert "in the place of" not in run("-w", ws, *asked, "--system", "Be brief.").stderr + run("-w", ws, *asked).stderr
    told = run_json("-w", ws, "predict", "--messages", tmp_path / "turns.json", *SHORT)
    assert told["prompt"] == turns
    assert told["format"] == "chat"


def test_a_file_has_a_prompt_a_line_or_a_row_and_keeps_its_order(ws: Path, tmp_path: Path):
    lines = [f"about {'far ' * (n % 4)}parcel {n}?" for n in range(9)]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": line, "completion": "not read"} for line in lines])
    words = ["--task", "parcel", "--at", "head~1"]
    found = run_json("-w", ws, "predict", "--file", tmp_path / "lines.txt", *words)
    assert [answer["prompt"] for answer in found] == lines
    assert run_json("-w", ws, "predict", "--file", rows, *words) == found
    (tmp_path / "lines.txt.gz").write_bytes(gzip.compress((tmp_path / "lines.txt").read_bytes()))
    assert run_json("-w", ws, "predict", "--file", tmp_path / "lines.txt.gz", *words) == found
    assert run("-w", ws, "predict", "--file", "-", *words, input=f"{lines[0]}\n").stdout == f"{found[0]['answer']}\n"
    alone = [run_json("-w", ws, "predict", line, *words) for line in lines[:3]]
    assert found[:3] == alone
    assert run("-w", ws, "predict", "--file", rows, *words).stdout.split("\n") == [*(a["answer"] for a in found), ""]


def test_rows_of_a_file_may_be_conversations_whose_answers_are_left_out(ws: Path, tmp_path: Path):
    question, answer = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}
    rows = write_rows(tmp_path / "chats.jsonl", [{"messages": [question]}, {"messages": [question, answer]}])
    told = run("-w", ws, "predict", "--file", rows, "--json", *SHORT)
    first, second = json.loads(told.stdout)
    assert first == second
    assert first["prompt"] == [question]
    assert "chats.jsonl: 1 answer at the end of a conversation left out" in told.stderr


def test_a_task_with_several_columns_is_asked_by_row(fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from shell import settings

    rows = [{"where": f"town {n}", "text": f"bill {n}", "label": "money"} for n in range(12)]
    template = "At {where}: {text}\nIs:"
    data = write_rows(tmp_path / "rows.jsonl", rows)
    run("-w", fresh, "learn", "bills", data, "--template", template, *settings(), "--no-gate")
    asked = write_rows(tmp_path / "asked.jsonl", [{"where": "Bonn", "text": "bill"}])
    assert given_to_the_model(fresh, monkeypatch, "--file", asked, "--task", "bills") == ["At Bonn: bill\nIs:"]
    found = run_json("-w", fresh, "predict", "--file", asked, "--task", "bills", *SHORT)
    assert found[0]["prompt"] == "bill"
    lacks = write_rows(tmp_path / "lacks.jsonl", [{"where": "Bonn"}])
    told = run("-w", fresh, "predict", "--file", lacks, "--task", "bills", code=1).stderr
    assert "text" in told
    assert "where" in run("-w", fresh, "predict", "bill", "--task", "bills", code=1).stderr


def test_a_seed_draws_the_same_answer_whatever_else_is_asked(ws: Path, tmp_path: Path):
    words = ["--temperature", "1.5", "--max-new-tokens", "8"]
    lines = ["hello", "about parcel 1?", "far far away"]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    together = run_json("-w", ws, "predict", "--file", tmp_path / "lines.txt", *words)
    alone = [run_json("-w", ws, "predict", line, *words) for line in lines]
    assert together == alone
    assert run_json("-w", ws, "predict", "hello", *words, "--seed", "1")["answer"] != alone[0]["answer"]
    greedy = run_json("-w", ws, "predict", "hello", "--max-new-tokens", "8")
    assert run_json("-w", ws, "predict", "hello", "--max-new-tokens", "8", "--temperature", "0") == greedy
    assert greedy["answer"] != alone[0]["answer"]


def test_two_states_are_compared_side_by_side(ws: Path, tmp_path: Path):
    invoice, parcel, _ = log(ws)
    words = ["about parcel 1?", "--task", "parcel", "--compare", "head~1"]
    heads, rule, answers = run("-w", ws, "predict", *words).stdout.splitlines()
    assert heads.split() == ["head", invoice[:12], "head~1", parcel[:12]]
    assert set(rule.strip()) == {"─"}
    assert answers.split() == ["invoice", "parcel"]
    found = run_json("-w", ws, "predict", *words)
    assert list(found) == [*KEYS, "compared"]
    assert (found["answer"], found["at"]) == ("invoice", invoice)
    assert found["compared"] == {"answer": "parcel", "tokens": 1, "stopped": "length", "at": parcel}
    (tmp_path / "two.txt").write_text("about parcel 1?\nabout parcel 2?\n")
    told = run("-w", ws, "predict", "--file", tmp_path / "two.txt", *words[1:]).stdout
    assert told.count("invoice") == 2
    assert "> about parcel 2?" in told


def test_long_and_wide_texts_stay_in_their_columns():
    from perdure.cli.side_by_side import side_by_side

    told = side_by_side(("one", "two"), ("long " * 60, "字" * 60 + "\n\x1b[31mred"))
    assert max(sum(2 if ord(c) > 0x2E80 else 1 for c in line) for line in told.splitlines()) <= 80
    assert told.count("long") == 60
    assert told.count("字") == 60
    assert "\\x1b[31mred" in told


def test_an_unknown_task_is_refused_before_a_model_is_loaded(ws: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("perdure.bridges.runtime.Runtime.__init__", lambda *_: pytest.fail("a model was loaded"))
    assert "nope" in run("-w", ws, "predict", "--task", "nope", "hi", code=1).stderr
    assert "nearest refs: head" in run("-w", ws, "predict", "hi", "--at", "hed", code=1).stderr
    assert "nearest refs: head" in run("-w", ws, "predict", "hi", "--compare", "hed", code=1).stderr


def test_what_is_cut_is_a_warning(ws: Path, tmp_path: Path):
    told = run("-w", ws, "predict", "far " * 200).stderr
    assert "warning: 1 prompt was longer than the model's 256 positions allow and lost the start" in told
    assert "warning: answers have at most 128 tokens, not 256" in told
    assert "raise max_new_tokens" not in told  # no more would fit
    turns = [{"role": ("user", "assistant")[n % 2], "content": f"turn {n} " + "far " * 20} for n in range(9)]
    (tmp_path / "turns.json").write_text(json.dumps([{"role": "system", "content": "Be brief."}, *turns]))
    told = run("-w", ws, "predict", "--messages", tmp_path / "turns.json", *SHORT).stderr
    assert "warning: the oldest " in told
    assert "lost the start" not in told


def test_a_long_prompt_takes_nothing_from_the_answers_to_others(ws: Path, tmp_path: Path):
    (tmp_path / "lines.txt").write_text("hello\n" + "far " * 200 + "\n")
    first, second = run_json("-w", ws, "predict", "--file", tmp_path / "lines.txt", "--max-new-tokens", "200")
    assert first == run_json("-w", ws, "predict", "hello", "--max-new-tokens", "200")
    assert second["tokens"] <= 128


ROLES = [{"role": "user", "content": "a"}, {"role": "usr", "content": "b"}]
REFUSED: dict[str, tuple[list[str], str | None, int, str]] = {
    "nothing": ([], None, 2, "give TEXT, --messages FILE or --file FILE"),
    "two": (["hi", "--file", "x.txt"], None, 2, "TEXT and --file are given"),
    "empty": (["  "], None, 1, "the text is empty"),
    "empty stdin": (["-"], "\n \n", 1, "there is no prompt"),
    "no file": (["--file", "gone.txt"], None, 1, "gone.txt does not exist"),
    "no messages": (["--messages", "gone.json"], None, 1, "gone.json does not exist"),
    "broken JSON": (["--messages", "-"], '[\n{"role": "user"', 1, "stdin:2 is broken JSON"),
    "no list": (["--messages", "-"], '{"turns": []}', 1, 'stdin has no "messages"'),
    "no turns": (["--messages", "-"], "[]", 1, "stdin has no turns"),
    "wrong role": (["--messages", "-"], json.dumps(ROLES), 1, "stdin, turn 2: role is 'usr'; it must be one of system"),
    "empty turn": (["--messages", "-"], '[{"role": "user", "content": " "}]', 1, "stdin, turn 1 (user) is empty"),
    "answered": (
        ["--messages", "-"],
        json.dumps([ROLES[0], {"role": "assistant", "content": "b"}]),
        1,
        "stdin, turn 2 is by assistant, so there is nothing to answer",
    ),
    "raw conversation": (["--messages", "-", "--raw"], json.dumps(ROLES[:1]), 1, "is no plain text"),
    "conversation for a text task": (
        ["--messages", "-", "--task", "parcel"],
        json.dumps(ROLES[:1]),
        1,
        "task 'parcel' takes one text in its own template",
    ),
    "raw and system": (["hi", "--raw", "--system", "x"], None, 1, "raw text has no template"),
    "system and task": (["hi", "--task", "parcel", "--system", "x"], None, 1, "template without a system turn"),
    "empty system": (["hi", "--system", " "], None, 1, "the system turn is empty"),
    "temperature": (["hi", "--temperature", "inf"], None, 1, "temperature is inf"),
    "cold": (["hi", "--temperature", "-1"], None, 2, "greater than or equal to 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_asked_is_named(ws: Path, name: str):
    words, stdin, code, said = REFUSED[name]
    told = run("-w", ws, "predict", *words, code=code, input=stdin, env={"COLUMNS": "200"})
    assert said in told.stderr
    assert told.stdout == ""


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ('{"prompt": " "}', "asked.jsonl:2 has no prompt"),
        ('{"question": "a"}', "asked.jsonl:2 has columns question"),
        ('{"messages": [{"role": "usr", "content": "a"}]}', "asked.jsonl:2, turn 1: role is 'usr'"),
        ('{"prompt": ', "asked.jsonl:2 is broken JSON"),
    ],
)
def test_a_row_that_asks_nothing_is_named_with_its_line(ws: Path, tmp_path: Path, row: str, said: str):
    (tmp_path / "asked.jsonl").write_text(f'{{"prompt": "a"}}\n{row}\n')
    assert said in run("-w", ws, "predict", "--file", tmp_path / "asked.jsonl", code=1).stderr
