"""Tasks with an adapter of their own on the command line: what each verb says of them, and what an interrupted one leaves."""

import shutil
import signal
import time
from pathlib import Path

import pytest
from shell import answered, contents, run, run_json, settings, write_rows
from test_cli_interrupted import start

OWN, SUM = "methods: {per_task: {}}\n", "methods: {incremental: {}}\n"


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "own.yaml").write_text(OWN)
    (folder / "sum.yaml").write_text(SUM)
    return folder


@pytest.fixture(scope="module")
def mixed(learned: Path, files: Path, recipes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shared tasks, an isolated one, and an isolated candidate that waits."""
    folder = Path(shutil.copytree(learned, tmp_path_factory.mktemp("mixed") / "ws"))
    own = ["--recipe", recipes / "own.yaml", *settings("num_train_epochs=1")]
    for task, words, code in (("tariff", ["--no-gate"], 0), ("bill", ["--floor", "1.0"], 3)):
        rows = write_rows(folder.parent / f"{task}.jsonl", answered(task, f"{task} it is"))
        run("-w", folder, "learn", task, rows, *own, *words, code=code)
    return folder


@pytest.fixture
def both(mixed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(mixed, tmp_path / "both"))


def test_reading_verbs_tell_of_isolated_tasks(mixed: Path, tmp_path: Path):
    assert "task:tariff" in run("-w", mixed, "show").stdout
    found = run_json("-w", mixed, "show")
    assert {name: slot["kind"] for name, slot in found["slots"].items()} == {
        "task:tariff": "task",
        "task:tariff/skill": "beneath",
    }
    assert found["view"] == {**run_json("-w", mixed, "show", "head~1")["view"], **found["slots"]}
    assert "task:bill" in run("-w", mixed, "show", "candidate").stdout
    assert "task:tariff" in run("-w", mixed, "diff", "head~1", "head").stdout
    assert set(run_json("-w", mixed, "status")["tasks"]) == {"parcel", "invoice", "tariff"}
    run("-w", mixed, "report", "-o", tmp_path / "report.html")
    assert "tariff" in (tmp_path / "report.html").read_text()


def test_explain_keeps_the_case_of_names(mixed: Path, recipes: Path):
    told = run("-w", mixed, "recipe", "explain", recipes / "own.yaml").stdout
    model = run_json("-w", mixed, "status")["model"]
    assert "RECIPE own\n" in told
    assert f"ON {model}\n" in told


def test_an_isolated_candidate_that_failed_its_gate_is_accepted(both: Path):
    before = run_json("-w", both, "status")["head"]["entry"]
    held = run_json("-w", both, "status")["candidate"]["entry"]
    assert "'perdure accept'" in run("-w", both, "revert", held[:12], code=1).stderr
    run("-w", both, "accept")
    assert run_json("-w", both, "status")["head"]["entry"] == held
    assert "with its own adapter" in run("-w", both, "predict", "bill 1?", "--task", "bill").stderr
    run("-w", both, "rollback", before)
    for name in (held[:12], "bill"):  # outside head's line now
        told = run("-w", both, "revert", name, code=1).stderr
        assert f"entry {held[:12]} learned task bill outside head's history" in told
        assert f"'perdure rollback {held[:12]}'" in told


def test_a_test_row_of_an_isolated_task_is_erased(both: Path):
    rows = [row for row in run_json("-w", both, "memory", "list", "--all") if row["task"] == "tariff"]
    told = run("-w", both, "memory", "delete", rows[0]["row"])
    assert "tariff" in told.stdout + told.stderr
    assert rows[0]["row"] not in {row["row"] for row in run_json("-w", both, "memory", "list", "--all")}
    run("-w", both, "verify")
    assert "erased before" in run("-w", both, "memory", "delete", rows[0]["row"]).stdout


def test_what_was_taken_out_is_told_when_it_is_asked_or_scored(both: Path, recipes: Path):
    run("-w", both, "discard")
    more = write_rows(both.parent / "more.jsonl", answered("more of tariff", "tariff it is"))
    assert "per_task" in run("-w", both, "learn", "tariff", more, "--recipe", recipes / "own.yaml", "--dry-run").stdout
    done = run_json("-w", both, "revert", "tariff")
    for words in (["predict", "tariff 1?", "--task", "tariff"], ["eval", "tariff"]):
        told = " ".join(run("-w", both, *words).stderr.split())
        assert f"task tariff was taken out in entry {done['entry'][:12]}" in told
        assert f"add --at {done['entry'][:12]}~1" in told
        assert "taken out" not in run("-w", both, *words, "--at", f"{done['entry'][:12]}~1").stderr
    told = run("-w", both, "export", both.parent / "adapter", "--task", "tariff", code=1).stderr
    assert "no task 'tariff' is known" in told


@pytest.mark.timeout(600)
def test_an_incremental_learn_that_is_killed_and_run_again_has_the_id_of_an_unbroken_one(
    tiny_model: Path, files: Path, recipes: Path, tmp_path: Path
):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run("init", whole, "--model", tiny_model, "--dtype", "float32")
    sums = ["--recipe", recipes / "sum.yaml", "--no-gate"]
    run("-w", whole, "learn", "parcel", files / "parcel.yaml", *sums, *settings())
    shutil.copytree(whole, broken)
    second = ["learn", "invoice", files / "invoice.yaml", *sums, *settings("num_train_epochs=200")]
    process = start(["-w", broken, *second])
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert len(run_json("-w", broken, "log")) == 2
    for folder in (whole, broken):
        run("-w", folder, *second)
    assert run_json("-w", broken, "log")[0]["entry"] == run_json("-w", whole, "log")[0]["entry"]
    one, other = (sorted(contents(folder)["objects"].values()) for folder in (whole, broken))
    assert one == other


def test_a_task_leaves_by_revert_and_its_text_by_delete(both: Path):
    run("-w", both, "discard")
    stays = run("-w", both, "memory", "delete", "--task", "parcel").stdout
    assert "what was learned from them stays in weights that other tasks go through" in stays
    row = next(row["row"] for row in run_json("-w", both, "memory", "list", "--all") if row["task"] == "tariff")
    assert "nothing" not in run("-w", both, "memory", "delete", row).stdout
    told = run("-w", both, "revert", "tariff").stdout
    assert "removed task:tariff, task:tariff/skill" in told
    assert "no weights of head were trained on its rows any more\n" in told
    assert "'perdure memory delete --task tariff' erases it" in told
    told = run("-w", both, "memory", "delete", "--task", "tariff").stdout
    assert "such rows are refused from now on" in told
    assert "nothing in head's weights was trained on them" in told
    assert run_json("-w", both, "memory", "delete", "--task", "tariff")["already"]
    assert "give the hash of a row, or --task" in run("-w", both, "memory", "delete", code=2).stderr
    assert run_json("-w", both, "revert", "tariff")["removed"] == ["task:tariff", "task:tariff/skill"]


def test_all_adapters_are_exported(mixed: Path, tmp_path: Path):
    told = run("-w", mixed, "export", tmp_path / "out", "--all").stdout
    assert "tariff" in told
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"README.md", "adapters.json", "shared", "tariff"}
    found = run_json("-w", mixed, "export", tmp_path / "again", "--all")
    assert found["tasks"] == {"parcel": "shared", "invoice": "shared", "tariff": "tariff"}
    assert "leave --merged" in run("-w", mixed, "export", tmp_path / "no", "--all", "--merged", code=2).stderr
