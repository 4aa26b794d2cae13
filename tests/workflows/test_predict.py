"""Asking from Python: typed answers, conversations as they come, and whose view and template a prompt goes through."""

import json

import pytest

from perdure import Workspace
from perdure.core.errors import BadInput, NotFound
from perdure.workflows.predict.predict import Answer

QUICK = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop"}
HELLO = {"role": "user", "content": "hello"}


@pytest.fixture(scope="module")
def talks(tiny_model, tmp_path_factory):
    """A workspace that learned a task of conversations, all with one system turn, and a task of texts."""
    folder = tmp_path_factory.mktemp("talks")
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32")
    turns = [
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"q{n}"},
            {"role": "assistant", "content": "no"},
        ]
        for n in range(8)
    ]
    (folder / "talk.jsonl").write_text("\n".join(json.dumps({"messages": one}) for one in turns))
    (folder / "sum.jsonl").write_text(
        "\n".join(json.dumps({"instruction": f"i{n}", "input": f"x{n}", "output": "yes"}) for n in range(8))
    )
    ws.learn("talk", folder / "talk.jsonl", overrides=QUICK, gate=None)
    ws.learn("sum", folder / "sum.jsonl", overrides=QUICK, gate=None)
    return ws


@pytest.fixture
def given(talks, monkeypatch):
    """What the model is given, as text."""
    from perdure.model import decode

    seen, generate = [], decode.generate

    def watched(model, prompts, **options):
        seen.extend(talks.tokenizer.decode(ids) for ids in prompts)
        return generate(model, prompts, **options)

    monkeypatch.setattr(decode, "generate", watched)
    return seen


def test_answers_are_values_that_go_through_json(talks):
    one, two = talks.predict(["hello", [HELLO]], max_new_tokens=4)
    assert (one.prompt, two.prompt) == ("hello", [HELLO])
    assert (one.task, one.format, one.at) == (None, "chat", talks.ledger.resolve("head").id)
    assert (one.answer, one.tokens, one.stopped) == (two.answer, two.tokens, two.stopped)
    assert str(one) == one.answer
    assert Answer.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert "compared" not in one.to_json()
    assert talks.predict("hello", max_new_tokens=4) == (one,)


def test_a_conversation_is_answered_as_it_comes(talks):
    pieces: list[str] = []
    answer = talks.chat([HELLO], max_new_tokens=12, on_text=pieces.append)
    assert "".join(pieces) == answer.answer == talks.predict([[HELLO]], max_new_tokens=12)[0].answer
    drawn = talks.chat([HELLO], max_new_tokens=12, temperature=1.0, seed=4)
    assert drawn == talks.predict([[HELLO]], max_new_tokens=12, temperature=1.0, seed=4)[0]
    assert drawn.answer != answer.answer


def test_a_task_of_conversations_takes_turns_and_texts_with_its_own_system_turn(talks, given):
    talks.predict(["hello", [HELLO], {"messages": [HELLO]}], task="talk")
    assert len(given) == 3
    assert len(set(given)) == 1
    assert given[0].startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhello")
    talks.predict([[{"role": "system", "content": "Be long."}, HELLO]], task="talk")
    talks.predict("hello", task="talk", system="Be long.")
    assert given[3] == given[4] == given[0].replace("brief", "long")


def test_values_by_column_fill_the_template_of_a_task(talks, given):
    row = {"instruction": "Say it.", "input": "twice"}
    answer = talks.predict([row], task="sum")[0]
    assert "### Instruction:\nSay it.\n\n### Input:\ntwice" in given[0]
    assert (answer.prompt, answer.format) == (row, "alpaca")
    talks.predict(["Say it.", {"prompt": "Say it."}], task="sum")
    assert (
        given[1]
        == given[2]
        == given[0]
        .replace("\n\n### Input:\ntwice", "")
        .replace(", paired with an input that provides further context", "")
    )


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, [3]),
        ({"temperature": 1.0}, [1, 1, 1]),
        ({"batch_size": 2}, [2, 1]),
        ({"temperature": 1.0, "batch_size": 3}, [3]),
    ],
)
def test_drawn_answers_are_made_one_at_a_time_unless_said_otherwise(talks, monkeypatch, options, sizes):
    from perdure.model import decode

    seen, read = [], decode.read_prompts
    monkeypatch.setattr(
        decode, "read_prompts", lambda model, prompts, *more: seen.append(len(prompts)) or read(model, prompts, *more)
    )
    together = talks.predict(["hello", "about", "far away"], max_new_tokens=6, **options)
    assert sorted(seen) == sorted(sizes)
    assert tuple(talks.predict(a.prompt, max_new_tokens=6, **options)[0] for a in together) == together


@pytest.mark.parametrize(
    ("prompts", "options", "error", "said"),
    [
        ("", {}, BadInput, "prompt 1 is empty"),
        (["a", " "], {}, BadInput, "prompt 2 is empty"),
        ([], {}, BadInput, "there is no prompt"),
        ([[HELLO, {"role": "bot", "content": "x"}]], {}, BadInput, "prompt 1, turn 2: role is 'bot'"),
        ([{"question": "x"}], {}, BadInput, "prompt 1 has columns question"),
        ([{"input": "x"}], {"task": "sum"}, BadInput, "prompt 1 has no instruction"),
        ("a", {"task": "nope"}, NotFound, "no task 'nope'"),
        ("a", {"at": "nope"}, NotFound, "nope"),
        ("a", {"temperature": -1.0}, BadInput, "temperature is -1.0"),
        ("a", {"temperature": float("nan")}, BadInput, "temperature is nan"),
        ("a", {"batch_size": 0}, BadInput, "batch_size is 0"),
        ("a", {"raw": True, "system": "x"}, BadInput, "has no template"),
    ],
)
def test_what_cannot_be_asked_is_named(talks, prompts, options, error, said):
    with pytest.raises(error, match=said.replace("(", r"\(")):
        talks.predict(prompts, **options)


def test_the_oldest_turns_of_a_long_conversation_are_left_out(talks, given):
    turns = [{"role": ("user", "assistant")[n % 2], "content": f"turn {n} " + "far " * 15} for n in range(41)]
    with pytest.warns(UserWarning, match=r"the oldest \d+ turns left out: no room among 256 positions"):
        answer = talks.chat(turns, max_new_tokens=4)
    assert answer.prompt == turns
    assert given[0].startswith("<|im_start|>user\nturn ")
    assert "turn 40" in given[0]
    kept = len(talks.tokenizer(given[0])["input_ids"])
    longer = given[0].count("<|im_start|>") + 2  # two turns more would not have fitted
    more = "".join(f"<|im_start|>{t['role']}\n{t['content']}<|im_end|>\n" for t in turns[41 - longer + 1 :])
    assert kept + 4 <= 256 < len(talks.tokenizer(more + "<|im_start|>assistant\n")["input_ids"]) + 4
