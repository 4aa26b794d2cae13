"""Geometry of gradients: projections land where they should, never lengthen, and leave alone what does not conflict."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar, nnls

from perdure.maths.projection import (
    avert_conflict,
    combine,
    deconflict,
    dot,
    extend_basis,
    gram,
    nonnegative_quadratic,
    project_cone,
    project_conflict,
    project_out,
)

seeds = st.integers(0, 10**6)
quick = settings(max_examples=60)
SHAPES = {"a": (2, 3), "b": (2,)}  # 8 numbers in two tensors


def vectors(seed, n=1, scale=1.0):
    """Random gradients of two tensors in float64, of different lengths."""
    rng = torch.Generator().manual_seed(seed)
    return [
        {k: scale * 3.0**i * torch.randn(s, generator=rng, dtype=torch.float64) for k, s in SHAPES.items()}
        for i in range(n)
    ]


def flat(vector):
    return torch.cat([vector[name].flatten() for name in SHAPES])


def length(vector):
    return dot(vector, vector) ** 0.5


def near(a, b, tolerance=1e-9):
    torch.testing.assert_close(flat(a), flat(b), rtol=tolerance, atol=tolerance)


def test_a_product_is_over_all_tensors_together_and_not_a_tensor_at_a_time():
    a, b = vectors(1, 2)
    assert dot(a, b) == pytest.approx((flat(a) @ flat(b)).item(), rel=1e-12)
    grad = {"a": torch.tensor([-1.0]), "b": torch.tensor([2.0])}  # against the reference in a, with it in all
    reference = {"a": torch.tensor([1.0]), "b": torch.tensor([1.0])}
    assert project_conflict(grad, reference) == grad


def test_low_precision_gradients_are_multiplied_in_float32():
    ones = {"a": torch.ones(1000, dtype=torch.bfloat16)}
    assert dot(ones, ones) == 1000
    assert combine([0.5], [ones])["a"].dtype == torch.float32


# --- one reference: A-GEM


@quick
@given(seeds)
def test_the_result_is_in_the_half_space_and_never_longer(seed):
    g, r = vectors(seed, 2)
    made = project_conflict(g, r)
    assert dot(made, r) >= -1e-12 * length(g) * length(r)
    assert length(made) <= length(g) * (1 + 1e-12)
    near(project_conflict(made, r), made)  # idempotent
    if dot(g, r) >= 0:
        assert all(made[name] is g[name] for name in g)
    else:
        near(made, {n: g[n] - dot(g, r) / dot(r, r) * r[n] for n in g})


@quick
@given(seeds, seeds)
def test_no_other_vector_of_the_half_space_is_nearer(seed, other):
    g, r, x = *vectors(seed, 2), *vectors(other)
    x = project_conflict(x, r)
    made = project_conflict(g, r)
    assert length(combine([1, -1], [g, made])) <= length(combine([1, -1], [g, x])) + 1e-12


def test_a_reference_of_zeros_changes_nothing():
    (g,) = vectors(3)
    zero = {name: torch.zeros_like(value) for name, value in g.items()}
    assert project_conflict(g, zero) == g
    near(deconflict(g, zero), g)
    near(project_cone(g, [zero]), g)


# --- many references: GEM


@quick
@given(seeds, st.integers(1, 12))
@example(seed=44828, n=11)
def test_the_nonnegative_program_agrees_with_least_squares(seed, n):
    rng = np.random.default_rng(seed)
    rows, target = rng.normal(size=(n, 8)) * rng.uniform(0.01, 100, (n, 1)), rng.normal(size=8)
    found = nonnegative_quadratic(rows @ rows.T, rows @ target)
    expected, _ = nnls(rows.T, -target)
    assert (found >= 0).all()
    left, least = (np.linalg.norm(target + rows.T @ v) for v in (found, expected))
    assert left == pytest.approx(least, rel=1e-7, abs=1e-9 * np.linalg.norm(target))  # it may be 0 but for rounding


@quick
@given(seeds, st.integers(1, 5), st.booleans(), st.sampled_from([0.0, 0.5]))
def test_the_cone_holds_the_conditions_of_karush_kuhn_and_tucker(seed, n, repeated, margin):
    g, *refs = vectors(seed, n + 1)
    refs += refs[:1] if repeated else []
    made = project_cone(g, refs, margin)
    products = np.array([dot(made, r) for r in refs])
    sizes = np.array([length(r) for r in refs])
    assert (products >= -1e-7 * sizes * max(length(made), length(g))).all()  # raises no reference loss
    if min(dot(g, r) for r in refs) >= 0:
        assert all(made[name] is g[name] for name in g)
        return
    weights = np.linalg.lstsq(np.stack([flat(r).numpy() for r in refs], 1), flat(combine([1, -1], [made, g])).numpy())[
        0
    ]
    assume(not repeated)  # the weights of equal references are not unique
    assert (weights >= margin - 1e-7).all()
    assert np.abs((weights - margin) * products).max() <= 1e-6 * (sizes.max() * length(g) + 1)  # complementary
    assert margin or length(made) <= length(g) * (1 + 1e-9)


@quick
@given(seeds)
def test_with_one_reference_and_no_margin_it_is_the_averaged_method(seed):
    g, r = vectors(seed, 2)
    near(project_cone(g, [r]), project_conflict(g, r))


def test_a_margin_adds_that_much_of_the_reference_at_least():
    g, r = {"w": torch.tensor([1.0, -1.0])}, {"w": torch.tensor([0.0, 1.0])}
    assert project_cone(g, [r], 0.5)["w"].tolist() == [1.0, 0.0]  # v = 1 already does it
    assert project_cone(g, [r], 3.0)["w"].tolist() == [1.0, 2.0]
    assert project_cone({"w": -g["w"]}, [r], 3.0)["w"].tolist() == [-1.0, 1.0]  # no conflict


def test_added_to_v_as_the_paper_says_the_margin_would_break_a_constraint():
    g = {"w": torch.tensor([-1.0, 0.0])}
    refs = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([-3.0, 1.0])}]
    v = nonnegative_quadratic(gram(refs), np.array([dot(g, r) for r in refs]))
    told = combine([1.0, *(v + 0.5)], [g, *refs])
    assert dot(told, refs[0]) < 0
    bounded = project_cone(g, refs, 0.5)
    assert all(dot(bounded, r) >= -1e-6 for r in refs)


# --- two equals: PCGrad and CAGrad


@quick
@given(seeds)
def test_surgery_is_the_sum_of_both_projections_and_harms_neither(seed):
    a, b = vectors(seed, 2)
    made = deconflict(a, b)
    near(made, combine([1, 1], [project_conflict(a, b), project_conflict(b, a)]))
    near(made, deconflict(b, a))
    assert min(dot(made, a), dot(made, b)) >= -1e-12 * length(a) * length(b) or dot(a, b) > 0
    if dot(a, b) >= 0:
        near(made, combine([1, 1], [a, b]))
    assert length(made) <= length(a) + length(b)


@quick
@given(seeds, st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_the_conflict_averse_vector_is_the_best_of_its_ball_for_the_worse_served(seed, radius):
    a, b = vectors(seed, 2)
    mean = combine([0.5, 0.5], [a, b])
    made = combine([0.5], [avert_conflict(a, b, radius)])
    assert length(combine([1, -1], [made, mean])) <= radius * length(mean) * (1 + 1e-6) + 1e-9
    served = min(dot(made, a), dot(made, b))
    for angle in np.linspace(0, 2 * np.pi, 60):  # the best lies in the plane of both
        way = combine([np.cos(angle) / length(a), np.sin(angle) / length(b)], [a, b])
        tried = combine([1, radius * length(mean) / length(way)], [mean, way])
        assert min(dot(tried, a), dot(tried, b)) <= served + 1e-6 * (1 + abs(served))
    near(avert_conflict(b, a, radius), avert_conflict(a, b, radius), 1e-7)
    if not radius:
        near(avert_conflict(a, b, 0.0), combine([1, 1], [a, b]))


@quick
@given(seeds, st.sampled_from([0.1, 0.4, 0.9]))
def test_its_closed_form_weight_minimises_the_dual(seed, radius):
    a, b = vectors(seed, 2)
    mean = combine([0.5, 0.5], [a, b])

    def dual(w):
        mix = combine([w, 1 - w], [a, b])
        return dot(mix, mean) + radius * length(mean) * length(mix)

    best = minimize_scalar(dual, bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
    made = combine([0.5], [avert_conflict(a, b, radius)])
    assert min(dot(made, a), dot(made, b)) == pytest.approx(min(best.fun, dual(0), dual(1)), rel=1e-6, abs=1e-9)


def test_gradients_that_cancel_or_agree_have_nothing_to_avert():
    (a,) = vectors(5)
    for b in (a, {name: -value for name, value in a.items()}, {name: -0.5 * value for name, value in a.items()}):
        made = avert_conflict(a, b, 0.5)
        assert all(torch.isfinite(value).all() for value in made.values())
    near(avert_conflict(a, a, 0.5), combine([3.0], [a]))  # 2 (1 + radius) a


# --- a subspace: OGD


def stacked(seed, n):
    return {name: torch.stack([v[name] for v in vectors(seed, n)]).float() for name in SHAPES}


def matrix(rows):
    return torch.cat([rows[name].flatten(1) for name in SHAPES], 1).double()


@quick
@given(seeds, st.integers(1, 3), st.integers(1, 4))
def test_the_basis_is_orthonormal_and_spans_the_rows_of_all_tasks(seed, first, then):
    one, two = stacked(seed, first), stacked(seed + 1, then)
    basis = extend_basis(extend_basis({}, one), two)
    u = matrix(basis)
    assert basis["a"].shape == (first + then, 2, 3)
    torch.testing.assert_close(u @ u.T, torch.eye(first + then, dtype=torch.float64), rtol=0, atol=3e-6)
    for rows in (one, two):
        left = matrix(project_out(rows, basis)).norm(dim=1) / matrix(rows).norm(dim=1)
        assert left.max() < 3e-3  # directions shorter than FAINT of a row are left out
    near_one = extend_basis({}, one)
    torch.testing.assert_close(u[: len(near_one["a"])], matrix(near_one), rtol=0, atol=0)  # the old ones stay


@quick
@given(seeds, seeds)
def test_projecting_out_is_linear_idempotent_symmetric_and_never_lengthens(seed, other):
    basis, x, y = extend_basis({}, stacked(seed, 3)), stacked(other, 2), stacked(other + 1, 2)
    px, py = matrix(project_out(x, basis)), matrix(project_out(y, basis))
    both = matrix(project_out({n: 2 * x[n] - y[n] for n in x}, basis))
    size = matrix(x).norm() + matrix(y).norm()
    assert (both - (2 * px - py)).norm() < 1e-5 * size
    assert (matrix(project_out(project_out(x, basis), basis)) - px).norm() < 1e-5 * size
    assert (px @ matrix(basis).T).abs().max() < 1e-5 * size
    assert (px @ matrix(y).T - matrix(x) @ py.T).abs().max() < 1e-5 * size**2
    assert (px.norm(dim=1) <= matrix(x).norm(dim=1) * (1 + 1e-6)).all()


def test_rows_that_the_basis_holds_add_nothing_and_faint_ones_no_noise():
    rows = stacked(7, 3)
    basis = extend_basis({}, rows)
    again = extend_basis(basis, {name: 5 * value for name, value in rows.items()})
    assert torch.equal(matrix(again), matrix(basis))
    almost = {name: torch.cat([value, value[:1] * (1 + 1e-6), value[:1] * 0]) for name, value in rows.items()}
    assert len(extend_basis({}, almost)["a"]) == 3


def test_keep_takes_the_fewest_directions_that_hold_that_share():
    rows = {"w": torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [5.0, 0.0, 0.0], [0.0, 9.0, 0.0]])}  # unit: 3 to 1
    assert [len(extend_basis({}, rows, keep)["w"]) for keep in (0.0, 0.5, 0.75, 0.76, 1.0)] == [0, 1, 1, 2, 2]
    torch.testing.assert_close(extend_basis({}, rows, 0.5)["w"].abs(), torch.tensor([[1.0, 0.0, 0.0]]))
    held = {"w": torch.tensor([[0.0, 1.0, 0.0]])}  # a quarter is known already
    assert [len(extend_basis(held, rows, keep)["w"]) for keep in (0.2, 0.25, 0.3)] == [1, 1, 2]


def test_a_name_that_the_basis_lacks_is_left_as_it_is():
    basis = extend_basis({}, {"w": torch.ones(1, 2)})
    new = torch.ones(1, 3)
    assert project_out({"w": torch.ones(1, 2), "new": new}, basis)["new"] is new


def test_many_almost_parallel_directions_stay_orthonormal_over_tasks():
    rng = torch.Generator().manual_seed(0)
    shared, basis = torch.randn(1, 400, generator=rng), {}
    for _ in range(6):
        basis = extend_basis(basis, {"w": shared + 0.02 * torch.randn(10, 400, generator=rng)})
    u = basis["w"].double()
    assert len(u) > 50
    torch.testing.assert_close(u @ u.T, torch.eye(len(u), dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [2, 3])
def test_exactly_opposed_references_leave_only_what_none_sees(n):
    ways = [torch.tensor([1.0, 0.0, 0.0]), torch.tensor([-1.0, 0.0, 0.0]), torch.tensor([0.0, -1.0, 0.0])][:n]
    g = {"w": torch.tensor([2.0, 3.0, 4.0])}
    made = project_cone(g, [{"w": way} for way in ways])["w"]
    torch.testing.assert_close(made, torch.tensor([0.0, 3.0 if n == 2 else 0.0, 4.0]), atol=1e-6, rtol=0)
    for order in itertools.permutations(ways):
        torch.testing.assert_close(project_cone(g, [{"w": way} for way in order])["w"], made, atol=1e-6, rtol=0)
