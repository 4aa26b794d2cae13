"""The life of edits after the edit: what an export says, what its card tells, what a later learn may lose."""

import dataclasses
import json
import shutil

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import people
from cautioned import without_size
from edited import FACTS, NAMES, SPEC, A, B, C, deaf_to, diverging, learn, logits, moved, slot, write
from perdure import Workspace
from perdure.core.errors import BadInput
from perdure.editing.facts import Fact
from perdure.editing.measures import Answer, Verdict
from perdure.editing.spec import EditSpec
from perdure.evaluate.evidence import check_evidence
from perdure.evaluate.gate import Gate
from perdure.workflows.edit import state as edit_state
from perdure.workflows.edit.again import tries
from perdure.workflows.edit.records import MEASURES
from perdure.workflows.fact_records import record_at
from perdure.workflows.inspect import views


def card(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def said_by(model, tokenizer, fact):
    """Say whether a model loaded from an export goes on with the fact's target."""
    with torch.no_grad():
        logits = model(**tokenizer([fact.question], return_tensors="pt")).logits
    return tokenizer.decode(logits[0, -1].argmax()) == fact.target


def test_the_facts_are_asked_of_the_adapter_as_its_server_holds_it(edited, people_folder, tmp_path):
    told = edited.export(tmp_path / "out", dtype="bfloat16")
    asked = told.facts
    assert (told.dtype, told.rank, told.max_lora_rank) == ("bfloat16", 8, 8)
    assert (asked.n, asked.said_before, asked.said, asked.lost) == (3, 3, 3, ())
    assert 0 < abs(asked.nll - asked.nll_before) < 0.1
    same = edited.export(tmp_path / "same")  # the workspace is float32, and so is the file: nothing is rounded
    assert same.dtype == "float32"
    assert same.facts.nll == pytest.approx(same.facts.nll_before, abs=1e-5)
    assert "Of 3 facts 3 are said by this adapter in bfloat16, 3 by the state" in card(tmp_path / "out")
    json.dumps(told.to_json())
    assert [line.efficacy for line in edited.verify_edits().facts] == [True] * 3  # the workspace's model is as it was


def test_facts_that_a_smaller_rank_loses_are_counted_named_and_lost_indeed(ws, people_folder, tmp_path):
    facts = [
        moved(name, skip) for skip, name in enumerate(NAMES)
    ]  # to three cities, for which one direction is not enough
    assert write(ws, *facts).refused == ()
    told = ws.export(tmp_path / "out", rank=1)
    asked = told.facts
    assert told.relative_error > 0.1
    assert asked.said_before == 3
    assert asked.said == 3 - len(asked.lost) < 3
    assert asked.nll > asked.nll_before + 0.1
    base = AutoModelForCausalLM.from_pretrained(people_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    lost = [fact for fact in facts if not said_by(model, ws.tokenizer, fact)]
    assert [gone.fact for gone in asked.lost] == [fact.id for fact in lost]
    assert all(fact.subject in card(tmp_path / "out") for fact in lost)
    whole = ws.export(tmp_path / "whole", rank=3)
    assert whole.facts.said == 3
    assert whole.held_out.nll == pytest.approx(whole.held_out.nll_before, abs=1e-5)


def test_an_adapter_of_edits_has_one_rank_and_sides_of_one_length(edited, tmp_path):
    learn(edited, tmp_path / "homes.jsonl")
    told = edited.export(tmp_path / "out")
    assert told.rank == 8  # 4 of the skill and 3 of the facts, padded
    tensors = load_file(tmp_path / "out/adapter_model.safetensors")
    assert {value.shape[0] for name, value in tensors.items() if "lora_A" in name} == {8}
    (name,) = (name.removesuffix("lora_A.weight") for name in tensors if "h.0.mlp.c_proj.lora_A" in name)
    down, up = tensors[f"{name}lora_A.weight"], tensors[f"{name}lora_B.weight"]
    facts = slice(0, 3)  # slots stand in the order of their names: edits, skill
    torch.testing.assert_close(down[facts].norm(dim=1), up[:, facts].norm(dim=0), rtol=1e-3, atol=0)
    assert torch.equal(down[7], torch.zeros_like(down[7]))
    assert told.facts.said == 3


def test_a_merged_model_is_asked_too(edited, tmp_path):
    told = edited.export(tmp_path / "out", merged=True)
    assert (told.facts.n, told.facts.said, told.facts.said_before) == (3, 3, 3)
    assert told.facts.nll == pytest.approx(told.facts.nll_before, abs=1e-3)
    assert "3 are said by this model" in card(tmp_path / "out")


def test_the_card_of_a_head_made_by_an_edit_lists_its_facts_and_the_last_recipe(ws, tmp_path):
    learn(ws, tmp_path / "homes.jsonl")
    write(ws, *FACTS)
    ws.revert(B)
    ws.export(tmp_path / "out")
    text = card(tmp_path / "out")
    assert "# homes + 2 edited facts" in text
    assert "2 of 2 facts in force were said when last verified." in text
    assert "Written by emmet, layer 0." in text
    assert "Held-out text: perplexity" in text
    for fact in (FACTS[0], FACTS[2]):
        assert f"| {fact.subject} | {fact.question} | {fact.target} | yes | yes |" in text
    assert f"| {FACTS[1].subject} |" not in text.split("## How it was made")[0]
    recipe = text.split("Recipe of the last learn:")[1].split("```yaml\n")[1].split("```")[0]
    assert yaml.safe_load(recipe)["lora_r"] == 4
    assert "Gate of the last learn: **off**" in text
    assert "torch 2" in text


def test_a_card_lists_twenty_facts_and_counts_the_rest(edited, tmp_path, monkeypatch):
    monkeypatch.setattr("perdure.workflows.export.card_scores.FACTS", 2)
    edited.export(tmp_path / "out")
    text = card(tmp_path / "out")
    assert "# 3 edited facts" in text
    assert "And 1 more." in text
    assert sum(f"| {name} | {name} lives in |" in text for name in NAMES) == 2
    assert "Recipe of the last learn" not in text


LOST = Verdict(Answer(9.0, 0.1, False))


def forget(monkeypatch, when):
    """Let fact B count as not said by the sets for which `when(number of the asking, B as written)` holds; return them all."""
    real, asked = edit_state.Place.verify, []

    def ask(self, edit_set, facts=None):
        asked.append(edit_set)
        found = real(self, edit_set, facts)
        lost = B in found and when(len(asked), edit_set.find(B))
        return {**found, B: LOST} if lost else found

    monkeypatch.setattr(edit_state.Place, "verify", ask)
    return asked


def test_a_learn_that_loses_a_fact_for_good_fails_its_gate_which_names_it(edited, tmp_path, monkeypatch):
    head, before = edited.ledger.resolve("head").id, slot(edited)
    forget(monkeypatch, lambda *_: True)
    told = learn(edited, tmp_path / "homes.jsonl", gate=Gate())
    assert told.moved is False
    reason = f"1 of 3 edited facts is no longer said ('Dan Poe lives in' {FACTS[1].target!r}); none may be lost"
    assert told.gate.reason == reason
    assert edited.ledger.resolve("head").id == head
    views.save_evidence(edited.ledger, tmp_path / "evidence.json")
    again = check_evidence(tmp_path / "evidence.json")
    assert (again.verdict.verdict, again.verdict.facts.lost, again.differences) == ("fail", (B,), ())
    candidate = edited.accept()
    assert [line.efficacy for line in edited.edits()] == [True, False, True]
    assert edited.ledger.resolve("head").id == candidate.id == told.entry
    edited.rollback("head~1")
    assert slot(edited) == before


def test_a_gate_that_allows_a_lost_fact_lets_the_learn_pass(edited, tmp_path, monkeypatch):
    forget(monkeypatch, lambda *_: True)
    told = learn(edited, tmp_path / "homes.jsonl", gate=Gate(lost_facts=0.4))
    assert told.moved is True
    assert told.gate.facts.verdict == "pass"
    assert "no longer said: Dan Poe" in " ".join(told.warnings)


def test_a_fact_that_the_rewrite_does_not_bring_back_is_written_more_strongly(edited, tmp_path, monkeypatch):
    asked = forget(monkeypatch, lambda n, written: n == 1 or written.spec.steps == SPEC.steps)
    told = learn(edited, tmp_path / "homes.jsonl", gate=Gate())
    assert told.moved is True
    assert told.gate.facts.reason == "all 3 edited facts are still said"
    last = asked[-1]
    assert {w.fact.subject: w.spec.steps for w in last.live} == {"Dan Kim": 30, "Dan Bly": 30, "Dan Poe": 60}
    assert last.state != asked[0].state
    assert [line.efficacy for line in edited.verify_edits().facts] == [True] * 3


def test_of_facts_tried_again_one_that_diverges_stays_lost_and_the_others_come_back(edited, tmp_path, monkeypatch):
    real = edit_state.Place.verify

    def ask(self, edit_set, facts=None):
        """Dan Kim and Dan Poe are not said as they were written at first."""
        found = real(self, edit_set, facts)
        return {n: LOST if n in (A, B) and edit_set.find(n).spec == SPEC else v for n, v in found.items()}

    monkeypatch.setattr(edit_state.Place, "verify", ask)
    diverging(B, monkeypatch, lambda spec: spec != SPEC)
    told = learn(edited, tmp_path / "homes.jsonl", gate=Gate(lost_facts=1.0))
    assert "so that all were written again" in without_size(told.warnings)[0]
    assert told.gate.facts.lost == (B,)
    assert [w.spec == SPEC for w in map(stored(edited).find, (A, B, C))] == [False, True, True]


def test_a_retry_that_loses_as_many_as_it_finds_is_not_kept(edited, tmp_path, monkeypatch):
    real = edit_state.Place.verify

    def ask(self, edit_set, facts=None):
        """Written more strongly, Dan Poe is said and Dan Kim is not."""
        found = real(self, edit_set, facts)
        plain = B in found and edit_set.find(B).spec.steps == SPEC.steps
        return {**found, (B if plain else FACTS[0].id): LOST}

    monkeypatch.setattr(edit_state.Place, "verify", ask)
    told = learn(edited, tmp_path / "homes.jsonl", gate=Gate())
    assert told.gate.facts.lost == (B,)


def test_facts_that_cannot_be_told_apart_on_the_new_head_are_left_and_judged(edited, tmp_path, monkeypatch):
    def alike(*_):
        raise BadInput("the keys of two facts are all but the same")

    forget(monkeypatch, lambda *_: True)
    monkeypatch.setattr(edit_state.Place, "current", alike)
    before = slot(edited)
    told = learn(edited, tmp_path / "homes.jsonl", gate=Gate(lost_facts=1.0))
    assert "cannot be written again: the keys of two facts" in without_size(told.warnings)[0]
    assert slot(edited) == before


@pytest.mark.parametrize(("rise", "kept"), [(0.09, True), (0.11, False)])
def test_facts_written_again_on_the_new_head_may_cost_other_text_a_tenth_more_than_they_did(
    edited, tmp_path, monkeypatch, rise, kept
):
    real, parent = edit_state.Place.cost, slot(edited)
    old = record_at(edited.ledger, edited.ledger.resolve("head")).drift
    allowed = max(1.0, old.perplexity / old.perplexity_before) + rise

    def cost(self, edit_set, entry):
        drift, norms = real(self, edit_set, entry)
        return dataclasses.replace(drift, perplexity=drift.perplexity_before * allowed), norms

    forget(monkeypatch, lambda asking, _: asking == 1)
    monkeypatch.setattr(edit_state.Place, "cost", cost)
    told = learn(edited, tmp_path / "homes.jsonl", gate=Gate(lost_facts=1.0))
    assert (slot(edited) != parent) is kept
    assert ("so that all were written again" in without_size(told.warnings)[0]) is kept
    assert (
        "cannot be written again: all facts together raise the perplexity" in without_size(told.warnings)[0]
    ) is not kept


def test_what_is_tried_after_the_next_learn_is_no_stronger_than_after_the_first(edited, tmp_path, monkeypatch):
    strong, gentle = tries(SPEC, 4)
    serves = [strong]
    asked = forget(monkeypatch, lambda _, written: written.spec != serves[-1])
    learn(edited, tmp_path / "homes.jsonl")
    assert stored(edited).find(B).spec == strong
    serves.append(gentle)
    learn(edited, tmp_path / "homes.jsonl", names=people.PEOPLE[:5])
    assert stored(edited).find(B).spec == gentle
    assert {edit_set.find(B).spec for edit_set in asked} == {SPEC, strong, gentle}


def test_where_a_retry_changes_other_text_too_much_the_facts_stay_as_they_were_written_again(
    edited, tmp_path, monkeypatch
):
    real, before = edit_state.Place.cost, slot(edited)

    def cost(self, edit_set, entry):
        drift, norms = real(self, edit_set, entry)
        plain = all(w.spec == SPEC for w in edit_set.live)
        return dataclasses.replace(drift, perplexity=drift.perplexity_before * (1 if plain else 100)), norms

    forget(monkeypatch, lambda _, written: written.spec == SPEC)
    monkeypatch.setattr(edit_state.Place, "cost", cost)
    told = learn(edited, tmp_path / "homes.jsonl", gate=Gate(lost_facts=1.0))
    assert without_size(told.warnings)[0] == "1 of 3 edited facts were lost, so that all were written again"
    assert told.gate.facts.lost == (B,)
    assert slot(edited) != before
    assert {w.spec for w in stored(edited).live} == {SPEC}


def test_other_layers_are_tried_where_the_settings_name_none_and_then_a_gentler_change():
    free = dataclasses.replace(SPEC, layers=())
    strong = dataclasses.replace(free, steps=60, until=free.until / 2, clamp=30.0)
    gentle = dataclasses.replace(free, until=2 * free.until, clamp=12.0)
    assert list(tries(free, 24)) == [dataclasses.replace(strong, layers=(layer,)) for layer in (7, 1)] + [gentle]
    assert [spec.layers for spec in tries(free, 8)] == [(2,), (0,), ()]
    assert [spec.layers for spec in tries(free, 3)] == [(1,), ()]  # there is none below, and the last is never written
    assert list(tries(SPEC, 8)) == [dataclasses.replace(tried, layers=SPEC.layers) for tried in (strong, gentle)]
    assert [spec.layers for spec in tries(EditSpec(method="memit"), 30)] == [(6, 7, 8), (0, 1, 2), ()]


def stored(ws):
    """The edit set in force at head."""
    head = ws.ledger.resolve("head")
    return edit_state.Place.at(ws.session, head).in_force(head)


@pytest.mark.parametrize("batch", [1, 8])
def test_facts_of_one_command_are_resolved_as_if_never_made_to_the_bit(ws, bare, tmp_path, batch):
    spec = dataclasses.replace(SPEC, batch=batch)
    write(ws, *FACTS, spec=spec)
    ws.revert(A, resolve=True)
    never = Workspace.open(shutil.copytree(bare.ledger.root, tmp_path / "never"))
    write(never, *FACTS[1:], spec=spec)
    assert slot(ws) == slot(never)
    assert torch.equal(logits(ws), logits(never))
    ws.revert(FACTS[1].id, resolve=True)
    write(alone := Workspace.open(shutil.copytree(bare.ledger.root, tmp_path / "alone")), FACTS[2], spec=spec)
    assert slot(ws) == slot(alone)


def test_facts_found_with_one_resolved_away_are_found_again_in_the_company_they_had(ws, bare, tmp_path, monkeypatch):
    """One of the three was refused, but its texts ran in the forwards of the others."""
    deaf_to(C, monkeypatch)
    assert [fact.fact for fact in write(ws, *FACTS).refused] == [C]
    assert FACTS[2].core in stored(ws).live[0].request
    ws.revert(A, resolve=True)
    never = Workspace.open(shutil.copytree(bare.ledger.root, tmp_path / "never"))
    write(never, *FACTS[1:])
    assert slot(ws) == slot(never)


@pytest.mark.parametrize("learned", [False, True])
def test_facts_that_a_revert_finds_again_are_asked_everything_again(ws, tmp_path, learned):
    other = Fact("Dan Kim", "{} is at home in", FACTS[0].target)  # shares its key with the first fact
    write(ws, *FACTS, other)
    if learned:
        learn(ws, tmp_path / "homes.jsonl", learning_rate=1e-2)
    old = stored(ws)
    before = {line.fact: line for line in record_at(ws.ledger, ws.ledger.resolve("head")).facts}
    ws.revert(A, resolve=True)
    lines = {line.fact: line for line in record_at(ws.ledger, ws.ledger.resolve("head")).facts}
    again = {w.id for w in stored(ws).live if not torch.equal(w.change, old.find(w.id).change)}
    assert again == ({B, C, other.id} if learned else {other.id})
    assert all((lines[n].answers != before[n].answers) is (n in again) for n in lines)
    now = {line.fact: line for line in ws.verify_edits().facts}
    assert all(getattr(lines[n], measure) == getattr(now[n], measure) for n in again for measure in MEASURES)


@pytest.mark.parametrize(("layers", "passes"), [((), True), ((0,), False)])
def test_facts_that_a_learn_loses_come_back_in_another_layer_or_fail_its_gate(
    ws, tmp_path, layers, passes, monkeypatch
):
    write(ws, *FACTS, spec=dataclasses.replace(SPEC, layers=layers))
    assert [line.efficacy for line in ws.edits()] == [True] * 3
    real = edit_state.Place.verify

    def ask(self, edit_set, *args, **options):
        """After the learn, A is not said where it stands in layer 0."""
        found = real(self, edit_set, *args, **options)
        lost = A in found and edit_set.find(A).layers == (0,)
        return {**found, **({A: Verdict(Answer(9.0, 0.1, False))} if lost else {})}

    monkeypatch.setattr(edit_state.Place, "verify", ask)
    told = learn(ws, tmp_path / "homes.jsonl", gate=Gate(tolerance=0.9))  # only the facts decide
    assert "edited facts were lost, so that all were written again" in without_size(told.warnings)[0]
    assert told.moved is passes
    assert (told.gate.facts.lost == ()) is passes
    if passes:
        assert {w.layers for w in stored(ws).live} == {(0,), (1,)}
        assert [line.efficacy for line in ws.verify_edits().facts] == [True] * 3
    else:
        assert "no longer said ('Dan" in told.gate.reason
