"""Penalties on distance: value and gradient in closed form, and the product of LoRA factors without making it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.maths.anchors import joined, product_gap, quadratic, weighted_product_gap

seeds = st.integers(0, 10**6)


def made(seed, names=("a", "b"), least=-2.0):
    """Random float64 tensors by name; not negative with `least` 0."""
    torch.manual_seed(seed)
    return {name: torch.empty(3, i + 1, dtype=torch.float64).uniform_(least, 2.0) for i, name in enumerate(names)}


@settings(max_examples=25)
@given(seeds)
def test_the_gradient_pulls_each_weight_back_by_its_importance_times_its_distance(seed):
    params, anchors, importance = made(seed), made(seed + 1), made(seed + 2, least=0.0)
    leaves = {name: value.requires_grad_() for name, value in params.items()}
    value = quadratic(leaves, anchors, importance)
    (3 * value).backward()
    gaps = {name: leaves[name].detach() - anchors[name] for name in leaves}
    expected = sum(0.5 * (importance[name] * gap.square()).sum() for name, gap in gaps.items())
    torch.testing.assert_close(value.detach(), expected)
    for name, gap in gaps.items():
        torch.testing.assert_close(leaves[name].grad, 3 * importance[name] * gap)


def test_without_importance_every_anchored_weight_counts_one_and_the_others_are_free():
    params = {name: value.requires_grad_() for name, value in made(0).items()}
    quadratic(params, {"a": torch.zeros_like(params["a"])}).backward()
    torch.testing.assert_close(params["a"].grad, params["a"].detach())
    assert params["b"].grad is None


def test_its_value_does_not_depend_on_the_order_in_which_the_anchors_come():
    params, anchors, importance = ({n: v.float() for n, v in made(i, "abcdefg", 0.0).items()} for i in range(3))
    back = [dict(reversed(given.items())) for given in (anchors, importance)]
    assert quadratic(params, *back).item() == quadratic(params, anchors, importance).item()


@settings(max_examples=25)
@given(seeds)
def test_two_quadratics_joined_are_their_sum_everywhere(seed):
    f, g = made(seed, least=0.0), made(seed + 1, least=0.0)
    f["a"][0] = g["a"][0] = 0.0  # a weight that matters to neither
    a, b = made(seed + 2), made(seed + 3)
    importance, anchors, rest = joined(f, a, g, b)
    for w in (made(seed + 4), a, b):
        torch.testing.assert_close(quadratic(w, anchors, importance) + rest, quadratic(w, a, f) + quadratic(w, b, g))
    torch.testing.assert_close(anchors["a"][0], b["a"][0])


def test_joined_with_nothing_a_quadratic_stays_itself():
    g, b = made(0, least=0.0), made(1)
    importance, anchors, rest = joined({}, {}, g, b)
    assert rest == 0
    assert all(torch.equal(importance[name], g[name]) and torch.equal(anchors[name], b[name]) for name in g)


def factors(seed, shapes=((5, 2, 4), (7, 3, 3), (5, 2, 4)), dtype=torch.float64):
    """LoRA factors (out, rank), (rank, in) of several shapes."""
    torch.manual_seed(seed)
    return [(torch.randn(o, r, dtype=dtype), torch.randn(r, i, dtype=dtype)) for o, r, i in shapes]


@settings(max_examples=25)
@given(seeds, st.booleans())
def test_the_gap_of_products_is_that_of_the_dense_matrices_and_so_is_its_gradient(seed, anchored):
    pairs, old = factors(seed), factors(seed + 1) if anchored else None
    leaves = [value.requires_grad_() for pair in pairs for value in pair]
    dense = sum(
        (up @ down - (old[i][0] @ old[i][1] if old else 0)).square().sum() for i, (up, down) in enumerate(pairs)
    )
    found = product_gap(pairs, old)
    torch.testing.assert_close(found, dense)
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(dense, leaves), strict=True):
        torch.testing.assert_close(one, other)


def test_factors_turned_into_each_other_have_the_same_product_and_no_gap():
    pairs = factors(0)
    turn = [torch.randn(up.shape[1], up.shape[1], dtype=torch.float64) for up, _ in pairs]
    same = [(up @ t, torch.linalg.solve(t, down)) for (up, down), t in zip(pairs, turn, strict=True)]
    assert product_gap(pairs, same).item() == pytest.approx(0, abs=1e-12)


def test_close_to_the_anchor_the_gap_keeps_its_digits_in_float32():
    """||B A||^2 - 2 <B A, B* A*> + ||B* A*||^2 would lose all of them: the terms are 10^10 times the result."""
    old = factors(0, dtype=torch.float32)
    near = [(up + 1e-5 * torch.ones_like(up), down) for up, down in old]
    exact = product_gap(*([(u.double(), d.double()) for u, d in pairs] for pairs in (near, old))).item()
    assert product_gap(near, old).item() == pytest.approx(exact, rel=1e-3)
    assert product_gap(old, old).item() == 0


@settings(max_examples=25)
@given(seeds)
def test_a_weighted_product_gap_is_the_sum_over_the_entries_of_the_product(seed):
    torch.manual_seed(seed)
    up, up0, down, down0 = (torch.randn(*shape, dtype=torch.float64) for shape in ((4, 2), (4, 2), (2, 3), (2, 3)))
    u, v = torch.rand(4, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    v = v * u.sum() / v.sum()
    importance = u[:, None] * v / u.sum()
    torch.testing.assert_close(importance.sum(1), u)
    torch.testing.assert_close(importance.sum(0), v)
    expected = 0.5 * (importance * (up @ down - up0 @ down0).square()).sum()
    torch.testing.assert_close(weighted_product_gap([(up, down)], [(up0, down0)], [(u, v)]), expected)


def test_a_pair_without_importance_is_free():
    pair, zero = (torch.randn(4, 2), torch.randn(2, 3)), (torch.zeros(4), torch.zeros(3))
    assert weighted_product_gap([pair], [(torch.zeros(4, 2), torch.zeros(2, 3))], [zero]).item() == 0
