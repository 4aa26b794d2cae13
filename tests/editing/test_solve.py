"""Closed forms against their definitions, on linear memories small enough to solve both ways."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.errors import BadInput, Unsolvable
from perdure.editing import solve
from perdure.editing.solve import Factors

INNER, OUTER = 12, 7


def memory(seed, facts):
    """Keys on which facts are written, their residuals, and the second moment of 200 other keys."""
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(INNER, INNER, dtype=torch.float64, generator=random)
    others = mix @ torch.randn(INNER, 200, dtype=torch.float64, generator=random)
    keys = mix @ torch.randn(INNER, facts, dtype=torch.float64, generator=random)
    residuals = torch.randn(OUTER, facts, dtype=torch.float64, generator=random)
    return keys, residuals, others @ others.T / 200


def reached(moment, keys, ridge=1e-3):
    return solve.metric(moment, "emmet", ridge, 0.1)(keys)


some = given(st.integers(0, 2**31), st.integers(1, 6))
fast = settings(max_examples=25)


@fast
@some
def test_the_reach_is_the_inverse_second_moment_times_the_key(seed, n):
    keys, _, moment = memory(seed, n)
    ridge = 1e-3 * moment.diagonal().mean() * torch.eye(INNER, dtype=torch.float64)
    torch.testing.assert_close((moment + ridge) @ reached(moment, keys), keys)


@fast
@some
def test_emmet_answers_every_key_exactly_and_its_rows_are_a_dual_basis(seed, n):
    keys, residuals, moment = memory(seed, n)
    made = solve.emmet(keys, reached(moment, keys), residuals)
    torch.testing.assert_close(made.delta @ keys, residuals, rtol=0, atol=1e-6)
    torch.testing.assert_close(made.left @ keys, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-6)


@fast
@some
def test_emmet_is_the_smallest_update_that_does_so(seed, n):
    keys, residuals, moment = memory(seed, n)
    ridged = moment + 1e-3 * moment.diagonal().mean() * torch.eye(INNER, dtype=torch.float64)
    made = solve.emmet(keys, reached(moment, keys), residuals).delta
    random = torch.randn(OUTER, INNER, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    other = made + random @ (torch.eye(INNER, dtype=torch.float64) - keys @ torch.linalg.pinv(keys))
    size = lambda update: torch.trace(update @ ridged @ update.T)  # noqa: E731
    torch.testing.assert_close(other @ keys, residuals, rtol=0, atol=1e-6)
    assert size(made) <= size(other) * (1 + 1e-9)


def test_a_column_of_emmet_taken_out_takes_one_fact_out_and_no_other_notices():
    keys, residuals, moment = memory(0, 5)
    made = solve.emmet(keys, reached(moment, keys), residuals)
    rest = [0, 1, 3, 4]
    left = Factors(made.left[rest], made.right[:, rest])
    assert (left.delta @ keys[:, 2]).norm() < 1e-9 * residuals[:, 2].norm()
    torch.testing.assert_close(left.delta @ keys[:, rest], residuals[:, rest], rtol=0, atol=1e-9)


def test_keys_that_cannot_be_told_apart_are_refused():
    keys, residuals, moment = memory(0, 3)
    keys[:, 2] = keys[:, 0] * 1.000001
    with pytest.raises(BadInput, match="all but the same"):
        solve.emmet(keys, reached(moment, keys), residuals)


def test_a_key_with_no_room_to_write_in_is_refused_and_named():
    keys, residuals, moment = memory(0, 3)
    keys[:, 1] *= 1e-9
    with pytest.raises(BadInput, match=r"fact 2 of 3 .* almost zero"):
        solve.rome(keys, reached(moment, keys), residuals)


@fast
@some
def test_rome_is_rank_one_updates_written_one_after_the_other(seed, n):
    keys, residuals, moment = memory(seed, n)
    reaches = reached(moment, keys)
    weight = torch.zeros(OUTER, INNER, dtype=torch.float64)
    for k, u, r in zip(keys.T, reaches.T, residuals.T, strict=True):
        weight = weight + torch.outer(r - weight @ k, u) / (k @ u)
    torch.testing.assert_close(solve.rome(keys, reaches, residuals).delta, weight, rtol=1e-6, atol=1e-8)


def test_rome_disturbs_earlier_facts_where_emmet_does_not():
    keys, residuals, moment = memory(1, 5)
    reaches = reached(moment, keys)
    miss = lambda made: (made.delta @ keys - residuals).norm(dim=0)  # noqa: E731
    rome, emmet = miss(solve.rome(keys, reaches, residuals)), miss(solve.emmet(keys, reaches, residuals))
    assert rome[0] > 0.05
    assert rome[-1] < 1e-9
    assert emmet.max() < 1e-9


@fast
@some
def test_memit_is_its_formula(seed, n):
    keys, residuals, moment = memory(seed, n)
    ridged = moment + 1e-3 * moment.diagonal().mean() * torch.eye(INNER, dtype=torch.float64)
    reaches, gain = reached(moment, keys), 30.0
    strength = (keys * reaches).sum(0).mean() / gain
    expected = residuals @ torch.linalg.solve(strength * ridged + keys @ keys.T, keys).T
    torch.testing.assert_close(solve.memit(keys, reaches, residuals, gain).delta, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("gain", [1.0, 20.0, 1000.0])
def test_a_fact_alone_gets_the_share_of_its_residual_that_the_gain_says(gain):
    keys, residuals, moment = memory(0, 1)
    made = solve.memit(keys, reached(moment, keys), residuals, gain)
    torch.testing.assert_close(made.delta @ keys, residuals * gain / (1 + gain))


@fast
@some
def test_alphaedit_is_its_formula_and_leaves_the_directions_that_other_keys_use(seed, n):
    keys, residuals, _ = memory(seed, n)
    random = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(INNER, INNER, dtype=torch.float64, generator=random)).Q
    moment = axes @ torch.diag(torch.tensor([100.0] * 6 + [1e-3] * 6, dtype=torch.float64)) @ axes.T
    projector = solve.null_projector(moment, 0.02)
    reaches = projector @ keys
    strength = (keys * reaches).sum(0).mean() / 50
    system = projector @ keys @ keys.T + strength * torch.eye(INNER, dtype=torch.float64)
    expected = torch.linalg.solve(system, projector @ keys @ residuals.T).T
    made = solve.alphaedit(keys, reaches, residuals, 50.0).delta
    torch.testing.assert_close(made, expected, rtol=1e-6, atol=1e-8)
    assert (made @ axes[:, :6]).norm() < 1e-8 * made.norm()


def test_the_projector_holds_as_much_energy_as_asked_for_and_no_more():
    moment = torch.diag(torch.tensor([1.0, 2.0, 3.0, 94.0], dtype=torch.float64))
    for energy, kept in ((0.01, 1), (0.03, 2), (0.05, 2), (0.06, 3)):
        projector = solve.null_projector(moment, energy)
        torch.testing.assert_close(projector @ projector, projector)
        assert round(projector.trace().item()) == kept
    with pytest.raises(BadInput, match="raise energy"):
        solve.null_projector(moment, 0.001)


@fast
@given(st.integers(0, 2**31), st.sampled_from(["rome", "emmet", "memit", "alphaedit"]))
def test_an_update_made_to_vanish_is_zero_at_the_keys_and_only_nearly_changed_elsewhere(seed, method):
    keys, residuals, moment = memory(seed, 5)
    reaches = reached(moment, keys)
    whole = solve.solved(method, keys, reaches, residuals, 50.0)
    kept = Factors(whole.left[:3], whole.right[:, :3])
    made = solve.vanishing(kept, keys[:, 3:], reaches[:, 3:])
    assert (made.delta @ keys[:, 3:]).norm() < 1e-6 * residuals.norm()
    if method == "emmet":
        torch.testing.assert_close(made.delta, kept.delta, rtol=1e-5, atol=1e-7)


def test_balanced_factors_are_the_same_update_with_sides_of_one_length():
    keys, residuals, moment = memory(0, 4)
    made = solve.emmet(keys, reached(moment, keys), residuals)
    even = solve.balanced(made)
    torch.testing.assert_close(even.delta, made.delta)
    torch.testing.assert_close(even.left.norm(dim=1), even.right.norm(dim=0))
    assert solve.norm(even) == pytest.approx(made.delta.norm().item())


def dropped(keys, residuals, moment, gone):
    """The balanced update without the last `gone` facts, and the lengths of what it was at their keys with them."""
    reaches = solve.metric(moment, "emmet", 1e-2, 0.1)(keys)
    whole = solve.emmet(keys, reaches, residuals)
    live = torch.arange(keys.shape[1]) < keys.shape[1] - gone
    made = solve.emmet(keys, reaches, residuals * live)
    kept = solve.vanishing(Factors(made.left[live], made.right[:, live]), keys[:, ~live], reaches[:, ~live])
    return solve.balanced(kept), keys[:, ~live], (whole.delta @ keys[:, ~live]).norm(dim=0)


def left_at(left, right, keys):
    """Norm of the update at each key, the float32 factors multiplied exactly."""
    return (right.double() @ (left.double() @ keys)).norm(dim=0)


@pytest.mark.parametrize("gone", [1, 4])
def test_an_update_rounded_to_float32_stays_zero_where_it_was_even_between_keys_that_are_nearly_one(gone):
    """All keys lie along one direction that all other keys use too, so that rounding alone leaves a thousand times as much."""
    random = torch.Generator().manual_seed(2)
    width, facts = 512, 24
    common = torch.randn(width, 1, dtype=torch.float64, generator=random)

    def drawn(count):
        strength = 300 * torch.randn(1, count, dtype=torch.float64, generator=random)
        return torch.randn(width, count, dtype=torch.float64, generator=random) + common * strength

    others, keys = drawn(2 * width), drawn(facts).float().double()
    residuals = torch.randn(64, facts, dtype=torch.float64, generator=random)
    made, pinned, before = dropped(keys, residuals, others @ others.T / (2 * width), gone)
    plain = left_at(made.left.float(), made.right.float(), pinned) / before
    left, right = solve.rounded(made, pinned)
    found = left_at(left, right, pinned) / before
    assert left.dtype == right.dtype == torch.float32
    assert found.max() < 1e-8
    assert found.max() < plain.max() / 20
    assert (left.double() - made.left).norm() < 1.2 * (made.left.float().double() - made.left).norm()


@fast
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_an_update_rounded_to_float32_is_the_update_and_leaves_next_to_nothing_at_dropped_keys(seed, gone):
    keys, residuals, moment = memory(seed, 6)
    made, pinned, before = dropped(keys, residuals, moment, gone)
    left, right = solve.rounded(made, pinned)
    assert (left_at(left, right, pinned) < 1e-6 * before).all()
    torch.testing.assert_close(
        right.double() @ left.double(), made.delta, rtol=1e-4, atol=1e-5 * made.delta.abs().max()
    )


def test_with_nothing_dropped_every_entry_is_rounded_to_the_nearest():
    keys, residuals, moment = memory(0, 4)
    made = solve.emmet(keys, reached(moment, keys), residuals)
    left, right = solve.rounded(made, keys[:, :0])
    assert torch.equal(left, made.left.float())
    assert torch.equal(right, made.right.float())


@pytest.mark.parametrize("method", ["emmet", "rome", "memit", "alphaedit"])
@pytest.mark.parametrize("spoilt", [float("nan"), float("inf"), -1e6])
def test_statistics_that_cannot_be_solved_with_are_an_error_in_words(method, spoilt):
    _, _, moment = memory(0, 3)
    moment[2, 2] = spoilt
    if method == "alphaedit" and spoilt == -1e6:
        return  # a projector takes any symmetric matrix
    with pytest.raises(Unsolvable, match="not finite" if spoilt != -1e6 else "not positive definite"):
        solve.metric(moment, method, 0.01, 0.3)


@pytest.mark.parametrize("method", ["rome", "memit", "alphaedit"])
def test_equations_without_a_solution_are_an_error_in_words(method):
    keys = torch.eye(INNER, 2, dtype=torch.float64)
    gram = torch.tensor([[1.0, 2.0], [2.0, 1.0]], dtype=torch.float64)  # lambda = 1 makes it singular
    reaches = keys @ gram
    if method == "rome":  # its system is triangular with a diagonal above zero, which always has a solution
        assert torch.isfinite(solve.solved(method, keys, reaches, torch.ones(OUTER, 2), gain=1.0).right).all()
        return
    with pytest.raises(Unsolvable, match="depend on each other"):
        solve.solved(method, keys, reaches, torch.ones(OUTER, 2), gain=1.0)
