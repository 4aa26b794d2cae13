"""`perdure task remove`: a task is not replayed, scored or guarded any more, and its weights stay."""

from pathlib import Path

from shell import contents, learn_quickly, run, run_json

from perdure import Workspace


def test_a_removed_task_is_neither_replayed_nor_scored_nor_guarded_and_the_weights_stay(ws: Path, files: Path) -> None:
    ledger = Workspace.open(ws).ledger
    before, state = run_json("-w", ws, "status"), ledger.state(ledger.resolve("head"))
    assert "parcel" in before["memory"]["tasks"]
    removed = run("-w", ws, "task", "remove", "parcel", "-m", "sold")
    entry = ledger.resolve("head")
    assert f"removed task parcel: entry {entry.id[:12]}" in removed.stdout
    assert "head knows invoice" in removed.stdout
    assert "what the weights learned of parcel stays in them" in removed.stderr
    assert (entry.kind, entry.task, list(entry.tasks), entry.slots) == ("revert", "parcel", ["invoice"], {})
    assert ledger.state(entry) == state
    after = run_json("-w", ws, "status")
    assert after["tasks"] == {"invoice": before["tasks"]["invoice"]}  # the same weights: nothing is scored again
    assert "parcel" not in after["memory"]["tasks"]
    assert run_json("-w", ws, "matrix")["tasks"] == ["invoice"]
    assert run_json("-w", ws, "log")[0]["message"] == "sold"
    assert "was taken out in entry" in run("-w", ws, "eval", "parcel").stderr
    shown = " ".join(run("-w", ws, "status").stdout.split())
    counts = after["rows"]
    assert f"memory of any entry {counts['memory']}" in shown  # and the line before counts head's memory
    assert f"memory {after['memory']['rows']} row" in shown
    refused = run("-w", ws, "revert", "head", code=1).stderr
    assert f"entry {entry.id[:12]} took task parcel out" in refused
    assert "or learn it again" in refused
    stored = contents(ws)
    again = run_json("-w", ws, "task", "remove", "parcel")
    assert (again["entry"], again["already"], again["tasks"]) == (entry.id, True, ["invoice"])
    assert "was taken out before" in run("-w", ws, "revert", "parcel").stdout
    assert "no task 'parcle' is known" in run("-w", ws, "task", "remove", "parcle", code=1).stderr
    assert contents(ws)["rows"]["entries"] == stored["rows"]["entries"]
    learn_quickly(ws, files, "invoice", "--no-gate", "--set", "learning_rate=1e-5")  # an update: parcel is out of it
    assert list(run_json("-w", ws, "status")["tasks"]) == ["invoice"]
    assert run_json("-w", ws, "verify")["ok"]
    run("-w", ws, "rollback", "head~2")
    assert run_json("-w", ws, "status")["memory"] == before["memory"]
