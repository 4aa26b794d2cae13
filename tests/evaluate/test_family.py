"""The rule for guards: what counts, what fails, what passes, and how often it errs."""

import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.evaluate.evidence import check_evidence, make_evidence
from perdure.evaluate.family import judge_guards
from perdure.evaluate.family_screen import guards_screen
from perdure.evaluate.gate import screen
from perdure.evaluate.scorers import text_score
from perdure.ledger.records import Evidence, Gate, GuardItems, GuardsVerdict
from perdure.maths.families import look_confidence
from perdure.maths.statistics import paired_p_value


def guard(before, now, ability="commonsense", chance=0.0, groups=()):
    names = tuple(f"row {k}" for k in range(len(before)))
    return GuardItems(ability, "v1", "base", "quick", chance, names, tuple(before), tuple(now), tuple(groups))


def counts(right, lost, won, n, **about):
    """A guard of n rows: the reference has `right` of them, of which `lost` are lost now, and `won` others are won."""
    before = [1.0] * right + [0.0] * (n - right)
    now = [0.0] * lost + [1.0] * (right - lost) + [1.0] * won + [0.0] * (n - right - won)
    return guard(before, now, **about)


def drifted(mean, n=60, spread=0.05):
    """A drift guard with this mean distance from its reference."""
    distances = np.clip(mean + spread * np.linspace(-1, 1, n), 0, 1)
    return guard([1.0] * n, (1 - distances).tolist(), "drift", None)


def words(verdict):
    return {one.guard: one.verdict for one in verdict.guards}


KEPT = {f"kept {k}": counts(120, 6, 6, 200) for k in range(6)}


def test_the_reference_as_its_own_candidate_passes():
    same = {name: replace(items, now=items.before) for name, items in KEPT.items()}
    verdict = judge_guards(Gate(), same)
    assert verdict.verdict == "pass"
    assert set(words(verdict).values()) == {"pass"}
    assert verdict.worst.drop == 0
    assert not verdict.alarms


def test_a_few_rows_pass_only_where_not_a_bit_changed():
    few = counts(20, 0, 0, 40)
    assert judge_guards(Gate(), {"few": few}).verdict == "inconclusive"  # 40 unchanged answers do not prove 3 points
    still, moved = drifted(0.0, spread=0.0), drifted(0.001, spread=0.001)
    unchanged = judge_guards(Gate(), {"few": few, "drift": still})
    assert (unchanged.verdict, unchanged.mean.verdict) == ("pass", "pass")
    assert "nothing changed" in unchanged.reason
    assert judge_guards(Gate(), {"few": few, "drift": moved}).verdict == "inconclusive"
    assert judge_guards(Gate(), {"few": counts(20, 0, 1, 40), "drift": still}).verdict == "inconclusive"


def test_guards_that_kept_what_they_had_pass_by_each_bound_and_by_the_mean():
    verdict = judge_guards(Gate(), KEPT)
    assert verdict.verdict == "pass"
    assert all(one.high <= 0.10 for one in verdict.guards)
    assert verdict.mean.high <= 0.03
    assert any(one.high > 0.03 for one in verdict.guards)  # none of them could prove 3 points alone
    assert "lost in the mean of 6 abilities" in verdict.reason


def test_a_fallen_guard_fails_and_is_named_with_what_to_do():
    verdict = judge_guards(Gate(), {**KEPT, "puzzles": counts(150, 50, 5, 200)})
    assert verdict.verdict == "fail"
    assert verdict.alarms
    worst = verdict.guards[0]
    assert (worst.guard, worst.verdict, worst.more_items) == ("puzzles", "fail", None)
    assert worst.low > 0.03
    assert worst.p < 0.05
    assert verdict.reason.startswith("puzzles (commonsense) fell from 75.0% to 52.5%, at least ")
    assert verdict.worst.guard == "puzzles"
    assert any("perdure guard accept" in line for line in verdict.advice)


def test_one_guard_that_may_have_lost_ten_points_leaves_it_open():
    verdict = judge_guards(Gate(), {**KEPT, "puzzles": counts(120, 26, 14, 200)})
    assert words(verdict)["puzzles"] == verdict.verdict == "inconclusive"
    open_ = next(one for one in verdict.guards if one.guard == "puzzles")
    assert open_.more_items > 0
    assert "more rows" in open_.reason
    assert "do not tell whether puzzles is kept" in verdict.reason


def test_a_mean_that_may_have_lost_three_points_leaves_it_open_though_each_guard_passes():
    verdict = judge_guards(Gate(), {f"g{k}": counts(240, 20, 12, 400) for k in range(3)})
    assert set(words(verdict).values()) == {"pass"}
    assert verdict.verdict == verdict.mean.verdict == "inconclusive"
    assert verdict.mean.more_items > 0
    assert "the mean of 3 abilities is 2.0 points lost" in verdict.reason
    times = 1 + verdict.mean.more_items // 400 + 1
    larger = {f"g{k}": counts(240 * times, 20 * times, 12 * times, 400 * times) for k in range(3)}
    assert judge_guards(Gate(), larger).mean.verdict == "pass"


def test_the_mean_counts_guards_not_rows():
    uneven = {"small": counts(50, 10, 0, 100), "large": counts(5000, 0, 0, 10_000)}
    assert judge_guards(Gate(), uneven).mean.drop == pytest.approx(0.05)


# Blind guards


def test_a_guard_that_is_not_above_chance_is_named_and_never_counted():
    guessing = counts(30, 20, 20, 100, ability="knowledge", chance=0.25)
    verdict = judge_guards(Gate(), {**KEPT, "mmlu": guessing})
    alone = judge_guards(Gate(), KEPT)
    assert words(verdict)["mmlu"] == "blind"
    assert verdict.guards[-1].reason == "the reference's 30.0% is not above chance (25.0%): it cannot fall"
    assert (verdict.verdict, verdict.mean, verdict.worst) == (alone.verdict, alone.mean, alone.worst)
    assert [one.p for one in verdict.guards if one.guard != "mmlu"] == [one.p for one in alone.guards]


def test_a_guard_that_scores_less_than_the_tolerance_has_nothing_to_lose():
    verdict = judge_guards(Gate(), {"language": counts(1, 0, 0, 50), "facts": counts(40, 0, 0, 50)})
    assert {one.guard: one.verdict for one in verdict.guards}["language"] == "blind"
    assert verdict.mean.guards == 1


def test_twice_the_perplexity_of_plain_text_fails_and_a_tenth_more_does_not():
    base = [3.0 + 0.04 * k for k in range(40)]  # nats a token of 40 passages
    apart = [0.1 * (-1) ** k for k in range(40)]  # what a passage has more or less than the mean rise

    def after(rise):
        before, now = (
            tuple(text_score(nats, "log", 49152) for nats in passages)
            for passages in (base, [nats + rise + more for nats, more in zip(base, apart, strict=True)])
        )
        text = guard(before, now, "language")
        return judge_guards(Gate(), {"language": text, "facts": counts(40, 0, 0, 50)})

    assert words(after(math.log(2)))["language"] == "fail"
    assert words(after(math.log(1.1)))["language"] == "pass"
    assert after(math.log(2)).worst.guard == "language"


def test_a_workspace_whose_every_ability_is_blind_is_inconclusive_however_still_it_is():
    blind = {"mmlu": counts(26, 0, 0, 100, chance=0.25), "programs": counts(0, 0, 0, 30)}
    for guards in (blind, {**blind, "drift": drifted(0.0, spread=0.0)}):
        verdict = judge_guards(Gate(), guards)
        assert verdict.verdict == "inconclusive"
        assert (verdict.mean, verdict.worst) == (None, None)
        assert "no ability can be judged: at the reference mmlu, programs is not above chance" in verdict.reason
    assert "0.0% is not above 3.0%" in judge_guards(Gate(), blind).guards[-1].reason


def test_a_score_above_chance_by_its_bound_sees():
    assert words(judge_guards(Gate(), {"mmlu": counts(34, 0, 0, 100, chance=0.25)})) == {"mmlu": "pass"}
    in_groups = counts(34, 0, 0, 100, chance=0.25, groups=[str(k // 20) for k in range(100)])
    assert words(judge_guards(Gate(), {"mmlu": in_groups})) == {"mmlu": "blind"}  # five groups, two of them right


# Drift


@pytest.mark.parametrize(
    ("mean", "word", "warns"), [(0.0, "pass", False), (0.04, "pass", False), (0.07, "pass", True), (0.25, "fail", True)]
)
def test_drift_warns_above_half_of_its_limit_and_fails_above_it(mean, word, warns):
    verdict = judge_guards(Gate(), {"drift": drifted(mean)})
    (one,) = verdict.guards
    assert (one.verdict, one.warns) == (word, warns)
    assert one.drop == pytest.approx(mean, abs=0.02)
    assert verdict.alarms == warns
    assert (verdict.mean, verdict.worst) == (None, None)


def test_drift_near_its_limit_is_open():
    (one,) = judge_guards(Gate(), {"drift": drifted(0.1, spread=0.09)}).guards
    assert one.verdict == "inconclusive"
    assert judge_guards(Gate(drift=0.3), {"drift": drifted(0.1, spread=0.09)}).verdict == "pass"
    assert judge_guards(Gate(tolerances={"drift": 0.3}), {"drift": drifted(0.1, spread=0.09)}).verdict == "pass"


def test_drift_is_no_ability_and_is_not_in_the_mean():
    verdict = judge_guards(Gate(), {**KEPT, "drift": drifted(0.09, spread=0.01)})
    assert verdict.mean == judge_guards(Gate(), KEPT).mean
    assert verdict.worst.guard != "drift"


# The settings


def test_holm_asks_more_of_one_fall_among_many():
    marginal = counts(120, 29, 11, 200)  # fails by itself
    alone = judge_guards(Gate(), {"marginal": marginal})
    many = judge_guards(Gate(), {**KEPT, "marginal": marginal})
    assert alone.verdict == "fail"
    assert words(many)["marginal"] == "inconclusive"
    assert judge_guards(Gate(correct="none"), {**KEPT, "marginal": marginal}).verdict == "fail"


def test_limits_of_the_gate_and_tolerances_of_single_guards_are_used():
    lost = {"puzzles": counts(150, 50, 5, 200)}
    assert judge_guards(Gate(tolerances={"puzzles": 0.4}), lost).guards[0].verdict == "pass"
    assert judge_guards(Gate(mean_drop=0.2, worst_drop=0.2), {"p": counts(240, 26, 14, 400)}).verdict == "pass"
    assert judge_guards(Gate(mean_drop=0.0), KEPT).verdict == "inconclusive"


def test_nothing_to_judge_is_an_error():
    with pytest.raises(ValueError, match="no guard"):
        judge_guards(Gate(), {})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), min_size=1, max_size=5))
def test_the_verdict_follows_from_the_bounds(changes):
    guards = {f"g{k}": counts(60, lost, won, 100) for k, (lost, won) in enumerate(changes)}
    verdict = judge_guards(Gate(), guards)
    plain = judge_guards(Gate(correct="none"), guards)
    for one in verdict.guards:
        assert one.low <= one.drop <= one.high
        assert one.verdict != "fail" or (one.low > 0.03 and words(plain)[one.guard] == "fail")
        assert one.verdict != "pass" or one.high <= 0.10
    assert (verdict.verdict == "fail") == ("fail" in words(verdict).values())
    passed = set(words(verdict).values()) == {"pass"} and verdict.mean.high <= 0.03
    assert (verdict.verdict == "pass") == passed
    assert verdict.worst.low <= verdict.worst.drop <= verdict.worst.high
    assert verdict.worst.drop == max(one.drop for one in verdict.guards)
    assert GuardsVerdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


# Inside the gate


def judged(gate, guards):
    return make_evidence(gate, "new", {}, guards=guards)


FALLEN = {"puzzles": counts(150, 50, 5, 200)}
OPEN = {"puzzles": counts(120, 20, 14, 200)}


def test_guards_only_warn_unless_they_are_enforced():
    warned = judged(Gate(), FALLEN).verdict
    assert (warned.verdict, warned.guards.verdict, warned.guards.enforced) == ("pass", "fail", False)
    enforced = judged(Gate(guards="enforce"), FALLEN).verdict
    assert enforced.verdict == "fail"
    assert enforced.reason == enforced.guards.reason
    assert judged(Gate(guards="enforce"), KEPT).verdict.verdict == "pass"
    assert judged(Gate(guards="enforce"), OPEN).verdict.verdict == "inconclusive"
    strict = judged(Gate(guards="enforce", strict=True), OPEN).verdict
    assert strict.verdict == "fail"
    assert "strict: this counts as fail" in strict.reason


def test_evidence_with_guards_is_of_the_second_format_and_judged_again(tmp_path):
    guards = {
        **FALLEN,
        "drift": drifted(0.07),
        "grouped": counts(30, 4, 2, 60, groups=[str(k // 3) for k in range(60)]),
    }
    evidence = judged(Gate(), guards).to_json()
    assert evidence["format"] == 2
    assert Evidence.from_json(json.loads(json.dumps(evidence))).guards == guards
    file = tmp_path / "evidence.json"
    file.write_text(json.dumps(evidence))
    assert check_evidence(file).differences == ()
    evidence["guards"]["puzzles"]["now"] = evidence["guards"]["puzzles"]["before"]
    file.write_text(json.dumps(evidence))
    assert any(line.startswith("verdict.guards.") for line in check_evidence(file).differences)


def test_the_screen_has_a_line_for_each_guard_and_what_to_do():
    guards = {**FALLEN, "drift": drifted(0.07), "mmlu": counts(30, 0, 0, 100, ability="knowledge", chance=0.25)}
    lines = guards_screen(judge_guards(Gate(), guards))
    assert lines[0] == "guards: FAIL (only a warning, not part of the gate)"
    assert lines[1].startswith("puzzles (commonsense) fell from 75.0% to 52.5%")
    assert [line.split()[:2] for line in lines[2:5]] == [["fail", "puzzles"], ["warn", "drift"], ["blind", "mmlu"]]
    assert "cannot fall" in lines[4]
    assert lines[-2].startswith("what to do: rehearse general rows")
    whole = screen(judged(Gate(guards="enforce"), guards).verdict)
    assert whole.count("fell from 75.0%") == 1
    assert "guards: FAIL (part of the gate)" in whole


def test_the_screen_of_guards_that_pass_says_by_how_much():
    lines = guards_screen(judge_guards(Gate(), KEPT))
    assert lines[0].startswith("guards: PASS")
    assert lines[-1].startswith("mean of 6 abilities: no change, could be ")
    assert lines[-1].endswith("all 6 together")


# How often it errs, by simulation: rows that flip both ways in 15% of the cases, and a true drop


def changed(n, lost, won):
    """A guard of n rows of which `lost` are lost now and `won` are won."""
    return guard([1.0] * (n - won) + [0.0] * won, [0.0] * lost + [1.0] * (n - lost))


def simulated(generator, drops, n, flips=0.15):
    """Return guards of n rows each whose true drops are these."""
    guards = {}
    for k, drop in enumerate(drops):
        flipped = max(flips, abs(drop))
        lost, won, _ = generator.multinomial(n, [(flipped + drop) / 2, (flipped - drop) / 2, 1 - flipped])
        guards[f"g{k}"] = changed(n, lost, won)
    return guards


def rate(word, drops, n, draws=400, seed=0):
    """Return how often the verdict is this word."""
    generator = np.random.default_rng([seed, n, len(drops)])
    return np.mean([judge_guards(Gate(), simulated(generator, drops, n)).verdict == word for _ in range(draws)])


def test_one_guard_that_lost_the_most_that_passes_is_passed_in_at_most_one_of_twenty():
    assert rate("pass", [0.10, 0, 0, 0, 0, 0], 200) <= 0.05


def test_twelve_guards_at_their_tolerance_fail_as_often_as_the_exact_rate_says_and_far_more_often_uncorrected():
    generator, corrected, plain, draws = np.random.default_rng(3), 0, 0, 1000
    for _ in range(draws):
        guards = simulated(generator, [0.03] * 12, 200)
        verdict = judge_guards(Gate(), guards)
        corrected += verdict.verdict == "fail"
        plain += any(one.low > one.tolerance for one in verdict.guards)
    exact = false_fails(12, 200, 0.15)
    assert abs(corrected / draws - exact) < 3 * math.sqrt(exact * (1 - exact) / draws)
    assert plain / draws > 0.3


@pytest.mark.parametrize(
    ("guards", "n", "flips", "rate"),
    [
        (12, 100, 0.15, 0.0282),
        (12, 200, 0.05, 0.0310),
        (12, 200, 0.15, 0.0347),
        (12, 400, 0.15, 0.0409),
        (6, 200, 0.15, 0.0392),
    ],
)
def test_the_exact_rate_of_false_fails_of_guards_at_their_tolerance(guards, n, flips, rate):
    assert false_fails(guards, n, flips) == pytest.approx(rate, abs=5e-5)
    assert rate <= 0.05


def false_fails(guards, n, flips):
    """Return how often guards that lost the tolerance fail: summed over every count of lost and won rows, not drawn.

    The first step of Holm's method decides.
    """
    lost, won = (flips + 0.03) / 2, (flips - 0.03) / 2
    rate = 0.0
    for a in range(int(n * lost + 6 * math.sqrt(n * lost)) + 1):
        for b in range(int(n * won + 6 * math.sqrt(n * won)) + 1):
            now = changed(n, a, b)
            if a - b > 0.03 * n and paired_p_value(now.before, now.now, 0.03, continuity=True) < 0.05 / guards:
                rate += math.exp(log_multinomial(n, a, b) + a * math.log(lost) + b * math.log(won)) * (1 - flips) ** (
                    n - a - b
                )
    return 1 - (1 - rate) ** guards


def log_multinomial(n, a, b):
    """Return the logarithm of n! / (a! b! (n - a - b)!)."""
    return math.lgamma(n + 1) - math.lgamma(a + 1) - math.lgamma(b + 1) - math.lgamma(n - a - b + 1)


def test_where_nothing_was_lost_the_gate_hardly_ever_fails_and_mostly_passes():
    assert rate("fail", [0.0] * 6, 200, draws=200) <= 0.02
    assert rate("pass", [0.0] * 6, 200, draws=200, seed=1) > 0.6


def test_a_fall_of_ten_points_is_mostly_found_and_one_of_twenty_always():
    assert rate("fail", [0.10, 0, 0, 0, 0, 0], 200, draws=200) > 0.5
    assert rate("fail", [0.20, 0, 0, 0, 0, 0], 100, draws=100) > 0.95


def test_three_looks_at_growing_data_pass_no_more_often_than_one():
    @cache
    def passes(n, lost, won, confidence):
        gate = Gate(confidence=confidence, mean_drop=0.5)
        return judge_guards(gate, {"g": changed(n, lost, won)}).verdict == "pass"

    generator, spent, same = np.random.default_rng(4), 0, 0
    for _ in range(1000):  # a guard that lost the 10 points that just pass, looked at with 100, 200 and 400 rows
        changes = generator.choice([1.0, -1.0, 0.0], size=400, p=[0.125, 0.025, 0.85])
        passed = {"spent": False, "same": False}
        for look, n in enumerate((100, 200, 400), start=1):
            lost, won = int((changes[:n] > 0).sum()), int((changes[:n] < 0).sum())
            for name, confidence in (("spent", look_confidence(look)), ("same", 0.95)):
                passed[name] |= passes(n, lost, won, confidence)
        spent, same = spent + passed["spent"], same + passed["same"]
    assert spent / 1000 <= 0.05
    assert same / 1000 > 0.05
