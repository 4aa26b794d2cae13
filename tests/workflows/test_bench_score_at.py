"""Suites of many tasks, which are scored at some stages only, and the rows that updates had."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml

from perdure.core.errors import BadSpec
from perdure.methods.registry import load_recipe
from perdure.workflows.bench.rows import rows_of
from perdure.workflows.bench.suite_files import load_suite
from perdure.workflows.bench.text import run_text, stage_of

SHARED = Path(__file__).parents[3] / "shared" / "data"
TASKS = ("one", "two", "three", "four")
QUICK = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01, "host": "loop"}


@pytest.fixture(scope="module")
def suite(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    draw = random.Random(0)
    rows = [
        {"text": f"{task} {draw.random():.3f}", "label": f"{task}{i % 2}", "task": task, "split": split}
        for task in TASKS
        for split, n in (("train", 6), ("test", 4))
        for i in range(n)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    spec = {
        "model": str(tiny_model),
        "dtype": "float32",
        "settings": QUICK,
        "score_at": [2],
        "defaults": {
            "file": "rows.jsonl",
            "train": {"split": "train"},
            "test": {"split": "test"},
            "task": {"max_new_tokens": 3},
        },
        "tasks": [{"name": task, "where": {"task": task}} for task in TASKS],
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return load_suite(str(folder / "mine.yaml")), folder


def ran(suite, tmp_path, recipe, **settings):
    suite, folder = suite
    return run_text(suite, load_recipe(recipe, {**QUICK, **settings}), 0, folder, tmp_path, lambda task: None)


def test_all_tasks_are_scored_where_the_suite_says_and_the_new_one_everywhere(suite, tmp_path):
    result = ran(suite, tmp_path, "replay")
    measured = [[score is not None for score in line] for line in result.matrix.score]
    assert measured == [
        [True, True, True, True],  # the base
        [True, True, False, False],  # the new one, and the next one before it is learned
        [True, True, True, False],  # all so far
        [False, False, True, True],
        [True, True, True, True],
    ]
    assert result.matrix.metrics["acc"].value is not None
    assert result.matrix.metrics["bwt"].value is not None
    assert "not scored and left out" in result.matrix.metrics["forgetting"].note


def test_updates_count_the_rows_of_the_task_those_from_memory_and_all_forwards(suite, tmp_path):
    first, second, *_ = ran(suite, tmp_path, "replay", memory_per_label=1).tasks
    assert (first.rows.new, first.rows.drawn, first.rows.forwards) == (12, 0, 12)  # 6 rows, 2 epochs
    assert second.rows.new == 12
    assert second.rows.drawn == second.rows.forwards - 12
    assert second.rows.drawn > 0


def test_what_builds_on_no_stage_before_it_is_learned_where_it_is_scored(suite, tmp_path):
    result = ran(suite, tmp_path, "joint")
    assert [task.updates for task in result.tasks] == [1, 6, 1, 12]  # 12 and 24 rows, 4 at once, 2 epochs
    assert result.matrix.score[1][0] is None
    assert None not in result.matrix.score[4]
    assert result.matrix.metrics["learning_accuracy"].value is None
    assert result.matrix.metrics["acc"].value is not None


def test_the_last_stage_is_scored_whatever_the_suite_says(suite):
    own, _ = suite
    recipe = load_recipe("naive", QUICK)
    assert [stage_of(own, recipe, n)[1] for n in (1, 2, 3, 4)] == [("one",), None, ("three",), None]
    assert all(own.model_copy(update={"score_at": None}).scores_all_after(n) for n in (1, 2, 3, 4))


@pytest.mark.parametrize("stages", [[0], [2, 1], [2, 2], [5]])
def test_stages_that_are_none_are_refused(suite, stages):
    own, _ = suite
    with pytest.raises(ValueError, match="score_at"):
        type(own).model_validate({**own.model_dump(), "score_at": stages})


def test_a_suite_of_features_is_scored_at_every_stage(suite, tmp_path):
    own, _ = suite
    spec = {"kind": "features", "score_at": [1], "tasks": [own.tasks[0].model_dump(mode="json")]}
    (tmp_path / "features.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    with pytest.raises(BadSpec, match="leave out `score_at`"):
        load_suite(str(tmp_path / "features.yaml"))


def test_clinc50_has_each_label_in_one_task():
    suite = load_suite("clinc50")
    labels = [label for task in suite.tasks for label in task.labels]
    assert len(labels) == len(set(labels)) == 150
    assert all(len(task.labels) == 3 for task in suite.tasks)
    for slice_ in range(5):
        names = [task.name for task in suite.tasks[10 * slice_ : 10 * slice_ + 10]]
        assert len({name.rpartition("_")[0] for name in names}) == 10
        assert {name.rpartition("_")[2] for name in names} == {str(slice_ + 1)}


@pytest.mark.data
@pytest.mark.skipif(not (SHARED / "intents").exists(), reason="the shared CLINC150 file is not there")
def test_the_labels_of_clinc50_are_those_of_the_domains():
    suite = load_suite("clinc50")
    for task in (*suite.tasks[:10], suite.tasks[-1]):
        rows = rows_of(task.model_copy(update={"where": {"domain": task.name.rpartition("_")[0]}}), SHARED, 0)
        counts = Counter((row["split"], row["label"]) for row in rows)
        assert sorted(counts.values()) == [10] * 3 + [20] * 3


def test_olora15_has_the_published_order():
    order = "mnli cb wic copa qqp boolq rte imdb yelp amazon sst2 dbpedia agnews multirc yahoo"
    suite = load_suite("olora15")
    assert [task.name for task in suite.tasks] == order.split()
    assert [task.file.name for task in suite.tasks] == [f"{name}.jsonl.gz" for name in order.split()]
    again = load_suite("olora15_reversed")
    assert again.tasks == suite.tasks[::-1]
    assert (again.settings, again.too_long, again.score_at) == (suite.settings, suite.too_long, suite.score_at)
