"""The trend of scores over stages: closed forms, and how often it errs on streams that are made."""

import numpy as np
import pytest

from perdure.maths.flatness import TaskCourse, Trend, cost_trend, ratio_trend, retention


def course(block, learned, means, n=10):
    """A task that is scored at each stage from `learned` on, each item with the stage's mean."""
    stages = tuple(range(learned, learned + len(means)))
    return TaskCourse(block, learned, stages, np.repeat(np.array(means, dtype=float)[:, None], n, 1))


def test_what_every_task_loses_a_stage_is_the_slope():
    courses = [course(f"t{j}", j, [0.9 - 0.01 * age for age in range(6 - j)]) for j in (1, 2, 3, 4, 5)]
    found = retention(courses, length=5)
    assert found.change == pytest.approx(-0.04)
    assert (found.low, found.high) == (pytest.approx(-0.04), pytest.approx(-0.04))  # every task loses the same
    assert (found.tasks, found.n) == (4, 4 + 3 + 2 + 1)  # the last task has no later stage
    assert found.verdict() == "falls"
    assert found.verdict(margin=0.05) == "flat"


def test_scores_that_stay_are_flat_to_the_bit():
    rng = np.random.default_rng(0)
    courses = [
        TaskCourse(f"t{j}", j, tuple(range(j, 9)), np.repeat((rng.random((1, 20)) < 0.8) * 1.0, 9 - j, 0))
        for j in range(1, 9)
    ]
    found = retention(courses, length=8)
    assert (found.change, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_share_of_the_reference_does_not_fall_where_both_do():
    theirs = [course(f"t{j}", j, [0.9 - 0.05 * stage for stage in range(j, 6)]) for j in (1, 2, 3, 4, 5)]
    ours = [TaskCourse(c.block, c.learned, c.stages, 0.9 * c.items) for c in theirs]
    found, shares = ratio_trend(ours, theirs, [1, 3, 5], length=5)
    assert found.change == pytest.approx(0.0)
    assert shares == {1: pytest.approx(0.9), 3: pytest.approx(0.9), 5: pytest.approx(0.9)}
    assert retention(ours, length=5).change == pytest.approx(0.9 * -0.2)
    worse = [
        TaskCourse(c.block, c.learned, c.stages, c.items * (1.1 - 0.1 * np.array(c.stages))[:, None]) for c in ours
    ]
    assert ratio_trend(worse, theirs, [1, 3, 5], length=5)[0].change == pytest.approx(0.9 * -0.4)


def test_a_cost_that_doubles_grows_by_two_thirds_of_its_mean():
    assert cost_trend({f"t{j}": [1 + j / 10] for j in range(11)}, length=11).change == pytest.approx(1 / 1.5)
    flat = cost_trend({f"t{j}": [2.0, 4.0] for j in range(11)}, length=11)
    assert (flat.change, flat.low, flat.high) == pytest.approx((0.0, 0.0, 0.0))


def test_one_task_tells_nothing_about_others():
    found = retention([course("t1", 1, [0.9, 0.9, 0.9])], length=3)
    assert (found.low, found.high) == (-np.inf, np.inf)
    assert found.verdict() == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-0.02, 0.03, "flat"),
        (-0.05, -0.01, "falls"),
        (0.01, 0.05, "rises"),
        (-0.05, 0.01, "undecided"),
        (-0.02, -0.01, "flat"),
    ],
)
def test_the_verdict_is_where_the_interval_lies(low, high, word):
    assert Trend((low + high) / 2, low, high, 5, 10).verdict() == word


def stream(rng, tasks, items, loss, score_at=None):
    """Scores of a stream in which tasks lose `loss` on average from its beginning to its end, some more and some less."""
    made = []
    for j in range(1, tasks + 1):
        own = rng.normal(loss, 0.02) / (tasks - 1)  # what this task loses a stage
        stages = tuple(t for t in range(j, tasks + 1) if t == j or score_at is None or t in score_at)
        level = rng.uniform(0.75, 0.9)
        order = rng.random(items)  # of an item: it is right where its number is below the mean score
        flips = rng.random((len(stages), items)) < 0.05  # and some change at each stage for no reason
        drawn = np.where(flips, rng.random((len(stages), items)), order)
        means = np.array([level - own * (t - j) for t in stages])[:, None]
        made.append(TaskCourse(f"t{j}", j, stages, (drawn < means) * 1.0))
    return made


@pytest.mark.parametrize(
    ("tasks", "items", "score_at"), [(15, 100, None), (15, 100, (5, 10, 15)), (50, 30, (5, 10, 20, 30, 40, 50))]
)
def test_a_stream_at_the_margin_is_seldom_called_flat_and_the_interval_has_the_truth(tasks, items, score_at):
    rng = np.random.default_rng(1)
    found = [retention(stream(rng, tasks, items, 0.03, score_at), tasks, seed=n, resamples=300) for n in range(200)]
    flat = np.mean([one.verdict() == "flat" for one in found])
    covered = np.mean([one.low <= -0.03 <= one.high for one in found])
    assert flat <= 0.05  # 2.5% is nominal; 0.05 is 2.3 standard errors of 200 draws above it
    assert covered >= 0.91
    assert np.mean([one.change for one in found]) == pytest.approx(-0.03, abs=0.004)


def test_fifty_flat_tasks_with_three_seeds_are_called_flat_and_a_fall_is_seen():
    rng = np.random.default_rng(2)
    at = (5, 10, 20, 30, 40, 50)

    def retained(loss, n):
        runs = [course for _ in range(3) for course in stream(rng, 50, 30, loss, at)]
        return retention(runs, 50, seed=n, resamples=300).verdict()

    flat = [retained(0.0, n) for n in range(30)]
    falls = [retained(0.1, n) for n in range(30)]
    assert flat.count("flat") > 25
    assert falls == ["falls"] * 30


@pytest.mark.parametrize(
    ("stages", "items", "words"),
    [
        ((2, 3), np.ones((2, 3)), "begin with"),
        ((1, 3, 2), np.ones((3, 3)), "rise"),
        ((1, 2), np.ones((3, 3)), "items must"),
    ],
)
def test_a_course_that_is_none_is_refused(stages, items, words):
    with pytest.raises(ValueError, match=words):
        TaskCourse("t", 1, stages, items)


def test_what_has_no_trend_is_refused():
    once = [course("t1", 1, [0.9]), course("t2", 2, [0.8])]
    with pytest.raises(ValueError, match="no task was scored after"):
        retention(once, length=2)
    with pytest.raises(ValueError, match="needs two stages"):
        ratio_trend(once, once, [2], length=2)
    with pytest.raises(ValueError, match="was not scored after stage 2"):
        ratio_trend(once, once, [1, 2], length=2)
    with pytest.raises(ValueError, match="same tasks"):
        ratio_trend(once, once[:1], [1, 2], length=2)
    with pytest.raises(ValueError, match="three tasks"):
        cost_trend({"t1": [1.0], "t2": [1.0]}, length=2)
