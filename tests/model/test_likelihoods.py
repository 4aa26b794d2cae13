"""Log-likelihoods in pieces and windows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.model.decode import BATCH, MOST, _choice_batches
from perdure.model.likelihoods import PIECE, token_log_likelihoods, windows_of


@pytest.mark.parametrize("places", [1, PIECE, PIECE + 1, 3 * PIECE])
def test_pieces_have_the_bits_of_one_log_softmax(places):
    torch.manual_seed(0)
    logits, at = torch.randn(places, 50) * 9, torch.arange(places).repeat_interleave(2)
    targets = torch.randint(0, 50, (len(at),))
    whole = logits.log_softmax(-1)
    assert torch.equal(token_log_likelihoods(logits, targets, at), whole[at, targets])
    assert torch.equal(token_log_likelihoods(logits, targets[:places]), whole[torch.arange(places), targets[:places]])


@given(st.integers(2, 300), st.integers(2, 40))
def test_windows_count_every_token_but_the_first_once_with_half_a_window_before(length, window):
    parts = windows_of(length, window)
    counted = [t for _, end, first in parts for t in range(first, end)]
    assert counted == list(range(1, length))
    for start, end, first in parts:
        assert end - start <= window
        assert start == 0 or first - start >= window // 2


@given(
    st.lists(
        st.tuples(st.integers(1, 3000), st.lists(st.integers(1, 400), min_size=1, max_size=70)), min_size=1, max_size=40
    )
)
def test_batches_of_choices_hold_every_prompt_once_within_limits(rows):
    prompts, choices = [prompt for prompt, _ in rows], [lengths for _, lengths in rows]
    batches = _choice_batches(prompts, choices)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    for batch in batches:
        count, longest = sum(len(choices[i]) for i in batch), max(max(choices[i]) for i in batch)
        if len(batch) > 1:
            assert len(batch) * max(prompts[i] for i in batch) <= MOST
            assert count * longest <= MOST
            assert count - len(choices[batch[-1]]) < BATCH


def test_choices_longer_than_their_prompts_are_grouped_by_their_own_length():
    lengths = [[50, 9], [3, 2], [48, 40], [2, 3]] * 20
    batches = _choice_batches([4] * len(lengths), lengths)
    padded = sum(sum(len(lengths[i]) for i in batch) * max(max(lengths[i]) for i in batch) for batch in batches)
    assert padded < 0.7 * sum(map(len, lengths)) * 50
