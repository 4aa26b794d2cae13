"""The page "add a method", followed word by word: its files are written as they stand, its commands are run as they stand."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "add-a-method.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.split("\n")
    if line
]
METHOD_FILE = next(name for name in FILES if name.startswith("src/perdure/methods/"))
METHOD = Path(METHOD_FILE).stem


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files and the tests it names; a Python that starts there finds the page's method in its family."""
    folder = tmp_path_factory.mktemp("checkout")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    for part in ("contract", "support"):
        shutil.copytree(ROOT / "tests" / part, folder / "tests" / part)
    for name in ("tests/conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    family = (folder / METHOD_FILE).parent
    (folder / "sitecustomize.py").write_text(
        f"import perdure.methods.{family.name}\nperdure.methods.{family.name}.__path__.append({str(family)!r})\n"
    )
    return folder


def follow(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the page."""
    program, *words = shlex.split(command)
    start = {"python": [sys.executable], "perdure": [sys.executable, "-m", "perdure.cli.main"]}[program]
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run([*start, *words], cwd=folder, env=env, capture_output=True, text=True)


def test_the_page_has_eight_boxes_and_names_what_they_need():
    assert re.findall(r"^## (\d)\.", PAGE, re.MULTILINE) == list("12345678")
    assert set(FILES) == {METHOD_FILE, f"tests/methods/test_{METHOD}.py", f"{METHOD}.yaml"}
    assert f"perdure methods {METHOD}" in COMMANDS
    assert any(command.startswith("python -m pytest tests/contract") for command in COMMANDS)


def test_its_golden_number_is_one_that_every_method_is_asked_for():
    assert "def test_golden" in FILES[f"tests/methods/test_{METHOD}.py"]


def test_the_example_is_no_method_of_ours():
    assert not list((ROOT / "src" / "perdure" / "methods").glob(f"*/{METHOD}.py"))


@pytest.mark.parametrize("command", COMMANDS)
def test_what_the_page_says_to_run_succeeds(command: str, checkout: Path):
    if "digits5" in command:
        pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
    done = follow(command, checkout)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    if "pytest" in command:
        passed = re.search(r"(\d+) passed", done.stdout)
        assert passed
        assert int(passed[1]) >= (15 if "contract" in command else 3)
    else:
        assert METHOD in done.stdout


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".py")])
def test_the_page_shows_it_in_the_style_of_the_others(name: str):
    known = "lint.isort.known-first-party = ['perdure']"  # where the file stands, ruff sees so by itself
    for tool in (["format", "--check"], ["check", "--config", known]):
        command = [sys.executable, "-m", "ruff", *tool, "--stdin-filename", str(ROOT / name), "-"]
        done = subprocess.run(command, cwd=ROOT, input=FILES[name], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(FILES[name].splitlines()) <= 150
