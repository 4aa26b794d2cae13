"""Crashes, damage, the lock, and what may be thrown away."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from disks import full_after
from perdure.core.errors import Busy, NotFound, PerdureError
from perdure.ledger import Ledger, runs, writing
from perdure.ledger.lock import writer
from record_examples import remembered, score

HOLD = """
import sys, time
from perdure.ledger import writing
with writing(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def everything(root: Path) -> list:
    ledger = Ledger.open(root)
    with ledger.reading() as connection:
        tables = ("entries", "notes", "refs", "reflog", "candidate")
        found = [connection.exec_driver_sql(f"SELECT * FROM {table}").all() for table in tables]
    ledger.close()
    return found


@pytest.mark.parametrize("step", ["_check", "_insert", "_point"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("verb", ["record", "accept"])
def test_a_crash_anywhere_leaves_the_ledger_as_it_was(ledger, root, draft, monkeypatch, step, when, verb) -> None:
    entry = draft(1)  # its object is stored already
    if verb == "accept":
        ledger.put_candidate(entry, {"note": 1})
    before = everything(root)
    original = getattr(ledger, step)

    def crash(*arguments):
        if when == "after":
            original(*arguments)
        raise RuntimeError("crash")

    monkeypatch.setattr(ledger, step, crash)
    with pytest.raises(RuntimeError, match="crash"):
        ledger.accept() if verb == "accept" else ledger.record(entry, {"note": 1})
    assert everything(root) == before
    monkeypatch.undo()
    assert (ledger.accept() if verb == "accept" else ledger.record(entry, {"note": 1})) == entry
    assert ledger.verify().to_json()["problems"] == []


def test_a_process_killed_inside_the_transaction_leaves_the_ledger_as_it_was(ledger, root, draft) -> None:
    entry = draft(1)
    before = everything(root)
    program = (
        "import os, signal, sys, json; from perdure.ledger import Entry, Ledger\n"
        "ledger = Ledger.open(sys.argv[1])\n"
        "move = ledger._point\n"
        "ledger._point = lambda *a: (move(*a), os.kill(os.getpid(), signal.SIGKILL))\n"
        "ledger.record(Entry.from_json(json.loads(sys.argv[2])), {'note': 1})"
    )
    done = subprocess.run([sys.executable, "-c", program, str(root), json.dumps(entry.to_json())])
    assert done.returncode == -signal.SIGKILL
    assert everything(root) == before
    assert ledger.record(entry, {}) == entry


def test_a_full_disk_while_the_row_is_written_leaves_the_ledger_as_it_was(ledger, root, draft) -> None:
    entry = draft(1)
    before = everything(root)
    with ledger.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    with ledger._engine.connect() as connection:  # the pool's one connection keeps the limit
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(PerdureError, match="disk is full; free some space"):
        ledger.record(entry, {"big": "x" * 100_000})
    assert everything(root) == before


def test_readers_read_while_a_writer_writes(ledger, root, draft) -> None:
    first = ledger.record(draft(1), {})
    entry = draft(2)
    with ledger.changing() as connection:
        ledger._insert(connection, entry, {})
        ledger._point(connection, "head", entry.id, "learn")
        assert Ledger.open(root).resolve("head") == first
    with ledger.reading() as snapshot:
        assert snapshot.exec_driver_sql("SELECT COUNT(*) FROM entries").scalar() == 3
        Ledger.open(root).record(draft(3, parent=entry), {})  # without write-ahead mode it would wait for the reader
        assert snapshot.exec_driver_sql("SELECT COUNT(*) FROM entries").scalar() == 3
    assert Ledger.open(root).resolve("head~1") == entry


SCORE = score([1.0, 0.0, 1.0])


def test_a_sound_ledger_verifies(ledger, draft, keep, rows) -> None:
    version = keep(rows[:3], rows[3:])
    memory = ledger.put_manifest([remembered(rows[0])])
    entry = ledger.record(draft(1, tasks={"faq": version}, memory=memory), {})
    ledger.put_score(ledger.state(entry), version, SCORE)
    ledger.put_candidate(draft(2), {})
    assert ledger.verify().to_json() == {"ok": True, "entries": 3, "objects": 2, "problems": []}


DAMAGE = {
    "UPDATE entries SET body = replace(body, '\"seed\":0', '\"seed\":1')": "is not what was recorded",
    "UPDATE entries SET body = '{' WHERE kind = 'learn'": "is not what was recorded",
    "DELETE FROM entries WHERE kind = 'base'": "is missing",
    "UPDATE refs SET entry = 'nothing' WHERE name = 'head'": "ref 'head' names nothing, which is no entry",
    "DELETE FROM refs WHERE name = 'head'": "ref 'head' is missing",
    "DELETE FROM manifests": "memory manifest .* is missing",
    "UPDATE manifests SET items = '[]'": "memory manifest .* is not what was recorded",
    "DELETE FROM rows": "names .*rows that are missing",
    "UPDATE rows SET body = replace(body, 'answer 1', 'answer 7')": "row .* is not what was recorded",
    "DELETE FROM tasks": "version .* of task 'faq' is missing",
    "DELETE FROM task_rows WHERE split = 'train' AND position = 2": "version .* of task 'faq' is not what was recorded",
    "UPDATE task_rows SET split = 'validation' WHERE split = 'test'": "version .* of task 'faq' is not what was recorded",
    'UPDATE tasks SET spec = replace(spec, \'"format":"\', \'"format":"x\')': "of task 'faq' is not what was recorded",
    "UPDATE tasks SET spec = '{}'": "of task 'faq' is not what was recorded",
    "UPDATE scores SET record = replace(record, '\"score\":0', '\"score\":1')": "is not the mean of its items",
    "UPDATE scores SET record = replace(record, '\"n\":3', '\"n\":4')": "is not the mean of its items",
    "DROP TABLE rows": "table 'rows' is missing",
    "DROP TABLE reflog": "table 'reflog' is missing",
}


@pytest.mark.parametrize("statement", DAMAGE)
def test_verify_finds_what_was_tampered_with(ledger, draft, keep, rows, statement: str) -> None:
    version = keep(rows[:3], rows[3:])
    memory = ledger.put_manifest([remembered(rows[0])])
    entry = ledger.record(draft(1, tasks={"faq": version}, memory=memory), {})
    ledger.put_score(ledger.state(entry), version, SCORE)
    with ledger.changing() as connection:
        assert connection.exec_driver_sql(statement).rowcount != 0
    found = ledger.verify().to_json()
    assert not found["ok"]
    assert any(re.search(DAMAGE[statement], problem) for problem in found["problems"]), found


def test_a_task_that_lost_a_row_on_purpose_is_sound_and_its_train_rows_are_still_checked(ledger, keep, rows) -> None:
    keep(rows[:3], rows[3:])
    ledger.delete_row(rows[0].hash)
    assert ledger.verify().to_json()["problems"] == []
    with ledger.changing() as connection:
        connection.exec_driver_sql("DELETE FROM task_rows WHERE split = 'train' AND position = 0")
    assert any("of task 'faq' is not what was recorded" in problem for problem in ledger.verify().to_json()["problems"])


def test_verify_finds_a_damaged_and_a_missing_object(ledger, draft, put) -> None:
    ledger.record(draft(1), {})
    ledger.record(draft(2), {})
    damaged, missing = ledger.objects.path(put(1)), ledger.objects.path(put(2))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    missing.unlink()
    found = ledger.verify().to_json()
    assert any("object" in p and "is damaged" in p and damaged.stem[:12] in p for p in found["problems"])
    assert any("entry" in p and f"object {missing.stem[:12]} is missing" in p for p in found["problems"])
    assert len(found["problems"]) == 2


def test_gc_removes_exactly_what_neither_entry_nor_candidate_names(ledger, draft, put) -> None:
    ledger.record(draft(1), {})
    ledger.move("head", ledger.resolve("base").id, "rollback")  # an entry off head's line still counts
    ledger.put_candidate(draft(2, columns=put(3)), {})
    loose = put(4)
    size = ledger.objects.size(loose)
    assert ledger.gc().to_json() == {"removed": 1, "rows": 0, "runs": 0, "bytes": size}
    assert ledger.objects.all() == {put(1), put(2), put(3)}
    ledger.discard()
    assert ledger.gc().to_json()["removed"] == 2
    assert ledger.gc().to_json() == {"removed": 0, "rows": 0, "runs": 0, "bytes": 0}
    assert ledger.verify().to_json()["ok"]


def test_gc_drops_checkpoints_of_learns_that_began_at_another_head(ledger, draft) -> None:
    base = ledger.resolve("base").id
    for name in ("old", "new", "unknown"):
        (ledger.root / "runs" / name).mkdir(parents=True)
        (ledger.root / "runs" / name / "checkpoint.safetensors").write_bytes(b"x" * 1000)
    runs.note(ledger.root / "runs" / "old", "parcel", base)
    runs.note(ledger.root / "runs" / "new", "invoice", ledger.record(draft(1), {}).id)
    found = {run.folder.name: (run.task, run.parent) for run in runs.unfinished(ledger.root)}
    head = ledger.resolve("head").id
    assert found == {"old": ("parcel", base), "new": ("invoice", head), "unknown": (None, None)}
    told = ledger.gc().to_json()
    assert (told["removed"], told["runs"]) == (0, 1)
    assert told["bytes"] > 1000
    assert {run.folder.name for run in runs.unfinished(ledger.root)} == {"new", "unknown"}
    assert not (ledger.root / "runs" / "old").exists()


def test_a_second_writer_is_told_who_writes_and_a_killed_holder_frees_the_lock(ledger, root) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Busy, match=rf"written by process {holder.pid} \(-c .*\) since 20\d\d-"), writing(root):
            pass
        assert ledger.resolve("head").kind == "base"  # readers do not care
        assert writer(root).pid == holder.pid
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert writer(root) is None  # though the lock file still names it
    with writing(root):
        with pytest.raises(Busy, match=f"process {os.getpid()} "), writing(root):
            pass
        with pytest.raises(Busy):  # a refused writer has not let the next one in
            writing(root).__enter__()
    with writing(root):
        assert (root / "lock").read_text() != ""
    assert (root / "lock").read_text() == ""


def test_an_error_under_the_lock_frees_it(root, ledger) -> None:
    with pytest.raises(ValueError, match="inside"), writing(root):
        raise ValueError("inside")
    with writing(root):
        pass


def test_a_lock_needs_a_workspace(tmp_path) -> None:
    with pytest.raises(NotFound, match="is no workspace"), writing(tmp_path / "nowhere"):
        pass


def test_a_lock_that_cannot_be_written_is_an_error_in_words(root, ledger) -> None:
    (root / "lock").mkdir()
    with pytest.raises(PerdureError, match=r"cannot write .*lock: .*; get write permission"), writing(root):
        pass


def test_records_from_many_threads_all_arrive(ledger, draft) -> None:
    drafts = [draft(number) for number in range(8)]
    threads = [threading.Thread(target=ledger.record, args=(entry, {}, f"try/{i}")) for i, entry in enumerate(drafts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.id for entry in drafts} <= {line.entry for line in ledger.log()}


def test_opening_and_listing_200_entries_is_little_work_and_needs_no_torch(ledger, root, draft) -> None:
    for number in range(200):
        ledger.record(draft(1, seed=number), {"loss": [[i, 1.0] for i in range(20)]})
    program = (
        "import sys; import perdure.ledger as room\n"
        "calls = 0\n"
        "def count(frame, event, what):\n"
        "    global calls\n"
        "    calls += event in ('call', 'c_call')\n"
        "def look():\n"
        "    ledger = room.Ledger.open(sys.argv[1]); assert len(ledger.log()) == 201\n"
        "    ledger.refs(), ledger.candidate(), ledger.state(ledger.resolve('head')), ledger.close()\n"
        "look(); sys.setprofile(count); look(); sys.setprofile(None)\n"
        "print(calls, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True)
    calls, torch_loaded, numpy_loaded = done.stdout.split()
    assert (torch_loaded, numpy_loaded) == ("False", "False")
    assert int(calls) < 50_000  # it is 27,000: some 130 for each entry, and no object is read


def test_reading_writes_nothing_and_needs_no_space(ledger, root, draft, keep, rows) -> None:
    keep(rows[:3], rows[3:])
    ledger.record(draft(1), {"record": {}})
    ledger.close()
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    folder = root.stat().st_mtime_ns
    with full_after(0):
        again = Ledger.open(root)
        assert [entry.kind for entry in again.entries()] == ["base", "learn"]
        assert len(again.log()) == 2
        assert len(again.kept_rows()) == 5
        assert again.verify().to_json()["ok"]
        again.close()
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert root.stat().st_mtime_ns == folder


def test_a_reader_sees_what_was_written_since_it_opened_and_what_a_killed_writer_left_in_the_log(
    ledger, root, draft
) -> None:
    reader = Ledger.open(root)
    assert len(reader.entries()) == 1
    ledger.record(draft(1), {})
    assert len(reader.entries()) == 2  # from the log, which the writer has open
    ledger.record(draft(2), {})
    copy = shutil.copytree(root, root.parent / "copy")  # as a kill leaves it: with a log
    assert (copy / "ledger.sqlite-wal").stat().st_size > 0
    assert len(Ledger.open(copy).entries()) == 3
    ledger.close()
    assert len(reader.entries()) == 3


def test_a_file_that_changes_under_a_reader_is_busy(ledger, root) -> None:
    ledger.close()
    reader = Ledger.open(root)
    reading = reader.reading()
    reading.__enter__()
    os.utime(root / "ledger.sqlite", (1, 1))
    with pytest.raises(Busy, match="was changed while it was read"):
        reading.__exit__(None, None, None)


def test_gc_on_a_full_disk_frees_objects_first(ledger, root, draft, put) -> None:
    ledger.record(draft(1), {})
    loose = put(5)
    ledger.close()
    with full_after(0), writing(root):
        found = Ledger.open(root).gc().to_json()
    assert found["removed"] == 1
    assert not ledger.objects.path(loose).exists()
    assert ledger.verify().to_json()["ok"]
