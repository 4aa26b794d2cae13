import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perdure.maths import metrics
from perdure.maths.metrics import MissingCell, Undefined, matrix_metrics

# base, then A, B, C
SCORE = [
    [0.1, 0.2, 0.3],
    [0.9, 0.3, 0.3],
    [0.7, 0.8, 0.5],
    [0.8, 0.5, 0.6],
]
LEARNED = [1, 2, 3]
DIFFERENCES = ("bwt", "forgetting", "fwt")


@st.composite
def streams(draw):
    """A stream of T tasks, learned one per stage, with an item score per row."""
    tasks = draw(st.integers(2, 4))
    n = draw(st.integers(2, 12))
    values = draw(st.sampled_from([st.sampled_from([0.0, 1.0]), st.floats(0, 1)]))
    items = draw(arrays(np.float64, (tasks + 1, tasks, n), elements=values))
    return items.mean(axis=2).tolist(), items.tolist(), list(range(1, tasks + 1))


def test_the_formulas_on_a_stream_of_three():
    assert metrics.acc(SCORE, LEARNED) == pytest.approx((0.8 + 0.5 + 0.6) / 3)
    assert metrics.bwt(SCORE, LEARNED) == pytest.approx(((0.8 - 0.9) + (0.5 - 0.8)) / 2)
    assert metrics.forgetting(SCORE, LEARNED) == pytest.approx(((0.9 - 0.8) + (0.8 - 0.5)) / 2)
    assert metrics.fwt(SCORE, LEARNED) == pytest.approx(((0.3 - 0.2) + (0.5 - 0.3)) / 2)
    assert metrics.learning_accuracy(SCORE, LEARNED) == pytest.approx((0.9 + 0.8 + 0.6) / 3)
    assert metrics.intransigence(SCORE, LEARNED, [0.9, 0.9, 0.9]) == pytest.approx(0.9 - (0.9 + 0.8 + 0.6) / 3)


def test_the_order_of_columns_does_not_matter():
    shuffled = [[line[j] for j in (2, 0, 1)] for line in SCORE]
    for name in metrics.TERMS:
        metric = getattr(metrics, name)
        assert metric(shuffled, [3, 1, 2]) == pytest.approx(metric(SCORE, LEARNED))


def test_forgetting_is_from_the_best_stage_and_negative_when_the_last_is_better_than_all_before():
    late_peak = [[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.9, 0.5, 0.0], [0.6, 0.7, 0.5]]
    assert metrics.forgetting(late_peak, LEARNED) == pytest.approx(((0.9 - 0.6) + (0.5 - 0.7)) / 2)
    assert metrics.bwt(late_peak, LEARNED) == pytest.approx(((0.6 - 0.5) + (0.7 - 0.5)) / 2)


def test_an_update_of_a_known_task_is_a_later_stage_and_its_gain_counts_in_bwt():
    score = [[0.1, 0.1], [0.6, 0.1], [0.5, 0.7], [0.8, 0.6]]  # base, A, B, A again
    learned = [1, 2]
    assert metrics.bwt(score, learned) == pytest.approx(((0.8 - 0.6) + (0.6 - 0.7)) / 2)
    assert metrics.learning_accuracy(score, learned) == pytest.approx((0.6 + 0.7) / 2)
    assert metrics.fwt(score, learned) == pytest.approx(0.1 - 0.1)


def test_a_task_that_is_only_watched_is_in_no_metric():
    watched = [[*line, 0.0] for line in SCORE]
    for name in metrics.TERMS:
        metric = getattr(metrics, name)
        assert metric(watched, [*LEARNED, None]) == metric(SCORE, LEARNED)


@pytest.mark.parametrize("name", ["bwt", "forgetting", "fwt"])
def test_one_task_has_no_transfer(name):
    with pytest.raises(Undefined, match="second task"):
        getattr(metrics, name)([[0.1], [0.9]], [1])
    assert metrics.acc([[0.1], [0.9]], [1]) == metrics.learning_accuracy([[0.1], [0.9]], [1]) == 0.9


NEEDED = {
    "acc": {(3, 0), (3, 1), (3, 2)},
    "bwt": {(3, 0), (3, 1), (1, 0), (2, 1)},
    "forgetting": {(3, 0), (3, 1), (1, 0), (2, 1)},
    "fwt": {(1, 1), (0, 1), (2, 2), (0, 2)},
    "learning_accuracy": {(1, 0), (2, 1), (3, 2)},
}


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("gap", [None, float("nan")])
def test_a_needed_cell_that_is_missing_is_named_and_one_not_needed_is_not_missed(name, gap):
    metric = getattr(metrics, name)
    for stage in range(4):
        for task in range(3):
            score = [list(line) for line in SCORE]
            score[stage][task] = gap
            if (stage, task) in NEEDED[name]:
                with pytest.raises(MissingCell, match=f"task {task} .* stage {stage}") as caught:
                    metric(score, LEARNED)
                assert (caught.value.stage, caught.value.task) == (stage, task)
            else:
                assert metric(score, LEARNED) == metric(SCORE, LEARNED)


def test_intransigence_needs_every_single_task_score():
    with pytest.raises(Undefined, match="task 1"):
        metrics.intransigence(SCORE, LEARNED, [0.9, None, 0.9])


@pytest.mark.parametrize("learned", [[0, 1, 2], [1, 2, 4]])
def test_a_task_cannot_be_learned_by_the_base_or_by_a_stage_that_is_not_there(learned):
    with pytest.raises(ValueError, match="learned at stage"):
        metrics.acc(SCORE, learned)


def test_a_ragged_matrix_is_refused():
    with pytest.raises(ValueError, match="4 stages x 3 tasks"):
        metrics.acc([*SCORE[:3], [0.1]], LEARNED)


@settings(max_examples=30)
@given(st.integers(2, 6), st.floats(0, 1))
def test_a_constant_matrix_has_no_transfer_and_no_forgetting(tasks, level):
    score, learned = [[level] * tasks] * (tasks + 1), list(range(1, tasks + 1))
    for name in DIFFERENCES:
        assert getattr(metrics, name)(score, learned) == 0
    assert metrics.acc(score, learned) == pytest.approx(level)


@settings(max_examples=30)
@given(streams())
def test_identities_between_the_metrics(stream):
    score, _, learned = stream
    tasks = len(learned)
    assert metrics.forgetting(score, learned) >= -metrics.bwt(score, learned) - 1e-12
    # ACC = learning accuracy + BWT (T - 1) / T
    total = metrics.learning_accuracy(score, learned) + metrics.bwt(score, learned) * (tasks - 1) / tasks
    assert metrics.acc(score, learned) == pytest.approx(total)


@settings(max_examples=25)
@given(streams(), st.integers(0, 1000))
def test_values_equal_the_pure_functions_and_lie_inside_intervals_with_width(stream, seed):
    score, items, learned = stream
    found = matrix_metrics(score, items, learned, seed=seed, resamples=100)
    assert list(found) == ["acc", "bwt", "forgetting", "fwt", "learning_accuracy"]
    for name, metric in found.items():
        assert metric.value == pytest.approx(getattr(metrics, name)(score, learned))
        assert metric.low <= metric.value <= metric.high
        assert metric.low < metric.high
        assert (0 if name in ("acc", "learning_accuracy") else -1) <= metric.low
        assert metric.high <= 1
    assert found == matrix_metrics(score, items, learned, seed=seed, resamples=100)


def test_intervals_are_paired_so_equal_noise_in_two_stages_cancels():
    generator = np.random.default_rng(0)
    difficulty = generator.random(200)
    items = [[difficulty * 0.5, difficulty], [difficulty, difficulty], [difficulty, difficulty]]
    items = [[list(cell) for cell in line] for line in items]
    score = [[float(np.mean(cell)) for cell in line] for line in items]
    found = matrix_metrics(score, items, [1, 2])
    width = {name: metric.high - metric.low for name, metric in found.items()}
    assert found["bwt"].value == 0
    assert width["acc"] > 0.05
    assert width["bwt"] == pytest.approx(
        2 * 3.8415 / 203.8415, rel=1e-3
    )  # nothing changed in 200 items: only the unseen


def test_an_interval_of_bwt_covers_the_truth():
    generator = np.random.default_rng(1)
    hits = 0
    for trial in range(150):
        before = generator.random((2, 60)) < 0.8
        after = np.where(generator.random((2, 60)) < 0.25, 0, before)  # true change of each task: -0.2
        empty = np.zeros((3, 60))
        items = [empty, [before[0], *empty[1:]], [before[0], before[1], empty[2]], [*after, empty[2]]]
        items = [[list(map(float, cell)) for cell in line] for line in items]
        score = [[float(np.mean(cell)) for cell in line] for line in items]
        bwt = matrix_metrics(score, items, [1, 2, 3], seed=trial, resamples=200)["bwt"]
        hits += bwt.low <= -0.2 <= bwt.high
    assert 0.88 <= hits / 150 <= 0.99


def test_a_gap_is_told_for_the_metrics_that_need_it_and_the_others_are_there():
    items = [[[1.0, 0.0]] * 2] * 3
    score = [[0.5, None], [0.5, 0.5], [0.5, 0.5]]
    found = matrix_metrics(score, [[[1.0, 0.0], None], *items[1:]], [1, 2], names=["mail", "chat"])
    assert found["fwt"].value is found["fwt"].low is found["fwt"].high is None
    assert found["fwt"].missing == "task 'chat' was not scored after stage 0"
    assert found["acc"].value == 0.5
    assert found["bwt"].missing is None


@pytest.mark.parametrize("gap", [None, float("nan")])
def test_forgetting_leaves_out_a_stage_that_was_not_measured_and_names_it(gap):
    items = [[[float(k < 10 * cell) for k in range(10)] for cell in line] for line in SCORE]
    whole = matrix_metrics(SCORE, items, LEARNED, names=["mail", "chat", "news"])
    assert whole["forgetting"].note is None
    score = [list(line) for line in SCORE]
    score[2][0] = gap  # 0.7, and not the best of the task
    found = matrix_metrics(score, items, LEARNED, names=["mail", "chat", "news"])
    assert found["forgetting"].note == "not scored and left out: 'mail' after stage 2"
    assert found["forgetting"].value == whole["forgetting"].value
    assert {name: found[name] for name in found if name != "forgetting"} == {
        name: whole[name] for name in whole if name != "forgetting"
    }
    longer = [*SCORE[:3], [0.95, None, 0.6], [0.8, None, 0.6], SCORE[3]]
    assert metrics.forgetting(longer, [1, 2, 3]) == pytest.approx(((0.95 - 0.8) + (0.8 - 0.5) + (0.6 - 0.6)) / 3)
    score[1][0] = gap  # where it was learned
    assert "after stage 1" in matrix_metrics(score, items, LEARNED)["forgetting"].missing


def test_before_any_learn_every_metric_says_why_it_is_missing():
    found = matrix_metrics([[0.5]], [[[1.0, 0.0]]], [None])
    assert {metric.missing for metric in found.values()} == {"no task was learned yet"}


def test_versions_of_a_task_are_compared_over_the_rows_they_share():
    # Task 0 was scored on rows a, b when learned; its later version has c, a, b, and c is new and wrong.
    items = [[[0, 0], [0]], [[1, 0], [0]], [[0, 1, 0], [1]]]
    items = [[list(map(float, cell)) for cell in line] for line in items]
    score = [[float(np.mean(cell)) for cell in line] for line in items]
    rows = [[["a", "b"], ["x"]], [["a", "b"], ["x"]], [["c", "a", "b"], ["x"]]]
    bwt = matrix_metrics(score, items, [1, 2], rows=rows)["bwt"]
    assert (bwt.value, bwt.n) == (0.0, 2)
    assert metrics.bwt(score, [1, 2]) == pytest.approx(1 / 3 - 1 / 2)


def test_versions_without_a_common_row_cannot_be_compared_and_lengths_need_rows():
    items = [[[0.0], [0.0]], [[1.0], [0.0]], [[1.0], [1.0]]]
    rows = [[["a"], ["x"]], [["a"], ["x"]], [["b"], ["x"]]]
    score = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]
    assert "in common" in matrix_metrics(score, items, [1, 2], rows=rows)["bwt"].missing
    with pytest.raises(ValueError, match="give `rows`"):
        matrix_metrics(score, [*items[:2], [[1.0, 1.0], [1.0]]], [1, 2])


def test_the_worst_task_stands_beside_the_mean():
    items = [[[float(cell > k / 10 + 0.05) for k in range(10)] for cell in line] for line in SCORE]
    worst = matrix_metrics(SCORE, items, LEARNED, names=["a", "b", "c"])["bwt"].worst
    assert worst[0] == "b"
    assert worst[1] == pytest.approx(-0.3)
