"""Editing tiny models of random weights: what is written is said, nothing of the model changes, and everything is repeatable."""

import dataclasses
from unicodedata import normalize

import pytest
import torch

import people
from perdure.bridges.runtime import Runtime
from perdure.core.errors import BadInput, BadSpec
from perdure.editing.edit import edit, pin, rewrite, settle
from perdure.editing.edit_set import EditSet
from perdure.editing.edit_tensors import set_to_tensors
from perdure.editing.measures import summary
from perdure.editing.moments import Statistics, weights_hash
from perdure.editing.overlay import overlaid
from perdure.editing.prompts import BARE, encode
from perdure.editing.site import open_site
from perdure.editing.spec import EditSpec
from perdure.editing.sweep import sweep_layers
from perdure.editing.verification import _begins, answers, drift, relative_norms, verify
from perdure.maths.low_rank import to_tensors

QUICK = EditSpec(layers=(0,), steps=30, contexts=2, lr=1.0, clamp=20.0, kl=0.0, decay=0.0, ridge=1e-3, gain=1000.0)
NAMES = ["Dan Kim", "Dan Poe", "Dan Bly"]
FACTS = [people.fact(name, next(city for city in people.CITIES if city != people.HOME[name])) for name in NAMES]


@pytest.fixture(scope="module")
def llama():
    return people.make("llama")


@pytest.fixture(scope="module")
def gpt2():
    """Conv1D weights, learned positions, a fused projection of queries, keys and values."""
    return people.make("gpt2")


@pytest.fixture(scope="module")
def statistics(tmp_path_factory):
    return Statistics(tmp_path_factory.mktemp("moments"))


@pytest.fixture(scope="module")
def made(gpt2, statistics):
    return edit(*gpt2, FACTS, QUICK, statistics=statistics)


def losses(site, edit_set, facts=FACTS):
    with overlaid(site, edit_set.factors()):
        return torch.tensor([v.prompt.target for v in verify(site, facts, generation=False)])


def said(site, edit_set, facts=FACTS):
    with overlaid(site, edit_set.factors()):
        return [v.prompt.said for v in verify(site, facts, generation=False)]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("method", ["emmet", "rome", "memit", "alphaedit"])
def test_every_method_makes_the_facts_likelier_and_leaves_the_model_as_it_was(kind, method, request, statistics):
    model, tokenizer = request.getfixturevalue(kind)
    layers = (0, 1) if method in ("memit", "alphaedit") else (0,)
    spec = dataclasses.replace(QUICK, method=method, layers=layers, energy=0.5)
    before = weights_hash(model)
    made = edit(model, tokenizer, FACTS, spec, statistics=statistics)
    assert weights_hash(model) == before
    assert not any("forward" in module.__dict__ for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with open_site(model, tokenizer) as site:
        gained = losses(site, EditSet()) - losses(site, made)
        assert (gained > 0.5).all(), gained
        assert all(share > 0 for share in relative_norms(site, made.factors()).values())


def test_an_edit_is_the_same_whenever_it_is_made(gpt2, statistics, made):
    again = edit(*gpt2, FACTS, QUICK, statistics=statistics)
    for name, tensor in set_to_tensors(made).items():
        assert torch.equal(tensor, set_to_tensors(again)[name]), name
    other = edit(*gpt2, FACTS[:1], dataclasses.replace(QUICK, seed=1), statistics=statistics)
    assert not torch.equal(other.written[0].keys, made.written[0].keys)


def test_the_update_answers_each_stored_key_and_none_that_was_dropped(made):
    (delta,) = (factors.delta for factors in made.factors().values())
    for w in made.live:
        torch.testing.assert_close(delta @ w.keys[0].double(), w.change.double(), rtol=1e-6, atol=1e-6)
    after = made.drop(made.written[1].id)
    (delta,) = (factors.delta for factors in after.factors().values())
    assert (delta @ made.written[1].keys[0].double()).norm() < 1e-6 * made.written[1].change.norm()


def test_a_fact_taken_out_is_no_longer_said_and_the_others_are(gpt2, made):
    with open_site(*gpt2) as site:
        assert said(site, EditSet()) == [False, False, False]
        assert said(site, made) == [True, True, True]
        assert said(site, made.drop(made.written[1].id)) == [True, False, True]
        assert said(site, made.resolve(made.written[1].id)) == [True, False, True]


def test_an_empty_set_is_settled_as_it_is(gpt2):
    assert settle(*gpt2, EditSet()) == EditSet()


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("method", ["emmet", "memit"])
def test_resolving_is_to_the_bit_as_if_the_fact_had_never_been_made(gpt2, statistics, method, batch):
    spec = dataclasses.replace(QUICK, batch=batch, method=method, layers=(0, 1) if method == "memit" else (0,))
    for gone in FACTS:
        left = settle(*gpt2, edit(*gpt2, FACTS, spec, statistics=statistics).resolve(gone.id), statistics=statistics)
        never = set_to_tensors(edit(*gpt2, [fact for fact in FACTS if fact is not gone], spec, statistics=statistics))
        assert never.keys() == set_to_tensors(left).keys()
        assert all(torch.equal(tensor, set_to_tensors(left)[name]) for name, tensor in never.items())


def test_facts_that_are_spread_are_spread_again_as_if_the_resolved_one_had_never_been(gpt2, statistics):
    spec = dataclasses.replace(QUICK, method="memit", layers=(0, 1), batch=1)
    whole = edit(*gpt2, FACTS, spec, statistics=statistics)
    made = settle(*gpt2, whole.resolve(FACTS[0].id), statistics=statistics)
    never = edit(*gpt2, FACTS[1:], spec, statistics=statistics)
    for name, factors in never.factors().items():
        torch.testing.assert_close(made.factors()[name].delta, factors.delta, rtol=1e-4, atol=1e-6)
    assert not torch.equal(whole.written[1].residuals, made.written[0].residuals)


def key_now(site, edit_set, fact, layer):
    """The key that the model has for a fact's bare prompt in a layer, with the update of the layers below it on."""
    name = site.layout.down[layer]
    below = {module: made for module, made in edit_set.factors().items() if module < name}
    seen = []
    line = encode(site.tokenizer, BARE, fact.question, fact.subject, "", fact.at)
    hook = site.layout.module(site.model, name).register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad(), overlaid(site, below):
        site.model(input_ids=torch.tensor([line.ids]))
    hook.remove()
    return seen[0][0, line.last].double()


def test_the_update_of_facts_that_are_spread_is_zero_at_the_key_a_dropped_fact_has_without_it(gpt2, statistics):
    spec = dataclasses.replace(QUICK, method="memit", layers=(0, 1), contexts=0, chat=False)
    left = edit(*gpt2, FACTS, spec, statistics=statistics).drop(FACTS[1].id)
    with open_site(*gpt2) as site:

        def at_key(edit_set, layer):
            factors = edit_set.factors()[site.layout.down[layer]]
            return (factors.delta @ key_now(site, edit_set, FACTS[1], layer)).norm().item()

        assert at_key(left, 1) > 1e-3  # its stored key was read with its own update below
    pinned = pin(*gpt2, left, statistics=statistics)
    with open_site(*gpt2) as site:
        assert at_key(pinned, 0) < 1e-4
        assert at_key(pinned, 1) < 1e-4
    more = edit(*gpt2, [people.fact("Ann Eco", "Rome")], spec, onto=pinned, statistics=statistics)
    with open_site(*gpt2) as site:
        assert at_key(more, 1) < 1e-4


def test_groups_of_layers_that_overlap_are_settled_once_and_for_all(gpt2, statistics):
    low, high = (dataclasses.replace(QUICK, method="memit", layers=layers) for layers in ((0, 1), (1,)))
    both = edit(*gpt2, FACTS[:1], high, onto=edit(*gpt2, FACTS[1:], low, statistics=statistics), statistics=statistics)
    again = settle(*gpt2, both, statistics=statistics)
    for name, made in again.factors().items():
        assert torch.equal(made.delta, both.factors()[name].delta)


def test_facts_with_one_and_the_same_key_are_said_by_one_change_and_taken_out_by_resolving(gpt2, statistics):
    """Both prompts begin with the subject, so that nothing of the relation stands left of the subject's last token."""
    spec = dataclasses.replace(QUICK, batch=1)
    lives = FACTS[1]
    home = dataclasses.replace(people.fact(NAMES[1], lives.target, form=1), relation="other")
    made = edit(*gpt2, [lives, FACTS[0], home], spec, statistics=statistics)
    first, _, third = made.written
    assert first.shared == third.shared == tuple(sorted([lives.id, home.id]))
    assert torch.equal(first.change, third.change)
    assert all(factors.left.shape[0] == 2 for factors in made.factors().values())
    with pytest.raises(BadInput, match="shares its key with another fact"):
        made.drop(home.id)
    with open_site(*gpt2) as site:
        gained = losses(site, EditSet(), [lives, home]) - losses(site, made, [lives, home])
        assert (gained > 0.5).all()
    alone = settle(*gpt2, made.resolve(home.id), statistics=statistics)
    never = edit(*gpt2, [lives, FACTS[0]], spec, statistics=statistics)
    for name, tensor in set_to_tensors(never).items():
        assert torch.equal(tensor, set_to_tensors(alone)[name]), name


def test_a_second_edit_stands_on_the_first_and_only_on_the_same_model(llama, gpt2, statistics):
    first = edit(*gpt2, FACTS[:2], QUICK, statistics=statistics)
    both = edit(*gpt2, FACTS[2:], QUICK, onto=first, statistics=statistics)
    with open_site(*gpt2) as site:
        assert said(site, both) == [True, True, True]
    with pytest.raises(BadInput, match="in force already"):
        edit(*gpt2, FACTS[:1], QUICK, onto=first, statistics=statistics)
    with pytest.raises(BadSpec, match="lora has no edit set"):
        edit(*gpt2, FACTS[2:], EditSpec(method="lora"))
    with pytest.raises(BadInput, match="another state of the model"):
        edit(*llama, FACTS[2:], QUICK, onto=first, statistics=statistics)


def test_a_set_is_written_again_on_another_model(llama, statistics, made):
    moved = rewrite(*llama, made.drop(FACTS[1].id), statistics=statistics)
    assert [w.fact for w in moved.written] == [FACTS[0], FACTS[2]]
    with open_site(*llama) as site:
        assert (losses(site, EditSet()) - losses(site, moved))[[0, 2]].min() > 0.5
    assert rewrite(*llama, EditSet(), statistics=statistics) == EditSet()


def test_the_slot_laid_by_the_runtime_says_what_the_hooks_said_and_edits_stand_on_a_skill(llama, statistics, tmp_path):
    model, tokenizer = llama
    made = edit(*llama, FACTS, QUICK, statistics=statistics)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    runtime = Runtime(tmp_path, "float32", "cpu")
    runtime.load({"edits": to_tensors(made.patches())})
    with open_site(runtime.model, runtime.base.tokenizer, runtime.precision) as site, open_site(*llama) as own:
        torch.testing.assert_close(losses(site, EditSet()), losses(own, made), rtol=1e-3, atol=1e-3)
    over = edit(runtime.model, runtime.base.tokenizer, [people.fact("Bob Fox", "Lima")], QUICK)
    assert list(over.factors()) == list(made.factors())  # named as in the bare model


def test_single_edits_tried_at_once_are_what_each_is_alone(gpt2, statistics):
    found = sweep_layers(*gpt2, FACTS, [0], QUICK, statistics=statistics)[0]
    with open_site(*gpt2) as site:
        for fact, at_once in zip(FACTS, found, strict=True):
            alone = losses(site, edit(*gpt2, [fact], QUICK, statistics=statistics), [fact])
            assert alone.item() == pytest.approx(at_once.prompt.target, abs=1e-2)
    with pytest.raises(BadSpec, match="sweep with method emmet"):
        sweep_layers(*gpt2, FACTS, [0], dataclasses.replace(QUICK, method="memit"))


def test_verification_reads_generation_paraphrases_neighbours_and_drift(gpt2, made):
    texts = [list(range(5, 30)), list(range(9, 20))]
    with open_site(*gpt2) as site:
        before = verify(site, FACTS)
        with overlaid(site, made.factors()):
            after = verify(site, FACTS)
        moved = drift(site, texts, lambda: overlaid(site, made.factors()))
        still = drift(site, texts, lambda: overlaid(site, {}))
    assert [v.generation for v in before] == [False] * 3
    assert [v.generation for v in after] == [True] * 3
    assert [v.generated.split()[0] for v in after] == [fact.target for fact in FACTS]
    assert [v.efficacy for v in after] == [True] * 3
    assert [v.neighbourhood for v in before] == [1.0] * 3  # it knows where the neighbours live
    assert all(len(v.paraphrases) == 1 and len(v.neighbours) == 2 and v.chat is None for v in after)
    told = summary(after)
    assert told["efficacy"][0] == 1.0
    assert "chat" not in told
    assert still.kl == 0
    assert still.perplexity == still.perplexity_before == moved.perplexity_before
    assert moved.kl > 0


def test_verification_counts_the_loss_of_each_token_of_the_answer(gpt2):
    line = encode(gpt2[1], BARE, "Ann Lee lives in", "Ann Lee", "Rome . Bob")
    with open_site(*gpt2) as site:
        ((loss, hit),) = answers(site, [line])
    with torch.no_grad():
        logp = gpt2[0](input_ids=torch.tensor([line.ids])).logits[0].log_softmax(-1)
    steps = range(line.answer, len(line.ids))
    assert len(steps) == 3
    assert loss == pytest.approx(-sum(logp[t - 1, line.ids[t]].item() for t in steps) / 3, abs=1e-4)
    assert hit == all(logp[t - 1].argmax() == line.ids[t] for t in steps)


def test_a_model_in_training_comes_back_as_it_was():
    model, tokenizer = people.make("llama", steps=0)
    model.train()
    model.lm_head.requires_grad_(True)
    with open_site(model, tokenizer):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
    assert model.training
    assert model.lm_head.weight.requires_grad


def test_numbers_of_a_tiny_edit_stay_what_they_were(gpt2, statistics):
    """Made by this code on torch 2.13, CPU; wide enough for another processor's rounding."""
    spec = EditSpec(layers=(0,), steps=6, contexts=2, lr=0.2, until=1e-9, ridge=0.01)
    made = edit(*gpt2, FACTS, spec, statistics=statistics)
    assert [w.optimised["loss"] for w in made.written] == pytest.approx([3.136, 3.987, 2.495], rel=0.02)
    assert [w.optimised["size"] for w in made.written] == pytest.approx([1.075, 1.123, 1.072], rel=0.02)
    assert [w.keys.norm().item() for w in made.written] == pytest.approx([5.427, 6.449, 6.132], rel=0.01)
    ((name, factors),) = made.factors().items()
    assert (name, tuple(factors.left.shape)) == ("transformer.h.0.mlp.c_proj", (3, 192))


@pytest.mark.parametrize(
    ("text", "target", "begins"),
    [
        (" Rome . Bob", "Rome", True),
        ("Romeo", "Rome", False),
        ("Rome", "Romeo", False),
        ("", "Rome", False),
        ("1923", "192", False),
        ("\u6771\u4eac\u90fd", "\u6771\u4eac", True),
        ("\u0e44\u0e17\u0e22\u0e04\u0e37\u0e2d", "\u0e44\u0e17\u0e22", True),
        ("Toyota\u306e", "Toyota", True),
        ("\uc11c\uc6b8\uc2dc", "\uc11c\uc6b8", False),
        (normalize("NFD", "Orl\u00e9ans ."), "Orl\u00e9ans", True),
        ("Orl\u00e9ans .", normalize("NFD", "Orl\u00e9ans"), True),
    ],
)
def test_a_text_begins_with_a_target_as_its_script_ends_words(text, target, begins):
    assert _begins(text, target) is begins
