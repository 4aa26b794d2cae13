import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from perdure.maths.statistics import (
    items_needed,
    mean_interval,
    mean_of_means,
    paired_difference,
    paired_p_value,
    unseen,
)

Z95 = 1.959963984540054
Z95_ONE_SIDED = 1.6448536269514722

binary = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)
graded = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def items(right, wrong):
    return [1.0] * right + [0.0] * wrong


def pairs(both, wins, losses, neither=0):
    a = [1.0] * both + [1.0] * wins + [0.0] * losses + [0.0] * neither
    b = [1.0] * both + [0.0] * wins + [1.0] * losses + [0.0] * neither
    return a, b


def test_wilson_interval_of_a_textbook_case():
    # 81 of 263: Newcombe, Statistics in Medicine 1998, table I, method 3.
    value, low, high = mean_interval(items(81, 182))
    assert value == pytest.approx(81 / 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


@pytest.mark.parametrize("n", [1, 7, 120])
def test_the_wilson_interval_is_that_of_scipy(n):
    for right in range(n + 1):
        expected = binomtest(right, n).proportion_ci(0.95, "wilson")
        assert mean_interval(items(right, n - right))[1:] == pytest.approx((expected.low, expected.high), abs=1e-15)


@pytest.mark.parametrize("n", [1, 12, 120])
def test_all_right_or_all_wrong_does_not_claim_certainty(n):
    assert mean_interval(items(n, 0)) == pytest.approx((1.0, n / (n + Z95**2), 1.0))
    assert mean_interval(items(0, n)) == pytest.approx((0.0, 0.0, Z95**2 / (n + Z95**2)))


def test_graded_items_that_all_agree_keep_the_width_of_what_was_not_seen():
    value, low, high = mean_interval([0.5] * 100)
    assert value == 0.5
    assert 0.5 - low == pytest.approx(unseen(100, Z95))
    assert high - 0.5 == pytest.approx(unseen(100, Z95))


def test_the_bootstrap_of_many_graded_items_is_near_the_normal_interval():
    scores = np.random.default_rng(1).random(1000)
    value, low, high = mean_interval(scores)
    half = Z95 * scores.std() / math.sqrt(1000)
    assert value == pytest.approx(scores.mean())
    assert value - low == pytest.approx(half, rel=0.1)
    assert high - value == pytest.approx(half, rel=0.1)


@settings(max_examples=40)
@given(binary | graded, st.integers(0, 2**63 - 1))
def test_an_interval_holds_its_mean_stays_in_range_has_width_and_depends_on_its_seed_only(scores, seed):
    value, low, high = mean_interval(scores, seed=seed, resamples=200)
    assert 0 <= low <= value <= high <= 1
    assert low < high
    assert (value, low, high) == mean_interval(scores, seed=seed, resamples=200)


def test_two_seeds_give_two_bootstraps():
    scores = np.random.default_rng(2).random(40)
    assert mean_interval(scores, seed=1) != mean_interval(scores, seed=2)


@settings(max_examples=40)
@given(binary | graded)
def test_more_confidence_is_a_wider_interval(scores):
    _, low, high = mean_interval(scores, 0.8, resamples=300)
    _, lower, higher = mean_interval(scores, 0.99, resamples=300)
    assert lower <= low
    assert high <= higher


@pytest.mark.parametrize(
    ("scores", "says"),
    [([], "at least one"), ([[1.0]], "flat"), ([1.2], "1.2"), ([math.nan], "nan"), ([-0.1, 1], "-0.1")],
)
def test_what_is_no_list_of_scores_is_refused(scores, says):
    with pytest.raises(ValueError, match=says):
        mean_interval(scores)


@pytest.mark.parametrize("confidence", [0, 1, 1.5])
def test_confidence_must_be_a_share(confidence):
    with pytest.raises(ValueError, match="confidence"):
        mean_interval([1.0], confidence)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_the_mean_interval_covers_the_true_share_about_as_often_as_it_says(share):
    generator = np.random.default_rng(3)
    draws = generator.binomial(60, share, size=2000)
    bounds = {right: mean_interval(items(right, 60 - right))[1:] for right in np.unique(draws)}
    covered = np.mean([bounds[right][0] <= share <= bounds[right][1] for right in draws])
    assert 0.92 <= covered <= 0.99


def test_the_bootstrap_covers_the_true_mean_of_graded_items():
    generator = np.random.default_rng(4)
    hits = 0
    for trial in range(300):
        _, low, high = mean_interval(generator.beta(2, 1, size=60), seed=trial, resamples=300)
        hits += low <= 2 / 3 <= high
    assert 0.90 <= hits / 300 <= 0.99


def score_statistic(wins, losses, n, difference):
    """Tango's statistic with its restricted maximum likelihood found on a grid, from the definition alone."""
    q = np.linspace(max(0.0, -difference), (1 - difference) / 2, 200_001)[1:-1]
    likelihood = np.zeros_like(q)
    for count, share in ((wins, q + difference), (losses, q), (n - wins - losses, 1 - 2 * q - difference)):
        likelihood += count * np.log(np.maximum(share, 1e-300)) if count else 0.0
    best = q[likelihood.argmax()]
    return (wins - losses - n * difference) / math.sqrt(n * (2 * best + difference * (1 - difference)))


@pytest.mark.parametrize(
    ("both", "wins", "losses", "neither"), [(36, 12, 2, 0), (43, 0, 1, 0), (50, 9, 9, 12), (0, 20, 0, 0)]
)
def test_the_paired_bounds_are_where_the_score_test_starts_to_reject(both, wins, losses, neither):
    n = both + wins + losses + neither
    value, low, high = paired_difference(*pairs(both, wins, losses, neither))
    assert value == pytest.approx((wins - losses) / n)
    assert score_statistic(wins, losses, n, low) == pytest.approx(Z95, abs=1e-3)
    if high < 1:
        assert score_statistic(wins, losses, n, high) == pytest.approx(-Z95, abs=1e-3)
    else:
        assert value == 1


def test_no_changed_item_leaves_what_was_not_seen():
    margin = Z95_ONE_SIDED**2 / (80 + Z95_ONE_SIDED**2)
    expected = pytest.approx((0.0, -margin, margin))
    assert paired_difference(items(70, 10), items(70, 10), one_sided=True) == expected
    assert paired_difference([0.4] * 80, [0.4] * 80, one_sided=True) == expected


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=50))
def test_swapping_the_two_sides_flips_the_sign(rows):
    a, b = zip(*rows, strict=True)
    value, low, high = paired_difference(a, b)
    assert -1 <= low <= value <= high <= 1
    assert low < high
    assert paired_difference(b, a) == pytest.approx((-value, -high, -low), abs=1e-9)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_graded_differences_lie_inside_their_interval(rows):
    a, b = np.array(rows).T
    value, low, high = paired_difference(a, b, resamples=200)
    assert value == pytest.approx((a - b).mean())
    assert -1 <= low <= value <= high <= 1
    assert low < high


def test_one_sided_bounds_are_two_sided_bounds_of_the_lower_confidence():
    for a, b in (pairs(50, 7, 3), (np.linspace(0, 1, 50), np.linspace(0.2, 0.7, 50))):
        assert paired_difference(a, b, 0.95, one_sided=True) == pytest.approx(paired_difference(a, b, 0.90))


def test_pairing_is_narrower_than_two_separate_intervals_where_items_agree():
    a, b = pairs(60, 4, 2, 34)
    _, low, high = paired_difference(a, b)
    _, low_a, high_a = mean_interval(a)
    assert high - low < high_a - low_a


@pytest.mark.parametrize(("win", "loss"), [(0.04, 0.01), (0.06, 0.03)])  # the true difference is 0.03
def test_the_one_sided_paired_bounds_err_about_as_often_as_they_say(win, loss):
    n, below, above = 80, 0.0, 0.0
    for wins in range(18):
        for losses in range(14):
            ways = math.comb(n, wins) * math.comb(n - wins, losses)
            chance = ways * win**wins * loss**losses * (1 - win - loss) ** (n - wins - losses)
            _, low, high = paired_difference(*pairs(n - wins - losses, wins, losses), one_sided=True)
            below += chance * (high < 0.03)
            above += chance * (low > 0.03)
    assert 0.02 < below < 0.055
    assert 0.02 < above < 0.075  # the score test is a little liberal on this side


def test_lists_of_different_lengths_cannot_be_paired():
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference([1, 0], [1])


def test_groups_count_alike_whatever_their_size():
    value, low, high = mean_of_means([np.zeros(10), np.ones(1000)], (0.0, 1.0))
    assert value == 0.5
    widening = math.hypot(unseen(10, Z95), unseen(1000, Z95)) / 2
    assert (low, high) == pytest.approx((0.5 - widening, 0.5 + widening))


@pytest.mark.parametrize(("n", "limit"), [(20, 0.03), (80, 0.03), (5, 0.1)])
def test_without_a_change_the_items_needed_are_those_of_the_closed_form(n, limit):
    needed = math.ceil(Z95_ONE_SIDED**2 * (1 - limit) / limit)
    assert items_needed(items(n, 0), items(n, 0), limit) == needed - n


@settings(max_examples=60)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(20, 80), st.sampled_from([0.01, 0.03, 0.1]))
def test_items_needed_decide_and_a_tenth_fewer_do_not(wins, losses, same, limit):
    n = wins + losses + same
    more = items_needed(*pairs(same, wins, losses), limit)
    if more is None:
        assert (wins - losses) / n == pytest.approx(limit)
        return
    _, low, high = paired_difference(*pairs(same, wins, losses), one_sided=True)
    assert (more == 0) == (high <= limit or low >= limit)
    times = math.ceil((n + more) / n)
    if times <= 50:  # the same shares, at least as many items as asked for
        _, low, high = paired_difference(*pairs(same * times, wins * times, losses * times), one_sided=True)
        assert high <= limit + 1e-9 or low >= limit - 1e-9


def test_graded_items_need_what_the_normal_approximation_says():
    generator = np.random.default_rng(6)
    a, b = generator.random(200), generator.random(200)
    d = a - b
    needed = math.ceil(Z95_ONE_SIDED**2 * d.var() / (d.mean() - 0.03) ** 2)
    assert items_needed(a, b, 0.03) == max(needed - 200, 0)


def test_no_number_of_items_decides_a_drop_that_sits_on_the_limit():
    assert items_needed(*pairs(97, 3, 0), 0.03) is None


@pytest.mark.parametrize("n", [60, 200])
def test_the_bound_of_rare_graded_drops_holds_as_often_as_it_says(n):
    """Plain percentiles held the true drop in 89% of the draws of 200 items."""
    generator = np.random.default_rng(1)

    def draw(n):
        then, dropped = generator.beta(0.8, 0.3, n), generator.random(n) < 0.06
        return then, np.where(dropped, then * generator.random(n), then)

    then, now = draw(1_000_000)
    bounds = [paired_difference(*draw(n), one_sided=True, seed=i, resamples=500)[2] for i in range(300)]
    assert np.mean(np.array(bounds) >= (then - now).mean()) >= 0.93


# The p value of the paired test


@settings(max_examples=60)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 80), st.sampled_from([0.0, 0.03, 0.1]))
def test_the_p_value_of_right_and_wrong_items_is_the_level_at_which_the_bound_meets_the_limit(
    wins, losses, same, limit
):
    a, b = pairs(same, wins, losses)
    p = paired_p_value(a, b, limit)
    if 1e-9 < p < 0.4999:
        assert paired_difference(a, b, 1 - p, one_sided=True)[1] == pytest.approx(limit, abs=1e-6)
    assert (p < 0.05) == (paired_difference(a, b, one_sided=True)[1] > limit) or p == pytest.approx(0.05, abs=1e-6)


def test_the_p_value_against_no_difference_is_mcnemars():
    a, b = pairs(50, 15, 5)
    assert paired_p_value(a, b, 0.0) == pytest.approx(1 - NormalDist().cdf((15 - 5) / math.sqrt(15 + 5)))
    assert paired_p_value(a, a, 0.0) == 1.0
    assert paired_p_value(b, a, 0.0) > 0.9


def test_continuity_takes_half_a_row_off_the_distance_and_never_crosses_the_limit():
    a, b = [1.0] * 15 + [0.0] * 5 + [0.0] * 80, [0.0] * 15 + [1.0] * 5 + [0.0] * 80
    expected = 1 - NormalDist().cdf((15 - 5 - 0.5) / math.sqrt(15 + 5))
    assert paired_p_value(a, b, 0.0, continuity=True) == pytest.approx(expected)
    assert paired_p_value(b, a, 0.0, continuity=True) == paired_p_value(b, a, 0.0)
    assert paired_p_value([1.0] + [0.0] * 99, [0.0] * 100, 0.0099, continuity=True) == pytest.approx(0.5)


@pytest.mark.parametrize("limit", [0.005, 0.02, 0.05, 0.065])
def test_the_p_value_of_graded_items_is_the_level_at_which_the_bound_meets_the_limit(limit):
    generator = np.random.default_rng(11)
    a = generator.random(150)
    b = np.clip(a - 0.05 + 0.2 * generator.standard_normal(150), 0, 1)
    p = paired_p_value(a, b, limit, seed=3)
    value, low, high = paired_difference(a, b, 1 - min(p, 1 - p), one_sided=True, seed=3)
    assert (low if limit < value else high) == pytest.approx(limit, abs=2e-3)


def test_beyond_all_replicates_the_p_value_is_that_of_the_normal_distribution():
    generator = np.random.default_rng(12)
    a, b = 0.5 + 0.5 * generator.random(400), 0.5 * generator.random(400)
    assert 0 < paired_p_value(a, b, 0.2) < 1e-9


@pytest.mark.parametrize("graded_too", [False, True])
def test_the_p_value_is_uniform_where_the_drop_equals_the_limit(graded_too):
    generator, values = np.random.default_rng(13), []
    for seed in range(300):
        lost = generator.random(300) < 0.10
        won = ~lost & (generator.random(300) < 0.05 / 0.90)
        a, b = np.where(won, 0.0, 1.0), np.where(lost, 0.0, 1.0)  # the mean of a - b is 0.05
        if graded_too:
            a, b = a * 0.9, b * 0.9
        values.append(paired_p_value(a, b, 0.045 if graded_too else 0.05, seed=seed, resamples=300))
    for level in (0.1, 0.25, 0.5, 0.75, 0.9):
        assert np.mean(np.array(values) < level) == pytest.approx(level, abs=0.08)


# Groups of rows that change together


def grouped(generator, groups, size, mean, together=0.7):
    """Differences of `groups` groups: a row has its group's value with this chance, else one of its own."""
    shared = np.repeat(generator.random(groups) < mean, size)
    own = generator.random(groups * size) < mean
    lost = np.where(generator.random(groups * size) < together, shared, own)
    return np.ones(groups * size), np.where(lost, 0.0, 1.0), [f"g{k}" for k in np.repeat(range(groups), size)]


def test_groups_of_one_row_are_no_groups_and_one_group_tells_nothing():
    a, b = pairs(50, 7, 3)
    alone = [str(k) for k in range(60)]
    assert paired_difference(a, b, groups=alone) == paired_difference(a, b)
    assert paired_p_value(a, b, 0.03, groups=alone) == paired_p_value(a, b, 0.03)
    assert items_needed(a, b, 0.03, groups=alone) == items_needed(a, b, 0.03)
    assert paired_difference(a, b, groups=["all"] * 60)[1:] == (-1.0, 1.0)
    assert mean_interval(a, groups=["all"] * 60)[1:] == (0.0, 1.0)


def test_equal_groups_are_as_many_items():
    """Ten equal rows in each of 40 groups hold what 40 rows hold: the interval has the width of 40 items, not of 400."""
    generator = np.random.default_rng(5)
    a, b = generator.random(40), generator.random(40)
    names = [str(k) for k in np.repeat(range(40), 10)]
    value, low, high = paired_difference(np.repeat(a, 10), np.repeat(b, 10), groups=names)
    alone = paired_difference(a, b)
    assert value == pytest.approx(alone[0])
    assert high - low == pytest.approx(alone[2] - alone[1], rel=0.12)
    ignored = paired_difference(np.repeat(a, 10), np.repeat(b, 10))
    assert high - low > 2.5 * (ignored[2] - ignored[1])


def test_unchanged_groups_leave_what_was_not_seen_of_groups():
    names = [str(k) for k in np.repeat(range(30), 4)]
    _, low, high = paired_difference([1.0] * 120, [1.0] * 120, one_sided=True, groups=names)
    assert high == -low == pytest.approx(unseen(30, Z95_ONE_SIDED))


def test_ignoring_groups_rejects_a_true_hypothesis_too_often_and_resampling_groups_does_not():
    generator, ignored, kept = np.random.default_rng(6), 0, 0
    for seed in range(300):
        a, b, names = grouped(generator, 50, 10, 0.1)  # the drop is 10 points
        ignored += paired_difference(a, b, one_sided=True)[1] > 0.1
        kept += paired_difference(a, b, one_sided=True, seed=seed, resamples=400, groups=names)[1] > 0.1
    assert ignored / 300 > 0.12
    assert kept / 300 < 0.075


@pytest.mark.parametrize("groups", [8, 20])
def test_the_bounds_of_few_groups_hold_about_as_often_as_they_say(groups):
    generator, below, above = np.random.default_rng(8), 0, 0
    for seed in range(300):
        a, b, names = grouped(generator, groups, 6, 0.3)
        _, low, high = paired_difference(a, b, one_sided=True, seed=seed, resamples=400, groups=names)
        below, above = below + (high < 0.3), above + (low > 0.3)
    assert below / 300 < 0.085
    assert above / 300 < 0.085


def test_the_mean_of_groups_holds_the_true_mean():
    generator, hits = np.random.default_rng(9), 0
    for seed in range(200):
        _, items_, names = grouped(generator, 25, 6, 0.3)
        _, low, high = mean_interval(items_, seed=seed, resamples=400, groups=names)
        hits += low <= 0.7 <= high
    assert hits / 200 > 0.9


def test_more_items_in_groups_of_the_same_sizes_decide():
    generator = np.random.default_rng(10)
    a, b, names = grouped(generator, 40, 5, 0.02)
    more = items_needed(a, b, 0.1, groups=names)
    alone = items_needed(a, b, 0.1)
    assert more is not None
    assert alone is not None
    assert more >= alone
    times = math.ceil((200 + more) / 200)
    many = [f"{name} {k}" for k in range(times) for name in names]
    assert paired_difference(np.tile(a, times), np.tile(b, times), one_sided=True, groups=many)[2] <= 0.1 + 0.01


def test_a_list_of_groups_has_one_for_each_row():
    with pytest.raises(ValueError, match="2 groups for 3 items"):
        mean_interval([1, 0, 1], groups=["a", "b"])
