"""After an edit and a revert every task is scored: what was lost is said, and refuses the edit where that was asked for."""

import json
import shutil

import pytest
from typer.testing import CliRunner

import people
from edited import moved, said, write
from perdure import Workspace
from perdure.cli.main import app
from perdure.core.errors import BadInput
from perdure.workflows import rescore as module
from perdure.workflows import session as session_module
from perdure.workflows.edit.carry import verify_edits
from perdure.workflows.inspect.matrix import matrix

LOST = [moved(name) for name in people.PEOPLE[:6]]  # all that the task asks about


@pytest.fixture(scope="module")
def taught(bare, tmp_path_factory):
    """A workspace that learned a task whose six test rows ask where people live, and scores all of them."""
    folder = tmp_path_factory.mktemp("taught")
    made = Workspace.open(shutil.copytree(bare.ledger.root, folder / "ws"))
    rows = [{"prompt": f"{name} lives in", "completion": f" {people.HOME[name]}"} for name in people.PEOPLE[:6]]
    file = folder / "homes.jsonl"
    file.write_text("".join(json.dumps({**row, "split": part}) + "\n" for part in ("train", "test") for row in rows))
    options = {"overrides": {"num_train_epochs": 1, "host": "loop", "lora_r": 4}, "settings": {"max_new_tokens": 1}}
    done = made.learn("homes", file, recipe="naive", gate=None, allow_leaks=True, **options)
    assert done.scores["homes"].score == 1.0
    return made.ledger.root


@pytest.fixture
def ws(taught, tmp_path):
    return Workspace.open(shutil.copytree(taught, tmp_path / "copy"))


@pytest.fixture
def measured(monkeypatch):
    """Number of test rows of each scoring that is not looked up."""
    counts, real = [], session_module.measure

    def measure(runtime, task, tick=None, **more):
        found = real(runtime, task, tick, **more)
        counts.append(found.score.n)
        return found

    monkeypatch.setattr(session_module, "measure", measure)
    return counts


def entries(ws):
    return [entry.id for entry in ws.ledger.entries()], ws.ledger.refs(), ws.ledger.objects.all()


def last_row(ws):
    return matrix(ws.ledger).score[-1]


def test_an_edit_scores_the_tasks_and_a_revert_to_the_same_weights_looks_the_scores_up(ws, measured):
    done = write(ws, moved("Dan Kim"))
    assert measured == [6]
    assert (done.before["homes"].score, done.scores["homes"].score) == (1.0, pytest.approx(4 / 6))
    assert last_row(ws) == (done.scores["homes"].score,)
    assert done.gate.verdict == "inconclusive"  # two of six
    assert done.warnings == (done.gate.reason,)
    assert "the test items do not tell whether homes stayed within the tolerance" in done.warnings[0]
    assert verify_edits(ws.session).held == 1
    back = ws.revert(done.applied[0])
    assert measured == [6]
    assert (back.before["homes"].score, back.scores["homes"].score) == (done.scores["homes"].score, 1.0)
    assert back.warnings == ()  # a gain, however little the rows decide
    assert last_row(ws) == (1.0,)
    assert ws.revert(done.applied[0]).scores == {}  # nothing is recorded, and nothing is scored
    assert [row[0] is None for row in matrix(ws.ledger).score] == [False] * 4


def test_a_loss_is_a_warning_and_refuses_the_edit_only_where_that_was_asked_for(ws, measured):
    before = entries(ws)
    strict = write(ws, *LOST, gate=None, strict=True)
    assert strict.entry is None
    assert strict.gate.verdict == "fail"
    assert [one.fact for one in strict.refused] == [fact.id for fact in LOST]
    (reason,) = {one.reason for one in strict.refused}
    assert "homes lost more than the tolerance" in reason
    assert entries(ws) == before
    assert ws.verify().ok
    assert said(ws, "Dan Kim") == people.HOME["Dan Kim"]
    done = write(ws, *LOST, gate=None)
    assert len(done.applied) == 6
    assert measured == [6]  # the refused set has the same weights
    assert "homes lost more than the tolerance" in done.warnings[-1]
    assert ws.ledger.resolve("head").id == done.entry


def test_what_is_not_scored_is_a_dash_and_a_sample_is_no_score_of_all_rows(ws, measured, monkeypatch):
    plain = write(ws, moved("Dan Kim"), score="none")
    assert (plain.scores, plain.gate, measured, last_row(ws)) == ({}, None, [], (None,))
    assert plain.warnings == plain.summary.warnings == ("not scored: homes; 'perdure eval' scores them",)
    back = ws.revert(plain.applied[0], score="none")
    assert back.warnings == ()  # the weights are those before the edit, whose score is stored
    ws.rollback(plain.entry)
    monkeypatch.setattr(module, "SAMPLE", 2)
    quick = write(ws, moved("Dan Poe"), score="quick")
    assert measured == [2]
    assert (quick.before["homes"].n, quick.before["homes"].score, quick.scores["homes"].n) == (2, 1.0, 2)
    assert (matrix(ws.ledger).n[-1], last_row(ws)) == ((2,), (quick.scores["homes"].score,))
    again = ws.evaluate().tasks["homes"]
    assert (again.n, measured[-1]) == (6, 6)  # the sample did not pass for the whole
    assert matrix(ws.ledger).n[-1] == (6,)
    assert ws.verify().ok
    ws.gc()
    assert matrix(ws.ledger).n == ((6,), (6,), (None,), (6,))
    for score, strict in (("some", False), ("none", True)):
        with pytest.raises(BadInput, match="score"):
            ws.edit(LOST[0], score=score, strict=strict)


def test_the_command_prints_the_scores_and_exits_with_3_where_a_loss_refuses(ws, tmp_path):
    file = tmp_path / "facts.jsonl"
    file.write_text("".join(json.dumps(fact.to_json()) + "\n" for fact in LOST[2:4]))
    words = ["-w", str(ws.ledger.root), "edit", "--facts", str(file), "--no-gate", "--layer", "0"]
    strict = CliRunner().invoke(app, [*words, "--strict"])
    assert strict.exit_code == 3, strict.output
    assert "NOTHING EDITED: a task loses by it" in strict.stderr
    assert strict.stderr.count("the worst is homes") == 1
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "homes  100.0%" in done.stdout
    assert done.stderr.count("the worst is homes") == 1
    assert "takes the edit out" in done.stderr
    entry = Workspace.open(ws.ledger.root).ledger.resolve("head").id
    back = CliRunner().invoke(app, ["-w", str(ws.ledger.root), "revert", entry])
    assert back.exit_code == 0, back.output
    assert "homes" in back.stdout


def test_log_show_status_and_gate_have_the_verdict_and_the_main_score_of_an_edit_and_a_revert(ws, tmp_path):
    def call(*words, code=0):
        done = CliRunner().invoke(app, [*map(str, words), "-w", str(ws.ledger.root)], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done

    done = write(ws, *LOST, gate=None)
    assert done.gate.verdict == "fail"
    line, learned, *_, base = ws.log()
    assert (line.kind, line.verdict, line.score, line.recipe) == ("edit", "fail", done.scores["homes"].score, None)
    assert (learned.verdict, learned.score, base.score) == ("off", 1.0, None)
    assert ws.show().gate == ws.gate().verdict == done.gate
    assert (ws.status().gate.verdict, ws.status().gate.reason) == ("fail", done.gate.reason)
    assert json.loads(call("show", "--json").stdout)["gate"]["reason"] == done.gate.reason
    assert f"FAIL, {done.gate.reason}" in call("show").stdout
    warned = call("gate", code=3)
    assert "fail          homes" in warned.stdout
    assert "the gate of an entry of kind edit warns" in warned.stderr
    assert "is of kind edit, so there is no evidence" in call("gate", "--save", tmp_path / "e.json", code=1).stderr
    back = ws.revert(done.entry[:12])
    assert back.gate.verdict == "pass"
    assert next((one.kind, one.verdict, one.score) for one in ws.log()) == ("revert", "pass", 1.0)
    assert ws.gate().verdict == back.gate
    taken = ws.task_remove("homes")
    assert next((one.entry, one.verdict, one.score) for one in ws.log()) == (taken.entry, None, None)
    with pytest.raises(
        BadInput, match="only a learn or a merge has, and an edit or a revert after which tasks were scored"
    ):
        ws.gate()


def test_a_strict_edit_that_loses_nothing_has_no_failed_verdict_and_sentences_have_the_alias(ws):
    ws.task_rename("homes", "houses")
    kept = write(ws, moved(people.PEOPLE[-1]), gate=None, strict=True)
    assert kept.entry is not None
    assert (kept.gate.verdict, kept.gate.strict) == ("inconclusive", False)  # six rows do not decide 3 points
    assert kept.scores["homes"].score == 1.0
    lost = write(ws, *LOST, gate=None)
    assert "houses lost more than the tolerance; the worst is houses" in lost.warnings[-1]
    assert [task.task for task in lost.gate.tasks] == ["homes"]
    assert write(ws, moved("Dan Kim", 1), gate=None, score="none").warnings[-1].startswith("not scored: houses")
