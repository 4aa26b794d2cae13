"""Atomic writing: the old file or the new one, never half of one, whatever happens in between."""

import hashlib
import os
import stat

import pytest
import torch

from disks import full_after
from perdure.core.errors import PerdureError
from perdure.core.files import file_hash, folder_aside, remove_left, save_tensors, write_atomically, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_is_written_as_utf8_and_replaces_the_old_file(tmp_path):
    path = tmp_path / "deep" / "er" / "page.html"
    write_text(path, "old, and longer")
    write_text(path, "für 5 €")
    assert path.read_bytes() == "für 5 €".encode()
    assert names(path.parent) == ["page.html"]


def test_every_folder_made_on_the_way_is_synced_in_the_folder_above_it(tmp_path, monkeypatch):
    opened, synced = {}, []
    real_open, real_sync = os.open, os.fsync

    def watched(path, *rest, **options):
        handle = real_open(path, *rest, **options)
        opened[handle] = str(path)
        return handle

    monkeypatch.setattr(os, "open", watched)
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(opened.get(handle)), real_sync(handle)))
    write_text(tmp_path / "deep" / "er" / "page.html", "text")
    assert {str(tmp_path), str(tmp_path / "deep"), str(tmp_path / "deep" / "er")} <= set(synced)
    synced.clear()
    write_text(tmp_path / "deep" / "er" / "page.html", "text")
    assert str(tmp_path) not in synced  # what was there already is on the disk


def test_who_reads_the_old_file_goes_on_reading_it(tmp_path):
    path = tmp_path / "page.html"
    write_text(path, "old")
    with path.open() as reader:
        write_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "page.html"
    write_text(path, "old")
    with full_after(1000), pytest.raises(PerdureError, match=rf"cannot write {path}: .*free some space"):
        write_text(path, "new" * 1000)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["page.html"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_a_writer_that_fails_half_way_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "page.html"
    write_text(path, "old")

    def half(aside):
        aside.write_text("ne")
        raise error

    with pytest.raises(error):
        write_atomically(path, half)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["page.html"]


def test_a_place_that_is_no_folder_is_an_error_in_words(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "page.html", tmp_path / "file" / "deep" / "page.html"):
        with pytest.raises(PerdureError, match="cannot write"):
            write_text(path, "text")
    with pytest.raises(PerdureError, match="cannot write"):
        write_text(tmp_path, "text")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_are_as_readable_as_the_umask_says(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "page.html", "text")
        write_atomically(tmp_path / "object", lambda aside: save_tensors({"w": torch.zeros(2)}, aside))
        assert os.umask(mask) == mask  # it was only read
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"perdure" * 10_000)
    assert file_hash(tmp_path / "a") == hashlib.sha256(b"perdure" * 10_000).hexdigest()


def old(path):
    """Let a path look as if it was made a while ago."""
    os.utime(path, (0, 0))
    return path


def test_what_killed_writers_left_is_removed_by_the_next_and_what_a_live_one_writes_stays(tmp_path):
    left = tmp_path / ".adx.perdure-killed1"
    left.mkdir()
    (left / "adapter_config.json").write_text("half")
    mine = tmp_path / ".mine"
    mine.mkdir()
    half = tmp_path / ".page.html.perdure-killed2"
    half.write_text("half")
    for path in (left, mine, half):
        old(path)
    with folder_aside(tmp_path / "live") as live:
        assert not left.exists()
        old(live)
        assert remove_left(tmp_path) == 0
        with folder_aside(tmp_path / "adx") as aside:
            assert live.is_dir()
            aside.rename(tmp_path / "adx")
    assert half.exists()
    write_text(tmp_path / "other.html", "another file's leftovers are not looked for")
    assert half.exists()
    write_text(tmp_path / "page.html", "whole")
    assert names(tmp_path) == [".mine", "adx", "other.html", "page.html"]
    assert (tmp_path / "page.html").read_text() == "whole"


def test_a_temporary_folder_is_young_before_it_is_left_over(tmp_path):
    (tmp_path / ".x.perdure-justmade").mkdir()
    assert remove_left(tmp_path) == 0
