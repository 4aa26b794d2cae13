"""Dark experience replay: alpha times the mean squared error of the logits, and its gradient, in closed form."""

import pytest
import torch

from perdure.core.seams import Column, DrawContext
from perdure.core.step import Slice, Step, TopK, row_weights
from perdure.maths.divergence import top_k
from perdure.methods.replay.der import Der

VOCAB = 6
LENGTHS = torch.tensor([1, 3])


def drawn(k=VOCAB - 1, covered=(1.0, 1.0)):
    """Two rows of 1 and 3 tokens as a method sees them, in float64, the logits h they get now, and those stored, z."""
    torch.manual_seed(0)
    h, z = 3 * torch.randn(2, 4, VOCAB, dtype=torch.float64)
    row_of = torch.repeat_interleave(torch.arange(2), LENGTHS)
    column = TopK(*top_k(z, k))
    told = {"teacher": torch.tensor(covered, dtype=torch.float64)[row_of]}
    h.requires_grad_()
    weight = row_weights(row_of, 2).double()
    return (
        Slice(h, torch.zeros(4, dtype=torch.long), weight, row=row_of, columns={"teacher": column}, covered=told),
        h,
        z,
    )


def loss(rows, **fields):
    return Der(**fields).loss(Step(0, 10, {}, drawn={"der": rows}), {})


def test_it_is_alpha_times_the_mean_over_rows_of_the_mean_squared_error():
    rows, h, z = drawn()
    per_row = [(h[:1] - z[:1]).square().mean(), (h[1:] - z[1:]).square().mean()]
    torch.testing.assert_close(loss(rows, strength=0.5), 0.5 * torch.stack(per_row).mean(), rtol=1e-5, atol=0)


def test_its_gradient_pulls_each_logit_by_twice_alpha_times_the_gap():
    rows, h, z = drawn()
    loss(rows, strength=0.5).backward()
    share = rows.weight[:, None] / VOCAB
    torch.testing.assert_close(h.grad, 0.5 * 2 * (h.detach() - z) * share, rtol=1e-4, atol=1e-6)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="probabilities that agree are not logits that agree")
def test_logits_that_are_all_shifted_are_not_left_alone():
    rows, _, z = drawn()
    shifted = Slice(z + 2, rows.labels, rows.weight, columns=rows.columns, covered=rows.covered)
    assert loss(shifted).item() == pytest.approx(0, abs=1e-6)


def test_the_labels_play_no_part_and_rows_without_stored_logits_do_not_pull():
    rows, h, _ = drawn(covered=(1.0, 0.0))
    loss(rows).backward()
    assert h.grad[0].norm() > 0
    assert h.grad[1:].norm().item() == 0


def test_without_drawn_rows_or_column_it_adds_nothing():
    rows, _, _ = drawn()
    assert Der().loss(Step(0, 10, {}), {}) is None
    assert loss(Slice(rows.logits, rows.labels, rows.weight)) is None


def test_it_draws_its_share_and_shares_the_column_of_distil():
    total = sum(Der(mix=0.2).draw(DrawContext(update, 10, 10, {"replay": 99}), {}).size for update in range(10))
    assert total == 25  # a fifth of 100 + 25
    assert Der(top_k=8).columns == (Column("teacher", "replay", "settled", 8),)
    assert not Der(strength=0).active
    assert not Der(mix=0).active
    with pytest.raises(ValueError, match="mix"):
        Der(mix=1)
