"""A drift guard of a workspace: its reference answers once, later states are compared with that, and budgets change no bit."""

import json
import shutil

import pytest

from perdure import Workspace
from perdure.workflows.guards import drift as module
from perdure.workflows.guards.measure import measure_guards

FAST = {"num_train_epochs": 2, "learning_rate": 0.01, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 2}


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """A workspace with a drift guard of 5 rows, of which a learn scores 3, and a learned task."""
    folder = tmp_path_factory.mktemp("drifting")
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32", guards="none")
    rows = [
        {"prompt": f"Say {word}", "completion": "-"} for word in ("refund", "parcel", "invoice", "text", "the label")
    ]
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "away.yaml").write_text(
        "ability_guard: away\ntest: asked.jsonl\nability: drift\nchat: true\nmax_new_tokens: 6\nscorer: same\n"
        "items: {learn: 3, quick: 5, standard: 5, full: all}\n"
    )
    ws.guard_add(folder / "away.yaml")
    train = [{"text": f"about {n}", "label": "refund" if n % 2 else "parcel"} for n in range(12)]
    (folder / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train), "utf-8")
    ws.learn("task", folder / "task.jsonl", recipe="naive", overrides=FAST, gate=None)
    return ws.ledger.root


@pytest.fixture
def ws(made, tmp_path):
    return Workspace.open(shutil.copytree(made.parent, tmp_path / "all") / "ws")


@pytest.fixture
def answered(monkeypatch):
    """The number of rows in each piece that a reference answers."""
    pieces, real = [], module.reference_answers

    def reference_answers(runtime, these, tick=None):
        pieces.append(len(these.rows))
        return real(runtime, these, tick)

    monkeypatch.setattr(module, "reference_answers", reference_answers)
    return pieces


def test_the_reference_answers_once_and_a_learned_task_drifts(ws, answered):
    head, base = ws.ledger.resolve("head"), ws.ledger.resolve("base")
    already = 3 if ws.ledger.guard("away").columns else 0  # a learn may have scored its budget
    found = measure_guards(ws.session, head, "quick")["away"]
    assert sum(answered) == 5 - already
    assert found.before.items == (1.0,) * 5
    assert all(item < 1 for item in found.now.items)
    assert set(found.now.readings) == {"kl", "length", "ends", "sound", "declines"}
    assert all(kl > 0 for kl in found.now.readings["kl"])
    assert found.now.predictions != found.before.predictions
    answered.clear()
    assert measure_guards(ws.session, base, "quick")["away"].now.items == (1.0,) * 5
    assert measure_guards(ws.session, head, "quick")["away"].now == found.now
    assert answered == []


def test_a_larger_budget_gives_the_same_items_to_the_bit(ws, tmp_path):
    head = ws.ledger.resolve("head")
    other = Workspace.open(shutil.copytree(ws.ledger.root, tmp_path / "other"))
    grown = [measure_guards(ws.session, head, budget)["away"].now for budget in ("learn", "quick")]
    at_once = measure_guards(other.session, head, "quick")["away"].now
    assert grown[1].items == at_once.items
    assert grown[1].readings == at_once.readings
    assert grown[1].items[:3] == grown[0].items


def test_collecting_garbage_keeps_the_answers_of_the_reference(ws, answered):
    head = ws.ledger.resolve("head")
    first = measure_guards(ws.session, head, "quick")["away"].now
    ws.gc()
    with ws.ledger.changing() as connection:
        connection.exec_driver_sql("delete from scores")
    answered.clear()
    again = measure_guards(ws.session, head, "quick")["away"].now
    assert (again.items, again.predictions) == (first.items, first.predictions)
    assert answered == []


def test_a_reference_that_moved_answers_anew(ws, answered):
    head = ws.ledger.resolve("head")
    measure_guards(ws.session, head, "quick")
    answered.clear()
    ws.guard_accept("away", "head")
    found = measure_guards(ws.session, head, "quick")["away"]
    assert sum(answered) == 5
    assert found.before.items == found.now.items == (1.0,) * 5
    assert all(item < 1 for item in measure_guards(ws.session, ws.ledger.resolve("base"), "quick")["away"].now.items)
