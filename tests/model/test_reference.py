"""A reference's answers with its distributions: no distance at the same state to the bit, and a lower bound at another."""

import copy
import math

import pytest
import torch
from transformers import AutoModelForCausalLM

from perdure.core.errors import BrokenStore
from perdure.model import reference as module
from perdure.model.decode import generate
from perdure.model.forward import Tokens
from perdure.model.reference import answers_with_distributions, distances, pack, unpack

PAD, NEW = 1, 8


def widened(folder, seed):
    made = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.manual_seed(seed)
    with torch.no_grad():
        for value in made.parameters():
            if value.dim() > 1:
                value.normal_(0, 0.25)
    return made


@pytest.fixture(scope="module")
def model(tiny_model):
    return widened(tiny_model, 1)


@pytest.fixture(scope="module")
def other(model):
    """The model with a little noise on its weights."""
    made = copy.deepcopy(model)
    torch.manual_seed(2)
    with torch.no_grad():
        for value in made.parameters():
            value.add_(0.02 * torch.randn_like(value))
    return made


@pytest.fixture(scope="module")
def prompts():
    torch.manual_seed(0)
    return [[7] * 40 + torch.randint(2, 290, (n,)).tolist() for n in torch.randint(1, 12, (20,)).tolist()]


@pytest.fixture(scope="module")
def answered(model, prompts):
    """The model's answers: some end early, one at once."""
    said = generate(model, prompts, max_new_tokens=NEW, stops=[PAD], pad=PAD)
    stops = [PAD, said[0][0], said[3][4]]
    answers = generate(model, prompts, max_new_tokens=NEW, stops=stops, pad=PAD)
    ended = [len(answer) < NEW for answer in answers]
    assert [] in answers
    assert len({len(answer) for answer in answers}) > 2
    return answers, ended


@pytest.fixture(scope="module")
def reference(model, prompts, answered):
    return answers_with_distributions(model, prompts, *answered, reader=Tokens(PAD))


def test_the_same_state_has_no_distance_to_the_bit(model, prompts, reference):
    found = distances(model, prompts, reference, reader=Tokens(PAD))
    assert [(one.js, one.kl) for one in found] == [(0.0, 0.0)] * len(prompts)


def test_the_same_state_has_no_distance_to_the_bit_under_autocast(model, prompts, answered):
    def precision():
        return torch.autocast("cpu", torch.bfloat16)

    reader = Tokens(PAD)
    stored = answers_with_distributions(model, prompts, *answered, reader=reader, precision=precision)
    found = distances(model, prompts, stored, reader=reader, precision=precision)
    assert [(one.js, one.kl) for one in found] == [(0.0, 0.0)] * len(prompts)


def by_hand(teacher, student, prompt, one):
    """JS and KL over the whole vocabulary, of one prompt alone."""
    ids = torch.tensor([[*prompt, *one.tokens]])
    with torch.no_grad():
        p, q = (
            model(ids).logits[0, len(prompt) - 1 :][: one.positions].log_softmax(-1) for model in (teacher, student)
        )
    m = ((p.exp() + q.exp()) / 2).log()
    js = ((p.exp() * (p - m)).sum(-1) + (q.exp() * (q - m)).sum(-1)) / 2
    return js.mean().item(), (p.exp() * (p - q)).sum(-1).mean().item()


def test_another_state_has_a_distance_that_is_at_most_that_over_the_vocabulary(model, other, prompts, reference):
    found = distances(other, prompts, reference, reader=Tokens(PAD))
    whole = [by_hand(model, other, prompt, one) for prompt, one in zip(prompts, reference, strict=True)]
    for one, (js, kl) in zip(found, whole, strict=True):
        assert 0 < one.js <= js + 1e-6
        assert one.js <= math.log(2)
        assert 0 < one.kl <= kl + 1e-6


def test_over_all_but_one_token_it_is_the_distance_over_the_vocabulary(model, other, prompts, answered):
    vocabulary = model.get_input_embeddings().num_embeddings
    stored = answers_with_distributions(model, prompts, *answered, reader=Tokens(PAD), k=vocabulary)
    found = distances(other, prompts, stored, reader=Tokens(PAD))
    for one, prompt, answer in zip(found, prompts, stored, strict=True):
        js, kl = by_hand(model, other, prompt, answer)
        assert one.js == pytest.approx(js, abs=1e-5)
        assert one.kl == pytest.approx(kl, abs=1e-5)


def test_pieces_of_logits_change_nothing(other, prompts, reference, monkeypatch):
    whole = distances(other, prompts, reference, reader=Tokens(PAD))
    monkeypatch.setattr(module, "PIECE", 5)
    assert distances(other, prompts, reference, reader=Tokens(PAD)) == whole


def test_prompts_are_counted_as_they_are_done(model, prompts, reference):
    ticks = []
    distances(model, prompts, reference, reader=Tokens(PAD), tick=ticks.append)
    assert ticks == [16, 20]


def test_packed_answers_are_restored(reference, model, prompts):
    named = {f"{n:064x}": one for n, one in enumerate(reference)}
    restored = unpack(pack(named))
    assert list(restored) == list(named)
    for mine, theirs in zip(named.values(), restored.values(), strict=True):
        assert (mine.tokens, mine.ended) == (theirs.tokens, theirs.ended)
        for part in ("index", "logprob", "tail"):
            assert torch.equal(getattr(mine, part), getattr(theirs, part))
    found = distances(model, prompts, list(restored.values()), reader=Tokens(PAD))
    assert {one.js for one in found} == {0.0}


def test_damaged_answers_are_an_error_that_says_what_to_do(reference):
    tensors = pack({f"{n:064x}": one for n, one in enumerate(reference)})
    for damaged in ({**tensors, "tail": tensors["tail"][:-1]}, {k: v for k, v in tensors.items() if k != "ended"}):
        with pytest.raises(BrokenStore, match="restore the workspace"):
            unpack(damaged)


def test_an_answer_without_a_position_is_refused(model):
    with pytest.raises(ValueError, match="no position"):
        answers_with_distributions(model, [[3, 4]], [[]], [False], reader=Tokens(PAD))
