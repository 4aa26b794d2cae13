"""Lists of labels, tool calls and a system prompt of the task are learned, scored and asked for in one form."""

import shutil

import pytest

import chats
import perdure
from json_files import rows_file
from perdure.model import decode
from perdure.workflows.scoring import measure

QUICK = {"host": "loop", "num_train_epochs": 20, "per_device_train_batch_size": 4, "learning_rate": 0.02}
TOOL = {"type": "function", "function": {"name": "pay", "parameters": {"type": "object", "properties": {}}}}


def learn(ws, name, path, **settings):
    return ws.learn(name, path, recipe="naive", overrides=QUICK, settings=settings, gate=None)


def scored(ws, name):
    entry = ws.ledger.resolve("head")
    return ws.ledger.score(ws.ledger.seen(entry, name), entry.tasks[name])


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """A copy of the tiny model whose chat template writes tools and calls."""
    made = shutil.copytree(tiny_model, tmp_path_factory.mktemp("tools") / "model")
    for stale in made.glob("chat_template*"):
        stale.unlink()
    (made / "chat_template.jinja").write_text(chats.TOOLS)
    return made


@pytest.fixture
def ws(folder, tmp_path):
    return perdure.Workspace.init(tmp_path / "ws", model=str(folder), dtype="float32")


def test_lists_of_labels_are_learned_and_scored_as_sets(ws, tmp_path):
    rows = [
        {"text": f"mail {i}", "label": ["refund", "parcel"], "split": "test" if i > 11 else "train"} for i in range(16)
    ]
    learn(ws, "topics", rows_file(tmp_path / "a.jsonl", rows), system="Sort the mail.")
    score = scored(ws, "topics")
    assert score.scorer == "set_f1"
    assert score.score > 0  # the tiny model repeats itself; each label that is right counts
    for item, text in zip(score.items, score.predictions, strict=True):
        said = {label.strip() for label in text.split(",")} - {""}
        assert item == pytest.approx(2 * len(said & {"parcel", "refund"}) / (len(said) + 2))
    asked = ws.session.task("topics", ws.ledger.resolve("head")).prompt_row("x")
    assert asked.prompt == "Sort the mail.\n\nClassify the text.\nText: x\nLabel:"
    ws.export(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## System prompts" in card
    assert "- topics: Sort the mail." in card


def test_tool_calls_are_learned_as_the_template_writes_them_and_compared_as_json(ws, tmp_path, monkeypatch):
    def row(n, split):
        call = {"name": "pay", "arguments": {"to": "abc"[n % 3], "sum": 1}}
        turns = [
            {"role": "user", "content": f"pay {n}"},
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
        ]
        before = [*turns, {"role": "tool", "content": f"paid {n}"}] if n % 2 else []
        return {"messages": [*before, *turns], "tools": [TOOL], "split": split}

    path = rows_file(
        tmp_path / "a.jsonl", [*(row(n, "train") for n in range(8)), *(row(n, "test") for n in range(9, 12))]
    )
    planned = ws.plan("pay", path, recipe="naive", overrides=QUICK)
    text = ws.tokenizer.decode(planned.encoded[1].ids)
    assert '"name": "pay"' in text.partition("<|im_start|>user")[0]  # the tools
    assert "<|im_start|>tool\npaid 1<|im_end|>" in text
    assert text.endswith('<call>pay {"sum": 1, "to": "b"}<|im_end|>\n')
    assert not [notice for notice in planned.notices if "drops" in notice]
    learn(ws, "pay", path)
    score = scored(ws, "pay")
    assert (score.scorer, score.n) == ("tool_calls", 3)
    spelled = ['<call>pay {"sum":1.0,  "to": "a"}', 'pay\n{"to": "b", "sum": 1}', '<call>pay {"to": "c", "sum": 2}']
    monkeypatch.setattr(decode, "generate", lambda *_, **__: [ws.tokenizer(text)["input_ids"] for text in spelled])
    measured = measure(ws.runtime, ws.session.task("pay", ws.ledger.resolve("head")))
    assert measured.score.items == (1.0, 1.0, 0.0)
