"""Guards of selected rows: chosen at the base alone, named as selected, with a check of rows that no selection saw."""

import json
import shutil
from types import SimpleNamespace

import pytest

from perdure import Workspace
from perdure.cli.checkup_screen import checkup_screen
from perdure.core.errors import BadInput, BadSpec
from perdure.core.rows import Row
from perdure.ledger.records import Guard
from perdure.workflows.bench.guards import check_guards
from perdure.workflows.guards import measure as module
from perdure.workflows.guards.select import informative, names_of

FILE = """ability_guard: sums
test: sums.jsonl
ability: maths
informative: true
items: {learn: 4, quick: 6, standard: 6, full: %s}
"""
LONG = " x" * 30  # so much less likely than one letter that a choice is sure


def choices(n):
    """Return a row: every third one is sure to be right, the next to be wrong, the last open."""
    own = [[" a", LONG, LONG], [LONG, " b", " c"], [" a", " b", " c"]][n % 3]
    return {"prompt": f"sum {n}:", "choices": own, "gold": 0}


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("selected")
    Workspace.init(folder / "ws", str(tiny_model), dtype="float32", guards="none")
    (folder / "sums.jsonl").write_text("".join(json.dumps(choices(n)) + "\n" for n in range(48)), "utf-8")
    return folder


@pytest.fixture
def ws(made, tmp_path, monkeypatch):
    monkeypatch.setattr("perdure.workflows.checkup.choose.guard_names", lambda: [])
    return Workspace.open(shutil.copytree(made, tmp_path / "all") / "ws")


def add(ws, full, **more):
    file = ws.ledger.root.parent / "sums.yaml"
    file.write_text(FILE % full, "utf-8")
    return ws.guard_add(file, **more)


def rows_of(ws, name):
    return [row for row in ws.ledger.task_rows(ws.ledger.guard(name).version, "test")]


def test_rows_in_the_range_are_kept_in_order():
    rows = [Row(f"{n}") for n in range(6)]
    kept = informative(rows, [0.1, 0.15, 0.5, 0.86, 0.85, 0.4], 3)
    assert [row.prompt for row in kept] == ["1", "2", "4"]


def test_the_rows_that_the_base_is_unsure_of_are_selected_and_both_guards_are_named(ws):
    added = add(ws, 8)
    assert (added.name, added.items, added.budgets.learn) == ("sums_selected", 8, 4)
    assert (added.selection.rows, added.selection.wanted, added.selection.check) == (24, 8, "sums_check")
    assert [one.name for one in ws.guards()] == ["sums_selected", "sums_check"]
    check = ws.guards()[1]
    assert (check.items, check.budgets.learn, check.selection) == (8, 0, None)
    assert {row.choices for row in rows_of(ws, "sums_selected")} == {(" a", " b", " c")}
    known = [row.hash for name in ("sums_selected", "sums_check") for row in rows_of(ws, name)]
    assert len(set(known)) == 16
    assert "selection" not in check.to_json()
    assert added.to_json()["selection"]["check"] == "sums_check"


def test_fewer_rows_than_wanted_are_kept_as_they_are(ws):
    added = add(ws, "all")  # 12 of 36
    assert added.selection.wanted == 12
    assert 8 <= added.items <= 12
    again = Guard.from_json(json.loads(json.dumps(ws.ledger.guard("sums_selected").to_json())))
    assert again == ws.ledger.guard("sums_selected")


def test_a_selection_depends_on_the_base_alone_and_is_scored_once(ws, monkeypatch):
    add(ws, 8)
    first = ws.ledger.guard("sums_selected").version
    for name in ("sums_selected", "sums_check"):
        ws.guard_remove(name)
    monkeypatch.setattr(module, "measure", None)  # what the base scored on the pool is stored
    add(ws, 8)
    assert ws.ledger.guard("sums_selected").version == first


def test_a_score_of_selected_rows_is_never_that_of_the_ability(ws):
    add(ws, 8)
    found = ws.checkup(budget="full")
    assert found.guards["sums_selected"].selected
    assert found.pretraining_abilities.mathematical_reasoning.now == found.guards["sums_check"].now
    assert not found.pretraining_abilities.mathematical_reasoning.selected
    assert "n 8 selected" in checkup_screen(found, {})
    alone = ws.checkup(budget="full", only=["sums_selected"]).to_json()["pretraining_abilities"]
    assert alone["mathematical_reasoning"]["selected"]
    data = found.to_json()
    assert "selected" not in data["guards"]["sums_check"]
    (judged,) = [one for one in data["gate"]["guards"]["guards"] if one.get("selected")]
    assert judged["guard"] == "sums_selected"
    assert [one.ability for one in ws.matrix().guards.values()] == ["maths", "maths"]


def test_the_matrix_says_which_guards_are_blind(ws):
    add(ws, 8)
    assert not any(one.blind for one in ws.matrix().guards.values())  # nothing is measured yet
    ws.checkup(budget="full")
    assert {name: one.blind for name, one in ws.matrix().guards.items()} == {"sums_selected": False, "sums_check": True}


def test_what_cannot_be_selected_is_refused(ws):
    assert names_of("sums_selected") == names_of("sums") == ("sums_selected", "sums_check")
    add(ws, 8)
    ws.guard_remove("sums_selected")
    with pytest.raises(BadInput, match="guard sums_check is there already"):
        add(ws, 8)
    folder = ws.ledger.root.parent
    suite = SimpleNamespace(name="own", tasks=(), watch=(), guards=("sums.yaml",))
    with pytest.raises(
        BadInput, match=r"guard sums\.yaml is `informative`, and its rows would depend on the base model"
    ):
        check_guards(suite, folder)
    (folder / "text.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 5, "utf-8")
    (folder / "text.yaml").write_text(
        "ability_guard: text\ntest: text.jsonl\nability: maths\ninformative: true\n", "utf-8"
    )
    with pytest.raises(BadSpec, match="selects by the probability of the right choice, and its scorer is exact"):
        ws.guard_add(folder / "text.yaml")
    sure = "".join(json.dumps(choices(3 * n)) + "\n" for n in range(12))
    (folder / "sums.jsonl").write_text(sure, "utf-8")
    with pytest.raises(BadInput, match="no row of 9 has a right choice of probability"):
        add(ws, "all", name="sure")
