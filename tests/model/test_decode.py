"""Asking a model: the same answers as the plainest way, one prompt at a time, whatever else is in the batch."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from perdure.model import decode
from perdure.model.batch import padded
from perdure.model.decode import choice_log_likelihoods, fitted, generate
from perdure.model.prompts import CachedPrompts, shared_prefix

PAD = 1
NEW = 12


@pytest.fixture(scope="module")
def model(tiny_model):
    """The tiny model with wider weights: as made, it is so unsure that every answer is a repetition."""
    made = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for value in made.parameters():
            if value.dim() > 1:
                value.normal_(0, 0.25)
    return made


def prompts(n, shared=5, seed=0):
    """Prompts of different lengths that begin alike."""
    torch.manual_seed(seed)
    lengths = torch.randint(1, 12, (n,)).tolist()
    return [[7] * shared + torch.randint(2, 290, (length,)).tolist() for length in lengths]


def by_hand(model, prompt, stops):
    """What transformers generates for one prompt alone, without the token that ended it."""
    ids = torch.tensor([prompt])
    told = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=NEW,
        eos_token_id=stops,
        pad_token_id=PAD,
    )[0, len(prompt) :].tolist()
    return next((told[:t] for t, token in enumerate(told) if token in stops), told)


@pytest.fixture(scope="module")
def stops(model):
    """Tokens that the model really says, at different times, so that rows leave their batch one by one."""
    said = [by_hand(model, prompt, [PAD]) for prompt in prompts(10)]
    return sorted({said[0][3], said[1][6], said[2][0], PAD})


@pytest.mark.parametrize("shared", [0, 5])
def test_greedy_answers_are_those_of_generate_row_by_row(model, stops, shared):
    asked = prompts(10, shared)
    expected = [by_hand(model, prompt, stops) for prompt in asked]
    assert len({len(answer) for answer in expected}) > 2  # some stop early, some late or never
    assert generate(model, asked, max_new_tokens=NEW, stops=stops, pad=PAD) == expected


def test_batches_of_any_size_give_the_same_answers_and_are_told_as_they_finish(model, stops, monkeypatch):
    asked = prompts(10)
    whole = generate(model, asked, max_new_tokens=NEW, stops=stops, pad=PAD)
    for size in (1, 3):
        ticks: list[int] = []
        monkeypatch.setattr(decode, "BATCH", size)
        assert generate(model, asked, max_new_tokens=NEW, stops=stops, pad=PAD, tick=ticks.append) == whole
        assert ticks == [*range(size, 10, size), 10]


def test_no_more_tokens_than_asked_for(model):
    assert [len(answer) for answer in generate(model, prompts(3), max_new_tokens=4, stops=[PAD], pad=PAD)] == [4] * 3


@pytest.mark.parametrize("asked", [[[3]], [[3], [3, 4], [5]], [[3, 4, 5]] * 3, [[3, 4], [3, 4, 5]]])
def test_prompts_of_one_token_equal_prompts_and_prompts_inside_others(model, asked):
    assert generate(model, asked, max_new_tokens=5, stops=[PAD], pad=PAD) == [
        by_hand(model, prompt, [PAD])[:5] for prompt in asked
    ]


def by_full_forward(model, prompt, choice):
    with torch.no_grad():
        told = model(torch.tensor([prompt + choice])).logits[0].log_softmax(-1)
    return sum(told[len(prompt) - 1 + t, token].item() for t, token in enumerate(choice))


def options(n, seed=3):
    torch.manual_seed(seed)
    return [[torch.randint(2, 290, (1 + (i + j) % 4,)).tolist() for j in range(2 + i % 3)] for i in range(n)]


@pytest.mark.parametrize("size", [2, 7, 64])
def test_a_choice_is_as_likely_as_its_own_full_forward_says_in_any_batch(model, monkeypatch, size):
    asked, choices = prompts(6), options(6)
    monkeypatch.setattr(decode, "BATCH", size)
    ticks: list[int] = []
    found = choice_log_likelihoods(model, asked, choices, pad=PAD, tick=ticks.append)
    for prompt, told, own in zip(asked, found, choices, strict=True):
        assert told == pytest.approx([by_full_forward(model, prompt, choice) for choice in own], abs=2e-4)
    assert ticks[-1] == 6
    assert len(ticks) == 1 if size == 64 else len(ticks) > 1


def test_choices_of_one_token_need_no_second_forward(model, monkeypatch):
    monkeypatch.setattr(CachedPrompts, "append", None)
    asked = prompts(3)
    found = choice_log_likelihoods(model, asked, [[[4], [5]]] * 3, pad=PAD)
    for prompt, told in zip(asked, found, strict=True):
        assert told == pytest.approx([by_full_forward(model, prompt, [token]) for token in (4, 5)], abs=1e-4)


def test_the_shared_prefix_leaves_each_prompt_a_token_of_its_own():
    assert shared_prefix([[1, 2, 3], [1, 2, 4]]) == 2
    assert shared_prefix([[1, 2], [1, 2, 3]]) == 1
    assert shared_prefix([[1, 2, 3]] * 2) == 2
    assert shared_prefix([[1], [1]]) == 0
    assert shared_prefix([[1, 2], (1, 3)]) == 1


def test_padding_stands_on_the_left():
    ids, mask = padded([[5, 6], [7]], 0, left=True)
    assert ids.tolist() == [[5, 6], [0, 7]]
    assert mask.tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("lengths", "wanted", "positions", "kept", "new", "cut"),
    [
        ([5, 90], 200, None, [5, 90], 200, 0),  # a model without a limit
        ([5, 9], 8, 64, [5, 9], 8, 0),
        ([5, 9], 200, 64, [5, 9], 55, 0),  # an answer has what the longest prompt leaves
        ([5, 63], 4, 64, [5, 60], 4, 1),  # a prompt gives way to a short answer
        ([5, 63], 200, 64, [5, 32], 32, 1),  # and halves with a long one
        ([90, 90], 4, 64, [60, 60], 4, 2),
    ],
)
def test_prompts_and_answers_share_the_positions_that_a_model_has(lengths, wanted, positions, kept, new, cut):
    asked = [list(range(length)) for length in lengths]
    found, room, lost = fitted(asked, wanted, positions)
    assert (room, lost) == (new, cut)
    assert found == [prompt[len(prompt) - length :] for prompt, length in zip(asked, kept, strict=True)]
