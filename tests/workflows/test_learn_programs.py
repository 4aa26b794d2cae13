"""A task whose answers are programs is learned like any other; its programs run only where the user demands it."""

import json
import shutil

import pytest

from perdure import Workspace
from perdure.core.errors import BadInput
from perdure.data.load import load_task
from perdure.workflows.checkup.checkup import CheckupRequest, checkup
from perdure.workflows.inspect.evaluate import evaluate
from perdure.workflows.rescore import Rescore, rescore
from program_isolation import refusal

REASON = refusal()
FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4}
NOT_SCORED = "task code is not scored: answers to it are programs, which run only where you demand it (--run-code)"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def program(n):
    return {
        "prompt": f"def f{n}():\n",
        "completion": f"    return {n}\n",
        "test": f"assert f{n}() == {n}",
        "entry_point": f"f{n}",
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    code = write(folder / "code.jsonl", [program(n) for n in range(12)])
    mail = write(folder / "mail.jsonl", [{"prompt": f"mail {n}?", "completion": f" late {n % 3}"} for n in range(12)])
    return code, mail


def learn(ws, name, data, **more):
    settings = {"format": "programs", "max_new_tokens": 4} if name == "code" else {}
    return ws.learn(name, data, recipe="naive", overrides=FAST, settings=settings | more)


@pytest.fixture(scope="module")
def learned(tiny_model, files, tmp_path_factory):
    """A workspace that learned a task of programs, which were run."""
    if REASON:
        pytest.skip(REASON)
    folder = tmp_path_factory.mktemp("learned") / "ws"
    ws = Workspace.init(folder, str(tiny_model), dtype="float32", guards="none")
    ws.session.run_code = "isolated"
    result = learn(ws, "code", files[0])
    assert result.scores["code"].scorer == "programs"
    assert result.before["base"].n == result.scores["code"].n
    return folder


def test_a_learn_whose_programs_may_not_run_is_refused_before_the_model_is_loaded(tiny_model, files, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", guards="none")
    ws = Workspace.open(tmp_path / "ws")
    with pytest.raises(BadInput, match=r"add --run-code, or let a scorer compare their text \(--scorer rouge_l\)"):
        learn(ws, "code", files[0])
    assert "runtime" not in vars(ws.session)
    assert learn(ws, "code", files[0], scorer="rouge_l").scores["code"].scorer == "rouge_l"


def test_what_is_not_run_is_not_scored_and_said_so_by_every_verb_that_scores(learned, files, tmp_path):
    ws = Workspace.open(shutil.copytree(learned, tmp_path / "ws"))
    assert set(evaluate(ws.session).tasks) == {"code"}  # its score is stored, so that nothing has to run
    result = learn(ws, "mail", files[1])
    assert set(result.scores) == {"mail"}
    assert NOT_SCORED in result.warnings
    assert result.gate.reason == "no task is guarded: what code lost was not judged"
    found = evaluate(ws.session)
    assert (set(found.tasks), found.notices) == ({"mail"}, (NOT_SCORED,))
    with pytest.raises(BadInput, match="--run-code"):
        evaluate(ws.session, ["code"])
    measured = checkup(ws.session, CheckupRequest())
    assert set(measured.tasks) == {"mail"}
    assert NOT_SCORED in measured.warnings
    edited = rescore(ws.session, ws.ledger.resolve("head"), Rescore())
    assert set(edited.scores) == {"mail"}
    assert NOT_SCORED in edited.notices
    assert set(evaluate(ws.session, at="head~1").tasks) == {"code"}


def test_a_file_with_answers_and_tests_names_the_format_that_runs_them(files):
    (notice,) = load_task("code", files[0]).notices
    assert notice.endswith(
        "entry_point (12); to run test on what the model answers, give the format (--format programs)"
    )


def test_a_later_learn_that_runs_them_judges_the_task(learned, files, tmp_path):
    ws = Workspace.open(shutil.copytree(learned, tmp_path / "ws"))
    ws.session.run_code = "isolated"
    result = learn(ws, "mail", files[1])
    assert set(result.scores) == {"code", "mail"}
    assert [one.task for one in result.gate.tasks] == ["code"]
