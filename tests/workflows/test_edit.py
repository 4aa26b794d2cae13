"""Edits through a workspace: what is recorded is what was verified, and what is taken out is gone to the bit."""

import dataclasses
import itertools
import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import people
from cautioned import without_size
from edited import FACTS, SAID, SPEC, A, B, C, deaf_to, diverging, learn, logits, moved, said, slot, write
from perdure import Workspace
from perdure.core.errors import BadInput, BadSpec, Busy, Diverged, NotFound
from perdure.editing import edit, moments, verification
from perdure.editing.edit_set import EditSet
from perdure.editing.facts import Fact
from perdure.editing.measures import Answer, Verdict
from perdure.editing.moments import Statistics, second_moments
from perdure.editing.spec import EditSpec
from perdure.ledger import writing
from perdure.ledger.records import Drift, FactLine, SupersededFact
from perdure.workflows.cached import cached
from perdure.workflows.edit import state as edit_state
from perdure.workflows.edit.gate import EditGate, lost_neighbours
from perdure.workflows.edit.records import shown
from perdure.workflows.edit.state import Place
from perdure.workflows.fact_records import NOTE, record_at


def test_a_fact_is_said_recorded_and_listed_and_the_base_is_as_it_was(ws):
    before, parent = logits(ws), ws.ledger.resolve("head")
    weights = {path: path.read_bytes() for path in ws.runtime.folder.glob("*.safetensors")}
    told = write(ws, FACTS[0])
    head = ws.ledger.resolve("head")
    assert (told.entry, told.applied, told.refused, told.known) == (head.id, (A,), (), ())
    assert (head.kind, head.parent, list(head.slots)) == ("edit", parent.id, ["edits"])
    assert said(ws, "Dan Kim") == FACTS[0].target
    (line,) = ws.edits()
    assert list(line.to_json()) == [
        *("fact", "entry", "subject", "prompt", "target", "efficacy", "paraphrase", "neighbourhood", "generation"),
        "lost_in",
    ]
    assert (line.fact, line.entry, line.efficacy, line.generation) == (A, head.id, True, True)
    assert torch.equal(logits(ws, "base"), before)
    assert {path: path.read_bytes() for path in weights} == weights
    assert ws.verify().ok
    assert torch.equal(logits(Workspace.open(ws.ledger.root)), logits(ws))  # another process sees the same


def test_the_same_edit_is_the_same_entry_and_rollback_goes_over_it(ws):
    before = logits(ws)
    first = write(ws, FACTS[0]).entry
    after = logits(ws)
    ws.rollback("head~1")
    assert torch.equal(logits(ws), before)
    assert ws.edits() == ()
    assert write(ws, FACTS[0]).entry == first
    assert torch.equal(logits(ws), after)


def test_facts_in_force_stay_as_they_are_when_they_are_asked_for_again(edited):
    assert [line.fact for line in edited.edits()] == [A, B, C]
    assert all(said(edited, fact.subject) == fact.target for fact in FACTS)
    head = edited.ledger.resolve("head").id
    told = write(edited, FACTS[1])
    assert (told.entry, told.applied, told.refused, told.already) == (None, (), (), (B,))
    assert edited.ledger.resolve("head").id == head
    again = write(edited, FACTS[1], moved("Ann Eco"))
    assert (again.applied, again.refused, again.already) == ((moved("Ann Eco").id,), (), (B,))


def test_a_newer_fact_takes_the_place_of_the_older_one(edited):
    newer = moved("Dan Kim", skip=1)
    told = write(edited, newer)
    assert told.superseded == (SupersededFact("Dan Kim", A, newer.id),)
    assert [line.fact for line in edited.edits()] == [B, C, newer.id]
    assert said(edited, "Dan Kim") == newer.target


def test_a_fact_that_does_not_pass_is_refused_with_its_reason_and_the_others_are_applied(ws, monkeypatch):
    deaf_to(A, monkeypatch)
    told = write(ws, FACTS[0], FACTS[2])
    assert told.applied == (C,)
    assert [(f.fact, f.reason[:24]) for f in told.refused] == [(A, "its target is less likel")]
    assert ws.ledger.notes(told.entry)["edit"]["refused"] == [fact.to_json() for fact in told.refused]


@pytest.mark.parametrize("batch", [1, 8])
def test_a_fact_whose_loss_is_not_finite_is_refused_for_that_and_the_others_are_applied(ws, monkeypatch, batch):
    diverging(B, monkeypatch)
    told = write(ws, *FACTS, spec=dataclasses.replace(SPEC, batch=batch))
    assert told.applied == (A, C)
    assert [(f.fact, f.reason) for f in told.refused] == [(B, "the loss of an edit is not finite at step 3")]
    alone = write(ws, FACTS[1])
    assert (alone.entry, [f.fact for f in alone.refused]) == (None, [B])


def test_facts_that_diverge_in_company_alone_are_written_one_by_one(ws, monkeypatch):
    real = edit_state.Place.write

    def together(self, facts, spec, onto):
        if len(facts) > 1 and spec.batch > 1:
            raise Diverged("the loss of an edit is not finite at step 3")
        return real(self, facts, spec, onto)

    monkeypatch.setattr(edit_state.Place, "write", together)
    assert write(ws, *FACTS).applied == (A, B, C)


def test_nothing_is_recorded_where_all_together_change_too_much(ws, monkeypatch):
    head, objects = ws.ledger.resolve("head"), ws.ledger.objects.all()
    real = edit_state.Place.cost

    def dear(self, edit_set, entry):
        drift, norms = real(self, edit_set, entry)
        assert drift.kl > 0
        assert all(norm > 0 for norm in norms.values())
        return dataclasses.replace(drift, perplexity=20 * drift.perplexity_before), norms

    monkeypatch.setattr(edit_state.Place, "cost", dear)
    told = write(ws, *FACTS)
    assert (told.entry, told.applied) == (None, ())
    assert [fact.reason[:38] for fact in told.refused] == ["all facts together raise the perplexit"] * 3
    assert told.refused[0].reason.endswith(
        "above 1000.0%; write fewer, or take --method memit, which changes less for many facts, or allow more with --perplexity"
    )
    assert (ws.ledger.resolve("head"), ws.ledger.objects.all()) == (head, objects)
    assert write(ws, *FACTS, gate=None).applied == (A, B, C)


def test_the_first_facts_that_do_not_change_too_much_are_written_where_all_together_do(ws, monkeypatch):
    real, measured = edit_state.Place.cost, []

    def rising(self, edit_set, entry):
        drift, norms = real(self, edit_set, entry)
        measured.append(len(edit_set.live))
        rise = 20 if len(edit_set.live) > 2 else 1
        return dataclasses.replace(drift, perplexity=rise * drift.perplexity_before), norms

    monkeypatch.setattr(edit_state.Place, "cost", rising)
    told = write(ws, *FACTS)
    assert (told.applied, [fact.fact for fact in told.refused]) == ((A, B), [C])
    assert measured == [3, 1, 2, 2]
    assert told.refused[0].reason.endswith(
        "above 1000.0%; of the facts that pass, the first 2 do not; "
        "take --method memit, which changes less for many facts, or allow more with --perplexity"
    )
    assert all(said(ws, fact.subject) == fact.target for fact in FACTS[:2])
    assert write(ws, FACTS[2], gate=None).applied == (C,)


def test_an_edit_that_breaks_off_leaves_the_ledger_as_it_was(ws, monkeypatch):
    parent, before = ws.ledger.resolve("head"), logits(ws)

    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(ws.ledger, "record", full)
    with pytest.raises(OSError, match="disk full"):
        write(ws, FACTS[0])
    monkeypatch.undo()
    assert ws.ledger.resolve("head") == parent
    assert torch.equal(logits(ws), before)
    with writing(ws.ledger.root), pytest.raises(Busy):
        write(ws, FACTS[0])
    with pytest.raises(BadInput, match="repeats fact 1"):
        write(ws, FACTS[0], FACTS[0])
    write(ws, FACTS[0])
    with pytest.raises(BadInput, match="written with method emmet"):
        write(ws, FACTS[1], spec=EditSpec(method="memit", layers=(0, 1)))
    with pytest.raises(BadSpec, match="a share"):
        EditGate(neighbours=2)


def test_a_fact_dropped_leaves_no_update_at_its_key_and_the_others_said(edited):
    told = edited.revert(B[:8])
    (gone,) = told.reverted
    assert gone.left < 1e-8
    assert (gone.said, told.lost) == (False, ())
    assert [line.fact for line in edited.edits()] == [A, C]
    assert all(said(edited, fact.subject) == fact.target for fact in (FACTS[0], FACTS[2]))
    assert said(edited, "Dan Poe") != FACTS[1].target
    assert shown(edited.ledger, B).dropped
    head = edited.ledger.resolve("head").id
    again = edited.revert(B)
    assert (again.entry, again.reverted, again.already) == (told.entry, told.reverted, (B,))
    assert [line.fact for line in again.facts] == [A, C]
    assert edited.ledger.resolve("head").id == head  # nothing is recorded
    resolved = edited.revert(B, resolve=True)
    assert resolved.entry != told.entry
    with pytest.raises(NotFound):
        shown(edited.ledger, B)
    for resolve in (True, False):
        assert edited.revert(B, resolve=resolve).entry == resolved.entry


def test_a_revert_that_is_asked_for_again_returns_the_entry_that_took_the_facts_out(ws):
    entry = write(ws, *FACTS[:2]).entry
    first = ws.revert(entry)
    assert ws.edits() == ()
    for what in (entry, A, B[:8]):
        again = ws.revert(what)
        assert again.entry == first.entry == ws.ledger.resolve("head").id
        assert {fact.fact for fact in again.reverted} == set(again.already) <= {A, B}
    write(ws, FACTS[0])
    assert ws.revert(A).entry != first.entry  # it came back in between, and goes again
    assert ws.revert(B).entry == first.entry
    ws.rollback(entry)
    assert len(ws.revert(B).reverted) == 1  # at this head it is in force
    newer = moved("Dan Kim", skip=1)
    write(ws, newer)
    with pytest.raises(NotFound):
        ws.revert(A)  # not taken out: another took its place


def test_a_fact_resolved_is_to_the_bit_as_if_it_had_never_been_made(ws, bare, tmp_path):
    write(ws, FACTS[0])
    write(ws, FACTS[1])
    write(ws, FACTS[2])
    ws.revert(A, resolve=True)
    never = Workspace.open(shutil.copytree(bare.ledger.root, tmp_path / "never"))
    write(never, FACTS[1])
    write(never, FACTS[2])
    assert slot(ws) == slot(never)
    assert torch.equal(logits(ws), logits(never))


def test_a_revert_of_what_head_was_rolled_back_from_names_the_entry_that_has_it(ws):
    made = write(ws, FACTS[0]).entry
    ws.rollback("base")
    for what in (A, A[:8], made, made[:10]):
        with pytest.raises(NotFound, match=f"not in head's history: entry {made[:12]}.*'perdure rollback {made[:12]}'"):
            ws.revert(what)
    ws.rollback(made[:12])
    assert ws.revert(A).reverted[0].fact == A


@pytest.mark.parametrize("resolve", [False, True])
def test_with_all_facts_reverted_the_parent_is_back_to_the_bit(edited, resolve):
    first = edited.ledger.resolve("head~1").id
    told = edited.revert(first, resolve=resolve)  # an entry means all of its facts
    assert [gone.fact for gone in told.reverted] == [A, B]
    assert [line.fact for line in edited.edits()] == [C]
    edited.revert(C, resolve=resolve)
    assert slot(edited) is None
    assert edited.edits() == ()
    assert torch.equal(logits(edited), logits(edited, "base"))
    assert edited.ledger.state(edited.ledger.resolve("head")) == edited.ledger.state(edited.ledger.resolve("base"))
    assert edited.revert(first).entry == told.entry


def test_a_refusal_says_what_to_do_where_the_subject_is_the_first_token(ws, monkeypatch):
    first, whole = (Fact(name, "{} lives in", people.CITIES[0]) for name in ("Dan", "Dan Kim"))
    for fact in (first, whole):
        deaf_to(fact.id, monkeypatch)
    reasons = {line.subject: line.reason for line in write(ws, first, whole).refused}
    assert "put a word before it" in reasons["Dan"]
    assert "put a word before it" not in reasons["Dan Kim"]


def test_what_is_not_separable_is_refused_with_the_choices_that_exist(edited, tmp_path):
    edited.revert(C)
    for what, advice in {"head": r"rollback .*~1", "base": "rollback base", "nothing": "no fact or entry"}.items():
        with pytest.raises((BadInput, NotFound), match=advice):
            edited.revert(what)
    with pytest.raises(BadInput, match=r"cannot be taken out alone.*rollback"):
        edited.revert(learn(edited, tmp_path / "homes.jsonl").entry)


def test_verification_is_noted_and_finds_what_is_lost(edited, monkeypatch):
    told = edited.verify_edits()
    assert (told.held, told.lost, told.entry) == (3, (), edited.ledger.resolve("head").id)
    real = edit_state.Place.verify
    monkeypatch.setattr(edit_state.Place, "verify", lambda self, edit_set: real(self, edit_set.drop(B), [*FACTS]))
    assert edited.verify_edits().lost == (B,)
    assert [line.efficacy for line in edited.edits()] == [True, False, True]


def test_an_export_says_what_the_workspace_says(edited, people_folder, tmp_path):
    edited.revert(A)
    edited.export(tmp_path / "out")
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(people_folder, dtype=torch.float32), tmp_path / "out"
    )
    texts = [f"{name} lives in" for name in people.PEOPLE]
    with torch.no_grad():
        found = model(**edited.tokenizer(texts, return_tensors="pt")).logits
    torch.testing.assert_close(found, logits(edited), rtol=1e-4, atol=1e-4)
    assert said(edited, "Dan Bly") == FACTS[2].target


def test_facts_that_a_learn_leaves_alone_stay_as_they_are(edited, tmp_path):
    before = slot(edited)
    told = learn(edited, tmp_path / "homes.jsonl")
    assert slot(edited) == before
    assert not any("facts" in warning for warning in told.warnings)
    assert set(edited.ledger.slots(edited.ledger.resolve("head"))) == {"skill", "edits"}
    assert all(said(edited, fact.subject) == fact.target for fact in FACTS)
    assert [line.efficacy for line in edited.edits()] == [True] * 3
    more = write(edited, moved("Ann Eco"))  # on the new state, for which the others are written again
    assert (more.rewritten, more.lost) == (3, ())
    assert [line.efficacy for line in edited.edits()] == [True] * 4
    assert all(said(edited, fact.subject) == fact.target for fact in FACTS)
    edited.revert(A, resolve=True)
    assert said(edited, "Dan Bly") == FACTS[2].target


def test_an_edit_after_a_learn_is_refused_where_a_fact_that_is_said_would_be_lost(edited, tmp_path, monkeypatch):
    learn(edited, tmp_path / "homes.jsonl")
    head, objects = edited.ledger.resolve("head"), edited.ledger.objects.all()
    deaf_to(B, monkeypatch)
    told = write(edited, moved("Ann Eco"))
    (refused,) = told.refused
    assert (told.entry, told.applied, refused.fact) == (None, (), moved("Ann Eco").id)
    assert f"it no longer says {FACTS[1].question!r} {FACTS[1].target!r}; 'perdure revert" in refused.reason
    assert (edited.ledger.resolve("head"), edited.ledger.objects.all()) == (head, objects)
    assert all(said(edited, fact.subject) == fact.target for fact in FACTS)
    newer = moved("Dan Poe", skip=1)  # takes the place of the fact that would be lost
    assert write(edited, newer).applied == (newer.id,)


@pytest.mark.parametrize(("error", "named"), [(BadInput, (0, 1)), (Diverged, (1,))])
def test_an_edit_names_the_facts_that_cannot_be_written_again_on_the_new_head(
    edited, tmp_path, monkeypatch, error, named
):
    learn(edited, tmp_path / "homes.jsonl")
    if error is Diverged:
        diverging(B, monkeypatch)
    else:
        monkeypatch.setattr(EditSet, "overlap", lambda *_: [(A, B, 0.9), (B, C, 0.1)])
        monkeypatch.setattr(edit, "rewrite", Mock(side_effect=BadInput("the keys of two facts")))
    (refused,) = write(edited, moved("Ann Eco")).refused
    assert "cannot be written again on the new head: the " in refused.reason
    assert refused.reason.endswith("; 'perdure revert FACT' takes one out")
    found = [n for n, fact in enumerate(FACTS) if f"{fact.question!r} {fact.target!r}" in refused.reason]
    assert found == [*named]


def test_a_fact_that_is_lost_where_the_others_are_written_again_is_tried_again(edited, tmp_path, monkeypatch):
    learn(edited, tmp_path / "homes.jsonl")
    real = edit_state.Place.verify

    def ask(self, edit_set, *args, **options):
        """Dan Poe is not said as it was written at first."""
        found = real(self, edit_set, *args, **options)
        plain = B in found and edit_set.find(B).spec == SPEC
        return {**found, B: Verdict(Answer(9.0, 0.1, False))} if plain else found

    monkeypatch.setattr(edit_state.Place, "verify", ask)
    more = write(edited, moved("Ann Eco"))
    assert (more.applied, more.rewritten, more.lost) == ((moved("Ann Eco").id,), 3, ())


def test_without_a_gate_a_fact_that_is_lost_where_the_others_are_written_again_is_told(edited, tmp_path, monkeypatch):
    learn(edited, tmp_path / "homes.jsonl")
    deaf_to(B, monkeypatch)
    more = write(edited, moved("Ann Eco"), gate=None)
    assert (more.applied, more.rewritten, more.lost) == ((moved("Ann Eco").id,), 3, (B,))
    assert {line.fact: line.efficacy for line in edited.edits()}[B] is False


def test_a_fact_that_later_ones_spoil_does_not_pass(ws, monkeypatch):
    real = edit_state.Place.verify

    def spoiled(self, *args, **options):
        """Beside C, fact A is not said freely."""
        found = real(self, *args, **options)
        both = {A, C} <= found.keys()
        return {
            n: dataclasses.replace(v, generation=False, generated="x") if both and n == A else v
            for n, v in found.items()
        }

    monkeypatch.setattr(edit_state.Place, "verify", spoiled)
    told = write(ws, FACTS[0], FACTS[2], gate=dataclasses.replace(SAID, generation=True))
    assert told.applied == (C,)
    assert [f.fact for f in told.refused] == [A]


def test_facts_that_a_learn_overwrites_are_written_again_on_the_new_head(edited, tmp_path, monkeypatch):
    before, real = slot(edited), edit_state.Place.verify
    asked = []

    def forgetful(self, edit_set, facts=None):
        """The facts as they were written on the old head are not said on the new one."""
        asked.append(edit_set)
        found = real(self, edit_set, facts)
        return {name: Verdict(Answer(9.0, 0.1, False)) for name in found} if len(asked) == 1 else found

    monkeypatch.setattr(edit_state.Place, "verify", forgetful)
    told = learn(edited, tmp_path / "homes.jsonl")
    assert asked[0].state != asked[1].state
    assert slot(edited) not in (None, before)
    assert without_size(told.warnings)[0] == "3 of 3 edited facts were lost, so that all were written again"
    assert all(said(edited, fact.subject) == fact.target for fact in FACTS)
    assert [line.efficacy for line in edited.edits()] == [True] * 3
    assert [line.entry for line in edited.edits()] == [edited.ledger.resolve(f"head~{n}").id for n in (2, 2, 1)]
    edited.rollback("head~1")
    assert slot(edited) == before
    assert all(said(edited, fact.subject) == fact.target for fact in FACTS)


def test_the_gate_counts_only_neighbours_that_were_right_before():
    near, far = Answer(2.0, 1.0, False), Answer(1.0, 2.0, False)
    asked = Answer(0.1, 3.0, True)
    before, after = Verdict(asked, neighbours=(near, near, far)), Verdict(asked, neighbours=(near, far, far))
    assert lost_neighbours(after, before) == 0.5
    assert lost_neighbours(after, None) == pytest.approx(2 / 3)
    assert EditGate(neighbours=0.5).problem(after, before) is None
    assert "50% of its neighbours" in EditGate(neighbours=0.4).problem(after, before)
    assert "less likely" in EditGate().problem(Verdict(Answer(3.0, 1.0, True)))
    assert "does not say" in EditGate().problem(Verdict(Answer(0.1, 1.0, False)))
    assert EditGate().too_far(Drift(10.0, 10.5, 0.1)) is None
    assert "by 20.0%" in EditGate().too_far(Drift(10.0, 12.0, 0.1))


def test_a_retry_that_cannot_be_made_leaves_the_others_applied(ws, monkeypatch):
    real = edit_state.Place.write

    def crowded(self, facts, spec, onto):
        if spec != SPEC:
            raise BadInput("a key with no room to write in")
        return real(self, facts, spec, onto)

    deaf_to(A, monkeypatch)
    monkeypatch.setattr(edit_state.Place, "write", crowded)
    told = write(ws, FACTS[0], FACTS[2])
    assert (told.applied, [f.reason[:24] for f in told.refused]) == ((C,), ["its target is less likel"])


def test_more_facts_than_one_layer_can_meet_are_refused_before_anything_is_computed(ws, monkeypatch):
    monkeypatch.setattr(edit_state.Place, "write", None)
    width = 4 * ws.runtime.base.model.config.n_embd
    crowd = [
        dataclasses.replace(FACTS[0], prompt=f"{number} {{}} lives in", relation=None, paraphrases=(), neighbours=())
        for number in range(width)
    ]
    with pytest.raises(BadInput, match=f"whose keys have {width} numbers.*--method memit"):
        write(ws, *crowd, spec=dataclasses.replace(SPEC, steps=1))


def test_facts_about_one_subject_take_one_place_in_a_layer(ws):
    width = 4 * ws.runtime.base.model.config.n_embd
    ways = [" ".join(words) for words in itertools.product(("lives", "is", "at", "home"), repeat=2)][: width // 16]
    crowd = [Fact(name, "{} " + way, moved(name).target) for way in ways for name in people.PEOPLE]
    told = write(ws, *crowd, spec=dataclasses.replace(SPEC, steps=1, contexts=0, batch=64), gate=None)
    assert len(told.applied) == len(crowd) == width


def test_a_fact_that_is_said_anyway_is_told(ws):
    known = people.fact("Dan Kim", people.HOME["Dan Kim"])
    known = dataclasses.replace(known, ground_truth=None, neighbours=(), paraphrases=())
    assert write(ws, known).known == (known.id,)


def test_a_fact_with_a_text_beyond_the_models_positions_is_refused_and_the_others_are_applied(ws):
    long = dataclasses.replace(FACTS[0], paraphrases=("Ann Eco lives in Rome . " * 20 + "Dan Kim lives in",))
    told = write(ws, long, FACTS[2])
    assert told.applied == (C,)
    assert "the model has 64 positions" in told.refused[0].reason


def test_facts_in_force_are_only_asked_whether_they_are_said_and_keep_what_else_is_known(ws, monkeypatch):
    write(ws, FACTS[0])
    (before,) = record_at(ws.ledger, ws.ledger.resolve("head")).facts
    asked = []
    real = verification.answers
    monkeypatch.setattr(
        verification, "answers", lambda site, lines, *rest: asked.append(lines) or real(site, lines, *rest)
    )
    told = write(ws, FACTS[1])
    texts = [ws.tokenizer.decode(line.ids) for lines in asked for line in lines]
    assert any(text.startswith("Dan Kim lives in") for text in texts)
    assert not any(text.startswith(FACTS[0].paraphrases[0]) for text in texts)
    assert any(text.startswith(FACTS[1].paraphrases[0]) for text in texts)
    first, second = record_at(ws.ledger, ws.ledger.resolve("head")).facts
    assert first == before
    assert (second.fact, second.entry) == (B, told.entry)
    (noted,) = ws.ledger.notes(told.entry)[NOTE]["lines"]  # nothing is written again for the fact that is as it was
    assert FactLine.from_json(noted) == second
    asked.clear()
    ws.verify_edits()
    assert any(ws.tokenizer.decode(line.ids).startswith(FACTS[0].paraphrases[0]) for lines in asked for line in lines)


def test_a_fact_in_force_that_is_found_lost_is_noted_as_lost(ws, monkeypatch):
    write(ws, FACTS[0])
    deaf_to(A, monkeypatch)
    told = write(ws, FACTS[1], gate=None)
    assert told.lost == (A,)
    assert [(line.fact, line.efficacy) for line in ws.edits()] == [(A, False), (B, True)]
    assert shown(ws.ledger, A).at_edit is True


def test_facts_of_many_commands_are_stored_once(ws):
    sizes = []
    for fact in (*FACTS, moved("Ann Eco"), moved("Bob Fox")):
        write(ws, fact, gate=None)
        sizes.append(sum(map(ws.ledger.objects.size, {slot(ws)})))
    files = ws.ledger.objects
    written = sum(files.path(name).stat().st_size for name in {slot(ws), *files.parts(slot(ws))})
    assert written == sizes[-1]
    every = [entry.slots["edits"] for entry in ws.ledger.entries() if "edits" in entry.slots]
    whole = sum(files.path(name).stat().st_size for name in {n for set_ in every for n in (set_, *files.parts(set_))})
    assert whole < 1.5 * sizes[-1] < 0.6 * sum(sizes)
    assert ws.verify().ok
    assert ws.gc().removed == 0
    assert len(ws.verify_edits().facts) == 5


def test_asking_an_older_entry_again_leaves_the_records_made_on_it_as_they_were(ws, monkeypatch):
    first = write(ws, FACTS[0]).entry
    second = write(ws, FACTS[1]).entry
    ws.rollback(first)
    deaf_to(A, monkeypatch)
    assert ws.verify_edits().lost == (A,)
    assert [line.efficacy for line in ws.edits()] == [False]
    ws.rollback(second)
    assert [line.efficacy for line in ws.edits()] == [True, True]
    ws.rollback(first)
    assert [line.efficacy for line in ws.edits()] == [False]  # as it was last verified
    write(ws, FACTS[2], gate=None)
    assert [(line.fact, line.efficacy) for line in ws.edits()] == [(A, False), (C, True)]


@pytest.mark.parametrize("given", [5, [5], ["Dan Kim"]])
def test_what_is_no_fact_is_refused_in_words(ws, given):
    with pytest.raises(BadInput, match="a fact is an object with subject"):
        ws.edit(given)


@pytest.fixture(scope="module")
def learned(people_folder, tmp_path_factory):
    """A workspace in bfloat16 that learned."""
    folder = tmp_path_factory.mktemp("learned")
    made = Workspace.init(folder / "ws", str(people_folder), dtype="bfloat16")
    learn(made, folder / "homes.jsonl", learning_rate=1e-3)
    return made


@pytest.mark.parametrize("method", ["emmet", "rome", "memit"])
def test_a_workspace_in_bfloat16_is_edited_after_it_learned_and_all_comes_back(method, learned):
    """Statistics that were summed in bfloat16 had negative eigenvalues after a learn."""
    before, layers = logits(learned), (0, 1) if method == "memit" else (0,)
    spec = dataclasses.replace(SPEC, method=method, layers=layers)
    told = learned.edit(FACTS[:1], spec=spec, gate=SAID)
    assert (told.applied, told.refused) == ((A,), ())
    assert said(learned, "Dan Kim") == FACTS[0].target
    learned.revert(A)
    assert torch.equal(logits(learned), before)


def test_facts_are_refused_where_no_layer_can_be_solved_with_and_retried_where_one_cannot(ws, monkeypatch):
    """The statistics of a layer may not be positive definite; the others may."""
    real, spoilt = Statistics.moments, {0}

    def moments(self, site, layers, **options):
        found = real(self, site, layers, **options)
        return {layer: -moment if layer in spoilt else moment for layer, moment in found.items()}

    monkeypatch.setattr(Statistics, "moments", moments)
    spec = dataclasses.replace(SPEC, layers=(), depth=0.0)
    told = write(ws, FACTS[0], spec=spec)
    assert told.applied == (A,)
    assert told.facts[0].layers == (1,)
    spoilt |= {1, 2}
    told = write(ws, FACTS[1], spec=SPEC)
    assert (told.entry, told.applied) == (None, ())
    assert "layer 0 cannot be edited: the statistics of its keys are not positive definite" in told.refused[0].reason
    assert said(ws, "Dan Kim") == FACTS[0].target


def test_the_statistics_are_the_bases_measured_once_for_all_states_and_workspaces(learned, tmp_path, monkeypatch):
    base, runtime = Workspace.init(tmp_path / "other", str(learned.runtime.folder), dtype="bfloat16"), learned.runtime
    monkeypatch.setenv("PERDURE_CACHE", str(tmp_path / "cache"))
    learned.session.load(learned.ledger.resolve("head"))
    place, found = Place.at(learned.session, learned.ledger.resolve("head")), []
    place.load()
    with place.site() as site:
        found.append(place.statistics().moments(site, [0, 1]))
        assert not any(value.requires_grad for value in runtime.model.parameters())
    kept = sorted((tmp_path / "cache" / "moments").iterdir())
    assert len(kept) == 3
    monkeypatch.setattr(moments, "measured", None)  # nothing is measured again
    place = Place.at(base.session, base.ledger.resolve("head"))
    with place.site() as site:
        found.append(place.statistics().moments(site, [0, 1]))
        monkeypatch.undo()
        found.append(second_moments(site, [0, 1]))
    for layer in (0, 1):
        assert torch.equal(found[0][layer], found[1][layer])
        assert torch.equal(found[0][layer], found[2][layer])  # those of the base by itself, to the bit


def test_statistics_are_kept_in_the_workspace_where_the_users_cache_cannot_be_written(ws, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PERDURE_CACHE", str(tmp_path / "file"))
    write(ws, FACTS[0])
    kept = list((ws.ledger.root / "moments").iterdir())
    assert len(kept) == 2
    size = sum(path.stat().st_size for path in kept)
    assert ws.gc().bytes >= size
    assert list((ws.ledger.root / "moments").iterdir()) == []
    assert said(ws, "Dan Kim") == FACTS[0].target
    for name in ("PERDURE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError("no home")))
    assert cached(ws.session, "moments") == ws.ledger.root / "moments"
