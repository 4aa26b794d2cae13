"""Trends over the stages of a benchmark, from result files."""

import runpy
import sys
from pathlib import Path

import pytest

from bench_runs import finished, task_cost
from perdure.workflows.bench.flat import courses_of, flat_arms, scored_stages

N = 10  # test rows of a task
TASKS = [f"t{j}" for j in range(1, 11)]
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "flat.py"


def run(arm, correct, *, seed=0, score_at=(5, 10), seconds=lambda j: 2.0, when_learned=True):
    """A run of ten tasks: task j has `correct(j, stage)` rows right at each stage at which it is scored."""

    def cell(j, stage):
        scored = stage == 0 or (stage == j and when_learned) or (stage >= j and stage in score_at)
        return correct(j, stage) if scored else None

    cells = [[cell(j, stage) for j in range(1, 11)] for stage in range(11)]
    items = {
        task: {
            "rows": [f"{task} {i}" for i in range(N)],
            "scores": [None if line[j] is None else [1] * line[j] + [0] * (N - line[j]) for line in cells],
        }
        for j, task in enumerate(TASKS)
    }
    stages = [{"entry": None, "kind": "learn" if i else "base", "task": TASKS[i - 1] if i else None} for i in range(11)]
    return finished(
        arm=arm,
        seed=seed,
        arm_hash=arm,
        matrix={
            "tasks": TASKS,
            "stages": stages,
            "score": [[None if c is None else c / N for c in line] for line in cells],
            "n": [[None if c is None else N for c in line] for line in cells],
            "metrics": {},
        },
        items=items,
        tasks=[task_cost(seconds(j), TASKS[j - 1]) for j in range(1, 11)],
    )


STAYS = run("stays", lambda j, stage: 9 if stage else 0)
FALLS = run("falls", lambda j, stage: max(9 - (stage - j), 0) if stage else 0, seconds=float)
JOINT = run("joint", lambda j, stage: 10 if stage else 0, when_learned=False)


def test_stages_are_those_at_which_every_task_so_far_was_scored():
    assert scored_stages(STAYS) == [1, 5, 10]  # after the first task there is but one
    assert scored_stages(JOINT) == [5, 10]
    assert [course.stages for course in courses_of(STAYS)][:6] == [
        (1, 5, 10),
        (2, 5, 10),
        (3, 5, 10),
        (4, 5, 10),
        (5, 10),
        (6, 10),
    ]


def test_an_arm_that_stays_is_flat_and_one_that_falls_is_not():
    stays, falls = flat_arms([FALLS, STAYS])  # the best first
    assert (stays.arm, falls.arm) == ("stays", "falls")
    assert stays.retention.verdict() == "flat"
    assert falls.retention.change == pytest.approx(-0.9)  # a tenth a stage, over nine stages
    assert falls.retention.verdict() == "falls"
    assert stays.accuracy == {1: 0.9, 5: pytest.approx(0.9), 10: pytest.approx(0.9)}


def test_the_share_of_the_reference_is_over_the_stages_that_both_scored():
    by_name = {line.arm: line for line in flat_arms([FALLS, STAYS, JOINT])}
    assert by_name["stays"].shares == {5: pytest.approx(0.9), 10: pytest.approx(0.9)}
    assert by_name["stays"].ratio.verdict() == "flat"
    assert by_name["falls"].ratio.change < -0.3
    assert by_name["joint"].ratio is None
    assert by_name["joint"].retention is None  # no task was scored when it was learned
    assert flat_arms([STAYS])[0].ratio is None


def test_a_cost_that_grows_from_learn_to_learn_is_seen():
    by_name = {line.arm: line for line in flat_arms([FALLS, STAYS])}
    assert by_name["falls"].seconds.change == pytest.approx(9 / 5.5)
    assert by_name["falls"].seconds.verdict() == "rises"
    assert by_name["stays"].seconds.change == pytest.approx(0)


def test_other_seeds_of_a_task_belong_to_its_block():
    again = run("stays", lambda j, stage: (9 if j % 2 else 8) if stage else 0, seed=1)
    found = next(line for line in flat_arms([STAYS, again]) if line.arm == "stays")
    assert found.seeds == (0, 1)
    assert found.retention.tasks == 9  # the last task has no later stage


@pytest.mark.filterwarnings("ignore")
def test_the_script_prints_the_trends_of_stored_results(monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["flat.py", "clinc10", "--out", str(SCRIPT.parent / "results"), "--reference", "naive"]
    )
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = capsys.readouterr().out
    assert "| dual_replay | 1 | -0.063 (" in printed
    assert "falls" in printed
