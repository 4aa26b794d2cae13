"""DER++: stored logits on one set of rows, labels on another that is drawn independently."""

import pytest
import torch
import torch.nn.functional as F

from perdure.core.recipe import build_recipe
from perdure.core.seams import DrawContext
from perdure.core.step import Slice, Step, TopK, row_weights
from perdure.data.encode import Encoded
from perdure.maths.divergence import top_k
from perdure.maths.logits import logit_error
from perdure.memory.pool import Pool
from perdure.methods.replay.der_pp import DerPlusPlus
from perdure.train.draws import draw_rows


def drawn(seed):
    torch.manual_seed(seed)
    h, z = 2 * torch.randn(2, 3, 5, dtype=torch.float64)
    weight = row_weights(torch.arange(3), 3).double()
    column = {"teacher": TopK(*top_k(z, 4))}
    return Slice(
        h.requires_grad_(), torch.tensor([0, 1, 2]), weight, columns=column, covered={"teacher": torch.ones(3)}
    )


def loss(parts, **fields):
    return DerPlusPlus(**fields).loss(
        Step(0, 10, {}, drawn={f"der_pp.{name}": rows for name, rows in parts.items()}), {}
    )


@pytest.mark.parametrize(("strength", "label_strength"), [(0.3, 0.5), (0.0, 2.0), (2.0, 0.0)])
def test_it_is_alpha_times_the_error_on_one_set_plus_beta_times_the_cross_entropy_on_the_other(
    strength, label_strength
):
    dark, labelled = drawn(0), drawn(1)
    stored = dark.columns["teacher"]
    error = logit_error(dark.logits, stored.index, stored.logprob, stored.tail, stored.total).mean()
    expected = strength * error + label_strength * F.cross_entropy(labelled.logits, labelled.labels)
    found = loss({"logits": dark, "labels": labelled}, strength=strength, label_strength=label_strength)
    torch.testing.assert_close(found, expected)


def test_each_set_pulls_by_its_own_term_only():
    dark, labelled = drawn(0), drawn(1)
    loss({"logits": dark, "labels": labelled}, strength=1.0, label_strength=1.0).backward()
    torch.testing.assert_close(
        labelled.logits.grad, (labelled.logits.detach().softmax(-1) - F.one_hot(labelled.labels, 5)) / 3
    )
    (alone,) = torch.autograd.grad(loss({"logits": (again := drawn(0))}, strength=1.0), again.logits)
    torch.testing.assert_close(dark.logits.grad, alone)


def test_the_two_sets_are_independent_and_together_the_share_of_the_mix():
    rows = [Encoded((1, 2), (False, True)) for _ in range(40)]
    pool = Pool([str(i) for i in range(40)], rows, [None] * 40, ["old"] * 40)
    recipe = build_recipe({"methods": {"der_pp": {"mix": 0.5, "balance": "row"}}}, {"der_pp": DerPlusPlus})
    sizes, same = {"logits": 0, "labels": 0}, 0
    for update in range(40):
        made = draw_rows(recipe, {"replay": pool}, {"der_pp": {}}, DrawContext(update, 40, 9, {"replay": 40}), 2, 0)
        one, other = (made.rows[made.draw_of(f"der_pp.{name}")] for name in sizes)
        assert len(one) + len(other) == 9
        sizes = {"logits": sizes["logits"] + len(one), "labels": sizes["labels"] + len(other)}
        same += set(one) == set(other)
    assert sizes == {"logits": 180, "labels": 180}
    assert same < 5


def test_without_rows_it_adds_nothing_and_it_acts_while_either_term_counts():
    assert loss({}) is None
    assert DerPlusPlus(strength=0).active
    assert not DerPlusPlus(strength=0, label_strength=0).active
    assert not DerPlusPlus(mix=0).active
    with pytest.raises(ValueError, match="mix"):
        DerPlusPlus(mix=-0.1)
