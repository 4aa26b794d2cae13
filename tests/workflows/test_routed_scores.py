"""Scores of requests that do not name their task: where each row goes, what it costs, and what is stored."""

import json

import pytest

from perdure import Workspace
from perdure.evaluate.matrix import Matrix
from perdure.workflows import routed_scores
from perdure.workflows.routed_scores import SENT, score_routed
from perdure.workflows.routing import Routing, routed_rows

FAST = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 4}
WORDS = {"refund": "money back", "parcel": "where is it", "invoice": "what do I owe"}


def learn(ws, tmp_path, task, recipe="isolated"):
    rows = [
        {"text": f"{WORDS[task]} {i}", "label": f"{task} {i % 2}", "split": split}
        for split, start in (("train", 0), ("test", 100))
        for i in range(start, start + 8)
    ]
    path = tmp_path / f"{task}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return ws.learn(task, path, recipe=recipe, overrides=FAST, gate=None)


@pytest.fixture
def ws(tiny_model, tmp_path):
    return Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")


@pytest.fixture
def isolated(ws, tmp_path):
    learn(ws, tmp_path, "refund")
    ws.result = learn(ws, tmp_path, "parcel")
    return ws


def sent_to(monkeypatch, targets):
    """Send the rows of every task to these targets in turn."""

    def fixed(session, entry, task, tick=None):
        return [Routing(targets[i % len(targets)], {}) for i in range(len(task.test))]

    monkeypatch.setattr(routed_scores, "routed_rows", fixed)


def forget_routed(ws):
    """Take the routed scores out of the ledger, as if none had been measured."""
    state = ws.ledger.state(ws.ledger.resolve("head"))
    with ws.ledger.changing() as connection:
        from perdure.ledger.database import scores

        connection.execute(scores.delete().where(scores.c.state == state))


def test_a_learn_with_a_router_scores_requests_without_a_name_too(isolated):
    result = isolated.result
    assert set(result.routed) == {"refund", "parcel"}
    assert result.routing.n == 16
    assert result.to_json()["routing"]["accuracy"] == result.routing.accuracy


def test_both_matrices_have_one_shape_and_the_routed_one_says_how_many_rows_found_their_task(isolated):
    known, routed = isolated.matrix(), isolated.matrix(routed=True)
    assert (routed.tasks, routed.stages) == (known.tasks, known.stages)
    assert known.routing is None
    assert routed.routing == isolated.result.routing
    assert Matrix.from_json(routed.to_json()) == routed
    assert "routing" not in known.to_json()


def test_rows_that_are_sent_home_keep_their_items_and_cost_no_answer(isolated, monkeypatch):
    forget_routed(isolated)
    session, head = isolated.session, isolated.ledger.resolve("head")
    task = session.task("refund", head)
    sent_to(monkeypatch, ["refund"])
    monkeypatch.setattr(type(session), "measure_under", None)
    found, own = score_routed(session, head, task), session.score(head, task).score
    assert found.items == own.items
    assert set(found.readings[SENT]) == {1.0}  # the second of parcel, refund


def test_rows_that_are_sent_elsewhere_are_answered_there(isolated, monkeypatch):
    forget_routed(isolated)
    session, head = isolated.session, isolated.ledger.resolve("head")
    task = session.task("refund", head)
    sent_to(monkeypatch, ["refund", "parcel", None, "refund"])
    found, own = score_routed(session, head, task), session.score(head, task).score
    session.load(head, "parcel")
    elsewhere = session.measure_under(head, "parcel", task, [1, 5]).score
    shared = session.measure_under(head, None, task, [2, 6]).score
    assert [found.predictions[i] for i in (1, 5)] == list(elsewhere.predictions)
    assert [found.predictions[i] for i in (2, 6)] == list(shared.predictions)
    assert [found.items[i] for i in (0, 3, 4, 7)] == [own.items[i] for i in (0, 3, 4, 7)]
    assert found.readings[SENT][:4] == (1.0, 0.0, -1.0, 1.0)
    assert isolated.ledger.score(isolated.ledger.state(head), task.version) == found
    routing = isolated.matrix(routed=True).routing
    assert (routing.accuracy, routing.unknown, routing.n) == (0.5, 0.25, 8)


def test_a_row_that_is_sent_to_the_same_weights_as_before_is_not_answered_again(isolated, tmp_path, monkeypatch):
    sent_to(monkeypatch, ["refund", "parcel"])
    forget_routed(isolated)
    head = isolated.ledger.resolve("head")
    first = score_routed(isolated.session, head, isolated.session.task("refund", head))
    asked = []
    answer = type(isolated.session).measure_under

    def counted(session, entry, view, task, chosen=None, tick=None):
        asked.append((view, task.name))
        return answer(session, entry, view, task, chosen, tick)

    monkeypatch.setattr(type(isolated.session), "measure_under", counted)
    result = learn(isolated, tmp_path, "invoice")
    assert result.routed["refund"].score == first.score
    assert ("parcel", "refund") not in asked
    assert ("parcel", "invoice") in asked


def test_a_routed_score_is_measured_once(isolated, monkeypatch):
    head = isolated.ledger.resolve("head")
    task = isolated.session.task("parcel", head)
    first = score_routed(isolated.session, head, task)
    monkeypatch.setattr(routed_scores, "routed_rows", None)
    assert score_routed(isolated.session, head, task) == first


def test_where_nothing_is_isolated_the_routed_score_is_the_score(ws, tmp_path):
    learn(ws, tmp_path, "refund", "naive")
    head = ws.ledger.resolve("head")
    task = ws.session.task("refund", head)
    assert score_routed(ws.session, head, task) == ws.session.score(head, task).score
    assert ws.matrix(routed=True).score == ws.matrix().score
    assert ws.matrix(routed=True).routing is None


def test_isolated_tasks_without_a_router_are_answered_by_what_all_share(ws, tmp_path):
    learn(ws, tmp_path, "refund", {"methods": {"per_task": {}}})
    head = ws.ledger.resolve("head")
    task = ws.session.task("refund", head)
    found = ws.evaluate(routed=True)
    base = ws.session.score(ws.ledger.resolve("base"), task).score
    assert found.scores["refund"].score.items == base.items
    assert found.routing is None


def test_eval_routed_scores_what_no_learn_did(isolated):
    forget_routed(isolated)
    assert isolated.matrix(routed=True).score[-1] == (None, None)
    found = isolated.evaluate(routed=True)
    assert found.routing == isolated.result.routing
    assert isolated.matrix(routed=True).routing == found.routing
    assert found.to_json()["routing"]["n"] == 16


def test_the_rows_are_those_that_the_router_names(isolated):
    head = isolated.ledger.resolve("head")
    task = isolated.session.task("parcel", head)
    names = ["parcel", "refund"]
    sent = [names.index(one.task) if one.task else -1 for one in routed_rows(isolated.session, head, task)]
    assert list(score_routed(isolated.session, head, task).readings[SENT]) == sent


def test_the_report_shows_both_matrices_the_confusion_and_what_lies_under_each_task(isolated, tmp_path):
    page = isolated.report(tmp_path / "report.html").read_text(encoding="utf-8")
    section = page.split('id="routing"')[1].split("</section>")[0]
    assert "The request does not name it" in section
    assert "sent to parcel" in section
    assert "near no task" in section
    assert "its own" in section


def test_a_report_of_summed_adapters_names_them_and_one_of_a_shared_adapter_has_no_such_section(ws, tmp_path):
    learn(ws, tmp_path, "refund", "naive")
    assert 'id="routing"' not in ws.report(tmp_path / "one.html").read_text(encoding="utf-8")
    learn(ws, tmp_path, "parcel", {"methods": {"incremental": {}}})
    section = ws.report(tmp_path / "two.html").read_text(encoding="utf-8").split('id="routing"')[1]
    assert "the shared adapter, the adapter of parcel" in section.split("</section>")[0]


def test_a_benchmark_counts_the_rows_of_each_arm_that_found_their_task(isolated):
    from perdure.workflows.bench.text import routed_items

    found = routed_items(isolated.session)
    assert set(found.items) == set(found.found) == {"refund", "parcel"}
    hits = [hit for rows in found.found.values() for hit in rows]
    assert sum(hits) / len(hits) == isolated.result.routing.accuracy
    assert sum(found.items["refund"]) / 8 == pytest.approx(isolated.result.routed["refund"].score)


def counted(ws, monkeypatch):
    """Return a list that grows by (view, task) with each answering of rows."""
    asked, answer = [], type(ws.session).measure_under

    def measured(session, entry, view, task, chosen=None, tick=None):
        asked.append((view, task.name))
        return answer(session, entry, view, task, chosen, tick)

    monkeypatch.setattr(type(ws.session), "measure_under", measured)
    return asked


def test_a_revert_of_a_task_scores_the_others_without_their_names_and_answers_only_what_changed(
    isolated, tmp_path, monkeypatch
):
    sent_to(monkeypatch, ["refund", "parcel", "invoice"])
    learn(isolated, tmp_path, "invoice")
    sent_to(monkeypatch, ["refund", None, "invoice"])
    asked = counted(isolated, monkeypatch)
    done = isolated.revert("parcel")
    assert sorted(asked) == [(None, "invoice"), (None, "refund")]  # only the rows that parcel answered before
    assert set(done.routed) == {"refund", "invoice"}
    assert (done.routing.n, done.routing.unknown) == (16, 6 / 16)
    table = isolated.matrix(routed=True)
    assert [dict(zip(table.tasks, table.score[-1], strict=True))[name] for name in done.routed] == [
        one.score for one in done.routed.values()
    ]
    assert table.routing == done.routing
    assert done.to_json()["routing"]["n"] == 16


def test_a_revert_of_the_last_task_finds_the_scores_of_the_entry_before_it(isolated, tmp_path, monkeypatch):
    learn(isolated, tmp_path, "invoice")
    asked = counted(isolated, monkeypatch)
    monkeypatch.setattr(routed_scores, "routed_rows", None)
    done = isolated.revert("invoice")
    assert asked == []
    assert (done.routed, done.routing) == (isolated.result.routed, isolated.result.routing)


def test_a_revert_that_scores_nothing_scores_no_request_without_a_name(isolated, monkeypatch):
    asked = counted(isolated, monkeypatch)
    done = isolated.revert("refund", score="none")
    assert asked == []
    assert (done.routed, done.routing) == (None, None)
    assert "routed" not in done.to_json()
    table = isolated.matrix(routed=True)
    assert table.score[-1][table.tasks.index("parcel")] is None


def test_a_merge_scores_requests_that_do_not_name_their_task(isolated, monkeypatch):
    sent_to(monkeypatch, ["refund", "parcel", None])
    asked = counted(isolated, monkeypatch)
    done = isolated.merge(4, gate=None)
    assert set(done.routed) == {"refund", "parcel"}
    assert (done.routing.n, done.routing.unknown) == (16, 0.25)
    head = isolated.ledger.resolve("head")
    task = isolated.session.task("refund", head)
    merged = isolated.session.score(head, task, shared=True).score
    stored = isolated.ledger.score(isolated.ledger.state(head), task.version)
    assert [stored.predictions[n] for n in (2, 5)] == [merged.predictions[n] for n in (2, 5)]
    assert isolated.matrix(routed=True).routing == done.routing
    assert (None, "refund") in asked
    asked.clear()
    assert isolated.evaluate(routed=True).routing == done.routing
    assert asked == []


def test_a_merge_in_place_of_the_tasks_adapters_sends_every_request_through_it(isolated):
    done = isolated.merge(4, gate=None, drop=True)
    assert {name: one.score for name, one in done.routed.items()} == {
        name: one.score for name, one in done.scores.items()
    }


def test_without_a_router_a_revert_and_a_merge_have_no_routed_scores(ws, tmp_path):
    for task in ("refund", "parcel"):
        learn(ws, tmp_path, task, {"methods": {"per_task": {}}})
    merged, reverted = ws.merge(4, gate=None), ws.revert("parcel")
    for done in (merged, reverted):
        assert (done.routed, done.routing) == (None, None)
        assert not {"routed", "routing"} & done.to_json().keys()
