"""Asking a model: the same answers as the plainest way, one prompt at a time, whatever else is in the batch."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from perdure.model import decode
from perdure.model.batch import padded
from perdure.model.decode import choice_log_likelihoods, fitted, generate
from perdure.model.prompts import CachedPrompts, shared_prefix
from perdure.model.sample import chooser

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


def test_each_prompt_may_have_a_length_of_its_own(model, stops):
    asked = prompts(10)
    most = [1 + n % NEW for n in range(10)]
    whole = generate(model, asked, max_new_tokens=NEW, stops=stops, pad=PAD)
    found = generate(model, asked, max_new_tokens=most, stops=stops, pad=PAD)
    assert found == [answer[:n] for answer, n in zip(whole, most, strict=True)]


def test_tokens_come_one_by_one_and_are_those_of_the_answer(model, stops):
    came: list[list[int]] = [[] for _ in range(10)]
    asked = prompts(10)
    found = generate(
        model, asked, max_new_tokens=NEW, stops=stops, pad=PAD, on_token=lambda row, token: came[row].append(token)
    )
    assert came == found
    assert any(found)


def drawn(model, asked, temperature=1.0, seed=5):
    choose = chooser(temperature, seed, asked)
    return generate(model, asked, max_new_tokens=NEW, stops=[PAD], pad=PAD, choose=choose)


def test_what_is_drawn_depends_on_the_prompt_and_the_seed_alone(model, monkeypatch):
    asked = prompts(10)
    whole = drawn(model, asked)
    assert drawn(model, asked) == whole
    assert drawn(model, asked[::-1]) == whole[::-1]
    assert [drawn(model, [prompt])[0] for prompt in asked] == whole
    monkeypatch.setattr(decode, "BATCH", 3)
    assert drawn(model, asked) == whole
    assert drawn(model, asked, seed=6) != whole
    assert whole != generate(model, asked, max_new_tokens=NEW, stops=[PAD], pad=PAD)


def test_a_low_temperature_takes_the_most_likely_token_and_zero_is_greedy(model):
    asked = prompts(6)
    greedy = generate(model, asked, max_new_tokens=NEW, stops=[PAD], pad=PAD)
    for temperature in (0.0, 1e-6, 1e-300):
        assert drawn(model, asked, temperature) == greedy


def test_draws_have_the_temperature_that_was_asked_for(model):
    prompt = [7, 8, 9]
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1]
    expected = (logits / 0.5).softmax(-1)
    seeds = range(2000)
    first = [int(chooser(0.5, seed, [prompt])(logits[None], [0])) for seed in seeds]
    shares = torch.bincount(torch.tensor(first), minlength=len(logits)) / len(first)
    likely = expected.topk(5).indices
    torch.testing.assert_close(shares[likely], expected[likely], rtol=0, atol=0.05)


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
