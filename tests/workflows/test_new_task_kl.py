"""KL from the base on the new task's prompts: in the record of a learn where the workspace has guards, 0 at the base."""

import json
from types import SimpleNamespace

import pytest

from perdure import Workspace
from perdure.cli.show import _new_task_kl as kl_in_words
from perdure.ledger.records import LearnRecord
from perdure.workflows.learn import new_task_kl as module
from perdure.workflows.learn.new_task_kl import base_on_new_task, new_task_kl

FAST = {"num_train_epochs": 2, "learning_rate": 0.01, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 2}


@pytest.fixture(scope="module")
def ws(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning")
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32", guards="none")
    for name in ("before", "after"):
        rows = [{"text": f"{name} {n}", "label": "refund" if n % 2 else "parcel"} for n in range(40)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "asked.jsonl").write_text('{"prompt": "Hello", "completion": "-"}\n{"prompt": "Hi", "completion": "-"}\n')
    (folder / "away.yaml").write_text(
        "ability_guard: away\ntest: asked.jsonl\nability: drift\nmax_new_tokens: 2\nscorer: same\n"
    )
    return ws


def learned(ws, name):
    entry = ws.learn(name, ws.ledger.root.parent / f"{name}.jsonl", recipe="naive", overrides=FAST, gate=None).entry
    return entry, LearnRecord.from_json(ws.ledger.notes(entry)["record"])


def run_of(ws, name, most=None):
    task = ws.session.task(name, ws.ledger.resolve("head"))
    task = (
        task if most is None else SimpleNamespace(test=task.test, spec=task.spec, version=task.version, name=task.name)
    )
    return SimpleNamespace(session=ws.session, plan=SimpleNamespace(task=task, recipe=SimpleNamespace(trains=True)))


def test_a_learn_measures_it_where_there_are_guards_and_the_base_itself_has_none(ws, monkeypatch):
    without = learned(ws, "before")[1]
    assert without.new_task_kl is None
    assert kl_in_words(without) is None
    assert base_on_new_task(run_of(ws, "before")) is None
    ws.guard_add(ws.ledger.root.parent / "away.yaml")
    entry, record = learned(ws, "after")
    found = record.new_task_kl
    assert 0 < found.low <= found.kl <= found.high
    assert found.n == 8  # a fifth of 40 rows are test rows
    assert kl_in_words(record).startswith(f"KL {found.kl:.2f} nats a token ({found.low:.2f} to ")
    assert kl_in_words(record).endswith(") on 8 prompts of the task")
    run, base = run_of(ws, "after"), ws.ledger.resolve("base")
    ws.session.load(base)
    asked = base_on_new_task(run)
    assert new_task_kl(run, asked, ws.ledger.entry(entry)).kl == pytest.approx(found.kl, rel=1e-4)
    assert new_task_kl(run, asked, base).kl == 0.0
    assert new_task_kl(run, None, base) is None
    monkeypatch.setattr(module, "ROWS", 3)
    ws.session.load(base)
    assert len(base_on_new_task(run).rows.rows) == 3
    monkeypatch.setattr(module, "MOST", 1)
    assert base_on_new_task(run) is None  # no prompt is that short
