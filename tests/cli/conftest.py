"""Two tasks that contradict each other, learned once on the tiny model and copied for each test."""

import shutil
from pathlib import Path

import pytest
from shell import answered, learn_quickly, run, write_rows


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of task files: every answer of parcel.yaml is "parcel", every one of invoice.yaml "invoice"."""
    folder = tmp_path_factory.mktemp("files")
    for task in ("parcel", "invoice"):  # each answer is one token of the tiny model's
        write_rows(folder / f"{task}.jsonl", answered(task, task))
        write_rows(folder / f"{task}-test.jsonl", answered(f"about {task}", task, 8))
        lines = [f"train: {task}.jsonl", f"test: {task}-test.jsonl", "max_new_tokens: 1"]
        (folder / f"{task}.yaml").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def learned(tiny_model: Path, files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that learned parcel, then invoice; use `ws` for a copy that may be changed."""
    folder = tmp_path_factory.mktemp("learned") / "ws"
    run("init", folder, "--model", tiny_model, "--dtype", "float32")
    for task in ("parcel", "invoice"):
        learn_quickly(folder, files, task, "--no-gate")
    return folder


@pytest.fixture
def ws(learned: Path, tmp_path: Path) -> Path:
    """A copy of the workspace that learned both tasks."""
    return Path(shutil.copytree(learned, tmp_path / "ws"))


@pytest.fixture
def fresh(tiny_model: Path, tmp_path: Path) -> Path:
    """A workspace that learned nothing."""
    run("init", tmp_path / "fresh", "--model", tiny_model, "--dtype", "float32")
    return tmp_path / "fresh"
