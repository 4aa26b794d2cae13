"""benchmarks/advice.py: from result files, as `perdure bench` leaves them, to the table that advice stands on."""

import importlib.util
import json
from pathlib import Path

import pytest

from bench_runs import failed, finished, machine, task_cost
from perdure.bridges.sizes import Size
from perdure.methods.registry import all_methods, recipe_names, recipe_spec
from perdure.workflows.advise.advise import advise
from perdure.workflows.advise.guidance import Needs
from perdure.workflows.advise.table import read_rehearsal, read_table
from perdure.workflows.bench.jobs import read_arm
from perdure.workflows.bench.suite_files import load_suite

SUITE = load_suite("clinc5")
LABELS, TESTS = 15, 8


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    path = Path(__file__).parents[2] / "benchmarks" / "advice.py"
    spec = importlib.util.spec_from_file_location("advice_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "sizes", lambda model, settings: Size(135_000_000, 2_400_000))
    return module


def result(label: str, seed: int, score: float, seconds: float, stored: dict[str, int]) -> dict:
    """A run in which every task ends at about `score`."""
    made, n = read_arm(label, SUITE.settings), LABELS * TESTS
    tasks = [task.name for task in SUITE.tasks]
    right = [int(i < round(score * n)) for i in range(n)]
    stages = [
        {"entry": None, "kind": "base", "task": None},
        *({"entry": None, "kind": "learn", "task": t} for t in tasks),
    ]
    run = finished(
        **{
            "suite_hash": SUITE.hash,
            "arm": label,
            "arm_hash": label,
            "seed": seed,
            "time": "2026-01-01",
            "workers": 1,
            "written": made.written,
            "recipe": made.recipe,
            "matrix": {
                "tasks": tasks,
                "stages": stages,
                "score": [[sum(right) / n] * len(tasks)] * len(stages),
                "n": [[n] * len(tasks)] * len(stages),
                "metrics": {"acc": {"value": sum(right) / n, "low": 0.0, "high": 1.0, "n": n * len(tasks)}},
            },
            "items": {task: {"rows": list(map(str, range(n))), "scores": [right] * len(stages)} for task in tasks},
            "tasks": [task_cost(seconds, task) for task in tasks],
            "stored": {"weights": 10**7, **stored},
            "machine": machine(dtype="bfloat16"),
            "peak_mib": 2000.0,
        }
    )
    return run.to_json()


def test_the_table_has_what_was_measured_and_advice_stands_on_it(script, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "LEAST", 2)
    kept = {"memory_rows": 15_000, "memory_columns": 45_000}
    runs = [result("naive", seed, 0.4, 10, {}) for seed in (0, 1)]
    runs += [result("replay", seed, 0.8, 15, kept) for seed in (0, 1)]
    broken = failed("naive", 0, "killed", suite_hash=SUITE.hash).to_json()
    folder = tmp_path / "results" / "clinc5"
    folder.mkdir(parents=True)
    for number, run in enumerate([*runs, {**runs[0], "suite_hash": "another"}, broken]):
        (folder / f"{number}.json").write_text(json.dumps(run))
    script.main(tmp_path / "results", tmp_path / "advice.json")
    assert "1 results of another version" in capsys.readouterr().err

    (entry,) = read_table(tmp_path / "advice.json")
    assert (entry.name, entry.tasks, entry.tasks_are) == ("clinc5", 5, "alike")
    replay, naive = entry.arms
    assert (replay.arm, replay.seeds) == ("replay", (0, 1))
    assert replay.acc.value == pytest.approx(0.8)
    assert replay.train_ratio.value == pytest.approx(1.5)
    assert replay.memory_rows == 2 * LABELS * 5
    assert (replay.memory_bytes, replay.state_bytes) == (60_000, 0)
    assert naive.memory_rows == 0
    assert replay.recipe == recipe_spec("replay")

    shipped = {name: recipe_spec(name) for name in recipe_names()}
    found = advise(Needs(memory_mb=0.02), [entry], all_methods(), shipped)
    assert found.based_on == "replay"
    assert found.recipe["memory_size"] == 50  # at 400 bytes a row


def test_where_intervals_overlap_the_difference_by_test_row_is_in_the_table(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "LEAST", 2)
    folder = tmp_path / "results" / "clinc5"
    folder.mkdir(parents=True)
    scores = {"naive": (0.4, (0, 1)), "replay": (0.8, (0, 1)), "dual_replay": (0.82, (1,)), "lwf": (0.79, (2,))}
    for label, (score, seeds) in scores.items():
        for seed in seeds:
            (folder / f"{label}{seed}.json").write_text(json.dumps(result(label, seed, score, 10, {})))
    script.main(tmp_path / "results", tmp_path / "advice.json")

    (entry,) = read_table(tmp_path / "advice.json")
    minus = {line.arm: line.acc_minus for line in entry.arms}
    assert {arm: set(gaps) for arm, gaps in minus.items() if gaps} == {"dual_replay": {"replay"}}
    gap = minus["dual_replay"]["replay"]
    assert gap.value == pytest.approx(2 / 120, abs=1e-4)  # 98 and 96 of 120 rows in each task
    assert 0 < gap.low < gap.value < gap.high
    shipped = {name: recipe_spec(name) for name in recipe_names()}
    found = advise(Needs(), [entry], all_methods(), shipped)
    assert [line.recipe for line in found.rivals] == ["lwf"]  # no seed is shared, and the intervals overlap


def test_what_rehearsal_kept_is_told_by_pairs_of_arms_that_differ_in_it_alone(script, tmp_path):
    suite = load_suite(script.REHEARSED)
    folder = tmp_path / "results" / suite.name
    folder.mkdir(parents=True)
    arms = {
        "naive": (10, [0, 0, 1, 0]),
        "with=naive:methods.instruction_replay.mix=0.1": (15, [1, 1, 1, 0]),
        "replay": (20, [1, 1, 0, 0]),
        "dual_replay": (20, [1, 1, 0, 0]),
    }
    for n, (label, (seconds, after)) in enumerate(arms.items()):
        watched = {"talk": {"rows": list("abcd"), "before": [1, 1, 1, 1], "after": after}}
        made = {**result(label, 0, 0.5, seconds, {}), "suite_hash": suite.hash, "watched": watched}
        (folder / f"{n}.json").write_text(json.dumps({**made, "arm": label.partition("=")[0]}))
    script.main(tmp_path / "results", tmp_path / "advice.json")
    (pair,) = read_rehearsal(tmp_path / "advice.json")
    assert (pair.suite, pair.arm, pair.without, pair.train_ratio) == (suite.name, "with", "naive", 1.5)
    assert pair.acc_minus.value == 0
    talk = pair.watched["talk"]
    assert (talk.base, talk.with_method, talk.without) == (1.0, 0.75, 0.25)
    assert (talk.minus.value, talk.minus.n) == (0.5, 4)


def test_an_arm_of_a_suite_with_guards_beside_is_in_the_table_with_what_its_router_costs(script, tmp_path, monkeypatch):
    monkeypatch.setattr(script, "LEAST", 2)
    guarded = load_suite("clinc5_guards")
    n, home = LABELS * TESTS, result("isolated", 0, 0.9, 11, {})
    runs = {"clinc5": [result("naive", 0, 0.4, 10, {}), result("dual_replay", 0, 0.85, 12, {})]}
    unnamed = [int(i < round(0.8 * n)) for i in range(n)]
    routed = {
        "items": {task.name: unnamed for task in SUITE.tasks},
        "found": {task.name: [1] * n for task in SUITE.tasks},
    }
    beside = [result("naive", 0, 0.41, 20, {}), {**home, "routed": routed}]
    runs["clinc5_guards"] = [{**run, "suite": guarded.name, "suite_hash": guarded.hash} for run in beside]
    for name, own in runs.items():
        (tmp_path / name).mkdir()
        for number, run in enumerate(own):
            (tmp_path / name / f"{number}.json").write_text(json.dumps(run))
    script.main(tmp_path, tmp_path / "advice.json")
    (table,) = read_table(tmp_path / "advice.json")
    assert [arm.arm for arm in table.arms] == ["isolated", "dual_replay", "naive"]
    isolated, dual_replay, naive = table.arms
    assert (isolated.suite, dual_replay.suite, naive.suite) == ("clinc5_guards", None, None)
    assert naive.acc.value == 0.4
    assert isolated.train_ratio.value == pytest.approx(11 / 20)  # beside the baseline of its own suite
    assert (isolated.acc.value, isolated.acc_routed.value) == (0.9, 0.8)
    assert isolated.routed_minus["dual_replay"].value == pytest.approx(-0.05)
    assert [arm.arm for arm in table.without_names().arms] == ["dual_replay", "isolated", "naive"]
    shipped = {name: recipe_spec(name) for name in recipe_names()}
    assert advise(Needs(), [table], all_methods(), shipped).based_on == "dual_replay"
    assert advise(Needs(task_known=True), [table], all_methods(), shipped).based_on == "isolated"


def test_a_suite_on_which_few_methods_ran_is_left_out(script, tmp_path):
    """Else it would be asked alone by those whose number of tasks is nearest to its own."""
    folder = tmp_path / "results" / "clinc5"
    folder.mkdir(parents=True)
    for n, label in enumerate(["naive", *recipe_names()[:12]]):
        (folder / f"{n}.json").write_text(json.dumps(result(label, 0, 0.5, 10, {})))
        script.main(tmp_path / "results", tmp_path / "advice.json")
        arms = len({run.stem for run in folder.iterdir()})
        assert bool(read_table(tmp_path / "advice.json")) == (arms >= script.LEAST)


def test_without_results_the_table_is_empty_and_says_so(script, tmp_path, capsys):
    script.main(tmp_path, tmp_path / "advice.json")
    assert read_table(tmp_path / "advice.json") == []
    assert "nothing measured yet" in capsys.readouterr().out
