"""Merging acts on updates: whatever factors they are written with, the result is the same."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from perdure.core.keyed import keyed
from perdure.maths.low_rank import Patch, combine, relative_error, truncate
from perdure.maths.merge import aligned, inner, knots, merge, slerp_factors, thinned, ties, trim

OUT, INTO = 6, 5
ALL = ("svd", "average", "ties", "dare", "slerp", "knots")


def patch(rank, seed, scale=2.0, out=OUT, into=INTO):
    random = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, into, generator=random, dtype=torch.float64)
    return Patch(down, torch.randn(out, rank, generator=random, dtype=torch.float64), scale)


def adapters(count=2, rank=2, first=0):
    return {f"t{n}": {m: patch(rank, first + 10 * n + k) for k, m in enumerate("ab")} for n in range(count)}


def even(tasks):
    return dict.fromkeys(tasks, 1.0)


def of(matrix):
    """Write a square matrix as a patch."""
    return Patch(torch.eye(len(matrix), dtype=torch.float64), torch.tensor(matrix, dtype=torch.float64), 1.0)


def numbers(seed=0):
    return lambda task, module, shape: torch.from_numpy(keyed(seed, "dare", task, module).random(shape))


def dense(patches):
    return {module: one.delta for module, one in patches.items()}


def otherwise(one, seed):
    """Write the same update with factors B G and G^-1 A, and another scale."""
    turn = patch(one.rank, seed, out=one.rank, into=one.rank).up + 3 * torch.eye(one.rank, dtype=torch.float64)
    return Patch(torch.linalg.inv(turn) @ one.down / 4, one.up @ turn, 4 * one.scale)


@pytest.mark.parametrize("how", ALL)
@given(seed=st.integers(0, 30))
def test_a_merge_does_not_depend_on_how_the_factors_are_written(how, seed):
    plain = adapters(first=seed)
    turned = {t: {m: otherwise(one, seed + k) for k, (m, one) in enumerate(own.items())} for t, own in plain.items()}
    weights = {"t0": 1.0, "t1": 0.5}
    merged = [merge(every, how, 3, weights, density=0.5, draw=numbers()).patches for every in (plain, turned)]
    for module, update in dense(merged[0]).items():
        assert_close(merged[1][module].delta, update, atol=1e-7, rtol=1e-7)
        assert update.norm() > 0.1


@pytest.mark.parametrize("how", ALL)
def test_the_order_in_which_tasks_are_given_changes_no_bit(how):
    one = adapters(2 if how == "slerp" else 4)
    weights = {name: 1.0 + n for n, name in enumerate(one)}
    forth = merge(one, how, 4, weights, density=0.5, draw=numbers()).patches
    back = merge(
        dict(reversed(one.items())), how, 4, dict(reversed(weights.items())), density=0.5, draw=numbers()
    ).patches
    for module in forth:
        assert torch.equal(forth[module].down, back[module].down)
        assert torch.equal(forth[module].up, back[module].up)


@pytest.mark.parametrize("how", ALL)
def test_the_result_has_the_rank_and_the_scale_that_were_asked_for(how):
    made = merge(adapters(), how, 3, even(adapters()), density=0.7, draw=numbers(), scale=2.0)
    assert {(one.rank, one.scale) for one in made.patches.values()} == {(3, 2.0)}
    assert 0 < made.error < 1


@given(st.integers(2, 4), st.integers(1, 5), st.integers(0, 99))
def test_svd_is_the_best_of_its_rank_and_its_error_is_what_is_left_out(count, rank, seed):
    every = adapters(count, first=seed)
    made = merge(every, "svd", rank, even(every))
    whole = combine([every[name] for name in sorted(every)])
    best = {module: truncate(one, rank) for module, one in whole.items()}
    for module, update in dense(best).items():
        assert_close(made.patches[module].delta, update, atol=1e-9, rtol=1e-9)
    assert made.error == pytest.approx(relative_error(whole, best), abs=1e-9)


def test_with_room_for_all_of_it_a_sum_is_exact_and_the_common_part_is_added_as_it_is():
    every, below = adapters(), {"a": patch(1, 77), "c": patch(2, 78)}
    made = merge(every, "svd", 9, {"t0": 1.0, "t1": -0.5}, common=below)
    expected = {m: every["t0"][m].delta - 0.5 * every["t1"][m].delta for m in "ab"}
    expected["a"] = expected["a"] + below["a"].delta
    expected["c"] = below["c"].delta
    for module, update in expected.items():
        assert_close(made.patches[module].delta, update)
    assert made.error == 0
    nothing = merge({}, "ties", 9, {}, common=below)
    assert_close(nothing.patches["a"].delta, below["a"].delta)


def test_an_average_weighs_and_does_not_depend_on_the_size_of_the_weights():
    every = adapters()
    for factor in (1.0, 8.0):
        made = merge(every, "average", 9, {"t0": 3 * factor, "t1": factor})
        for module in "ab":
            assert_close(
                made.patches[module].delta, 0.75 * every["t0"][module].delta + 0.25 * every["t1"][module].delta
            )


def test_ties_on_two_by_two():
    # kept: 4 and -3 of the first, 2 and 5 of the second; signs elected: + (4 + 2), + (5 against -3); the rest is 0
    first, second = [[4.0, -3.0], [1.0, 0.5]], [[2.0, 5.0], [-1.0, 0.0]]
    updates = [lambda m=m: torch.tensor(m, dtype=torch.float64) for m in (first, second)]
    assert ties(updates, [1.0, 1.0], 0.5).tolist() == [[3.0, 5.0], [0.0, 0.0]]
    # weighed: 2 x -3 against 5 elects -; the mean of those that agree is weighed too
    assert ties(updates, [2.0, 1.0], 0.5).tolist() == [[pytest.approx(10 / 3), -3.0], [0.0, 0.0]]
    assert ties(updates, [1.0, 1.0], 1.0).tolist() == [[3.0, 5.0], [0.0, 0.5]]  # 1 against -1: no sign wins
    every = {"a": {"m": of(first)}, "b": {"m": of(second)}}
    assert_close(merge(every, "ties", 2, even(every), density=0.5).patches["m"].delta, ties(updates, [1.0, 1.0], 0.5))


def test_trim_keeps_the_largest_and_equal_ones_with_them():
    update = torch.tensor([[3.0, -2.0], [1.0, -4.0]])
    assert trim(update, 0.5).tolist() == [[3.0, 0.0], [0.0, -4.0]]
    assert trim(torch.ones(2, 2), 0.5).tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert torch.equal(trim(update, 1.0), update)


def test_the_mean_of_many_masks_of_dare_is_the_update():
    update, density, draws = patch(2, 5).delta, 0.3, 2000
    made = torch.stack([thinned(update, density, numbers(n)("a", "m", update.shape)) for n in range(draws)])
    assert set(made[:, 0, 0].tolist()) == {0.0, (update[0, 0] / density).item()}
    error = update.abs() * math.sqrt((1 / density - 1) / draws)  # standard deviation of the mean of such draws
    off = (made.mean(0) - update) / error
    assert off.abs().max() < 4  # of 30 entries; 3 for all but a few
    assert (off.abs() < 3).sum() >= 29


def test_each_task_and_module_has_a_mask_of_its_own():
    every = {**adapters(), "z": {"a": patch(1, 3)}}
    masked = sum(thinned(every[name]["a"].delta, 0.5, numbers()(name, "a", (OUT, INTO))) for name in every)
    assert_close(merge(every, "dare", 5, even(every), density=0.5, draw=numbers()).patches["a"].delta, masked)
    with pytest.raises(ValueError, match="give `draw`"):
        merge(every, "dare", 5, even(every))


def test_slerp_is_exact_at_its_ends_and_on_a_right_angle():
    every = adapters()
    for name, weights in (("t0", {"t0": 1.0, "t1": 0.0}), ("t1", {"t0": 0.0, "t1": 2.0})):
        factors, _ = slerp_factors(every, weights)
        assert factors == {other: float(other == name) for other in every}
    x, y = {"m": of([[2.0, 0.0], [0.0, 0.0]])}, {"m": of([[0.0, 0.0], [0.0, 4.0]])}
    made = merge({"x": x, "y": y}, "slerp", 2, {"x": 1.0, "y": 1.0})
    assert made.angle == pytest.approx(math.pi / 2)
    # halfway: both unit vectors with sin 45 degrees, at the mean norm 3
    assert_close(made.patches["m"].delta, torch.diag(torch.full((2,), 3 / math.sqrt(2), dtype=torch.float64)))


def test_the_angle_of_slerp_is_that_of_the_updates_flattened_over_all_modules():
    every = adapters()
    flat = [torch.cat([every[name][m].delta.flatten() for m in "ab"]) for name in ("t0", "t1")]
    assert inner(every["t0"], every["t1"]) == pytest.approx((flat[0] @ flat[1]).item())
    angle = torch.arccos(flat[0] @ flat[1] / flat[0].norm() / flat[1].norm()).item()
    assert slerp_factors(every, even(every))[1] == pytest.approx(angle)
    same = {"t0": every["t0"], "t1": every["t0"]}
    assert slerp_factors(same, even(same))[0] == {"t0": 0.5, "t1": 0.5}
    with pytest.raises(ValueError, match="two adapters, got 3"):
        slerp_factors(adapters(3), even(adapters(3)))


def test_knots_of_a_plain_sum_is_the_sum():
    patches = [patch(rank, rank) for rank in (1, 2, 2)]
    basis, parts = aligned(patches)
    assert_close(basis.mT @ basis, torch.eye(5, dtype=torch.float64))
    for one, part in zip(patches, parts, strict=True):
        assert_close(basis @ part, one.delta)
    assert_close(basis @ sum(parts), sum(one.delta for one in patches))


def test_knots_is_ties_in_the_directions_of_the_singular_vectors():
    first, second = of([[3.0, 1.0], [0.0, 0.0]]), of([[1.0, -1.0], [0.0, 0.5]])
    together = torch.cat([first.delta, second.delta], dim=1)
    u, s, v = torch.linalg.svd(together, full_matrices=False)
    parts = [(s[:, None] * v)[:, :2], (s[:, None] * v)[:, 2:]]
    expected = u @ ties([lambda p=p: p for p in parts], [1.0, 1.0], 0.5)
    assert_close(knots([first, second], [1.0, 1.0], 0.5).delta, expected)
    every = {"a": {"m": first}, "b": {"m": second}}
    assert_close(merge(every, "knots", 2, even(every), density=0.5).patches["m"].delta, expected)


@pytest.mark.parametrize("how", ["svd", "ties", "dare", "knots"])
def test_experts_are_merged_like_layers(how):
    random = torch.Generator().manual_seed(0)
    stacked = {
        name: {"experts": Patch(*(torch.randn(3, *side, generator=random).double() for side in ((2, 5), (4, 2))), 1.0)}
        for name in "ab"
    }
    whole = merge(stacked, how, 9, even(stacked), density=1.0, draw=numbers()).patches["experts"]
    assert whole.delta.shape == (3, 4, 5)
    if how in ("svd", "dare"):
        assert_close(whole.delta, stacked["a"]["experts"].delta + stacked["b"]["experts"].delta)
    cut = merge(stacked, how, 2, even(stacked), density=1.0, draw=numbers()).patches["experts"]
    best = [truncate(Patch(torch.eye(5).double(), expert, 1.0), 2).delta for expert in whole.delta]
    assert_close(cut.delta, torch.stack(best), atol=1e-7, rtol=1e-7)
