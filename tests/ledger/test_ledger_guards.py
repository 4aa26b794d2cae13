"""Guards hang on a workspace and not on its entries: they are added, changed and removed, checked and kept by gc."""

import json
import sqlite3
from dataclasses import replace

import pytest

from perdure.core.errors import BadInput, BrokenStore, NotFound
from perdure.data.spec import make_spec
from perdure.data.task import TaskData
from perdure.evaluate.scorers import score_record
from perdure.ledger import Ledger
from perdure.ledger.records import Guard, GuardBudget


@pytest.fixture
def hung(ledger, rows):
    """Store a guard's rows and add it; returns its record."""

    def add(name="sums", **fields):
        own = tuple(replace(row, task=name) for row in rows)
        spec = make_spec({"name": name, "train": "made:sums"}, name)
        task = TaskData(spec, (), (), own, "prompt_completion")
        ledger.put_task(name, task.version, task.to_json(), {"test": own})
        base = ledger.resolve("base").id
        items = GuardBudget(2, 3, 4, 5)
        guard = Guard(name=name, version=task.version, ability="maths", items=items, reference=base, **fields)
        ledger.add_guard(guard)
        return guard

    return add


def test_guards_are_listed_in_the_order_in_which_they_were_added(ledger, hung, root):
    before = [entry.id for entry in ledger.entries()], ledger.refs()
    first, second = hung("b"), hung("a")
    assert ledger.guards() == Ledger.open(root).guards() == (first, second)
    assert ledger.guard("a") == second
    assert ([entry.id for entry in ledger.entries()], ledger.refs()) == before
    assert ledger.remove_guard("b") == first
    again = hung("b")
    assert ledger.guards() == (second, again)
    with pytest.raises(BadInput, match="there already"):
        ledger.add_guard(again)
    with pytest.raises(NotFound, match="the guards are a, b"):
        ledger.guard("c")


def test_a_reference_that_moves_is_a_line_in_the_reflog(ledger, hung, draft):
    guard, entry = hung(), draft(1.0)
    ledger.record(entry, {})
    moved = replace(guard, reference=entry.id)
    ledger.change_guard(moved, "because")
    assert ledger.guards() == (moved,)
    (line,) = ledger.reflog("guard/sums")
    assert (line.old, line.new, line.why) == (guard.reference, entry.id, "because")
    ledger.change_guard(replace(moved, columns="0" * 64))
    assert len(ledger.reflog("guard/sums")) == 1
    assert [line.why for line in ledger.reflog()] == ["learn", "init"]


def test_gc_keeps_what_a_guard_needs_and_deletes_it_after_the_guard(ledger, hung, put):
    columns = put(3.0)
    guard = hung(columns=columns)
    state = ledger.seen(ledger.resolve("base"), None)
    score = score_record("exact", [1.0, 0.0], ["a", "b"], ["x", "y"], 0.1)
    ledger.extend_score(state, guard.version, score, rows=5)
    ledger.gc()
    assert ledger.task_rows(guard.version, "test")
    assert ledger.score(state, guard.version) == score
    assert ledger.objects.verify(columns)
    ledger.remove_guard("sums")
    ledger.gc()
    assert ledger.task_rows(guard.version, "test") == []
    assert ledger.score(state, guard.version, 1) is None
    assert columns not in ledger.objects.all()


def test_the_reference_of_a_guard_is_not_abandoned(ledger, hung, draft):
    guard, first = hung(), draft(1.0)
    ledger.record(first, {})
    ledger.change_guard(replace(guard, reference=first.id))
    ledger.move("head", ledger.resolve("base").id, "rollback")
    assert ledger.abandoned() == []
    ledger.remove_guard("sums")
    assert ledger.abandoned() == [first]


def test_verify_finds_what_a_guard_lacks(ledger, hung, put, root):
    guard = hung(columns=put(2.0))
    assert ledger.verify().ok
    ledger.objects.path(str(guard.columns)).unlink()
    ledger.change_guard(replace(guard, reference="f" * 64))
    problems = ledger.verify().problems
    assert any("guard 'sums': its reference" in one for one in problems)
    assert any("guard 'sums': object" in one for one in problems)
    with sqlite3.connect(root / "ledger.sqlite") as db:
        db.execute("UPDATE guards SET record = ?", (json.dumps({"name": "other"}),))
    assert any("guard 'sums'" in one for one in ledger.verify().problems)
    with pytest.raises(BrokenStore, match="the record of guard 'sums'"):
        ledger.guards()


def test_a_file_from_before_guards_has_none_until_one_is_added(ledger, hung, root):
    with sqlite3.connect(root / "ledger.sqlite") as db:
        db.execute("DROP TABLE guards")
        db.execute("UPDATE meta SET schema_version = 5")
        db.execute("DELETE FROM migrations WHERE version = 6")
    old = Ledger.open(root)
    assert old.guards() == ()
    assert old.verify().ok
    assert old.abandoned() == []
    guard = hung()
    assert Ledger.open(root).guards() == (guard,)
    assert ledger.missing_tables() == []


def score(items):
    return score_record("exact", items, ["a"] * len(items), [f"row {n}" for n in range(len(items))], 0.5)


def test_a_score_is_extended_and_never_replaced(ledger, hung):
    guard = hung()
    state = ledger.seen(ledger.resolve("base"), None)

    def put(*items):
        ledger.extend_score(state, guard.version, score(items), rows=5)

    put(1.0, 0.0)
    put(1.0, 0.0, 1.0)
    put(1.0, 0.0)  # fewer: nothing is lost
    assert ledger.score(state, guard.version) == score([1.0, 0.0, 1.0])
    with pytest.raises(BadInput, match="another item for row"):
        put(1.0, 1.0, 1.0, 0.0)
    put(1.0, 0.0, 1.0, 1.0, 1.0)
    assert ledger.score(state, guard.version) == score([1.0, 0.0, 1.0, 1.0, 1.0])
    with sqlite3.connect(ledger.path) as db:  # one record a cell
        assert db.execute("SELECT version FROM scores").fetchall() == [(guard.version,)]
