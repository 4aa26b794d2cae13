"""What the program says of its own numbers: on which rows, by which method, over which time."""

import json
import shutil
from html import unescape

import pytest
from typer.testing import CliRunner

from perdure import Gate, Workspace
from perdure.cli.main import app
from perdure.core.errors import Interrupted
from perdure.evaluate.evidence import check_evidence
from perdure.evaluate.matrix import plain_text
from perdure.maths.statistics import interval_name
from perdure.report.page import render
from perdure.train.checkpoint import Keeper
from perdure.workflows.inspect import memory_views, views
from perdure.workflows.inspect.compare import side_by_side
from perdure.workflows.inspect.matrix import matrix
from perdure.workflows.inspect.report_data import report_data
from perdure.workflows.inspect.score_views import score_table

QUICK = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 4}


def write(path, task, train, test):
    """Write a file whose rows are named by numbers: the same number is the same row."""
    rows = [
        {"text": f"{task} {n}", "label": f"{task} {'late' if n % 2 else 'lost'}", "split": split}
        for split, numbers in (("train", train), ("test", test))
        for n in numbers
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def learn(ws, folder, task, train=range(8), test=range(100, 106), recipe="dual_replay", gate=None, **options):
    path = write(folder / f"{task}-{len(list(folder.glob('*.jsonl')))}.jsonl", task, train, test)
    return ws.learn(task, path, recipe=recipe, overrides=QUICK, gate=gate, **options)


@pytest.fixture(scope="module")
def two_tasks(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("statements")
    made = Workspace.init(folder / "ws", str(tiny_model), dtype="float32")
    for task in ("parcel", "invoice"):
        learn(made, folder, task)
    return made.ledger.root


@pytest.fixture
def ws(two_tasks, tmp_path):
    return Workspace.open(shutil.copytree(two_tasks, tmp_path / "ws"))


@pytest.fixture
def updated(ws, tmp_path):
    """Parcel learned again with four more test rows."""
    learn(ws, tmp_path, "parcel", train=range(20, 28), test=range(110, 114))
    return ws


# --- before and after are of the same test rows


def test_the_table_of_a_learn_compares_the_same_rows_after_a_task_was_updated(updated):
    before, now = (
        getattr(score_table(updated.ledger, updated.ledger.resolve("head"))["parcel"], k) for k in ("before", "now")
    )
    assert (before.n, now.n) == (10, 10)
    parent, head = updated.ledger.resolve("head~1"), updated.ledger.resolve("head")
    record = updated.ledger.score(updated.ledger.state(parent), head.tasks["parcel"])
    assert before == record.summary  # what the warning of an unmoved score rests on too


def test_rows_deleted_since_are_left_out_of_the_score_before(ws, tmp_path):
    test_row = ws.session.task("parcel", ws.ledger.resolve("head")).test[0]
    ws.delete_row(test_row.hash)
    learn(ws, tmp_path, "return")
    cells = score_table(ws.ledger, ws.ledger.resolve("head"))["parcel"]
    assert (cells.before.n, cells.now.n) == (5, 5)


def test_the_matrix_marks_what_was_scored_on_other_rows(updated):
    found = matrix(updated.ledger, parts=True)
    (parcel,) = (j for j, name in enumerate(found.tasks) if name == "parcel")
    named = [line[parcel] for line in found.test]
    assert named[1] == named[2] != named[3]
    assert [line[parcel] for line in found.n] == [6, 6, 6, 10]
    text = plain_text(found)
    assert text.count("%'") == 3
    assert "' scored on other test rows than the newest" in text
    page = render(report_data(updated.ledger))
    assert page.count("other test rows than the newest") >= 4
    assert "when learned on other test rows" in page


def test_a_matrix_on_the_same_rows_has_no_marks(ws):
    assert "other test rows" not in plain_text(matrix(ws.ledger))
    assert "other test rows" not in render(report_data(ws.ledger))


def test_the_card_counts_the_rows_of_each_number(updated, tmp_path):
    updated.export(tmp_path / "out")
    (line,) = (x for x in (tmp_path / "out" / "README.md").read_text().splitlines() if x.startswith("| parcel |"))
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[5] == "10"
    assert cells[6].endswith("(n = 6)")
    assert cells[7].endswith("points (n = 6)")


# --- intervals are named by the method that made them


def test_each_interval_is_named_by_its_method(ws, tmp_path):
    assert interval_name([0, 1, 1.0]) == "Wilson"
    assert interval_name([0, 0.5]) == "bootstrap"
    page = unescape(render(report_data(ws.ledger)))
    assert "95% bootstrap intervals over test items" not in page
    assert "are Wilson's where answers are right or wrong" in page
    assert "95% Wilson interval" in page
    assert "95% bootstrap interval" not in page
    ws.export(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Wilson's, of answers that are right or wrong" in card
    assert "Those of the metrics are bootstrapped over test rows." in card


# --- a learn that went on from its checkpoint


def test_a_resumed_learn_counts_the_seconds_of_both_processes(ws, tmp_path, monkeypatch):
    path = write(tmp_path / "return.jsonl", "return", range(32), range(100, 104))
    real, clock = Keeper.after, {"now": 0.0}
    monkeypatch.setattr("perdure.core.clock.time.perf_counter", lambda: clock["now"])
    monkeypatch.setattr("perdure.train.checkpoint.time.monotonic", lambda: clock["now"])
    speeds, stopped = [], False

    def after(keeper, update, optimizer):
        clock["now"] += 10.0  # each update takes ten seconds
        keeper.stop = (lambda: "SIGTERM") if update == 5 and not stopped else (lambda: None)
        real(keeper, update, optimizer)

    def tick(what, done, total):
        if what.startswith("learning"):
            speeds.append(float(what.split(", ")[2].split()[0].replace(",", "")))

    monkeypatch.setattr(Keeper, "after", after)
    with pytest.raises(Interrupted):
        ws.learn("return", path, overrides=QUICK, gate=None, tick=tick)
    stopped, clock["now"] = True, clock["now"] + 3600.0  # an hour in which nothing ran
    done = ws.learn("return", path, overrides=QUICK, gate=None, tick=tick)
    assert done.train_seconds == 80.0
    record = ws.ledger.notes(done.entry)["record"]
    assert record["updates"] == 8
    assert record["train_seconds"] == 80.0
    whole = record["tokens"] / 80
    assert all(0.5 * whole < speed < 2 * whole for speed in speeds)
    assert f"{round(whole):,} tokens/s" in render(report_data(ws.ledger))


# --- beside another workspace


def test_equal_streams_are_said_to_be_equal(ws, two_tasks):
    found = side_by_side(ws.ledger, "other", Workspace.open(two_tasks).ledger)
    assert found.differs == ()
    assert found.curves == ("parcel", "invoice")
    assert found.shared.ours == found.shared.theirs == matrix(ws.ledger).metrics
    assert "The same tasks in the same order" in render(
        report_data(ws.ledger, {"other": Workspace.open(two_tasks).ledger})
    )


def test_other_tasks_rows_and_order_are_named_and_left_out(ws, tiny_model, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    other = Workspace.init(tmp_path / "other", str(tiny_model), dtype="bfloat16")
    learn(other, folder, "invoice", test=range(103, 110))
    learn(other, folder, "return")
    learn(other, folder, "parcel")
    found = side_by_side(ws.ledger, "other", other.ledger)
    assert list(found.differs) == [
        "the base is loaded in float32 here and in bfloat16 there",
        "1 task only there: return",
        "invoice has 6 test rows here and 7 there; 3 of both are compared",
        "the tasks were learned in another order: parcel, invoice here, invoice, parcel there; so only the score now is compared",
    ]
    assert list(found.shared.ours) == ["acc"]
    assert found.shared.ours["acc"].n == found.shared.theirs["acc"].n == 6 + 3
    assert found.curves == ()
    page = render(report_data(ws.ledger, {"other": other.ledger}))
    assert "The same tasks in the same order" not in page
    assert "1 task only there: return" in page


def test_workspaces_without_a_common_row_are_not_compared(ws, tiny_model, tmp_path):
    other = Workspace.init(tmp_path / "other", str(tiny_model), dtype="float32")
    assert side_by_side(ws.ledger, "other", other.ledger).shared is None
    learn(other, tmp_path, "return")
    found = side_by_side(ws.ledger, "other", other.ledger)
    assert found.shared is None
    assert found.differs == ("2 tasks only here: parcel, invoice", "1 task only there: return")
    assert "nothing is compared" in render(report_data(ws.ledger, {"other": other.ledger}))


# --- the gate


def test_a_gate_without_a_guarded_task_does_not_call_it_the_first(ws, tmp_path):
    done = learn(ws, tmp_path, "return", gate=Gate(), settings={"guard": []})
    assert done.gate.reason == "no task is guarded: what invoice, parcel lost was not judged"
    views.save_evidence(ws.ledger, tmp_path / "evidence.json")
    assert check_evidence(tmp_path / "evidence.json").differences == ()


# --- states in which a sentence is easily wrong


def say(ws, *words):
    """Run a command on a workspace and return all that it says."""
    found = CliRunner().invoke(app, ["-w", str(ws.ledger.root), *words])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.output


def test_what_is_not_there_is_not_counted(ws):
    assert "no fact is in force at head" in say(ws, "edits", "list")
    assert "; 'perdure edit' writes one" not in say(ws, "edits", "list", "--at", "base")
    assert "no task is known at base" in say(ws, "matrix", "--at", "base")
    assert "no task is known at base" in say(ws, "eval", "--at", "base")
    head = ws.ledger.resolve("head").id[:12]
    assert f"head is {head} already" in say(ws, "rollback", "head")


def test_a_head_at_the_base_is_not_said_to_be_all_there_is(ws):
    ws.rollback("base")
    page = render(report_data(ws.ledger))
    assert "Head knows no task and no edited fact." in page
    assert "holds the base model alone" not in page


def test_a_task_whose_test_rows_are_gone_is_left_out_of_a_whole_evaluation(ws, tmp_path):
    for row in ws.session.task("parcel", ws.ledger.resolve("head")).test:
        ws.delete_row(row.hash)
    assert set(ws.evaluate().tasks) == {"parcel", "invoice"}  # parcel was measured before
    done = learn(ws, tmp_path, "return", gate=Gate())
    assert "no test rows left" in " ".join(done.warnings)
    assert set(ws.evaluate().tasks) == {"invoice", "return"}
    assert [task.task for task in done.gate.tasks] == ["invoice"]


def test_the_memory_of_an_entry_is_what_it_remembers_now(ws):
    row = next(line.row for line in memory_views.remembered(ws.ledger))
    before = {e.entry: e.memory.rows for e in report_data(ws.ledger).entries}
    ws.delete_row(row)
    after = {e.entry: e.memory.rows for e in report_data(ws.ledger).entries}
    head = ws.ledger.resolve("head").id
    assert after[head] == before[head] - 1 == len(memory_views.remembered(ws.ledger))


@pytest.mark.parametrize(
    ("recipe", "words"), [("joint", "learned 2 tasks at once"), ("dual_replay", "learned 2 tasks one after another")]
)
def test_the_card_says_how_the_tasks_were_learned(tiny_model, tmp_path, recipe, words):
    made = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", keep_rows="all")
    for task in ("parcel", "invoice"):
        learn(made, tmp_path, task, recipe=recipe)
    made.export(tmp_path / "out")
    assert words in (tmp_path / "out" / "README.md").read_text()
    made.export(tmp_path / "one", at="head~1")
    assert "that learned 1 task with perdure" in (tmp_path / "one" / "README.md").read_text()
    made.export(tmp_path / "base", at="base", merged=True)
    assert "A copy of the base model made with perdure" in (tmp_path / "base" / "README.md").read_text()
