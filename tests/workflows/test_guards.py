"""Guards of a workspace are scored at their reference and at an entry: once, in fixed pieces, without rows that leaked."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from perdure import Workspace
from perdure.core.errors import BadInput, NotFound
from perdure.evaluate.blindness import is_blind
from perdure.evaluate.matrix import plain_text
from perdure.evaluate.scorers import score_record
from perdure.ledger.records import MemoryItem
from perdure.workflows.export.card_scores import guard_lines
from perdure.workflows.guards import measure as module
from perdure.workflows.guards.measure import items_of, measure_guards, score_guard
from perdure.workflows.inspect.report_data import report_data
from perdure.workflows.scoring import Measured

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 2}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """A workspace with one guard of 12 rows in three groups, of which a learn scores 4."""
    folder = tmp_path_factory.mktemp("guarded")
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32", guards="none")
    rows = [{"prompt": f"sum {n}", "completion": "refund", "kind": "abc"[n % 3]} for n in range(12)]
    write(folder / "sums.jsonl", rows)
    (folder / "sums.yaml").write_text(
        "ability_guard: sums\ntest: sums.jsonl\nability: maths\ngroup: kind\nmax_new_tokens: 2\nscorer: rouge_l\n"
        "items: {learn: 4, quick: 6, standard: 9, full: all}\nchance: 0.1\n"
    )
    ws.guard_add(folder / "sums.yaml")
    train = [{"text": f"about {n}", "label": "refund" if n % 2 else "parcel"} for n in range(12)]
    write(folder / "task.jsonl", train)
    return ws.ledger.root


@pytest.fixture
def ws(made, tmp_path):
    return Workspace.open(shutil.copytree(made.parent, tmp_path / "all") / "ws")


@pytest.fixture
def scored(monkeypatch):
    """The pieces that are scored, as (guard, first row, end)."""
    pieces, real = [], module.measure

    def measure(runtime, task, tick=None, *, only, **more):
        pieces.append((task.name, only.start, only.stop))
        return real(runtime, task, tick, only=only, **more)

    monkeypatch.setattr(module, "measure", measure)
    return pieces


def learn(ws, name="task", file="task.jsonl", **more):
    return ws.learn(name, ws.ledger.root.parent / file, recipe="dual_replay", overrides=FAST, **more)


def test_adding_a_guard_scores_nothing_and_renames_nothing(ws, scored):
    (guard,) = ws.guards()
    assert (guard.name, guard.ability, guard.items, guard.blind) == ("sums", "maths", 12, None)
    assert guard.budgets.to_json() == {"learn": 4, "quick": 6, "standard": 9, "full": 12}
    assert (guard.chance, guard.scorer, guard.source) == (0.1, "rouge_l", "sums.jsonl")
    assert [entry.kind for entry in ws.ledger.entries()] == ["base"]
    assert scored == []
    plain = ws.ledger.root.parent / "plain"
    bare = Workspace.init(plain, ws.ledger.model, dtype="float32", guards="none")
    assert bare.ledger.resolve("head").id == ws.ledger.resolve("head").id


def test_a_larger_budget_scores_what_is_missing_with_the_same_bits(ws, scored):
    head = ws.ledger.resolve("head")
    small = measure_guards(ws.session, head)["sums"]
    assert scored == [("sums", 0, 4)]  # once: the reference is head
    assert (small.now.n, small.before) == (4, small.now)
    assert [row.group for row in small.rows[:3]] != [small.rows[0].group] * 3
    large = measure_guards(ws.session, head, "full")["sums"]
    assert scored == [("sums", 0, 4), ("sums", 4, 6), ("sums", 6, 9), ("sums", 9, 12)]
    assert large.now.items[:4] == small.now.items
    assert large.now.rows == tuple(row.hash for row in ws.session.tasks.get("sums", large.guard.version).test)
    measure_guards(ws.session, head, "full")
    assert len(scored) == 4
    fresh = Workspace.open(ws.ledger.root)
    with fresh.ledger.changing() as connection:
        connection.exec_driver_sql("DELETE FROM scores")
    assert measure_guards(fresh.session, head, "full")["sums"].now.items == large.now.items
    assert measure_guards(fresh.session, head, {"sums": 5})["sums"].now.n == 6
    assert measure_guards(fresh.session, head, {}) == {}
    assert items_of(large.guard, {"sums": 99}) == 12


def test_a_guard_is_compared_with_its_reference(ws, scored):
    learn(ws, gate=None)
    head = ws.ledger.resolve("head")
    measured = measure_guards(ws.session, head)["sums"]
    assert scored == [("sums", 0, 4), ("sums", 0, 4)]
    assert measured.before.rows == measured.now.rows
    moved = ws.guard_accept("sums")
    assert moved.reference == head.id
    again = measure_guards(ws.session, head)["sums"]
    assert again.before == again.now == measured.now
    (line,) = ws.ledger.reflog("guard/sums")
    assert (line.new, line.why) == (head.id, "guard accept sums --at head")
    assert ws.guard_accept("sums", at="base").reference == ws.ledger.resolve("base").id
    assert measure_guards(ws.session, head)["sums"].before == measured.before


def test_rows_that_the_model_was_trained_on_are_left_out(ws):
    version = ws.ledger.guard("sums").version
    known = ws.session.tasks.get("sums", version).test[:4]
    rows = [{"prompt": row.prompt, "completion": "parcel"} for row in known[:2]]
    rows += [{"prompt": f"other {n}", "completion": "parcel"} for n in range(9)]
    write(ws.ledger.root.parent / "leak.jsonl", rows)
    write(ws.ledger.root.parent / "test.jsonl", [{"prompt": f"test {n}", "completion": "parcel"} for n in range(4)])
    learn(ws, "leak", "leak.jsonl", test=ws.ledger.root.parent / "test.jsonl", gate=None)
    head, base = ws.ledger.resolve("head"), ws.ledger.resolve("base")
    measured = measure_guards(ws.session, head)["sums"]
    assert (measured.leaked, measured.rows) == (2, known[2:])
    assert measured.before.rows == measured.now.rows == tuple(row.hash for row in known[2:])
    assert "guard sums: 2 of 4 items left out" in measured.notices[-1]
    assert measure_guards(ws.session, base)["sums"].leaked == 0
    remembered = {row.question for _, row in ws.ledger.manifest_rows(head.memory)}
    assert remembered
    assert not remembered & {row.question for row in known}


def test_a_row_in_memory_leaks_too(ws):
    head = ws.ledger.resolve("head")
    test = ws.session.tasks.get("sums", ws.ledger.guard("sums").version).test
    (key,) = ws.ledger.put_rows([test[0]])
    manifest = ws.ledger.put_manifest([MemoryItem(key, "general", "general", None)])
    assert ws.ledger.remembered([manifest], {test[0].question, "other"}) == {test[0].question}
    assert ws.ledger.remembered([], {test[0].question}) == set()
    assert head.memory is None


def test_names_of_guards_and_tasks_are_unique_together(ws):
    with pytest.raises(BadInput, match="sums is the name of a guard"):
        learn(ws, "sums", gate=None)
    learn(ws, gate=None)
    file = ws.ledger.root.parent / "sums.yaml"
    with pytest.raises(BadInput, match="task is the name of a task"):
        ws.guard_add(file, name="task")
    with pytest.raises(BadInput, match="guard sums is there already"):
        ws.guard_add(file)
    ws.task_rename("task", "alias")
    with pytest.raises(BadInput, match=r"alias is the name of a task \(the alias of task\)"):
        ws.guard_add(file, name="alias")
    with pytest.raises(BadInput, match="sums is a guard"):
        ws.task_rename("task", "sums")
    with pytest.raises(BadInput, match="head is a ref"):
        ws.guard_add(file, name="head")
    ws.task_remove("task")
    with pytest.raises(BadInput, match="task is the name of a task"):  # head~1 still knows it
        ws.guard_add(file, name="task")
    assert ws.guard_add(file, name="more", learn=12).budgets.to_json() == {
        "learn": 12,
        "quick": 12,
        "standard": 12,
        "full": 12,
    }
    with pytest.raises(NotFound, match="sums is a guard and no task"):
        ws.evaluate(["sums"])
    with pytest.raises(NotFound, match="the guards are sums, more"):
        ws.guard_remove("task")
    assert ws.guard_remove("more").name == "more"


def test_a_packed_workspace_has_its_guards_and_their_scores(ws, tmp_path):
    before = measure_guards(ws.session, ws.ledger.resolve("head"), "quick")
    columns = ws.ledger.objects.put({"x": torch.zeros(2)})
    ws.ledger.change_guard(replace(ws.ledger.guard("sums"), columns=columns))
    ws.pack(tmp_path / "ws.tar")
    other = Workspace.unpack(tmp_path / "ws.tar", tmp_path / "other")
    assert other.ledger.objects.verify(columns)
    assert other.ledger.guards() == ws.ledger.guards()
    assert other.verify().ok
    state = other.ledger.seen(other.ledger.resolve("head"), None)
    assert other.ledger.score(state, before["sums"].guard.version) == before["sums"].now


def test_a_data_file_that_is_nowhere_is_an_error_with_its_origin(ws, tmp_path, monkeypatch):
    file = tmp_path / "far.yaml"
    file.write_text(
        "ability_guard: far\ntest: there/far.jsonl\nability: knowledge\nsources: {there/far.jsonl: 'Far, CC0, at the far end'}\n"
    )
    with pytest.raises(BadInput, match=r"guard far needs there/far\.jsonl.*\n.*at the far end\n.*PERDURE_DATA"):
        ws.guard_add(file)
    (tmp_path / "data" / "there").mkdir(parents=True)
    write(
        tmp_path / "data" / "there" / "far.jsonl",
        [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}],
    )
    assert ws.guard_add(file, data=tmp_path / "data").items == 2
    ws.guard_remove("far")
    monkeypatch.setenv("PERDURE_DATA", str(tmp_path / "data"))
    assert ws.guard_add(file).items == 2


def test_a_score_of_a_guard_knows_its_state(ws):
    guard, base = ws.ledger.guard("sums"), ws.ledger.resolve("base")
    found = score_guard(ws.session, guard, base, 3)
    assert found.score.n == 3
    assert score_guard(ws.session, guard, base, 2).score == found.score


def test_a_deleted_row_leaves_a_guard_and_the_others_are_scored_once(ws, scored):
    head = ws.ledger.resolve("head")
    small = measure_guards(ws.session, head, "quick")["sums"]
    ws.delete_row(small.rows[1].hash)
    left = measure_guards(ws.session, head, "standard")["sums"]
    assert small.rows[1] not in left.rows
    assert (len(left.rows), len(set(left.now.rows))) == (9, 9)
    assert scored[2:] == [("sums", 5, 6), ("sums", 6, 9)]  # nine of the eleven rows left, five of them scored before
    assert ws.verify().ok


def test_the_matrix_has_guards_behind_a_rule_and_in_no_metric(ws):
    learn(ws, gate=None)
    before = ws.matrix()
    head = ws.ledger.resolve("head")
    measure_guards(ws.session, head)
    measure_guards(ws.session, ws.ledger.resolve("base"), "full")
    after = ws.matrix()
    assert after.metrics == before.metrics
    (column,) = after.guards.values()
    assert (column.ability, column.n, len(column.score)) == ("maths", 4, 2)  # the rows that both stages have
    assert before.guards["sums"].score == (None, None)
    assert plain_text(after).splitlines()[0].split() == ["after", "task", "|", "sums"]
    assert after.to_json()["guards"] == {"sums": column.to_json()}
    assert "guards" not in replace(after, guards={}).to_json()
    assert plain_text(replace(after, guards={})) == plain_text(replace(before, guards={}))


def test_rows_of_one_group_are_resampled_together_wherever_a_guard_is_shown(ws, monkeypatch):
    def measure(runtime, task, tick=None, *, only, **more):
        rows = [task.test[i] for i in only]
        items = [float(row.group == "a") for row in rows]
        return Measured(score_record("rouge_l", items, [""] * len(rows), [row.hash for row in rows], 1.0, {}))

    monkeypatch.setattr(module, "measure", measure)
    learn(ws, guards="none")
    found = ws.checkup(budget="full", only=["sums"])
    reading, verdict = found.guards["sums"], found.gate.guards.guards[0]
    assert (reading.now, reading.n, reading.groups) == (pytest.approx(1 / 3), 12, 3)
    rows = [1.0] * 4 + [0.0] * 8
    assert not is_blind("maths", rows, 0.1)  # twelve rows that know nothing of one another are above chance
    assert is_blind("maths", rows, 0.1, groups=["a"] * 4 + ["b"] * 4 + ["c"] * 4)  # one kind of three is not
    assert (reading.blind, verdict.verdict, ws.guards()[0].blind) == (True, "blind", True)
    assert [(one.kind, one.n, one.now, one.changed) for one in reading.kinds] == [
        (kind, 4, float(kind == "a"), False) for kind in "abc"
    ]
    assert ws.matrix().guards["sums"].blind
    assert report_data(ws.ledger).guards.panels == ()  # no ability that can fall
    card = next(
        line for line in guard_lines(ws.ledger, ws.ledger.resolve("head"))[1].splitlines() if "| sums |" in line
    )
    assert f"| {100 * reading.low:.1f}% to {100 * reading.high:.1f}% | 12 in 3 groups |" in card


def test_report_and_model_card_show_guards(ws, tmp_path):
    learn(ws, gate=None)
    measure_guards(ws.session, ws.ledger.resolve("head"))
    ws.guard_accept("sums", at="head")
    ws.guard_accept("sums", at="base")
    ws.report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text("utf-8")
    assert 'title="guard sums"' in page
    assert "What guards are compared with" in page
    assert "guard accept sums --at base" in page
    ws.export(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert "| sums | maths | rouge_l |" in card
