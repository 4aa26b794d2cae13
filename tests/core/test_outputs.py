"""Outputs: a file that perdure wrote is replaced, another only when asked, and a workspace's own files never."""

import json
import os
from pathlib import Path

import pytest

from perdure.core.errors import BadInput, PerdureError
from perdure.core.outputs import (
    BENCH_PAGE,
    BENCH_TABLE,
    EVIDENCE,
    EVIDENCE_LINE,
    MEMORY,
    RECIPE,
    RECIPE_LINE,
    REPORT,
    REPORT_LINE,
    write_output,
)

OURS = {
    REPORT: f"{REPORT_LINE}\n<html></html>\n",
    EVIDENCE: f'{EVIDENCE_LINE}\n "format": 1}}\n',
    RECIPE: f"{RECIPE_LINE}\nname: x\n",
    MEMORY: json.dumps({"prompt": "a", "completion": "b", "task": "t", "pool": "replay"}) + "\n",
    BENCH_TABLE: "| arm | seeds | ACC | BWT |\n",
    BENCH_PAGE: "<!doctype html><!-- perdure bench -->\n",
}
OTHERS = [
    "",
    "\n",
    "x",
    "<!doctype html>\n<p>",
    '{"prompt": "a", "completion": "b"}\n',
    "name: mine\n",
    "\0\xff",
    "[1]\n",
]


@pytest.fixture
def root(tmp_path):
    """A folder with the files of a workspace."""
    root = tmp_path / "ws"
    for name in (
        "perdure.json",
        "ledger.sqlite",
        "ledger.sqlite-wal",
        "lock",
        "objects/ab/c.safetensors",
        "runs/x/about.json",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"own {name}")
    return root


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.name)
def test_what_perdure_wrote_is_replaced_and_anything_else_only_when_asked(tmp_path, kind):
    path = tmp_path / "out"
    write_output(path, OURS[kind], kind)
    write_output(path, OURS[kind] + "more\n", kind)
    assert path.read_text() == OURS[kind] + "more\n"
    foreign = [text for text in OTHERS if text or kind is not MEMORY]
    foreign += [text for other, text in OURS.items() if other is not kind]
    for text in foreign:
        path.write_text(text, encoding="latin-1")
        with pytest.raises(BadInput, match=f"is there already and is no {kind.name} of perdure; .*--force"):
            write_output(path, OURS[kind], kind)
        assert path.read_text(encoding="latin-1") == text
        write_output(path, OURS[kind], kind, force=True)
        assert path.read_text() == OURS[kind]


@pytest.mark.parametrize(
    "name",
    [
        "perdure.json",
        "PERDURE.json",
        "ledger.sqlite",
        "ledger.sqlite-wal",
        "ledger.sqlite-journal",
        "lock",
        "Runs/new/x",
        "objects",
        "objects/new",
        "objects/ab/c.safetensors",
        "runs/x/about.json",
        "sub/../perdure.json",
        "../ws/lock",
    ],
)
@pytest.mark.parametrize("force", [False, True])
def test_a_workspace_keeps_its_own_files(root, name, force, monkeypatch):
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    monkeypatch.chdir(root)
    for path in (root / name, root / "." / name, type(root)(name)):
        with pytest.raises(BadInput, match="belongs to the workspace"):
            write_output(path, "x", REPORT, force=force)
    assert {file: file.read_bytes() for file in root.rglob("*") if file.is_file()} == before


def test_links_to_a_workspaces_own_files_are_no_way_round(root, tmp_path):
    (tmp_path / "soft").symlink_to(root / "perdure.json")
    (tmp_path / "folder").symlink_to(root / "objects")
    (tmp_path / "dangling").symlink_to(root / "objects" / "new")
    os.link(root / "ledger.sqlite", tmp_path / "hard")
    os.link(root / "objects" / "ab" / "c.safetensors", tmp_path / "hard object")
    for name in ("soft", "folder/new", "dangling", "hard", "hard object"):
        with pytest.raises(BadInput, match="belongs to the workspace"):
            write_output(tmp_path / name, "x", REPORT, force=True, workspaces=[root])
    assert (root / "perdure.json").read_text() == "own perdure.json"


def test_a_report_may_lie_in_the_workspaces_folder_and_behind_a_link(root, tmp_path):
    write_output(root / "report.html", OURS[REPORT], REPORT)
    (tmp_path / "link.html").symlink_to(root / "report.html")
    write_output(tmp_path / "link.html", OURS[REPORT] + "2", REPORT)
    assert (tmp_path / "link.html").is_symlink()
    assert (root / "report.html").read_text() == OURS[REPORT] + "2"


def test_folders_missing_folders_and_what_cannot_be_written_are_one_error(tmp_path):
    with pytest.raises(BadInput, match="is a folder; name a file in it"):
        write_output(tmp_path, "x", REPORT, force=True)
    with pytest.raises(BadInput, match=r"there is no folder .*nowhere; make it first"):
        write_output(tmp_path / "nowhere" / "x.html", "x", REPORT)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="there is no folder"):
        write_output(tmp_path / "file" / "x.html", "x", REPORT)
    with pytest.raises(PerdureError, match="cannot write"):
        write_output(tmp_path / ("x" * 250), "x", REPORT)


def test_a_pipe_without_a_name_is_written():
    reader, writer = os.pipe()
    write_output(Path(f"/dev/fd/{writer}"), "text", REPORT)
    assert os.read(reader, 9) == b"text"


def test_a_pipe_is_written_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_output(tmp_path / "pipe", "text", REPORT)
    assert os.read(reader, 10) == b"text"
    assert (tmp_path / "pipe").is_fifo()
    os.close(reader)
    write_output(os.devnull, "text", REPORT)
    assert not os.path.isfile(os.devnull)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "README.md", "generation_config.json", "chat.jinja"]
)
def test_a_model_s_files_are_never_replaced_and_nothing_is_put_among_them_that_would_be_loaded(tmp_path, name):
    for file in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / file).write_text(file)
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}
    with pytest.raises(BadInput, match="belongs to the model in"):
        write_output(tmp_path / name, "x", REPORT, force=True)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before


def test_a_link_to_a_model_s_file_is_refused_and_a_report_beside_a_model_is_written(tmp_path):
    (tmp_path / "model").mkdir()
    for file in ("config.json", "model.safetensors"):
        (tmp_path / "model" / file).write_text(file)
    (tmp_path / "out.html").symlink_to(tmp_path / "model" / "config.json")
    with pytest.raises(BadInput, match="belongs to the model in"):
        write_output(tmp_path / "out.html", "x", REPORT, force=True)
    for _ in range(2):
        write_output(tmp_path / "model" / "out.html", OURS[REPORT], REPORT)
    assert (tmp_path / "model" / "out.html").read_text() == OURS[REPORT]
