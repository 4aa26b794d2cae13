"""Bench: a run is what a workspace does, in a process of its own, once."""

import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bench_runs import failed
from perdure import Workspace
from perdure.core.errors import BadInput, BadSpec
from perdure.data.load import load_probe
from perdure.methods.registry import load_recipe
from perdure.workflows.bench import runner as runner_module
from perdure.workflows.bench.bench import bench
from perdure.workflows.bench.features import run_features
from perdure.workflows.bench.jobs import Job, read_arm, read_result, results
from perdure.workflows.bench.records import BenchResult
from perdure.workflows.bench.rows import rows_of
from perdure.workflows.bench.runner import BenchPlace
from perdure.workflows.bench.suite_files import load_suite, suite_names
from perdure.workflows.bench.text import run_text

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
QUICK = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01}


def write_suite(folder: Path, **more) -> Path:
    """Write a suite of two tasks on points around four corners, and its data."""
    draw = random.Random(0)
    corners = {"a": (1, 1), "b": (-1, -1), "c": (1, -1), "d": (-1, 1)}
    rows = [
        {"features": [x + draw.gauss(0, 0.3), y + draw.gauss(0, 0.3)], "label": label, "split": split}
        for label, (x, y) in corners.items()
        for split in ("train", "test")
        for _ in range(12)
    ]
    (folder / "points.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    suite = {
        "kind": "features",
        "model": "mlp:8",
        "settings": QUICK,
        "defaults": {"file": "points.jsonl", "train": {"split": "train"}, "test": {"split": "test"}},
        "tasks": [{"name": "ab", "labels": ["a", "b"]}, {"name": "cd", "labels": ["c", "d"]}],
    }
    path = folder / "corners.yaml"
    path.write_text(yaml.safe_dump({**suite, **more}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A suite that ran with two arms that work and one that diverges: its folder, the suite, the arms, what was told."""
    folder = tmp_path_factory.mktemp("bench")
    suite = load_suite(str(write_suite(folder)))
    arms = [
        read_arm(text, suite.settings)
        for text in ("naive", "again=naive", "naive:learning_rate=100,weight_decay=100,num_train_epochs=20")
    ]
    told = bench(suite, arms, [0], BenchPlace(folder, folder / "out", workers=2))
    return folder, suite, arms, told


def run_again(folder, suite, arms):
    """Call bench where no process may start."""
    return bench(suite, arms, [0], BenchPlace(folder / "no data here", folder / "out"))


def test_a_finished_run_is_never_repeated(done):
    folder, suite, arms, told = done
    assert told.to_json()["ran"] == [{"arm": "naive", "seed": 0}, {"arm": "again", "seed": 0}]
    before = {path: path.read_bytes() for path in (folder / "out" / "corners").glob("*.json")}
    assert run_again(folder, suite, arms[:2]) == BenchResult(ran=(), kept=told.ran, failed=())
    assert {path: path.read_bytes() for path in before} == before


def test_a_run_that_fails_says_why_and_is_wanted_again(done):
    folder, suite, arms, told = done
    assert [(one.arm, one.seed) for one in told.failed] == [
        ("naive:learning_rate=100,weight_decay=100,num_train_epochs=20", 0)
    ]
    assert told.failed[0].error.startswith("Diverged: ")
    kept = json.loads(Job(suite, arms[2], 0).path(folder / "out").read_text(encoding="utf-8"))
    assert kept["error"] == told.failed[0].error
    log = Job(suite, arms[2], 0).path(folder / "out").with_suffix(".log")
    assert "Traceback" in log.read_text(encoding="utf-8")
    with pytest.raises(BadInput, match=r"corners needs points\.jsonl"):
        run_again(folder, suite, arms)


def test_the_same_recipe_and_seed_give_the_same_scores_in_another_process(done):
    folder, suite, arms, _ = done
    first, second = (
        json.loads(Job(suite, arm, 0).path(folder / "out").read_text(encoding="utf-8")) for arm in arms[:2]
    )
    assert first["matrix"] == second["matrix"]
    assert first["items"] == second["items"]
    assert first["recipe"] == second["recipe"]
    assert first["key"] == second["key"]


def test_a_result_says_what_was_run_and_what_it_cost(done):
    folder, suite, arms, _ = done
    result = json.loads(Job(suite, arms[0], 0).path(folder / "out").read_text(encoding="utf-8"))
    assert (result["suite"], result["suite_hash"], result["arm"], result["seed"]) == ("corners", suite.hash, "naive", 0)
    assert result["recipe"]["num_train_epochs"] == QUICK["num_train_epochs"]
    assert [task["task"] for task in result["tasks"]] == ["ab", "cd"]
    assert all(task["train_seconds"] > 0 and task["updates"] == 2 * 24 / 4 for task in result["tasks"])
    assert result["peak_mib"] > 50
    assert result["cpu_seconds"] > 0
    assert result["stored"]["weights"] == 4 * (2 * 8 + 8 + 8 * 4 + 4)
    assert result["machine"]["threads"] == 1
    assert result["software"].keys() >= {"perdure", "torch"}
    for j, name in enumerate(result["matrix"]["tasks"]):
        for i, items in enumerate(result["items"][name]["scores"]):
            assert sum(items) / len(items) == pytest.approx(result["matrix"]["score"][i][j])


def test_another_suite_recipe_or_seed_is_another_run(done):
    folder, suite, arms, _ = done
    result = read_result(Job(suite, arms[0], 0).path(folder / "out"))
    assert Job(suite, arms[0], 0).finished(result)
    assert not Job(suite, arms[0], 1).finished(result)
    assert not Job(suite, read_arm("naive:lora_r=4", suite.settings), 0).finished(result)
    assert not Job(suite.model_copy(update={"model": "mlp:9"}), arms[0], 0).finished(result)
    assert not Job(suite, arms[0], 0).finished(failed("naive", 0, "it broke", key=result.key, recipe=result.recipe))
    assert not Job(suite, arms[0], 0).finished(None)


def test_a_setting_that_is_new_since_leaves_a_run_finished_and_a_changed_default_does_not(done):
    folder, suite, arms, _ = done
    result = read_result(Job(suite, arms[0], 0).path(folder / "out"))
    older = {key: value for key, value in result.recipe.items() if key != "lora_dropout"}
    assert Job(suite, arms[0], 0).finished(replace(result, recipe=older))
    assert not Job(suite, arms[0], 0).finished(replace(result, recipe={**older, "weight_decay": 0.1}))


@pytest.mark.parametrize("suite", [name for name in suite_names() if (RESULTS / name).is_dir()])
def test_a_result_file_reads_and_writes_the_same_bytes(suite):
    """The files in the repository are of earlier versions."""
    for path in sorted((RESULTS / suite).glob("*.json"))[:3]:
        result = read_result(path)
        assert json.dumps(result.to_json(), ensure_ascii=False) == path.read_text(encoding="utf-8").strip()


def test_results_of_an_older_suite_are_told_apart(done):
    folder, suite, _, _ = done
    own, older = results(suite, folder / "out")
    assert (len(own), older) == (3, 0)
    own, older = results(suite.model_copy(update={"model": "mlp:9"}), folder / "out")
    assert (len(own), older) == (0, 3)


def test_two_arms_of_one_label_are_refused(done):
    folder, suite, arms, _ = done
    with pytest.raises(BadInput, match="LABEL=RECIPE"):
        run_again(folder, suite, [arms[0], arms[0]])


def test_an_arm_is_a_recipe_with_changes_under_a_label(tmp_path):
    assert read_arm("naive").label == "naive"
    arm = read_arm("tuned=replay:methods.replay.mix=0.3,learning_rate=1e-4,lora_target_modules=[q_proj,v_proj]")
    assert arm.label == "tuned"
    assert arm.recipe == load_recipe("replay", arm_changes()).to_json()
    assert read_arm("replay:methods.replay.mix=0.3").label == "replay:methods.replay.mix=0.3"
    path = tmp_path / "mine.yaml"
    path.write_text("lora_r: 4\n", encoding="utf-8")
    assert read_arm(str(path)).label == "mine"
    assert read_arm(str(path)).recipe["lora_r"] == 4


def arm_changes():
    return {"methods.replay.mix": 0.3, "learning_rate": 1e-4, "lora_target_modules": ["q_proj", "v_proj"]}


def test_a_suites_settings_stand_above_the_recipe_and_below_the_arm(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("lora_r: 4\nnum_train_epochs: 7\n", encoding="utf-8")
    recipe = read_arm(f"{path}:num_train_epochs=9", {"lora_r": 2, "num_train_epochs": 8}).recipe
    assert (recipe["lora_r"], recipe["num_train_epochs"]) == (2, 9)


@pytest.mark.parametrize(
    ("text", "words"),
    [("naiv", "did you mean 'naive'"), ("naive:lora_r", "KEY=VALUE"), ("naive:lora_rr=1", "did you mean 'lora_r'")],
)
def test_an_arm_that_is_none_is_refused(text, words):
    with pytest.raises((BadInput, BadSpec), match=words):
        read_arm(text)


def test_a_text_run_is_what_a_workspace_does(tiny_model, tmp_path):
    rows = [
        {"text": f"{label} {i}", "label": label, "split": split}
        for label in ("refund", "parcel", "invoice", "late")
        for split, start in (("train", 0), ("test", 50))
        for i in range(start, start + 6)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    defaults = {
        "file": "rows.jsonl",
        "train": {"split": "train"},
        "test": {"split": "test"},
        "task": {"max_new_tokens": 4},
    }
    tasks = [{"name": "one", "labels": ["parcel", "refund"]}, {"name": "two", "labels": ["invoice", "late"]}]
    talk = [{"prompt": f"Say {i}.", "completion": f"It is {i}.", "split": ("train", "test")[i % 2]} for i in range(20)]
    (tmp_path / "talk.jsonl").write_text("\n".join(map(json.dumps, talk)), encoding="utf-8")
    instructions = {
        "general": {"file": "talk.jsonl", "train": {"split": "train"}},
        "watch": [
            {"name": "talk", "file": "talk.jsonl", "test": {"split": "test", "per_label": 6}, "task": {"scorer": "f1"}}
        ],
    }
    spec = {"model": str(tiny_model), "dtype": "float32", "defaults": defaults, "tasks": tasks, **instructions}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    suite, recipe = (
        load_suite(str(tmp_path / "tiny.yaml")),
        load_recipe("replay", {**QUICK, "host": "loop", "methods.instruction_replay.mix": 0.5}),
    )
    (tmp_path / "scratch").mkdir()
    told: list[str] = []
    result = run_text(suite, recipe, 1, tmp_path, tmp_path / "scratch", told.append)

    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", seed=1)
    general = "\n".join(map(json.dumps, rows_of(suite.general, tmp_path, 1)))
    (tmp_path / "general.jsonl").write_text(general, encoding="utf-8")
    for task in suite.tasks:
        file = tmp_path / f"{task.name}.jsonl"
        file.write_text("\n".join(map(json.dumps, rows_of(task, tmp_path, 1))), encoding="utf-8")
        settings = {**task.task, "general": tmp_path / "general.jsonl"}
        ws.learn(task.name, file, recipe=recipe, settings=settings, gate=None)
    assert result.matrix == ws.matrix()
    assert told == ["one", "two"]
    assert [len(scores) for scores in result.items["two"].scores] == [12, 12, 12]  # base, before it, after it
    stored = result.stored
    assert stored.weights == sum(map(ws.ledger.objects.size, ws.ledger.slots(ws.ledger.resolve("head")).values()))
    assert stored.memory_rows > 0
    assert any(value > 0 for value in result.tasks[1].heartbeats["replay"].values())
    assert result.tasks[0].heartbeats["instruction_replay"]["rows"] > 0
    probe = load_probe("talk", tmp_path / "scratch" / "talk.jsonl", {"scorer": "f1"})
    for ref, key in (("base", "before"), ("head", "after")):
        assert getattr(result.watched["talk"], key) == tuple(
            ws.session.score(ws.ledger.resolve(ref), probe).score.items
        )
    assert len(result.watched["talk"].rows) == 6
    json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("watched", "words"),
    [
        (
            {"file": "rows.jsonl", "where": {"label": "refund"}, "test": {"split": "train"}},
            "trained on or rehearsed too",
        ),
        ({"file": "talk.jsonl", "test": {"split": "train"}}, "trained on or rehearsed too"),
        ({"file": "talk.jsonl", "test": {"split": "test"}, "task": {"scorer": "nope"}}, "unknown scorer 'nope'"),
    ],
)
def test_what_is_watched_is_neither_trained_on_nor_scored_in_vain(tiny_model, tmp_path, watched, words):
    rows = [{"text": f"parcel {i}", "label": "refund", "split": ("train", "test")[i % 2]} for i in range(6)]
    talk = [{"prompt": f"Say {i}.", "completion": f"It is {i}.", "split": ("train", "test")[i % 2]} for i in range(6)]
    for name, written in (("rows", rows), ("talk", talk)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, written)), encoding="utf-8")
    spec = {
        "model": str(tiny_model),
        "dtype": "float32",
        "tasks": [{"name": "one", "file": "rows.jsonl", "train": {"split": "train"}, "test": {"split": "test"}}],
        "general": {"file": "talk.jsonl", "train": {"split": "train"}},
        "watch": [{"name": "probe", **watched}],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    (tmp_path / "scratch").mkdir()
    learned: list[str] = []
    with pytest.raises((BadInput, BadSpec), match=words):
        run_text(
            load_suite(str(tmp_path / "tiny.yaml")),
            load_recipe("naive"),
            1,
            tmp_path,
            tmp_path / "scratch",
            learned.append,
        )
    assert not learned


def test_replay_keeps_more_of_the_corners_than_nothing_does(tmp_path):
    suite = load_suite(str(write_suite(tmp_path)))
    settings = {**QUICK, "num_train_epochs": 10, "learning_rate": 0.03, "memory_per_label": 4}

    def run(recipe):
        found = run_features(suite, load_recipe(recipe, settings), 0, tmp_path, tmp_path, lambda task: None)
        return found.matrix.metrics["acc"].value, found.stored

    (naive, nothing), (replay, kept), (joint, _) = run("naive"), run("replay"), run("joint")
    assert naive < 0.6 < replay
    assert joint > 0.9
    assert nothing.memory_rows == 0
    assert kept.memory_rows == 4 * 4 * 2 * 4  # classes, rows of each, numbers, bytes


def test_a_model_that_is_no_mlp_is_refused(tmp_path):
    suite = load_suite(str(write_suite(tmp_path, model="mlp:a")))
    with pytest.raises(BadSpec, match="mlp:100"):
        run_features(suite, load_recipe("naive"), 0, tmp_path, tmp_path, lambda task: None)


@pytest.mark.parametrize("name", ["per_task", "osf"])
def test_a_plan_of_an_adapter_is_refused_where_there_is_none(tmp_path, name):
    suite = load_suite(str(write_suite(tmp_path)))
    with pytest.raises(BadSpec, match=rf"plans the adapter of each task \({name}\), and the MLP"):
        run_features(suite, load_recipe({"methods": {name: {}}}), 0, tmp_path, tmp_path, lambda task: None)


def test_what_is_stopped_goes_on_with_the_runs_that_are_missing(tmp_path):
    path = write_suite(tmp_path)
    slow = "slow=naive:num_train_epochs=100000"
    words = [sys.executable, "-m", "perdure.cli.main", "bench", str(path), "--data", str(tmp_path)]
    words += ["--out", str(tmp_path / "out"), "--recipes", "naive", slow, "--seeds", "0"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    first = tmp_path / "out" / "corners" / "naive-0.json"
    until = time.monotonic() + 120
    while not first.exists() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)
    assert process.returncode != 0
    assert sorted(file.name for file in first.parent.iterdir()) == [
        "naive-0.json"
    ]  # nothing of the run that was stopped
    suite = load_suite(str(path))
    assert Job(suite, read_arm("naive", suite.settings), 0).finished(read_result(first))


def test_what_runs_is_noted_under_the_lock_alone(tmp_path, monkeypatch):
    """`_stop` goes through the processes under the lock, while workers end theirs."""
    suite = load_suite("digits5")
    job = Job(suite, read_arm("naive", suite.settings), 0)
    runner = runner_module.Runner(BenchPlace(tmp_path, tmp_path / "out"), None, 5)
    under_lock = []

    class Watched(set):
        def discard(self, process):
            under_lock.append(runner.lock.locked())
            super().discard(process)

    def start(folder):
        (folder / "stderr").write_text("gone")
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"], stdout=subprocess.PIPE, text=True)

    runner.running = Watched()
    monkeypatch.setattr(runner, "_start", start)
    assert runner.run([job]) == {job.name: "gone"}
    assert under_lock == [True]
