"""Batches: labels stand one behind what predicts them, and a shared prefix changes no number."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import AutoModelForCausalLM

from perdure.data.encode import Encoded
from perdure.model.batch import collate, common_prefix, lines_of, padded, padded_tokens
from streams import label_logits

PAD = 1


def row(prompt, answer):
    return Encoded((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def rows():
    """Rows that share twelve tokens: worth sharing among five."""
    torch.manual_seed(0)
    head = torch.randint(2, 290, (12,)).tolist()
    tails = [torch.randint(2, 290, (length,)).tolist() for length in (1, 4, 2, 9, 3)]
    return [
        row(head + tail, answer) for tail, answer in zip(tails, [[5], [6, 7], [8, 9, 10], [11], [12, 13]], strict=True)
    ]


def by_hand(model, rows):
    """Logits that predict each trained token, by a plain forward of each row alone."""
    told = []
    for one in rows:
        logits = model(torch.tensor([one.ids])).logits[0]
        told += [logits[t - 1] for t in range(1, len(one)) if one.trained[t]]
    return torch.stack(told)


# --- collate


def test_the_tokens_of_a_forward_are_known_before_it_is_collated(rows):
    for some in (rows, rows[:2], [*rows, row([9] * 40, [1])]):
        assert padded_tokens(some) == collate(some, PAD).padded_tokens
    assert padded_tokens(rows) < len(rows) * max(one.last for one in rows)


def test_labels_and_the_positions_that_predict_them():
    batch = collate([row([10, 11, 12], [13, 14]), row([20], [21])], PAD)
    assert batch.ids.tolist() == [[10, 11, 12, 13], [20, PAD, PAD, PAD]]
    assert batch.mask.tolist() == [[1] * 4, [1, 0, 0, 0]]
    assert batch.at.T.tolist() == [[0, 2], [0, 3], [1, 0]]
    assert batch.labels.tolist() == [13, 14, 21]
    assert (batch.prefix.numel(), batch.padded_tokens) == (0, 8)


def test_a_first_token_that_nothing_predicts_is_no_label():
    batch = collate([Encoded((5, 6, 7), (True, True, True))], PAD)
    assert batch.labels.tolist() == [6, 7]


def test_what_stands_behind_the_last_label_is_not_read(model):
    bare, ended = row([10, 11], [12, 13]), Encoded((10, 11, 12, 13, 3, 4), (False, False, True, True, False, False))
    batches = [collate([one, row([20], [21])], PAD) for one in (bare, ended)]
    assert batches[1].ids.tolist() == [[10, 11, 12], [20, PAD, PAD]]
    assert batches[0].ids.equal(batches[1].ids)
    torch.testing.assert_close(label_logits(model, batches[1])[:2], by_hand(model, [ended]), rtol=1e-4, atol=1e-5)


def test_it_is_the_usual_loss_with_labels_of_minus_100(model, rows):
    batch = collate(rows, PAD, share_prefix=False)
    ids = nn.utils.rnn.pad_sequence([torch.tensor(one.ids) for one in rows], batch_first=True, padding_value=PAD)
    labels = torch.full_like(ids, -100)
    for i, one in enumerate(rows):
        for t in range(len(one)):
            labels[i, t] = one.ids[t] if one.trained[t] else -100
    with torch.no_grad():
        usual = model(ids, labels=labels).loss
        ours = F.cross_entropy(label_logits(model, batch), batch.labels)
    torch.testing.assert_close(ours, usual, rtol=1e-5, atol=1e-6)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=24))
def test_every_row_is_in_one_line_and_no_line_is_longer_than_the_longest_row(lengths):
    lines = lines_of(lengths)
    assert sorted(n for line in lines for n in line) == list(range(len(lengths)))
    assert max(sum(lengths[n] for n in line) for line in lines) == max(lengths)
    assert len(lines) == len(lengths) or len(lines) <= 0.9 * len(lengths)


def test_packed_rows_stand_one_behind_the_other_and_see_themselves_alone():
    batch = collate([row([10, 11], [12]), row([20, 21, 22, 23], [24]), row([30], [31])], PAD, packing=True)
    assert batch.ids.tolist() == [[20, 21, 22, 23], [10, 11, 30, PAD]]  # the longest first; last labels are not read
    assert batch.packing.row.tolist() == [[1, 1, 1, 1], [0, 0, 2, -1]]
    assert batch.packing.position.tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]]
    assert batch.at.T.tolist() == [[0, 1], [1, 3], [2, 0]]  # row and position, as without packing
    assert batch.packing.at.T.tolist() == [[1, 1], [0, 3], [1, 2]]
    assert batch.labels.tolist() == [12, 24, 31]
    sees = batch.packing.sees(shared=2)[1, 0].int().tolist()
    assert sees == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 0], [1, 1, 0, 0, 0, 1]]


@pytest.mark.parametrize("share", [False, True])
def test_packed_rows_have_the_logits_and_gradients_that_they_have_alone(model, rows, share):
    some = rows if share else [row(list(one.ids[10 : one.last]), [5, 6]) for one in rows]
    batch = collate(some, PAD, packing=True)
    assert batch.packing is not None
    assert batch.prefix.numel() == (12 if share else 0)
    assert batch.padded_tokens == padded_tokens(some, packing=True) < padded_tokens(some)
    weight = model.model.layers[0].self_attn.k_proj.weight.requires_grad_(True)
    logits = label_logits(model, batch)
    torch.testing.assert_close(logits, by_hand(model, some), rtol=1e-4, atol=1e-5)
    grads = [
        torch.autograd.grad(F.cross_entropy(label_logits(model, one), one.labels), weight)[0]
        for one in (batch, collate(some, PAD))
    ]
    weight.requires_grad_(False)
    assert grads[1].norm() > 0
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("share", [False, True])
def test_logits_are_those_of_each_row_alone(model, rows, share):
    batch = collate(rows, PAD, share_prefix=share)
    assert batch.prefix.numel() == (12 if share else 0)
    with torch.no_grad():
        torch.testing.assert_close(label_logits(model, batch), by_hand(model, rows), rtol=1e-4, atol=1e-5)


def test_gradients_flow_through_a_shared_prefix(model, rows):
    weight = model.model.layers[0].self_attn.k_proj.weight.requires_grad_(True)
    grads = []
    for share in (False, True):
        batch = collate(rows, PAD, share_prefix=share)
        loss = F.cross_entropy(label_logits(model, batch), batch.labels)
        grads.append(torch.autograd.grad(loss, weight)[0])
    weight.requires_grad_(False)
    assert grads[0].norm() > 0
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-6)


def test_what_pads_a_row_does_not_matter(model, rows):
    with torch.no_grad():
        a, b = (label_logits(model, collate(rows, pad)) for pad in (1, 250))
    assert torch.equal(a, b)


texts = st.lists(st.integers(2, 3), min_size=1, max_size=40)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6))
def test_a_shared_prefix_is_common_and_ends_before_what_predicts_a_label(made):
    rows = [row(prompt, answer) for prompt, answer in made]
    limit = min(one.first - 1 for one in rows)
    shared = common_prefix([one.ids for one in rows], limit)
    assert len({one.ids[:shared] for one in rows}) == 1
    assert shared <= limit
    assert shared == limit or len({one.ids[shared] for one in rows}) > 1
    together, apart = collate(rows, PAD), collate(rows, PAD, share_prefix=False)
    assert together.padded_tokens <= apart.padded_tokens
    assert (together.at[1] >= 0).all()
    assert together.labels.tolist() == apart.labels.tolist()


def test_a_prefix_that_saves_little_is_not_shared():
    def width(n):
        return collate([row([7] * 20 + [i], [8]) for i in range(n)], PAD).prefix.numel()

    assert (width(1), width(2), width(3)) == (0, 0, 20)


@given(st.lists(st.lists(st.integers(2, 9), max_size=6), min_size=1, max_size=5), st.booleans(), st.integers(0, 3))
def test_a_padded_row_is_the_row_where_the_mask_is_one(rows, left, more):
    width = max(map(len, rows)) + more
    ids, mask = padded(rows, PAD, left=left, width=width)
    assert ids.shape == mask.shape == (len(rows), width)
    for row, own, real in zip(rows, ids, mask, strict=True):
        assert own[real == 1].tolist() == row
        assert set(own[real == 0].tolist()) <= {PAD}
        assert real.tolist() == sorted(real.tolist(), reverse=not left)
