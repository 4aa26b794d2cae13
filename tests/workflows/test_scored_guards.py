"""Every shipped guard is read, the public ones from the shared real data, and scored on a tiny model."""

from dataclasses import replace
from pathlib import Path

import pytest

from perdure import Workspace
from perdure.bridges.runtime import Runtime
from perdure.data.guard_spec import guard_file, guard_names, load_guard_spec
from perdure.evaluate.checks import follows
from perdure.evaluate.scorers import runs_programs
from perdure.workflows.guards.measure import measure_guards
from perdure.workflows.guards.read import read_guard
from perdure.workflows.scoring import measure
from program_isolation import refusal

SHARED = Path(__file__).parents[3] / "shared" / "data"
SPECS = {name: load_guard_spec(guard_file(name)) for name in guard_names()}
PUBLIC = [name for name, spec in SPECS.items() if spec.test]
SAME = [name for name, spec in SPECS.items() if spec.task.get("scorer") == "same"]

shared_data = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared real data is not beside this checkout")


REASON = refusal()


@pytest.fixture(scope="module")
def runtime(tiny_model):
    made = Runtime(tiny_model, "float32", "cpu")
    made.load({})
    return made


def scored(runtime, read):
    """Score the first rows of a guard as a learn would, and the same rows again."""
    task = replace(read.task, test=read.task.test[:2], fingerprint="", version="")
    if runs_programs(task.scorer) and REASON:
        pytest.skip(REASON)
    return measure(runtime, task, run_code="isolated").score


@pytest.mark.parametrize("name", [name for name in SPECS if name not in {*PUBLIC, *SAME}])
def test_a_made_guard_is_scored(runtime, name, tmp_path):
    score = scored(runtime, read_guard(name, tmp_path))

    assert len(score.items) == 2
    assert all(0 <= item <= 1 for item in score.items)


@pytest.mark.data
@shared_data
@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_guard_is_read_and_scored(runtime, name, tmp_path):
    read = read_guard(name, tmp_path, SHARED)
    score = scored(runtime, read)

    assert read.items.quick == SPECS[name].items.quick
    assert read.items.quick <= read.items.standard <= read.items.full == len(read.task.test)
    assert read.chance is not None
    assert len(score.items) == 2
    assert all(0 <= item <= 1 for item in score.items)


@pytest.mark.data
@shared_data
def test_an_answer_of_trivia_is_right_that_begins_with_any_of_its_names(tmp_path):
    rows = {row.prompt: row for row in read_guard("triviaqa_sub", tmp_path, SHARED).task.test}
    (check,) = rows["Question: What type of animal is a Garron?\nAnswer:"].checks

    assert len(rows) == 1500
    assert {
        text: follows(check, text) for text in (" Horse", "a horse, of course", "🐎", "Pony", "It is a horse", "")
    } == {
        " Horse": True,
        "a horse, of course": True,
        "🐎": True,
        "Pony": False,
        "It is a horse": False,
        "": False,
    }


@pytest.mark.parametrize("name", SAME)
def test_a_guard_of_drift_is_the_same_at_its_reference(tiny_model, name, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", guards="none")
    ws.guard_add(name)

    found = measure_guards(ws.session, ws.ledger.resolve("base"))[name]
    assert set(found.now.items) == {1.0}
