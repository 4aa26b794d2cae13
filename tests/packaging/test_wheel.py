"""What is installed from the wheel is whole: it runs without the checkout, and every file that perdure reads is in it."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "perdure"
READ_ALL = """
from pathlib import Path
import perdure
from perdure.data.read import read_records
from perdure.methods.registry import load_recipe, recipe_names
from perdure.workflows.advise.table import read_table
from perdure.workflows.bench.suite_files import load_suite, suite_names
folder = Path(perdure.__file__).parent
for file in sorted((folder / "data" / "demo").glob("*.jsonl")):
    assert read_records(file)
for name in recipe_names():
    load_recipe(name)
for name in suite_names():
    load_suite(name)
assert read_table() and recipe_names() and suite_names()
print(folder)
"""


def call(*command: object, **options) -> str:
    """Run a command and return its output; what it says is shown where it fails."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shipped() -> set[str]:
    """Return every file of the package in the checkout, caches apart."""
    return {
        path.relative_to(SOURCE.parent).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A virtual environment with perdure from the wheel; it sees the dependencies installed here, but not the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    build = ("-m", "pip", "wheel", ROOT, "--no-deps", "--no-build-isolation", "--no-index", "--quiet", "-w", folder)
    call(sys.executable, *build)
    (wheel,) = folder.glob("perdure-*.whl")
    made = folder / "venv"
    venv.create(made, with_pip=False, symlinks=True)
    python = made / "bin" / "python"
    call(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    (site,) = made.glob("lib/python*/site-packages")
    # a folder that a .pth names is searched, but .pth files in it are not read: the link to the checkout is not followed
    (site / "outer.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made


@pytest.fixture
def alone(installed, tmp_path) -> dict:
    """Options of a process that has nothing of the checkout around it."""
    unset = ("PYTHONPATH", "PERDURE_WORKSPACE", "VIRTUAL_ENV")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    return {"cwd": tmp_path, "env": {**env, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}}


def test_the_wheel_holds_every_file_of_the_package_byte_for_byte(installed):
    (site,) = installed.glob("lib/python*/site-packages")
    found = {path.relative_to(site).as_posix() for path in (site / "perdure").rglob("*") if path.suffix != ".pyc"}
    files = shipped()
    assert "perdure/py.typed" in files
    assert {name for name in found if (site / name).is_file()} == files
    assert [name for name in files if (site / name).read_bytes() != (SOURCE.parent / name).read_bytes()] == []
    (about,) = site.glob("perdure-*.dist-info")
    assert (about / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_source_distribution_holds_them_too_and_no_environment(tmp_path):
    call(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=ROOT)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        found = {member.name.partition("/")[2] for member in archive.getmembers()}
    assert {f"src/{name}" for name in shipped()} <= found
    assert {"LICENSE", "README.md", "constraints.txt", "Makefile"} <= found
    assert not [name for name in found if name.startswith((".venv", "demo/")) or "__pycache__" in name]


def test_the_installed_commands_run_and_read_what_they_need(installed, alone, tiny_model):
    command = installed / "bin" / "perdure"
    assert "Continual fine-tuning" in call(command, "--help", **alone)
    call(command, "init", "ws", "--model", tiny_model, "--dtype", "float32", **alone)
    assert (alone["cwd"] / "ws" / "perdure.json").is_file()
    call(command, "report", "-w", "ws", "-o", "page.html", **alone)
    assert (SOURCE / "report" / "style.css").read_text()[:200] in (alone["cwd"] / "page.html").read_text()
    where = call(installed / "bin" / "python", "-c", READ_ALL, **alone).strip()
    assert Path(where).is_relative_to(installed)
