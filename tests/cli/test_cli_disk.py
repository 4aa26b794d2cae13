"""What takes space on disk, and the entries that nothing reaches."""

from pathlib import Path

import pytest
from shell import learn_quickly, run, run_json

from perdure import Workspace
from perdure.cli import store


def test_status_shows_what_takes_space_and_what_gc_would_free(ws: Path, tiny_model: Path) -> None:
    assert "disk" not in run_json("-w", ws, "status")
    space = run_json("-w", ws, "status", "--disk")["disk"]
    files = {path: path.stat().st_size for path in ws.rglob("*") if path.is_file()}
    objects = sum(size for path, size in files.items() if path.suffix == ".safetensors")
    assert space["adapters"] + space["statistics"] + space["unneeded"] == objects
    assert space["rows"] == sum(size for path, size in files.items() if path.name.startswith("ledger.sqlite"))
    assert space["base"] == sum(path.stat().st_size for path in tiny_model.rglob("*") if path.is_file())
    assert (space["adapters"] > 0, space["gc"], space["abandoned"], space["checkpoints"]) == (True, 0, 0, 0)
    (ws / "moments").mkdir()
    (ws / "moments" / "a.safetensors").write_bytes(b"1234")
    (ws / "runs" / "killed").mkdir(parents=True)
    (ws / "runs" / "killed" / "about.json").write_bytes(b"12345")
    run("-w", ws, "rollback", "head~1")
    after = run_json("-w", ws, "status", "--disk")["disk"]
    assert (after["gc"], after["checkpoints"], after["cache"] - space["cache"]) == (9, 5, 4)
    assert after["abandoned"] > 0
    assert f"{after['abandoned']:,}" in run("-w", ws, "status", "--disk").stdout
    assert run_json("-w", ws, "gc")["bytes"] == after["gc"]
    freed = Workspace.open(ws).gc(abandoned=True)
    assert freed.removed > 0
    assert freed.bytes >= after["abandoned"]
    last = run_json("-w", ws, "status", "--disk")["disk"]
    assert (last["gc"], last["abandoned"], last["adapters"]) == (
        0,
        0,
        after["adapters"] + after["statistics"] - after["abandoned"] - last["statistics"],
    )


def test_what_no_ref_reaches_is_listed_and_deleted_on_consent(
    ws: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Workspace.open(ws)  # of another process, which read the entries before
    head = reader.ledger.resolve("head")
    assert run_json("-w", ws, "gc", "--abandoned") == {"removed": 0, "rows": 0, "runs": 0, "bytes": 0}
    assert "give both" in run("-w", ws, "gc", "--yes", code=2).stderr
    run("-w", ws, "rollback", "head~1")
    refused = run("-w", ws, "gc", "--abandoned", code=1)
    assert head.id[:12] in refused.stderr
    assert "add --yes" in refused.stderr
    monkeypatch.setattr(store, "at_terminal", lambda: True)
    run("-w", ws, "gc", "--abandoned", code=1, input="n\n")
    assert next(iter(reader.log())).entry == head.id
    reader.ledger.move("tag/old", head.id, "a tag")
    assert run_json("-w", ws, "gc", "--abandoned", "--yes")["removed"] == 0  # a ref reaches it
    with reader.ledger.changing() as connection:
        connection.exec_driver_sql("DELETE FROM refs WHERE name = 'tag/old'")
    assert "1 abandoned entry removed" in run("-w", ws, "gc", "--abandoned", input="y\n").stdout
    ledger = Workspace.open(ws).ledger
    assert head.id not in {line["entry"] for line in run_json("-w", ws, "log", "--all")}
    assert ledger.notes(head.id) == {}
    assert not head.objects & ledger.objects.all() - ledger.resolve("head").objects
    assert run_json("-w", ws, "verify")["ok"]
    run("-w", ws, "report", "-o", ws.parent / "report.html")
    learn_quickly(ws, files, "invoice", "--no-gate")
    assert reader.ledger.resolve("head").id == head.id  # learned again: the same id, and the other process sees it
    assert [entry.id for entry in reader.ledger.entries()] == [
        entry.id for entry in Workspace.open(ws).ledger.entries()
    ]
    assert run_json("-w", ws, "verify")["ok"]


def test_an_entry_that_is_reached_meanwhile_stays_and_a_discarded_line_goes(ws: Path) -> None:
    ledger = Workspace.open(ws).ledger
    head = ledger.resolve("head")
    ledger.move("head", str(head.parent), "rollback")
    names = [entry.id for entry in ledger.abandoned()]
    assert names == [head.id]
    ledger.move("again", head.id, "a ref")
    assert ledger.remove_abandoned(names) == 0
    ledger.move("again", str(head.parent), "moved")
    assert ledger.remove_abandoned(()) == 0
    assert ledger.remove_abandoned(names) == 1
    assert not ledger.abandoned()
