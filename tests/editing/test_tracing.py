"""Causal tracing of a tiny model that knows where people live: where the answer is brought back, and where it cannot be."""

import numpy as np
import pytest
import torch

import people
from perdure.core.errors import BadInput
from perdure.editing.contexts import contexts_of
from perdure.editing.lora import FactTraining, train_facts
from perdure.editing.moments import weights_hash
from perdure.editing.overlay import overlaid
from perdure.editing.site import open_site
from perdure.editing.spec import EditSpec
from perdure.editing.tracing import trace
from perdure.editing.verification import drift, verify


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def known(request):
    return people.make(request.param)


def test_restoring_the_subjects_last_token_early_brings_the_answer_back_and_its_first_does_not(known):
    before = weights_hash(known[0])
    found = trace(*known, "Ann Lee lives in", "Ann Lee", samples=4)
    assert found.tokens == ("Ann", "Lee", "lives", "in")
    assert found.subject == (0, 2)
    assert found.answer == people.HOME["Ann Lee"]
    assert found.clean > 0.8 > found.corrupted + 0.2
    assert found.restored.shape == (4, 4)
    assert found.restored[1].max() > found.restored[0].max() + 0.2  # the family name alone says where they live
    assert found.restored[3, -1] == pytest.approx(found.clean, abs=1e-4)  # all that the answer is read from
    assert found.restored[1, -1] == pytest.approx(found.corrupted, abs=1e-4)  # nothing above reads it
    assert weights_hash(known[0]) == before
    assert not any(m._forward_hooks for m in known[0].modules())


@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_windows_of_modules_are_restored(known, kind):
    one = trace(*known, "Dan Kim is at home in", "Dan Kim", kind=kind, window=1, samples=3)
    wide = trace(*known, "Dan Kim is at home in", "Dan Kim", kind=kind, window=4, samples=3)
    assert one.corrupted == wide.corrupted  # the same noises
    assert (one.window, wide.window) == (1, 4)
    assert not np.allclose(one.restored, wide.restored)
    assert np.abs(one.indirect_effect).max() > 0


def test_without_noise_nothing_is_lost(known):
    found = trace(*known, "Ann Lee lives in", "Ann Lee", noise=0.0, samples=2)
    assert found.corrupted == pytest.approx(found.clean, abs=1e-6)
    assert np.allclose(found.restored, found.clean, atol=1e-5)


def test_a_trace_is_the_same_for_the_same_seed_and_needs_its_subject(known):
    first, again, other = (trace(*known, "Ann Lee lives in", "Ann Lee", samples=2, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.restored, again.restored)
    assert not np.array_equal(first.restored, other.restored)
    with pytest.raises(BadInput, match="does not name the subject"):
        trace(*known, "Ann Lee lives in", "Bob Fox")


def test_training_an_adapter_says_the_facts_and_its_locality_loss_keeps_other_text(known):
    facts = [people.fact("Ann Lee", next(c for c in people.CITIES if c != people.HOME["Ann Lee"]))]
    texts = [known[1](f"{name} lives in {people.HOME[name]} .")["input_ids"] for name in people.PEOPLE[1:9]]
    before = weights_hash(known[0])
    with open_site(*known) as site:
        contexts = contexts_of(site, EditSpec(contexts=1))
        moved = []
        for locality in (0.0, 3.0):
            with torch.enable_grad():
                training = FactTraining(steps=60, lr=0.02, locality=locality, until=1e-9)
                update = train_facts(site, facts, contexts, [0, 1], texts, training)
            with overlaid(site, update):
                assert verify(site, facts, generation=False)[0].prompt.said
            moved.append(drift(site, texts, lambda update=update: overlaid(site, update)).kl)
    assert moved[1] < 0.7 * moved[0]
    assert weights_hash(known[0]) == before
