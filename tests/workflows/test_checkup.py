"""A checkup measures tasks, guards and drift, and gives one verdict on them."""

import base64
import json
import re
import shutil
import sys
from dataclasses import replace

import pytest

from perdure import Workspace
from perdure.cli.checkup_screen import checkup_screen
from perdure.core.errors import BadInput, NotFound
from perdure.report.page import render
from perdure.workflows.checkup import checkup as module
from perdure.workflows.checkup.cost import _shares
from perdure.workflows.checkup_records import Checkup, last_checkup
from perdure.workflows.export.card_scores import guard_lines
from perdure.workflows.guards.measure import measure_guards
from perdure.workflows.inspect.report_data import report_data

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 2}
# every answer is right, so that there is something to lose
ALWAYS = 'scorer: {name: regex, pattern: "()"}\nmax_new_tokens: 3\n'
GUARDS = {
    "sums": ("maths", "scorer: rouge_l\nmax_new_tokens: 2\nchance: 0.0\n"),
    "names": ("facts", ALWAYS),
    "more_names": ("knowledge", ALWAYS),
    "verbs": ("language", ALWAYS),
    "habits": ("drift", "scorer: same\nmax_new_tokens: 4\n"),
}


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    """A workspace with a guard of every kind and a learned task, which was learned without guards."""
    folder = tmp_path_factory.mktemp("checkups")
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32", guards="none")
    train = [{"text": f"about {n}", "label": "refund" if n % 2 else "parcel"} for n in range(12)]
    (folder / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train), "utf-8")
    ws.learn("task", folder / "task.jsonl", recipe="dual_replay", overrides=FAST)
    for name, (ability, more) in GUARDS.items():
        rows = [{"prompt": f"{name} {n}", "completion": "refund"} for n in range(12)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        (folder / f"{name}.yaml").write_text(
            f"ability_guard: {name}\ntest: {name}.jsonl\nability: {ability}\nitems: {{learn: 0, quick: 6, standard: 9}}\n{more}"
        )
        ws.guard_add(folder / f"{name}.yaml")
    return ws.ledger.root


@pytest.fixture
def ws(made, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "perdure.workflows.checkup.choose.guard_names", lambda: []
    )  # shipped ones have tests of their own
    return Workspace.open(shutil.copytree(made, tmp_path / "ws"))


def test_every_reading_has_its_rows_and_its_interval(ws):
    found = ws.checkup()
    data = found.to_json()
    assert list(data)[:8] == [
        "ref",
        "against",
        "tasks",
        "pretraining_abilities",
        "knowledge_retention",
        "instruction_drift",
        "gate",
        "cost",
    ]
    abilities = data["pretraining_abilities"]
    assert abilities["instruction_following"] is None
    assert list(abilities) == [
        "instruction_following",
        "commonsense_reasoning",
        "code_generation",
        "mathematical_reasoning",
    ]
    assert abilities["mathematical_reasoning"]["n"] == 6
    assert list(data["other"]) == ["language"]
    knowledge, guards = data["knowledge_retention"], data["guards"]
    assert knowledge["n"] == 12
    assert knowledge["base"] == pytest.approx((guards["names"]["base"] + guards["more_names"]["base"]) / 2)
    kept = guards["names"]["kept"]
    assert (kept["base"], kept["now"], kept["n"]) == (1.0, guards["names"]["now"], 6)  # the base knew all of them
    assert "kept" not in guards["verbs"]
    assert "n 6  inconclusive; of 6 known before, 100.0 kept (" in checkup_screen(ws.checkup(), {})
    drift = data["instruction_drift"]
    assert list(drift) == ["same", "kl", "length", "ends", "sound", "declines"]  # others where they were asked for
    assert drift["same"]["base"] == 1.0
    assert 0 < drift["same"]["now"] < 1
    assert drift["kl"]["base"] == 0 < drift["kl"]["now"]
    assert drift["declines"] is None
    readings = [guards[name] for name in GUARDS] + [data["tasks"]["task"], drift["same"], drift["kl"], knowledge]
    for reading in readings:
        assert reading["low"] <= reading["now"] <= reading["high"]
        change = reading["change"]
        assert change["low"] <= change["mean"] <= change["high"]
        assert change["mean"] == pytest.approx(reading["now"] - reading["base"])
    assert data["tasks"]["task"]["learned"] == data["tasks"]["task"]["now"]
    assert data["gate"]["verdict"] in ("pass", "fail", "inconclusive")
    assert data["gate"]["guards"]["enforced"]
    assert data["cost"]["items"] == 30 + data["tasks"]["task"]["n"]
    assert data["cost"]["next_budget"] == "standard"
    assert Checkup.from_json(json.loads(json.dumps(data))).to_json() == data


def test_the_second_checkup_scores_nothing(ws, monkeypatch):
    first = ws.checkup()
    monkeypatch.setattr("perdure.workflows.guards.measure._piece", None)
    second = ws.checkup()
    assert second.cost.seconds == 0
    assert second.guards["sums"].now == first.guards["sums"].now
    assert second.gate == first.gate


def test_the_base_as_its_own_reference_passes(ws):
    found = ws.checkup("base", only=["drift", "language", "facts"])
    assert found.instruction_drift.same.now == 1.0
    assert found.tasks == {}
    assert found.gate.verdict == "pass"


def test_against_compares_with_another_state(ws):
    found = ws.checkup("base", against="head", only=["drift", "names"])
    assert found.against == "head"
    assert found.instruction_drift.same.now < 1
    assert found.guards["names"].base == ws.checkup(only=["names"]).guards["names"].now
    assert ws.checkup("head", against="head", only=["drift"]).instruction_drift.same.now == 1.0
    assert {guard.reference for guard in ws.ledger.guards()} == {ws.ledger.resolve("base").id}


def test_only_chooses_by_ability_and_by_name(ws):
    assert list(ws.checkup(only=["facts", "sums"]).guards) == ["sums", "names"]
    with pytest.raises(NotFound, match="did you mean 'maths'"):
        ws.checkup(only=["math"])


@pytest.mark.parametrize(("budget", "n"), [("quick", 6), ("standard", 9), ("full", 12)])
def test_budgets_by_name(ws, budget, n):
    found = ws.checkup(budget=budget, only=["names"])
    assert found.guards["names"].n == n
    assert (found.cost.next_budget is None) == (budget == "full")


def test_a_budget_in_seconds_scores_at_least_the_first_piece_and_at_most_all(ws):
    assert ws.checkup(budget=1e-6, only=["names"]).guards["names"].n == 6
    assert ws.checkup(budget=1e6, only=["names"]).guards["names"].n == 12
    for wrong in (0, -1, "soon"):
        with pytest.raises(BadInput, match="budget"):
            ws.checkup(budget=wrong)


def test_a_growing_budget_ends_when_the_verdict_is_decided(ws, monkeypatch):
    looks = []
    real = module._measured

    def measured(session, request, confidence, tick, about):
        looks.append((request.budget, round(confidence, 3)))
        return real(session, request, confidence, tick, about)

    monkeypatch.setattr(module, "_measured", measured)
    assert ws.checkup("base", budget="grow", only=["drift", "names"]).budget == "quick"
    assert looks == [("quick", 0.995)]
    found = ws.checkup(budget="grow", only=["sums"])  # blind: no number of rows decides
    assert looks[1:] == [("quick", 0.995), ("standard", 0.985), ("full", 0.97)]
    assert (found.budget, found.gate.verdict) == ("full", "inconclusive")
    strict = ws.checkup(budget="grow", only=["sums"], strict=True)
    assert looks[4:] == looks[1:4]  # strict is about the last look, and ends none before it
    assert (strict.budget, strict.gate.verdict, strict.gate.strict) == ("full", "fail", True)
    assert strict.gate.reason == f"{found.gate.reason} (strict: this counts as fail)"
    assert (
        last_checkup(ws.ledger, ws.ledger.resolve("head")).gate == strict.gate
    )  # what was shown, and not a look before it
    assert ws.checkup("base", budget="grow", only=["drift", "names"], strict=True).gate.verdict == "pass"


def test_a_judge_compares_the_answers_of_the_drift_guard(ws):
    script = ws.ledger.root / "judge.py"
    reply = json.dumps({"reply": "FIRST"})
    script.write_text(f"import sys\nfor _ in sys.stdin:\n    print({reply!r}, flush=True)\n", "utf-8")
    command = f"{sys.executable} {script}"
    found = ws.checkup(only=["drift"], judge=command)
    reading = found.instruction_drift.judge
    assert (reading.base, reading.now, reading.n) == (0.5, 0.5, 6)  # it prefers a place, so that each pair is a tie
    assert found.to_json()["instruction_drift"]["judge"]["n"] == 6
    with pytest.raises(BadInput, match="a judge compares the answers of a drift guard"):
        ws.checkup(only=["names"], judge=command)


def test_embedding_says_whether_answers_mean_the_same_and_is_stored(ws, monkeypatch):
    plain = ws.checkup(only=["drift"]).to_json()["instruction_drift"]
    assert "embedding" not in plain
    found = ws.checkup(only=["drift"], embedding=True)
    reading = found.instruction_drift.embedding
    assert (reading.base, reading.n) == (1.0, 6)
    assert 0 < reading.unrelated <= 1
    assert 0 < reading.now <= 1
    told = found.to_json()["instruction_drift"]
    assert {name: told[name] for name in plain if name != "embedding"} == {
        n: plain[n] for n in plain if n != "embedding"
    }
    assert "for answers to other prompts  n 6" in checkup_screen(found, {})
    titles = [panel.title for panel in report_data(ws.ledger).guards.panels]
    assert "habits: meaning of answers by embedding, below the line that of other prompts" in titles
    monkeypatch.setattr(module, "with_embedding", None)  # it is stored with the score, and needs nothing now
    assert ws.checkup(only=["drift"]).instruction_drift.embedding == reading
    with pytest.raises(BadInput, match="embedding compares the answers of a drift guard"):
        ws.checkup(only=["names"], embedding=True)


def test_the_reference_means_what_it_means_and_a_larger_budget_measures_it_anew(ws):
    base = ws.checkup("base", only=["drift"], embedding=True).instruction_drift.embedding
    assert base.now == 1.0
    first = ws.checkup(only=["drift"], embedding=True).instruction_drift.embedding
    assert ws.checkup(only=["drift"], budget="full").instruction_drift.embedding is None
    assert ws.checkup(only=["drift"], budget="full", embedding=True).instruction_drift.embedding.n == 12
    assert ws.checkup(only=["drift"], embedding=True).instruction_drift.embedding.now == pytest.approx(first.now)


def test_refusals_are_those_of_a_guard_that_scores_them(ws):
    rows = [{"prompt": f"habits {n}", "completion": "refund", "label": "answer"} for n in range(6)]
    folder = ws.ledger.root.parent
    (folder / "polite.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "polite.yaml").write_text(
        "ability_guard: polite\ntest: polite.jsonl\nability: safety\nscorer: declines\n"
    )
    ws.guard_add(folder / "polite.yaml")
    reading = ws.checkup(only=["drift", "safety"]).instruction_drift.declines
    assert (reading.base, reading.now, reading.n) == (1.0, 1.0, 6)  # nothing is declined, as it should be


def test_a_row_that_asks_an_edited_fact_is_left_out(ws):
    head = ws.ledger.resolve("head")
    every = measure_guards(ws.session, head, {"names": 6}, names=["names"])["names"]
    asked = every.rows[2].prompt
    left = measure_guards(ws.session, head, {"names": 6}, names=["names"], edited=[f" {asked.upper()} "])["names"]
    gone = {row.prompt for row in every.rows if row.prompt.endswith(asked)}
    assert asked in gone
    assert [row.prompt for row in left.rows] == [row.prompt for row in every.rows if row.prompt not in gone]
    assert left.notices == (f"guard names: {len(gone)} of 6 items left out, as the fact was edited",)


def test_seconds_are_shared_by_spread_and_price():
    shares = _shares({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 1.0}, {"a": 100, "b": 100}, 30.0)
    assert shares == pytest.approx({"a": 10.0, "b": 20.0})
    capped = _shares({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 1.0}, {"a": 100, "b": 5}, 30.0)
    assert capped == pytest.approx({"a": 25.0, "b": 5.0})


def test_a_shipped_guard_is_measured_and_not_added(ws, monkeypatch):
    monkeypatch.setattr("perdure.workflows.checkup.choose.guard_names", lambda: ["extra", "absent"])
    folder = ws.ledger.root.parent
    (folder / "extra.jsonl").write_text(
        '{"prompt": "one", "completion": "two"}\n{"prompt": "two", "completion": "three"}\n', "utf-8"
    )
    for name, file in (("extra", "extra.jsonl"), ("absent", "absent.jsonl")):
        (folder / f"{name}.yaml").write_text(f"ability_guard: {name}\ntest: {file}\nability: language\n")
    monkeypatch.setattr("perdure.data.guard_spec.GUARDS", folder)
    with pytest.warns(UserWarning, match="not measured, as their data are not here: absent"):
        found = ws.checkup(only=["language"], data=folder)
    assert found.guards["extra"].n == 2
    assert [guard.name for guard in ws.ledger.guards()] == list(GUARDS)
    with pytest.raises(BadInput, match=r"absent needs absent\.jsonl"):
        ws.checkup(only=["absent"], data=folder)


def test_the_cost_is_announced_before_anything_is_scored(ws):
    told = []
    request = module.CheckupRequest(only=["names"])
    module.checkup(ws.session, request, about=told.append)
    module.checkup(ws.session, request, about=told.append)
    assert told == [
        "scoring 12 rows of 1 guard, those of the reference included; no row was timed yet",
        "every guard is scored already",
    ]


def test_the_report_draws_what_was_measured_at_each_stage(ws):
    assert report_data(ws.ledger).guards is None
    ws.checkup("base", only=["drift", "names"])
    ws.checkup(only=["drift", "names"])
    found = report_data(ws.ledger).guards
    same, length, mean, worst = found.panels
    score = ws.ledger.score(ws.ledger.seen(ws.ledger.resolve("head"), None), ws.ledger.guard("habits").score_version)
    assert [band.value for band in same.values] == [1.0, score.score]
    assert (same.rules, length.values[0].value) == ((0.9, 0.95), 1.0)
    assert mean.values[0].value == mean.values[1].value == 0
    assert [band.note for band in worst.values] == ["names", "names"]
    assert [one.same for one in found.drifted] == sorted(one.same for one in found.drifted)
    assert all(one.before != one.now and one.prompt.startswith("habits") for one in found.drifted)
    ws.guard_remove("habits")
    assert [panel.title for panel in report_data(ws.ledger).guards.panels] == [mean.title, worst.title]


@pytest.fixture
def shipped(ws, made, monkeypatch):
    """The workspace without its guard sums, which is a shipped one that no workspace has to add."""
    ws.guard_remove("sums")
    monkeypatch.setenv("PERDURE_DATA", str(made.parent))
    monkeypatch.setattr("perdure.workflows.checkup.choose.guard_names", lambda: ["sums"])
    for place in ("checkup.choose", "guards.read"):
        monkeypatch.setattr(f"perdure.workflows.{place}.guard_file", lambda name: made.parent / f"{name}.yaml")
    return ws


def scored(ws):
    """Return the number of rows of each stored score of the guard sums, at the base and at head."""
    ledger = ws.ledger
    with ledger.reading() as connection:
        versions = connection.exec_driver_sql("SELECT version FROM tasks WHERE name = 'sums'").scalars().all()
    states = [ledger.seen(ledger.resolve(ref), None) for ref in ("base", "head")]
    return [score.n for score in ledger.scores(states, versions).values()]


def test_what_a_checkup_measured_is_kept_and_shown_also_of_guards_that_the_workspace_does_not_have(shipped):
    first = shipped.checkup()
    shipped.gc()
    assert scored(shipped) == [6, 6]
    assert shipped.checkup().guards["sums"] == replace(first.guards["sums"], seconds=0.0)
    assert [guard.name for guard in shipped.ledger.guards()] == [name for name in GUARDS if name != "sums"]
    stored = last_checkup(shipped.ledger, shipped.ledger.resolve("head"))
    assert stored.guards["sums"].now == first.guards["sums"].now
    assert any("| sums | maths |" in line for line in guard_lines(shipped.ledger, shipped.ledger.resolve("head")))
    page = render(report_data(shipped.ledger))
    address = re.search(r'href="data:application/json;base64,([^"]+)" download="checkup.json"', page)
    assert json.loads(base64.b64decode(address[1])) == stored.to_json()
    assert "checkup" not in shipped.show("head").notes  # it would fill the screen


def test_a_guard_that_only_checkups_measured_can_be_removed(shipped):
    shipped.checkup()
    assert shipped.guard_remove("sums").n == 6
    shipped.gc()
    assert scored(shipped) == []
    with pytest.raises(NotFound):
        shipped.guard_remove("nothing")


def test_a_checkup_of_some_guards_leaves_what_another_measured_of_the_rest(ws):
    whole = ws.checkup()
    part = ws.checkup(only=["sums"], budget="standard")
    stored = last_checkup(ws.ledger, ws.ledger.resolve("head"))
    assert (stored.guards["sums"].n, stored.guards["verbs"]) == (9, whole.guards["verbs"])
    assert stored.pretraining_abilities.mathematical_reasoning.n == 9
    assert (stored.tasks, stored.instruction_drift.same) == (whole.tasks, whole.instruction_drift.same)
    assert (stored.gate, stored.cost, stored.budget) == (part.gate, part.cost, "standard")
    ws.checkup(only=["sums"], against="base")  # a comparison of two states
    assert last_checkup(ws.ledger, ws.ledger.resolve("head")) == stored
