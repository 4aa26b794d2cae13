"""A workspace in one archive, made anew elsewhere, and a base model that is somewhere else."""

import gzip
import io
import json
import shutil
import sqlite3
import tarfile
from pathlib import Path

import pytest
from shell import contents, run, run_json

from perdure import Workspace
from perdure.core.errors import BrokenStore, Busy, PerdureError
from perdure.ledger import Ledger, writing
from perdure.workflows import pack as module


@pytest.fixture
def archive(ws: Path, tmp_path: Path) -> Path:
    run("-w", ws, "workspace", "pack", tmp_path / "backup.tar.gz")
    return tmp_path / "backup.tar.gz"


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as opened:
        return {info.name: opened.extractfile(info).read() for info in opened}  # type: ignore[union-attr]


def write_archive(file: Path, held: dict[str, bytes], *infos: tarfile.TarInfo) -> Path:
    with tarfile.open(file, "w:gz") as made:
        for name, content in held.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
        for info in infos:
            made.addfile(info, io.BytesIO(b""))
    return file


def recorded(folder: Path) -> dict[str, object]:
    """Return all that a workspace holds, with its objects by their names."""
    found = contents(folder)
    return {**found, "objects": {Path(name).name: value for name, value in found["objects"].items()}}


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_archive_gives_the_same_workspace_elsewhere(ws: Path, tmp_path: Path):
    told = run_json("-w", ws, "workspace", "pack", tmp_path / "backup.tgz")
    assert (told["entries"], told["base"]) == (3, False)
    assert told["bytes"] == (tmp_path / "backup.tgz").stat().st_size
    found = run_json("workspace", "unpack", tmp_path / "backup.tgz", tmp_path / "again")
    assert (found["entries"], found["objects"], found["lacks_model"]) == (3, told["objects"], False)
    assert recorded(tmp_path / "again") == recorded(ws)
    assert run_json("-w", tmp_path / "again", "verify")["ok"]
    asked = ["predict", "about parcel 1?", "--task", "parcel"]
    assert run_json("-w", tmp_path / "again", *asked) == run_json("-w", ws, *asked)
    run("workspace", "-w", ws, "pack", tmp_path / "second.tar")
    assert members(tmp_path / "second.tar") == members(tmp_path / "backup.tgz")
    assert left(tmp_path) == ["again", "backup.tgz", "second.tar", "ws"]


def test_the_base_model_comes_along_on_request(ws: Path, tiny_model: Path, tmp_path: Path):
    Workspace.open(ws).pack(tmp_path / "whole.tar.gz", with_base=True)
    told = json.loads((ws / "perdure.json").read_text())
    for values in ({"model": str(tmp_path / "gone")},):  # as on another machine
        held = members(tmp_path / "whole.tar.gz")
        held["perdure.json"] = json.dumps({**json.loads(held["perdure.json"]), **values}).encode()
    made = Workspace.unpack(write_archive(tmp_path / "away.tar.gz", held), tmp_path / "away")
    assert made.session.base_folder == tmp_path / "away" / "base"
    assert run_json("-w", tmp_path / "away", "status")["model"] == str(tmp_path / "away" / "base")
    assert run_json("-w", tmp_path / "away", "verify")["ok"]
    shutil.move(tmp_path / "away", tmp_path / "moved")
    assert Workspace.open(tmp_path / "moved").runtime.folder == tmp_path / "moved" / "base"
    assert json.loads((ws / "perdure.json").read_text()) == told
    weights = next(name for name in held if name.startswith("base/") and name.endswith(".safetensors"))
    held[weights] = held[weights][:-1] + b"\x55"
    with pytest.raises(BrokenStore, match="not the one of the workspace, and nothing is unpacked"):
        Workspace.unpack(write_archive(tmp_path / "bad.tar.gz", held), tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_a_workspace_is_packed_as_it_is_while_somebody_writes(ws: Path, tmp_path: Path):
    before = recorded(ws)
    with writing(ws):
        ledger = Ledger.open(ws)
        ledger.objects.put({})  # of an entry that is not recorded yet
        with ledger.changing() as connection:
            connection.exec_driver_sql("DELETE FROM refs")
            run("-w", ws, "workspace", "pack", tmp_path / "backup.tar")
    run("workspace", "unpack", tmp_path / "backup.tar", tmp_path / "again")
    assert recorded(tmp_path / "again") == before


def test_objects_that_are_collected_meanwhile_are_named(ws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def collect(ledger: Ledger, names: list[str], tick: object) -> None:
        ledger.objects.remove(names[0])

    monkeypatch.setattr(module, "_check_objects", collect)
    with pytest.raises(Busy, match="was removed while it was packed"):
        Workspace.open(ws).pack(tmp_path / "backup.tar")
    assert left(tmp_path) == ["ws"]


def test_a_damaged_workspace_gives_no_backup(ws: Path, tmp_path: Path):
    path = next(ws.glob("objects/*/*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    assert (
        "missing or damaged, so that nothing is packed"
        in run("-w", ws, "workspace", "pack", tmp_path / "b.tar", code=1).stderr
    )
    assert left(tmp_path) == ["ws"]


def test_a_full_disk_leaves_no_archive(ws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.tarfile.TarFile, "addfile", full)
    with pytest.raises(PerdureError, match="No space left on device"):
        Workspace.open(ws).pack(tmp_path / "backup.tar.gz")
    assert left(tmp_path) == ["ws"]


def test_files_are_replaced_by_force_alone_and_a_workspaces_own_never(ws: Path, archive: Path):
    assert "add --force" in run("-w", ws, "workspace", "pack", archive, code=1).stderr
    run("-w", ws, "workspace", "pack", archive, "--force")
    assert "belongs to the workspace" in run("-w", ws, "workspace", "pack", ws / "objects" / "a.tar", code=1).stderr
    assert (
        "let it end in .tar.gz, .tgz or .tar"
        in run("-w", ws, "workspace", "pack", archive.with_suffix(".zip"), code=1).stderr
    )


def test_what_is_there_is_never_unpacked_over(archive: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "link", "ws"):
        assert "is there already" in run("workspace", "unpack", archive, tmp_path / name, code=1).stderr
    assert "there is no file" in run("workspace", "unpack", tmp_path / "none.tar", tmp_path / "new", code=1).stderr


@pytest.mark.parametrize(
    "name",
    [
        "/etc/evil",
        "../evil",
        "base/../../evil",
        "objects/../evil",
        "runs/a",
        "perdure.json/a",
        "base/a\\b",
        "base/\x1b",
    ],
)
def test_a_path_that_no_workspace_has_is_refused(archive: Path, tmp_path: Path, name: str):
    before = left(tmp_path)
    held = {name: b"x", **members(archive)}
    write_archive(tmp_path / "evil.tar.gz", held)
    assert (
        "belongs to no workspace"
        in run("workspace", "unpack", tmp_path / "evil.tar.gz", tmp_path / "new", code=1).stderr
    )
    assert left(tmp_path) == sorted([*before, "evil.tar.gz"])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_only_regular_files_are_unpacked(archive: Path, tmp_path: Path, kind: bytes):
    info = tarfile.TarInfo("base/config.json")
    info.type, info.linkname = kind, "/etc/passwd"
    write_archive(tmp_path / "evil.tar.gz", members(archive), info)
    assert "no regular file" in run("workspace", "unpack", tmp_path / "evil.tar.gz", tmp_path / "new", code=1).stderr
    assert not (tmp_path / "new").exists()


def test_an_archive_that_is_not_sound_leaves_nothing(archive: Path, tmp_path: Path):
    held, whole = members(archive), archive.read_bytes()
    one = next(name for name in held if name.startswith("objects/"))
    cases = {
        "cut": whole[: len(whole) // 2],
        "text": b"hello",
        "bits": whole[:2000] + b"\x00" * 50 + whole[2050:],
        "empty": gzip.compress(b""),
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
    write_archive(tmp_path / "lacks", {name: data for name, data in held.items() if name != one})
    write_archive(
        tmp_path / "other", {**held, one: next(d for n, d in held.items() if n.startswith("objects/") and n != one)}
    )
    write_archive(tmp_path / "config", {name: data for name, data in held.items() if name != "perdure.json"})
    twice = tarfile.TarInfo("perdure.json")
    write_archive(tmp_path / "twice", held, twice)
    expected = {
        **dict.fromkeys(cases, "archive of a workspace"),
        "lacks": "is missing",
        "other": "is damaged",
        "config": "lacks perdure.json",
        "twice": "twice",
    }
    before = left(tmp_path)
    for name, message in expected.items():
        told = run("workspace", "unpack", tmp_path / name, tmp_path / "new", code=1).stderr
        assert message in told, name
        assert left(tmp_path) == before


def test_one_changed_byte_of_an_archive_is_found_by_its_checksum(archive: Path, tmp_path: Path):
    tar = gzip.decompress(archive.read_bytes())
    stored = bytearray(gzip.compress(tar, 0))  # level 0 keeps the bytes as they are, so that any of them can be changed
    place = stored.index(b"SQLite format 3") + 60  # inside the ledger, where nothing but the checksum shows it
    stored[place] ^= 1
    (tmp_path / "changed.tar.gz").write_bytes(bytes(stored))
    said = run("workspace", "unpack", tmp_path / "changed.tar.gz", tmp_path / "new", code=1).stderr
    assert "archive of a workspace" in said
    assert "damaged" in said
    assert not (tmp_path / "new").exists()


def test_text_that_was_deleted_does_not_travel(ws: Path, tmp_path: Path):
    row = run_json("-w", ws, "memory", "list")[0]
    run("-w", ws, "memory", "delete", row["row"])
    run("-w", ws, "workspace", "pack", tmp_path / "backup.tar")
    assert json.dumps(row["prompt"]).encode() not in (tmp_path / "backup.tar").read_bytes()


def test_a_model_next_to_a_workspace_moves_with_it(tiny_model: Path, tmp_path: Path):
    shutil.copytree(tiny_model, tmp_path / "team" / "models" / "tiny")
    run("init", tmp_path / "team" / "ws", "--model", tmp_path / "team" / "models" / "tiny", "--dtype", "float32")
    assert json.loads((tmp_path / "team" / "ws" / "perdure.json").read_text())["model_here"] == "../models/tiny"
    shutil.move(tmp_path / "team", tmp_path / "moved")
    ws = Workspace.open(tmp_path / "moved" / "ws")
    assert ws.session.base_folder == tmp_path / "moved" / "models" / "tiny"
    assert ws.runtime.folder == ws.session.base_folder
    assert run_json("-w", tmp_path / "moved" / "ws", "status")["model"] == str(tmp_path / "moved" / "models" / "tiny")


def test_another_model_next_to_a_copied_workspace_is_not_taken_for_its_base(tiny_model: Path, tmp_path: Path):
    shutil.copytree(tiny_model, tmp_path / "team" / "model")
    run("init", tmp_path / "team" / "ws", "--model", tmp_path / "team" / "model", "--dtype", "float32")
    shutil.copytree(tmp_path / "team" / "ws", tmp_path / "other" / "ws")
    (tmp_path / "other" / "model").mkdir()
    (tmp_path / "other" / "model" / "config.json").write_text("{}")
    assert Workspace.open(tmp_path / "other" / "ws").session.base_folder == tmp_path / "team" / "model"


def test_a_workspace_is_pointed_to_where_its_model_is_now(ws: Path, tiny_model: Path, tmp_path: Path):
    config = json.loads((ws / "perdure.json").read_text())
    (ws / "perdure.json").write_text(json.dumps({**config, "model": str(tmp_path / "gone")}))
    assert "'perdure relocate" in run("-w", ws, "predict", "a", code=1).stderr
    shutil.copytree(tiny_model, tmp_path / "here")
    entries = run_json("-w", ws, "log")
    found = run_json("-w", ws, "relocate", "--model", tmp_path / "here")
    assert found["folder"] == str(tmp_path / "here")
    run("-w", ws, "predict", "a")
    assert run_json("-w", ws, "log") == entries
    (tmp_path / "here" / "chat_template.jinja").write_text("other")
    kept = (ws / "perdure.json").read_text()
    told = run("workspace", "-w", ws, "relocate", "--model", tmp_path / "here", code=1).stderr
    assert "is not the base model of this workspace, which stays as it was" in told
    assert "chat_template.jinja" in told
    assert (ws / "perdure.json").read_text() == kept
    with writing(ws):
        run("-w", ws, "relocate", "--model", tiny_model, code=1)
    run("-w", ws, "relocate", "--model", tiny_model)
    assert run_json("-w", ws, "status")["model"] == str(tiny_model)


def test_a_ledger_of_another_mode_or_with_a_log_is_copied_whole(ws: Path, tmp_path: Path):
    with sqlite3.connect(ws / "ledger.sqlite") as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM refs").fetchall()  # so that the log is not written into the file
        run("-w", ws, "rollback", "head~1")
        assert (ws / "ledger.sqlite-wal").stat().st_size > 0
        run("-w", ws, "workspace", "pack", tmp_path / "backup.tar")
    run("workspace", "unpack", tmp_path / "backup.tar", tmp_path / "again")
    assert run_json("-w", tmp_path / "again", "status")["head"]["task"] == "parcel"


def test_a_file_that_is_no_archive_is_refused_in_one_sentence(tmp_path: Path):
    file = tmp_path / "notes.tar"
    file.write_text("no archive")
    refused = run("workspace", "unpack", file, tmp_path / "new", code=1).stderr
    assert "is no archive of a workspace, or it is damaged or cut off" in refused
    assert "ReadError" not in refused
    assert not (tmp_path / "new").exists()


def test_hashing_the_base_model_shows_its_progress(
    ws: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perdure.core import stages

    monkeypatch.setattr(stages, "SILENT", 0.0)
    workspace, seen = Workspace.open(ws), set[str]()

    def tick(what: str, done: int, total: int) -> None:
        seen.add(what)

    workspace.relocate(str(tiny_model), tick=tick)
    assert seen == {"hashing the base model, in MiB"}
    seen.clear()
    workspace.pack(tmp_path / "all.tar", with_base=True, tick=tick)
    assert seen == {"hashing the base model, in MiB", "hashing objects", "packing"}
    seen.clear()
    Workspace.unpack(tmp_path / "all.tar", tmp_path / "copy", tick)
    assert "hashing the base model, in MiB" in seen
