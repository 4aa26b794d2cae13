"""Guards in the verbs: a learn, an edit and a revert score them, warn of what fell, and refuse it where they are enforced."""

import json
import shutil

import pytest

import people
from edited import FACTS, SAID, SPEC, moved
from perdure import Gate, Workspace
from perdure.cli.guard_line import guard_line
from perdure.core.errors import BadInput
from perdure.evaluate.evidence import check_evidence
from perdure.ledger.records import Evidence
from perdure.workflows.guards import measure as module

BROKEN = {"num_train_epochs": 12, "host": "loop", "lora_r": 8, "learning_rate": 0.1, "per_device_train_batch_size": 4}
GENTLE = {**BROKEN, "num_train_epochs": 1, "learning_rate": 1e-6}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture(scope="module")
def made(bare, tmp_path_factory):
    """A workspace whose model knows where 16 people live; its guard asks that, and a task makes it forget."""
    folder = tmp_path_factory.mktemp("guarded")
    ws = Workspace.open(shutil.copytree(bare.ledger.root, folder / "ws"))
    write(
        folder / "homes.jsonl", [{"prompt": f"{n} lives in", "completion": f" {people.HOME[n]}"} for n in people.PEOPLE]
    )
    (folder / "homes.yaml").write_text(
        "ability_guard: homes\ntest: homes.jsonl\nability: knowledge\nmax_new_tokens: 1\nscorer: exact\nchance: 0.25\n"
    )
    ws.guard_add(folder / "homes.yaml")
    split = [("train", people.PEOPLE[:8]), ("test", people.PEOPLE[8:])]
    rows = [{"prompt": f"{n} is at home in", "completion": " a", "split": part} for part, names in split for n in names]
    write(folder / "task.jsonl", rows)
    return ws.ledger.root


@pytest.fixture
def ws(made, tmp_path):
    return Workspace.open(shutil.copytree(made.parent, tmp_path / "all") / "ws")


@pytest.fixture
def scored(monkeypatch):
    """Number of items of each scoring of a guard that is not looked up."""
    counts, real = [], module.measure

    def measure(*arguments, only, **more):
        counts.append(len(only))
        return real(*arguments, only=only, **more)

    monkeypatch.setattr(module, "measure", measure)
    return counts


def learn(ws, name="task", overrides=BROKEN, **more):
    options = {"recipe": "naive", "overrides": overrides, "settings": {"max_new_tokens": 1}, "allow_leaks": True}
    return ws.learn(name, ws.ledger.root.parent / "task.jsonl", **options, **more)


def edit(ws, *facts, **more):
    return ws.edit(list(facts), spec=SPEC, gate=SAID, **more)


def warned(result):
    return [text for text in result.warnings if text.startswith("guards:")]


def test_a_learn_that_loses_an_ability_warns_and_says_what_to_do(ws, tmp_path, scored):
    done = learn(ws)
    assert done.moved
    assert done.gate.verdict == "pass"
    verdict = done.gate.guards
    assert (verdict.verdict, verdict.enforced) == ("fail", False)
    (homes,) = verdict.guards
    assert (homes.guard, homes.ability, homes.before, homes.n, homes.budget) == ("homes", "knowledge", 1.0, 16, "learn")
    assert homes.now < 0.5
    assert scored == [16, 16]
    (text,) = warned(done)
    for words in ("homes", "general", "perdure guard accept"):
        assert words in text
    head = ws.ledger.resolve("head")
    evidence = ws.ledger.note(head.id, "evidence", Evidence)
    assert evidence.guards["homes"].now.count(1.0) == round(16 * homes.now)
    ws.save_evidence(tmp_path / "evidence.json")
    assert check_evidence(tmp_path / "evidence.json").differences == ()
    assert "guards" in done.resources.seconds
    assert ws.gate().to_json()["guards"]["verdict"] == "fail"
    for shown in (ws.status().to_json(), ws.show().to_json()):
        assert (shown["guard_scores"]["mode"], shown["guard_scores"]["verdict"]) == ("warn", "fail")
        line = shown["guard_scores"]["guards"]["homes"]
        assert line == {"ability": "knowledge", "before": 1.0, "now": homes.now, "n": 16, "verdict": "fail"}
    said = guard_line(ws.status().guard_scores)
    assert said == f"FAIL, homes {100 * homes.now:.1f}% (100.0% before) FAIL"


def test_guards_that_no_gate_judged_show_what_was_measured(ws):
    assert guard_line(ws.status().guard_scores) == "not judged, homes not scored"
    ws.guard_mode("enforce")
    done = learn(ws, overrides=GENTLE, guards="none")
    shown = ws.show(done.entry).to_json()
    assert shown["guards"] == "not scored"  # the note of a learn without guards stays as it was
    assert shown["guard_scores"]["guards"]["homes"]["now"] is None
    ws.checkup(only=["homes"])
    assert ws.show(done.entry).to_json()["guard_scores"]["guards"]["homes"]["now"] == 1.0
    assert guard_line(ws.status().guard_scores) == "not judged (enforced), homes 100.0% (100.0% before)"
    ws.guard_remove("homes")
    assert not ws.ledger.has_guards
    assert "guard_scores" not in ws.status().to_json()


def test_the_ids_of_entries_do_not_depend_on_guards(ws):
    first = learn(ws).entry
    ws.rollback("base")
    ws.guard_remove("homes")
    assert learn(ws).entry == first


def test_a_guard_that_is_enforced_refuses_the_entry_which_can_be_accepted(ws):
    ws.guard_mode("enforce")
    done = learn(ws)
    assert (done.moved, done.gate.verdict, done.gate.guards.enforced) == (False, "fail", True)
    assert "homes" in done.gate.reason
    assert warned(done) == []
    assert ws.ledger.candidate().id == done.entry
    with pytest.raises(BadInput, match="a candidate is not recorded yet"):
        ws.guard_accept("homes", at="candidate")
    ws.discard()
    assert not learn(ws).moved
    assert ws.accept().id == done.entry
    ws.guard_accept("homes")
    again = learn(ws, "other", GENTLE)  # compared with the state that was accepted
    assert again.moved
    assert ws.matrix().guards["homes"].reference == done.entry


def test_one_command_can_enforce_warn_or_score_none(ws, scored):
    for options, moved_head in (
        ({"guards": "enforce"}, False),
        ({"gate": Gate(guards="enforce")}, False),
        ({"gate": Gate(guards="enforce"), "guards": "warn"}, True),
        ({"guards": "none"}, True),
        ({"gate": None}, True),
    ):
        scored.clear()
        done = learn(ws, **options)
        assert done.moved == moved_head, options
        skipped = options.get("guards") == "none" or options.get("gate", 1) is None
        assert ws.ledger.notes(done.entry).get("guards") == ("not scored" if skipped else None)
        if skipped:
            assert scored == []
            assert getattr(done.gate, "guards", None) is None
        ws.discard()
        ws.rollback("base")
        ws.gc(abandoned=True)  # the same learn again would have the first notes
    with pytest.raises(BadInput, match="guards is 'sometimes'"):
        learn(ws, guards="sometimes")


def test_without_a_loss_there_is_no_warning_and_a_guard_left_to_checkups_is_not_scored(ws, scored):
    done = learn(ws, overrides=GENTLE)
    assert done.gate.guards.guards[0].drop == 0.0
    assert warned(done) == []
    ws.guard_remove("homes")
    ws.guard_add(ws.ledger.root.parent / "homes.yaml", learn=0)
    scored.clear()
    assert learn(ws, "other", GENTLE).gate.guards is None
    assert scored == []


def test_edits_and_reverts_score_guards_once(ws, scored):
    done = edit(ws, FACTS[0])
    assert done.entry
    assert done.gate.guards.guards[0].before == 1.0
    assert scored == [16, 16]  # the base and the edit
    scored.clear()
    back = ws.revert(done.entry)
    assert back.gate.guards.guards[0].drop == 0.0
    assert scored == []  # the weights are those of the base
    assert edit(ws, FACTS[0], guards="none").gate is None
    assert ws.ledger.notes(ws.ledger.resolve("head").id)["guards"] == "not scored"
    assert scored == []


def test_an_edit_that_breaks_an_ability_is_refused_where_guards_are_enforced(ws):
    before = [entry.id for entry in ws.ledger.entries()], ws.ledger.objects.all()
    facts = [moved(name) for name in people.PEOPLE[:8]]  # half of what the guard asks
    ws.guard_mode("enforce")
    done = edit(ws, *facts)
    assert (done.entry, done.guards_fell) == (None, True)
    assert any("homes" in refused.reason for refused in done.refused)
    assert [entry.id for entry in ws.ledger.entries()] == before[0]
    columns = {guard.columns for guard in ws.ledger.guards()}
    assert ws.ledger.objects.all() - columns == before[1]
    ws.guard_mode("warn")
    done = edit(ws, *facts)
    assert done.entry
    assert len(warned(done)) == 1
    ws.revert(done.entry, guards="none")


def test_an_edit_that_is_refused_leaves_the_answers_of_the_reference_that_it_scored(ws, tmp_path):
    write(tmp_path / "asked.jsonl", [{"prompt": f"{name} lives in", "completion": "-"} for name in people.PEOPLE[:3]])
    (tmp_path / "same.yaml").write_text(
        "ability_guard: same\ntest: asked.jsonl\nability: drift\nmax_new_tokens: 2\nscorer: same\n"
    )
    ws.guard_add(tmp_path / "same.yaml")
    assert edit(ws, *(moved(name) for name in people.PEOPLE[:8]), guards="enforce").entry is None
    columns = {guard.columns for guard in ws.ledger.guards() if guard.columns}
    assert len(columns) == 1
    assert columns <= ws.ledger.objects.all()
    assert ws.verify().problems == ()


def test_verbs_after_one_another(ws):
    learn(ws, overrides=GENTLE)
    first = ws.ledger.resolve("head").id
    edit(ws, FACTS[0])
    ws.revert(FACTS[0].id)
    learn(ws, "other", GENTLE)
    ws.rollback(first)
    ws.guard_mode("enforce")
    assert not learn(ws, "broken").moved
    ws.accept()
    assert ws.verify().ok
    ws.task_remove("broken")
    ws.gc(abandoned=True)
    assert ws.verify().ok
    column = ws.matrix().guards["homes"]
    assert [score is not None for score in column.score] == [True, True, True, True]  # the removal keeps the weights
    assert column.score[0] == column.score[1] == 1.0
    assert column.score[2] == column.score[3] < 0.5
