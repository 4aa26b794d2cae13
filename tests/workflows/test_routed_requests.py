"""Requests without a task: who answers them, where moments are stored, and that a task taken out was never there."""

import json
import re

import pytest
import torch

from perdure.core.errors import BadInput, BadSpec
from perdure.core.slots import measured_tasks
from perdure.workflows.inspect.routed_views import routed_report
from perdure.workflows.learn.remove_task import remove_task
from perdure.workflows.predict import views
from perdure.workflows.predict.ensemble import averaged, known_answers, voted
from perdure.workflows.predict.predict import predict
from perdure.workflows.predict.prompt import Prompt
from perdure.workflows.predict.request import Request
from perdure.workflows.routing import Routing, routed, routed_rows, routes
from routed import FAST, WORDS, learn, made, rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("routing")


@pytest.fixture(scope="module")
def ws(tiny_model, folder):
    """Three isolated tasks. Not changed by any test."""
    return made(tiny_model, folder, "ws", WORDS)


def head(ws):
    return ws.ledger.resolve("head")


def stored(ws):
    """The moments of each task, by task."""
    return {task: ws.ledger.objects.get(name) for task, name in routes(ws.ledger, head(ws)).items()}


def text(ws, task):
    """Return a text that no row of a task has, and that the router knows."""
    texts = [row["text"] for row in rows(task, 200, 20)]
    found = routed(ws.session, head(ws), texts)
    return next(text for text, routing in zip(texts, found, strict=True) if routing.task == task)


def alike(one, other):
    return one.keys() == other.keys() and all(
        one[task].keys() == other[task].keys()
        and all(torch.equal(one[task][key], other[task][key]) for key in one[task])
        for task in one
    )


def test_each_task_has_a_slot_of_moments_and_no_view_has_one(ws):
    slots = ws.ledger.slots(head(ws))
    assert measured_tasks(slots, "route") == {task: f"route:{task}" for task in sorted(WORDS)}
    assert not any(name.startswith("route") for task in (None, *WORDS) for name in ws.ledger.view(head(ws), task))
    assert {
        task: sorted(key for key in moments if key.startswith("mean/")) for task, moments in stored(ws).items()
    } == {task: [f"mean/{task} 0", f"mean/{task} 1"] for task in sorted(WORDS)}
    assert head(ws).state is None


def test_rows_of_a_task_are_sent_to_it_and_their_features_are_computed_once(ws, monkeypatch):
    session = ws.session
    for task in WORDS:
        found = routed_rows(session, head(ws), session.task(task, head(ws)))
        assert [routing.task for routing in found].count(task) >= 6
        assert all(max(r.posterior, key=r.posterior.get) == task for r in found)
    monkeypatch.setattr(type(session.runtime), "features", None)
    assert len(routed_rows(session, head(ws), session.task("refund", head(ws)))) == 8


def test_a_plain_text_has_the_features_of_the_row_that_has_it_in_a_template(ws):
    texts = [row["text"] for row in rows("parcel", 100, 8)]
    plain = routed(ws.session, head(ws), texts)
    in_template = routed_rows(ws.session, head(ws), ws.session.task("parcel", head(ws)))
    assert plain == in_template


def test_no_order_of_learning_changes_a_bit_and_a_task_taken_out_was_never_learned(ws, tiny_model, folder):
    other = made(tiny_model, folder, "reversed", reversed(WORDS))
    assert alike(stored(ws), stored(other))
    done = other.revert("parcel")
    assert "parcel" not in routes(other.ledger, head(other))
    never = made(tiny_model, folder, "never", ["refund", "tariff"])
    assert alike(stored(other), stored(never))
    text = ["where is the box now in town please", "money back for at home again today"]
    assert routed(other.session, head(other), text) == routed(never.session, head(never), text)
    assert ws.ledger.seen(head(ws), "tariff") == never.ledger.seen(head(never), "tariff")
    other.rollback(f"{done.entry}~1")
    assert alike(stored(other), stored(ws))


def test_a_shared_task_can_be_found_too_and_delete_takes_its_moments(tiny_model, folder):
    recipe = {"name": "found", "methods": {"color": {}}}
    own = made(tiny_model, folder, "shared", ["refund", "parcel"], recipe)
    (answer,) = own.predict(text(own, "refund"))
    assert (answer.task, answer.routed.task) == ("refund", "refund")
    report = routed_report(own.ledger, head(own))
    assert report.matrix.routing.accuracy > 0.5
    assert [view.task for view in report.views] == ["parcel", "refund"]
    remove_task(own.session, "parcel")
    assert list(routes(own.ledger, head(own))) == ["refund"]
    assert "route:parcel" not in own.ledger.slots(head(own))


@pytest.mark.parametrize("task", WORDS)
def test_a_prompt_goes_to_its_task_as_if_the_task_were_named(ws, task):
    prompt = text(ws, task)
    (answer,) = ws.predict(prompt)
    (named,) = ws.predict(prompt, task)
    assert (answer.answer, answer.task, answer.format, answer.tokens) == (
        named.answer,
        task,
        named.format,
        named.tokens,
    )
    assert answer.routed.task == task
    assert named.routed is None
    assert named.to_json()["routed"] is None
    assert answer.to_json()["routed"]["posterior"][task] > 0.5


UNKNOWN = "zzz qqq !!! ??? xxx %%% zzz qqq !!! ??? xxx"


def test_a_prompt_near_no_task_is_answered_by_what_all_tasks_share(ws):
    (answer,) = ws.predict(UNKNOWN)
    assert answer.routed.task is None
    assert answer.task is None
    (shared,) = ws.predict(UNKNOWN, route="none")
    assert shared.routed is None
    assert (shared.answer, shared.format) == (answer.answer, answer.format)


def test_answers_of_several_tasks_are_in_order_and_those_of_each_alone(ws):
    texts = [text(ws, "refund"), UNKNOWN, text(ws, "parcel"), text(ws, "tariff")]
    together = ws.predict(texts)
    assert [answer.task for answer in together] == ["refund", None, "parcel", "tariff"]
    assert [answer.prompt for answer in together] == texts
    assert [answer.answer for answer in together] == [ws.predict(one)[0].answer for one in texts]


def test_a_conversation_goes_through_the_adapter_in_the_chat_template(ws):
    (answer,) = ws.predict([[{"role": "user", "content": text(ws, "refund")}]])
    assert (answer.task, answer.routed.task, answer.format) == (None, "refund", "chat")
    assert ws.chat([{"role": "user", "content": text(ws, "refund")}]).routed.task == "refund"


def test_what_was_done_is_said_in_words(ws):
    def how(*texts, **more):
        return predict(ws.session, [Prompt(one) for one in texts], Request(max_new_tokens=2, **more)).how

    refund, tariff = text(ws, "refund"), text(ws, "tariff")
    assert re.match(r"sent to task refund \(probability [01]\.\d\d\); --task NAME names the task", how(refund))
    assert how(UNKNOWN).startswith("no task is near the text, so that what all tasks share answers; ")
    assert how(refund, UNKNOWN, refund, tariff).startswith(
        "sent by their texts: 2 to refund, 1 to tariff, 1 near no task, which what all tasks share answers; "
    )
    assert how(refund, route="none").startswith("prompted as a user turn of the chat template")


def weighted(monkeypatch, posterior, task="refund"):
    """Let the router have this posterior for every text."""
    monkeypatch.setattr(
        views, "routed", lambda session, entry, texts, tick=None: [Routing(task, posterior) for _ in texts]
    )


@pytest.mark.parametrize("route", ["soft", "vote"])
def test_one_likely_task_answers_as_it_does_alone_to_the_bit(ws, monkeypatch, route):
    weighted(monkeypatch, {"refund": 0.97, "parcel": 0.03})
    (alone,) = ws.predict("money back for today please now", "refund")
    (answer,) = ws.predict("money back for today please now", route=route)
    assert (answer.answer, answer.tokens, answer.stopped) == (alone.answer, alone.tokens, alone.stopped)


@pytest.mark.parametrize("route", ["soft", "vote"])
def test_several_likely_tasks_answer_together_whatever_their_order(ws, monkeypatch, route):
    answers = []
    for posterior in ({"refund": 0.6, "parcel": 0.4}, {"parcel": 0.4, "refund": 0.6}):
        weighted(monkeypatch, posterior)
        (answer,) = ws.predict("money back for today please now", route=route)
        answers.append(answer.answer)
    assert len(set(answers)) == 1
    if route == "soft":
        assert answers[0] in {f"{task} {n}" for task in ("refund", "parcel") for n in (0, 1)}
        assert answer.tokens == 0
    else:
        assert answers[0] == ws.predict("money back for today please now", "refund")[0].answer


def test_averages_are_of_probabilities_by_weight_and_equal_tasks_are_any_of_them():
    one, other = {"yes": 0.9, "no": 0.1}, {"yes": 0.2, "no": 0.8}
    assert averaged({"a": 0.5, "b": 0.5}, {"a": one, "b": other}) == "yes"  # 0.55
    assert averaged({"a": 0.3, "b": 0.7}, {"a": one, "b": other}) == "no"  # 0.59
    assert averaged({"b": 0.7, "a": 0.3}, {"a": one, "b": other}) == "no"
    assert averaged({"a": 0.3, "b": 0.7}, {"a": one, "b": one}) == "yes"
    assert averaged({"a": 0.6, "b": 0.4}, {"a": {"x": 0.5, "y": 0.5}, "b": {"z": 1.0}}) == "z"


def test_votes_are_counted_by_weight_and_white_space_is_none():
    assert voted({"a": 0.4, "b": 0.3, "c": 0.3}, {"a": "no", "b": "yes", "c": " yes\n"}) == "b"
    assert voted({"a": 0.6, "b": 0.4}, {"a": "no", "b": "yes"}) == "a"
    assert voted({"b": 0.5, "a": 0.5}, {"a": "no", "b": "yes"}) == "a"
    assert voted({None: 1.0}, {None: ""}) is None


def test_answers_that_can_be_compared_are_those_of_labels_or_choices(ws):
    assert known_answers(None) == ()
    found = known_answers(ws.session.task("refund", head(ws)))
    assert [answer.strip() for answer in found] == ["refund 0", "refund 1"]


def test_an_ensemble_needs_a_router_and_no_task(tiny_model, folder, ws):
    plain = made(tiny_model, folder, "plain", ["refund"], "per_task")
    with pytest.raises(BadInput, match="color"):
        plain.predict("money back for today please now", route="soft")
    assert plain.predict("money back for today please now")[0].routed is None
    for wrong in ({"task": "refund", "route": "vote"}, {"route": "soft", "temperature": 1.0}, {"route": "any"}):
        with pytest.raises(BadInput, match="route"):
            ws.predict("money back for today please now", **wrong)


def counts(ws, task):
    """Return the fitted rows of each label of a task, and its held-out ones."""
    moments = stored(ws)[task]
    fitted = {key.removeprefix("count/"): int(value) for key, value in moments.items() if key.startswith("count/")}
    return fitted, len(moments["held"])


def test_a_task_learned_again_adds_its_new_rows_once_and_is_found_by_its_older_labels(tiny_model, folder):
    again = made(tiny_model, folder, "again", ["refund", "parcel"])
    before, old = stored(again), counts(again, "refund")
    path = folder / "more.jsonl"

    def update(data, **settings):
        parts = [("train", row) for row in data] + [("test", row) for row in rows("refund", 100, 8)]
        path.write_text("\n".join(json.dumps({**row, "split": part}) for part, row in parts), encoding="utf-8")
        again.learn("refund", path, recipe="isolated", overrides={**FAST, **settings}, gate=None)

    known = rows("refund", 0, 60)
    update(known)
    assert alike(before, stored(again))
    vouchers = [{"text": f"gift card {row['text']}", "label": "refund 2"} for row in rows("tariff", 0, 40)]
    update([*known[:10], *vouchers])
    assert alike({"parcel": before["parcel"]}, {"parcel": stored(again)["parcel"]})
    assert counts(again, "refund") == ({**old[0], "refund 2": 32}, old[1] + 8)
    texts = [row["text"] for row in rows("refund", 200, 30)]
    assert [one.task for one in routed(again.session, head(again), texts)].count("refund") >= 24
    few = [
        {"text": f"{word} {row['text']}", "label": f"refund {word}"}
        for row, word in zip(rows("tariff", 50, 2), "xy", strict=True)
    ]
    update(few)  # as many labels as rows
    assert counts(again, "refund")[0] == {**old[0], "refund 2": 32, "refund x": 1, "refund y": 1}
    update(vouchers, start="base")
    assert counts(again, "refund") == ({"refund 2": 32}, 8)
    update(known)
    assert counts(again, "refund") == ({**old[0], "refund 2": 32}, old[1] + 8)


def test_a_router_without_a_limit_takes_no_requests_of_tasks_that_it_does_not_know(tiny_model, folder):
    mixed = made(tiny_model, folder, "mixed", ["refund"], "naive")
    one = learn(mixed, folder, "parcel")  # 12 held-out rows, 7 too few for a limit
    assert any(text.startswith("a router will know parcel, and not refund:") for text in one.warnings)
    (mine,) = mixed.predict("money back for today please now")
    (its,) = mixed.predict("where is the box today please now")
    assert (mine.routed.task, its.routed.task) == (None, None)
    two = learn(mixed, folder, "tariff")  # 24 held-out rows
    assert any(text.startswith("a router will know parcel, tariff, and not refund:") for text in two.warnings)
    found = routed(mixed.session, head(mixed), [row["text"] for row in rows("parcel", 200, 20)])
    assert [one.task for one in found].count("parcel") >= 12


def test_a_state_whose_weights_replace_the_base_has_no_features_to_measure(tiny_model, folder):
    full = made(
        tiny_model, folder, "full", ["refund"], {"name": "full", "train": "full", "data": "task", "methods": {}}
    )
    with pytest.raises(BadSpec, match="color measures the base model"):
        learn(full, folder, "parcel", {"name": "found", "methods": {"color": {}}})
