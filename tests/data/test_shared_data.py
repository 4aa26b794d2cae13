"""Every intent and stream file of the shared real data goes through `load_task`."""

import shutil
from pathlib import Path

import pytest

from perdure.core.errors import BadInput
from perdure.data.leaks import refuse_leaks
from perdure.data.load import load_probe, load_task

SHARED = Path(__file__).parents[3] / "shared" / "data"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real data is not beside this checkout"),
]


@pytest.mark.parametrize("name", ["agnews", "amazon", "boolq", "dbpedia", "rte", "wic", "yahoo"])
def test_a_task_of_the_olora_stream_loads_with_its_own_test_part(name):
    task = load_task(name, SHARED / "cl" / "olora15" / f"{name}.jsonl.gz")
    assert task.format == "prompt_completion"
    assert not task.test_made
    assert len(task.train) > 1000
    assert len(task.test) >= 200
    assert task.scorer == {"name": "exact"}


def test_a_test_row_that_also_trains_is_found_in_real_data(tmp_path):
    path = tmp_path / "banking77.jsonl.gz"
    shutil.copy(SHARED / "intents" / "banking77.jsonl.gz", path)
    task = load_task("banking77", path)
    assert len(task.labels) == 77
    with pytest.raises(BadInput, match=r"6 of \d+ test rows of task 'banking77' are also in the train part"):
        refuse_leaks(task, [])


@pytest.mark.parametrize("name", ["arc_easy", "boolq", "hellaswag", "mmlu", "piqa"])
def test_the_sets_with_choices_are_read_whole(name):
    task = load_probe(name, SHARED / "ability" / f"{name}.jsonl.gz", {"template": "{prompt}\nAnswer:"})
    assert task.format == "choices"
    assert len(task.test) > 1400
    assert all(row.completion == row.choices[row.gold] for row in task.test)


def test_the_published_instructions_are_read_with_their_checks():
    task = load_probe("ifeval", SHARED / "ability" / "ifeval.jsonl.gz")
    assert (task.format, task.scorer) == ("checks", {"name": "checks"})
    assert sum(len(row.checks) for row in task.test) == 832
