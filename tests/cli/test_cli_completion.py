"""Completion in the shell: names of tasks, entries, recipes, methods and suites, read without a model."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shell import init_people, run, run_json
from typer.testing import CliRunner

from commands import all_commands
from perdure.cli import names
from perdure.cli.help import topics
from perdure.cli.main import app
from perdure.core.device import check_name
from perdure.data.columns import FORMATS
from perdure.editing.spec import METHODS
from perdure.evaluate.scorers import SCORERS
from perdure.methods.registry import all_methods, recipe_names
from perdure.workflows.bench.suite_files import suite_names


def completed(line: str, shell: str = "bash") -> list[str]:
    """Return what the shell is given for a line whose last word is completed, by the protocol of its script."""
    words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
    env = {"_PERDURE_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        env |= {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    else:
        env |= {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    result = CliRunner().invoke(app, [], env=env, prog_name="perdure")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.stderr == ""
    return [line for line in result.stdout.splitlines() if line]


def test_names_of_a_workspace_are_completed(learned: Path, monkeypatch: pytest.MonkeyPatch):
    ids = [entry["entry"][:12] for entry in run_json("-w", learned, "log")]
    given = f"perdure -w {learned}"
    for command in (
        "eval ",
        "learn ",
        "learn x y --guard ",
        "predict --task ",
        "export out --task ",
        "memory list --task ",
    ):
        assert sorted(completed(f"{given} {command}")) == ["invoice", "parcel"], command
    assert completed(f"perdure eval -w {learned} pa") == ["parcel"]  # the workspace after the command's name
    assert completed(f"{given} revert in") == ["invoice"]
    assert completed(f"{given} predict --at head~1 --task ") == ["parcel"]  # what that entry knows
    for command in ("rollback ", "show ", "diff head ", "matrix --at ", "predict hello --compare ", "gate --at "):
        assert {"head", "base", "head~1", "head~2", *ids} == set(completed(f"{given} {command}")), command
    assert completed(f"{given} show {ids[0][:5]}") == [ids[0]]
    assert completed(f"{given} show head~") == ["head~1", "head~2"]
    assert "head~1\tlearn parcel" in completed(f"{given} show ", "fish")
    monkeypatch.chdir(learned)
    assert completed("perdure eval inv") == ["invoice"]
    monkeypatch.chdir("/")
    monkeypatch.setenv("PERDURE_WORKSPACE", str(learned))
    assert completed("perdure eval inv") == ["invoice"]


def test_facts_in_force_are_completed(tmp_path: Path):
    ws = init_people(tmp_path, "gpt2")
    run("-w", ws, "edit", "Ann Lee", "Ann Lee lives in", "Oslo", "--no-gate", "--no-score")
    (fact,) = run_json("-w", ws, "edits", "list")
    assert completed(f"perdure -w {ws} edits show ") == [fact["fact"][:12]]
    assert completed(f"perdure -w {ws} revert ") == [fact["fact"][:12]]


def test_names_that_belong_to_no_workspace_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert completed("perdure learn x y --recipe ") == recipe_names()
    assert completed("perdure recipe show du") == completed("perdure recipe explain du") == ["dual_replay"]
    assert completed("perdure methods ") == list(all_methods())
    assert completed("perdure bench ") == suite_names()
    assert completed("perdure bench clinc5 --recipes na") == ["naive"]
    assert completed("perdure learn x y --format ") == list(FORMATS)
    assert completed("perdure learn x y --scorer ") == list(SCORERS)
    assert completed("perdure edit --method ") == [name for name in METHODS if name != "lora"]
    assert completed("perdure init x --dtype bf") == ["bfloat16"]
    assert completed("perdure learn x y --kind ") == ["task", "knowledge"]
    assert all(check_name(name) for name in completed("perdure --device "))
    assert set(topics()) < set(completed("perdure help "))
    assert completed("perdure rep") == ["report"]
    assert completed("perdure memory sta") == ["stats"]


def test_a_folder_that_is_no_workspace_or_is_damaged_has_no_names(learned: Path, tmp_path: Path):
    assert completed(f"perdure -w {tmp_path} eval ") == []
    assert completed(f"perdure -w {tmp_path / 'nowhere'} show ") == []
    assert not (tmp_path / "nowhere").exists()
    broken = Path(shutil.copytree(learned, tmp_path / "broken"))
    for file in broken.glob("ledger.sqlite*"):
        file.write_bytes(b"no database " * 100)
    assert completed(f"perdure -w {broken} eval ") == []
    assert completed(f"perdure -w {broken} show ") == []


def test_completion_loads_no_torch(learned: Path):
    line = f"perdure -w {learned} "
    code = f"""
import os, sys
from perdure.cli.main import app
for words, n in (("eval ", 4), ("show ", 4), ("methods ", 4), ("learn x y --recipe ", 7), ("bench ", 4), ("revert ", 4)):
    os.environ.update(_PERDURE_COMPLETE="complete_bash", COMP_WORDS={line!r} + words, COMP_CWORD=str(n))
    try:
        app(prog_name="perdure")
    except SystemExit:
        pass
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert {"parcel", "head~1", "ewc", "naive", "clinc5"} <= set(done.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_a_shell(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    done = CliRunner().invoke(app, ["--install-completion"], prog_name="perdure")
    assert done.exit_code == 0, done.output
    assert f"{shell} completion installed in {tmp_path}" in "".join(done.stdout.splitlines())
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert f"_PERDURE_COMPLETE=complete_{shell}" in written
    shown = CliRunner().invoke(app, ["--show-completion"], prog_name="perdure")
    assert shown.stdout.strip() in written


def test_every_option_that_names_an_entry_or_a_task_is_completed():
    of_ledger = {"REF": names.entry_names, "TASK": names.task_names, "ENTRY": names.entry_names}
    for words, command in all_commands().items():
        for parameter in command.params:
            if parameter.metavar in of_ledger or (parameter.name == "task" and parameter.metavar is None):
                assert parameter._custom_shell_complete, f"{words}: {parameter.name}"
