"""Tasks whose answers are programs: scored by their tests, and only where the user demands it."""

import pytest

from perdure import Workspace
from perdure.core.errors import BadInput
from perdure.core.rows import Row
from perdure.data.programs import program_check
from perdure.data.spec import make_spec
from perdure.data.task import TaskData
from perdure.ledger.records import Guard, GuardBudget
from perdure.workflows import scoring
from perdure.workflows.guards.measure import measure_guards, not_run_guards
from program_isolation import refusal

REASON = refusal()


@pytest.fixture
def session(tiny_model, tmp_path):
    return Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32").session


@pytest.fixture
def task():
    rows = tuple(
        Row(f"def f{n}():\n", checks=(program_check(f"assert f{n}() == {n}", f"f{n}"),), task="code") for n in range(3)
    )
    spec = make_spec({"name": "code", "train": "none", "scorer": "programs", "max_new_tokens": 4}, "a test")
    return TaskData(spec, (), (), rows, "prompt_completion")


def test_programs_are_not_scored_unless_demanded(session, task):
    with pytest.raises(BadInput, match="--run-code"):
        session.score(session.ledger.resolve("base"), task)


@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_a_score_is_the_share_of_programs_that_pass(session, task, monkeypatch):
    given = scoring.Answers(["return 0", "    return 1\n", "return 7"])
    monkeypatch.setattr(scoring, "answers", lambda *_, **__: given)
    session.run_code = "isolated"
    score = session.score(session.ledger.resolve("base"), task).score
    assert (score.scorer, score.items, score.predictions) == ("programs", (1.0, 1.0, 0.0), tuple(given.texts))


@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_what_the_model_writes_is_run(session, task):
    session.run_code = "isolated"
    assert session.score(session.ledger.resolve("base"), task).score.items == (
        0.0,
        0.0,
        0.0,
    )  # random weights write no program


@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_a_guard_of_programs_is_left_out_with_a_notice_unless_demanded(session, task):
    ledger, base = session.ledger, session.ledger.resolve("base")
    ledger.put_task(task.name, task.version, task.to_json(), {"test": task.test})
    ledger.add_guard(
        Guard(name="code", version=task.version, ability="code", items=GuardBudget(3, 3, 3, 3), reference=base.id)
    )
    assert measure_guards(session, base) == {}
    assert not_run_guards(session) == [
        "guard code is not scored: answers to it are programs, which run only where you demand it (--run-code)"
    ]
    session.run_code = "isolated"
    assert measure_guards(session, base)["code"].now.items == (0.0, 0.0, 0.0)
    assert not_run_guards(session) == []
