"""Learning a file of facts and skills: what is trained, what is edited after it, and what a refusal leaves."""

import json
from dataclasses import replace

import pytest

import people
from cautioned import without_size
from edited import NAMES, SAID, SPEC, moved, said
from perdure import Gate
from perdure.core.errors import BadInput, BadSpec, Diverged
from perdure.editing.measures import Answer, Verdict
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.edit.results import EditResult
from perdure.workflows.learn import knowledge
from perdure.workflows.learn.knowledge import learn_knowledge

FAST = {"num_train_epochs": 1, "host": "loop", "lora_r": 4, "learning_rate": 1e-4}
FACTS = [moved(name) for name in NAMES[:2]]
GIVEN = [{"subject": fact.subject, "prompt": fact.prompt, "target": fact.target} for fact in FACTS]
WRONG = {name: people.CITIES[people.CITIES.index(home) - 1] for name, home in people.HOME.items()}
SKILLS = [
    {"prompt": f"{name} is at home in", "completion": WRONG[name], "kind": "skill", "split": split}
    for split, names in (("train", people.PEOPLE[:6]), ("test", people.PEOPLE[6:9]))
    for name in names
]


@pytest.fixture
def file(tmp_path):
    """Return a function that writes rows and returns their path."""

    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return path

    return write


def planned(ws, path, **options):
    return ws.plan_knowledge("homes", path, recipe="naive", overrides=FAST, **options)


def carry_out(ws, path, gate=None, spec=SPEC):
    return learn_knowledge(ws.session, planned(ws, path), gate=gate, edit_gate=SAID, spec=spec)


def kinds(ws):
    return [entry.kind for entry in ws.ledger.ancestors(ws.ledger.resolve("head"))]


def test_skills_are_trained_and_then_facts_are_edited_in_two_entries(ws, file):
    told = carry_out(ws, file(*GIVEN, *SKILLS))
    head = ws.ledger.resolve("head")
    assert kinds(ws) == ["edit", "learn", "base"]
    assert told.entry == told.edited.entry == head.id
    assert told.learned.entry == head.parent
    assert [row.source for row in ws.session.task("homes", head).taught] == [f"rows.jsonl:{n}" for n in range(3, 9)]
    assert told.edited.applied == tuple(fact.id for fact in FACTS)
    assert [said(ws, fact.subject) for fact in FACTS] == [fact.target for fact in FACTS]
    assert [(group.kind, group.rows) for group in told.routes] == [("fact", 2), ("skill", 9)]
    assert told.left == ()
    assert [said for said in without_size(told.warnings) if "did not rise" not in said] == []


def test_facts_alone_make_no_task(ws, file):
    told = carry_out(ws, file(*GIVEN))
    assert kinds(ws) == ["edit", "base"]
    assert told.learned is None
    assert ws.ledger.resolve("head").tasks == {}
    assert "every row is a fact: nothing is trained" in told.warnings[0]


def test_skills_alone_are_learned_as_ever(ws, file):
    told = carry_out(ws, file(*SKILLS))
    assert kinds(ws) == ["learn", "base"]
    assert (told.edited, told.entry) == (None, ws.ledger.resolve("head").id)
    assert "no row is a fact to edit" in told.warnings[0]


def test_a_gate_that_fails_leaves_head_and_edits_nothing_until_it_is_accepted_and_the_command_run_again(ws, file):
    path = file(*GIVEN, *SKILLS)
    told = carry_out(ws, path, gate=Gate(floor=1.0))
    assert (told.entry, told.edited) == (None, None)
    assert told.learned.gate.verdict == "fail"
    assert [(left.subject, left.reason) for left in told.left] == [(f.subject, knowledge.WAITS) for f in FACTS]
    assert (kinds(ws), ws.edits()) == (["base"], ())
    ws.accept()
    again = carry_out(ws, path, gate=Gate(floor=1.0))
    assert kinds(ws) == ["edit", "learn", "base"]
    assert (again.learned, len(again.edited.applied)) == (None, 2)
    assert "learned these rows already" in again.warnings[0]


def test_what_was_learned_is_trained_again_when_its_rows_or_its_recipe_change(ws, file):
    carry_out(ws, file(*SKILLS))
    assert planned(ws, file(*SKILLS)).learned is not None
    other = ws.plan_knowledge("homes", file(*SKILLS), recipe="naive", overrides={**FAST, "learning_rate": 2e-4})
    assert (other.learned, other.skill is None) == (None, False)
    assert planned(ws, file(*SKILLS[1:])).learned is None


def test_a_test_part_that_was_made_is_made_alike_when_the_command_is_run_again(ws, file):
    rows = [{key: value for key, value in row.items() if key != "split"} for row in SKILLS]
    carry_out(ws, file(*rows, GIVEN[0]))
    again = carry_out(ws, file(*rows, *GIVEN))
    assert again.learned is None
    assert again.edited.applied == (FACTS[1].id,)
    assert (again.edited.refused, again.edited.already) == ((), (FACTS[0].id,))


def test_facts_that_are_refused_leave_what_was_trained(ws, file):
    told = carry_out(ws, file(*GIVEN, *SKILLS), spec=replace(SPEC, lr=1e-9))
    assert kinds(ws) == ["learn", "base"]
    assert told.entry == told.learned.entry
    assert {refused.subject for refused in told.edited.refused} == set(NAMES[:2])
    assert "does not say its target" in told.edited.refused[0].reason


def test_a_fact_without_a_ground_truth_that_is_not_said_is_refused_for_that():
    verdict = Verdict(Answer(5.0, None, False), (), (), None, "Rome", False)
    assert EditGate().problem(verdict) == "the model does not say its target, it says 'Rome'"


@pytest.mark.parametrize("error", [BadInput, BadSpec, Diverged])
def test_an_edit_that_cannot_be_made_is_an_error_alone_and_a_refusal_after_training(ws, file, monkeypatch, error):
    def refuse(*_, **__):
        raise error("layer 9 cannot be edited")

    monkeypatch.setattr(knowledge, "edit", refuse)
    with pytest.raises(error, match="layer 9"):
        carry_out(ws, file(*GIVEN))
    told = carry_out(ws, file(*GIVEN, *SKILLS))
    assert kinds(ws) == ["learn", "base"]
    assert {refused.reason for refused in told.edited.refused} == {"layer 9 cannot be edited"}


def test_a_fact_from_a_conversation_must_be_said_in_a_conversation(ws, file, monkeypatch):
    asked = []
    monkeypatch.setattr(knowledge, "edit", lambda *_, gate, **__: asked.append(gate.chat) or EditResult())
    turns = [{"role": "user", "content": "Where does Dan Kim live?"}, {"role": "assistant", "content": "Oslo"}]
    for rows in (GIVEN, [{"messages": turns}]):
        carry_out(ws, file(*rows))
    assert asked == [False, True]


def test_many_facts_come_with_a_warning(ws, file, monkeypatch):
    assert not any("large edit set" in text for text in planned(ws, file(*GIVEN)).notices)
    monkeypatch.setattr(knowledge, "MANY", 1)
    assert any("2 facts are a large edit set" in text for text in planned(ws, file(*GIVEN)).notices)


def test_what_cannot_be_used_is_said_before_anything_is_done(ws, file):
    with pytest.raises(BadInput, match=r"rows\.jsonl:2 gives 'Mars', but rows\.jsonl:1 gives '\w+'"):
        planned(ws, file(GIVEN[0], {**GIVEN[0], "target": "Mars"}))
    with pytest.raises(BadInput, match=r"1 of 3 rows, the first rows\.jsonl:3, are trained"):
        planned(ws, file(*GIVEN, {"prompt": "lives in a", "completion": "Rome"}))
    path = file(*GIVEN)
    with pytest.raises(BadInput, match=r"no task for .* to score; leave it out"):
        planned(ws, path, test=path)
    with pytest.raises(BadInput, match="kind is 'facts'; it is task"):
        ws.learn("homes", path, kind="facts")
    assert kinds(ws) == ["base"]


def test_the_workspace_has_it_as_a_kind_of_learn(ws, file):
    told = ws.learn("homes", file(*GIVEN, *SKILLS), recipe="naive", overrides=FAST, kind="knowledge", gate=None)
    assert told.learned.gate.verdict == "off"
    assert len(told.edited.applied) == 2  # without a gate whatever comes is recorded
