"""Traces and sweeps through a workspace: what is asked is the state with its edits, and nothing but a note is left."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import people
from perdure import Workspace
from perdure.core.errors import BadInput, BadSpec, NotFound
from perdure.core.estimates import Estimate
from perdure.editing import sweep as sweeps
from perdure.editing.facts import Fact
from perdure.editing.measures import Answer, Verdict
from perdure.editing.spec import EditSpec
from perdure.editing.traces import average
from perdure.editing.tracing import trace
from perdure.ledger import writing
from perdure.ledger.records import TracedAverage, TracedPrompt, TraceNotes
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.inspect import trace_notes, trace_records
from perdure.workflows.inspect.report_data import report_data
from perdure.workflows.inspect.sweep import sweep
from perdure.workflows.inspect.trace import trace_facts, trace_prompt
from perdure.workflows.inspect.trace_notes import MOST, NOTE
from perdure.workflows.inspect.trace_spec import TraceSpec
from perdure.workflows.inspect.views import show

QUICK = TraceSpec(samples=3)
WRITE = EditSpec(layers=(0,), steps=30, contexts=2, lr=1.0, clamp=20.0, kl=0.0, decay=0.0, ridge=1e-3, gain=1000.0)
SAID = EditGate(paraphrase=0.0, neighbours=1.0, perplexity=10.0)
ELSEWHERE = next(city for city in people.CITIES if city != people.HOME["Dan Kim"])


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A workspace whose head says that Dan Kim lives elsewhere."""
    folder = tmp_path_factory.mktemp("people")
    for part in people.make("gpt2"):
        part.save_pretrained(folder / "model")
    made = Workspace.init(folder / "ws", str(folder / "model"), dtype="float32")
    made.edit(people.fact("Dan Kim", ELSEWHERE), spec=WRITE, gate=SAID)
    return made.ledger.root


@pytest.fixture
def ws(start, tmp_path):
    return Workspace.open(shutil.copytree(start, tmp_path / "ws"))


def moved(*names):
    """Facts that say that people live elsewhere than the model learned."""
    return [people.fact(name, next(c for c in people.CITIES if c != people.HOME[name])) for name in names]


def test_a_prompt_is_traced_on_the_state_with_its_edits(ws):
    now = ws.trace("{} lives in", "Dan Kim", QUICK)
    before = trace_prompt(ws.session, "Dan Kim lives in", "Dan Kim", QUICK, at="base")
    assert (now.answer, before.answer) == (ELSEWHERE, people.HOME["Dan Kim"])
    assert (now.tokens, now.span) == (("Dan", "Kim", "lives", "in"), (0, 2))
    assert list(now.kinds) == ["block", "mlp", "attention"]
    ws.session.load(ws.ledger.resolve("base"))
    alone = trace(ws.runtime.model, ws.tokenizer, "Dan Kim lives in", "Dan Kim", kind="mlp", samples=3)
    assert before.kinds["mlp"].restored == tuple(map(tuple, alone.restored.tolist()))
    assert (before.clean, before.corrupted) == (alone.clean, alone.corrupted)
    part = before.kinds["block"]
    assert part.by_role["middle subject"] is None
    effect = np.array(part.restored)[1] - before.corrupted
    assert part.by_role["last subject"] == pytest.approx(effect)
    at = part.strongest_subject
    assert at.restored == np.array(part.restored)[:2].max() == part.restored[at.position][at.layer]


def test_it_is_noted_beside_its_entry_the_newest_first_and_makes_no_entry(ws, monkeypatch):
    entries, verified = len(ws.ledger.entries()), ws.ledger.notes(ws.ledger.resolve("head").id)
    one = TraceSpec(kinds=("block",), samples=1)
    for name in ("Ann Lee", "Bob Ash", "Ann Lee"):
        told = trace_prompt(ws.session, "{} lives in", name, one)
    assert told.kept
    head = ws.ledger.resolve("head").id
    notes = ws.ledger.notes(head)
    assert [found["subject"] for found in notes[NOTE]["prompts"]] == ["Ann Lee", "Bob Ash"]
    assert TracedPrompt.from_json(notes[NOTE]["prompts"][0]) == dataclasses.replace(told, kept=None)
    assert {key: value for key, value in notes.items() if key != NOTE} == verified
    assert len(ws.ledger.entries()) == entries
    assert report_data(ws.ledger).entries[-1].traces == TraceNotes.from_json(notes[NOTE])
    assert NOTE not in show(ws.ledger, "head").to_json()
    monkeypatch.setattr(trace_notes, "MOST", 1)
    trace_prompt(ws.session, "{} lives in", "Cid Ray", one)
    assert [found["subject"] for found in ws.ledger.notes(head)[NOTE]["prompts"]] == ["Cid Ray"]
    assert MOST > 1


def test_while_another_process_writes_it_is_told_but_not_kept(ws):
    with writing(ws.ledger.root):
        told = trace_prompt(ws.session, "{} lives in", "Ann Lee", TraceSpec(kinds=("block",), samples=1))
    assert not told.kept
    assert NOTE not in ws.ledger.notes(ws.ledger.resolve("head").id)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (
            lambda ws: trace_prompt(ws.session, "He lives in", "Ann Lee"),
            BadInput,
            "does not name the subject 'Ann Lee'",
        ),
        (lambda ws: trace_prompt(ws.session, "Ann Lee lives in", " "), BadInput, "does not name the subject ''"),
        (lambda ws: trace_prompt(ws.session, "{} lives in", "Ann Lee", at="nowhere"), NotFound, "nowhere"),
        (lambda ws: TraceSpec(kinds=("block",), window=2), BadSpec, "a window"),
        (lambda ws: TraceSpec(kinds=("value",)), BadSpec, "choose from block, mlp, attention"),
        (lambda ws: TraceSpec(noise=-1.0), BadSpec, "noise is -1"),
        (lambda ws: TraceSpec(samples=0), BadSpec, "samples 0"),
        (lambda ws: sweep(ws.session, moved("Ann Lee"), [3]), BadSpec, "choose from 0 to 2"),
        (
            lambda ws: trace_facts(ws.session, [Fact("Ann Lee", "{} lives in", "Rome", "Mars")]),
            BadInput,
            "none of 1 facts",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(ws, ask, error, message):
    with pytest.raises(error, match=message):
        ask(ws)


def test_facts_are_averaged_over_those_that_the_model_says(ws):
    untold = Fact("Dan Bly", "{} lives in", "Rome")  # no ground truth: always traced
    home, other = people.HOME["Cid Ray"], next(c for c in people.CITIES if c != people.HOME["Cid Ray"])
    wrong = Fact("Cid Ray", "{} lives in", home, other)  # what is called its ground truth is not what the model says
    facts = [*moved("Ann Lee", "Bob Ash", "Dan Kim"), untold, wrong]
    ticks = []
    told = trace_facts(ws.session, facts, QUICK, tick=lambda *what: ticks.append(what))
    assert (told.facts, told.n) == (5, 3)
    assert [left.subject for left in told.left_out] == ["Dan Kim", "Cid Ray"]  # Dan Kim was edited
    assert ticks[-1] == ("tracing facts", 9, 9)
    alone = [trace_prompt(ws.session, "{} lives in", name, QUICK) for name in ("Ann Lee", "Bob Ash", "Dan Bly")]
    costs = [one.clean - one.corrupted for one in alone]
    assert told.total_effect.value == pytest.approx(np.mean(costs))
    part = told.kinds["attention"]
    role = told.roles.index("last subject")
    mean = np.mean([one.kinds["attention"].by_role["last subject"] for one in alone], 0)
    assert part.mean[role] == pytest.approx(mean)
    assert (np.array(part.low[role]) <= mean).all()
    assert (np.array(part.high[role]) >= mean).all()
    assert part.n == (3, 0, 3, 3, 0, 3)
    assert part.mean[1] == (None,) * 4
    noted = ws.ledger.notes(ws.ledger.resolve("head").id)[NOTE]["average"]
    assert noted == json.loads(json.dumps(noted))
    assert TracedAverage.from_json(noted).kinds == told.kinds


def test_a_sweep_edits_each_fact_alone_and_leaves_the_state_as_it_was(ws):
    names = ["Ann Lee", "Bob Ash", "Dan Kim"]
    head, laid = ws.ledger.resolve("head"), ws.predict(["Dan Kim lives in"], max_new_tokens=1)
    told = sweep(ws.session, moved(*names), tracing=TraceSpec(kinds=("mlp",), samples=2))
    assert [line.layer for line in told.layers] == [0, 1, 2]  # all that can be edited of four
    assert told.before.efficacy.value == 0.0  # without the edit in force
    assert told.before.neighbourhood == Estimate(1.0, pytest.approx(0.438, abs=1e-3), 1.0, 3)
    best = next(line for line in told.layers if line.layer == told.best)
    assert best.score.value == max(line.score.value for line in told.layers)
    assert best.efficacy.value > 0.5
    for line in told.layers:
        three = [getattr(line, name).value for name in ("efficacy", "paraphrase", "neighbourhood")]
        assert line.score.value == pytest.approx(0 if 0 in three else 3 / sum(1 / value for value in three))
        assert line.score.low <= line.score.value <= line.score.high
        drop = told.before.neighbourhood.value - line.neighbourhood.value
        assert line.neighbourhood_drop.value == pytest.approx(drop)
        assert line.generation.n == 3
    assert (told.tracing.n, list(told.tracing.kinds)) == (2, ["mlp"])
    assert ws.ledger.resolve("head") == head
    assert ws.predict(["Dan Kim lives in"], max_new_tokens=1) == laid
    noted = ws.ledger.notes(head.id)[NOTE]
    assert list(noted) == ["sweep"]  # the average of a sweep takes the place of none
    assert noted["sweep"]["best"] == told.best
    again = sweep(ws.session, moved(*names), [1])
    assert again.layers == tuple(line for line in told.layers if line.layer == 1)


def test_a_sweep_in_which_no_edit_is_said_names_no_layer(ws, monkeypatch):
    unsaid = [Verdict(Answer(9.0, 0.1, False))] * 2
    monkeypatch.setattr(sweeps, "sweep_layers", lambda *args, **options: {0: unsaid, 2: unsaid})
    told = sweep(ws.session, moved("Ann Lee", "Bob Ash"))
    assert [line.score.value for line in told.layers] == [0.0, 0.0]
    assert told.best is None


def test_texts_beyond_the_models_positions_are_refused_in_words(ws):
    long = "Ann Lee . " * 25 + "Dan Kim lives in"
    fact = {"subject": "Dan Kim", "prompt": long, "target": "Oslo"}
    with pytest.raises(BadInput, match="79 tokens; the model has 64 positions; shorten it"):
        ws.trace(long, "Dan Kim", QUICK)
    for more in ({}, {"ground_truth": "Rome"}):
        with pytest.raises(BadInput, match=r"the fact about 'Dan Kim': .* the model has 64 positions; shorten it"):
            trace_facts(ws.session, {**fact, **more}, QUICK)
    with pytest.raises(BadInput, match="64 positions, and 25% of them are for contexts; shorten it"):
        sweep(ws.session, {**fact, "prompt": "Dan Kim lives in", "paraphrases": [long]}, [0])


def test_the_noise_is_put_where_an_edit_would_write(ws, monkeypatch):
    spans, prompt = [], "{} Lee lives in Rome . Bob Ann lives in"
    assert ws.trace(prompt, "Ann", QUICK).span == (0, 1)
    assert ws.trace(prompt.format("Ann"), "Ann", QUICK).span == (7, 8)
    monkeypatch.setattr(
        trace_records, "average", lambda found: spans.extend(one.subject for one in found) or average(found)
    )
    trace_facts(ws.session, {"subject": "Ann", "prompt": prompt, "target": "Oslo"}, TraceSpec(("block",), samples=3))
    assert spans == [(0, 1)]
