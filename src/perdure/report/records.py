"""What several sections ask of the records: which entries learned, which lead to head, which interval a cell has."""

import math
from typing import Any

Record = dict[str, Any]
MEASURES = ("efficacy", "paraphrase", "neighbourhood", "generation")  # of an edited fact


def learned(data: Record) -> list[Record]:
    """Return the entries that carry a learn record, oldest first."""
    return [entry for entry in data["entries"] if entry.get("record")]


def lineage(data: Record, entry: str | None) -> list[str]:
    """Return `entry` and its ancestors, newest first; unknown ids end the walk."""
    parents = {e["entry"]: e.get("parent") for e in data["entries"]}
    found: list[str] = []
    while entry is not None and entry in parents and entry not in found:
        found.append(entry)
        entry = parents[entry]
    return found


def scores(data: Record) -> dict[tuple[str, str], Record]:
    """Return the score record of every (entry id, task) that was measured."""
    return {(e["entry"], task): score for e in data["entries"] for task, score in (e.get("scores") or {}).items()}


def learned_at(matrix: Record, task: str) -> int | None:
    """Return the first stage that learned `task`, or None; the metrics count what is kept from there."""
    return next((i for i, stage in enumerate(matrix["stages"]) if learns(stage, task)), None)


def other_rows(matrix: Record, stage: int, task: int) -> bool:
    """Tell whether a cell was scored on other test rows than the newest measured cell of its task."""
    named = [line[task] for line in matrix.get("test", ()) if line[task] is not None]
    return bool(named) and matrix["test"][stage][task] not in (None, named[-1])


def learns(stage: Record, task: str) -> bool:
    """Tell whether a stage learned `task`."""
    return stage["kind"] == "learn" and stage.get("task") == task


def finite(value: object) -> bool:
    """Tell whether `value` is a number that can be drawn."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def gate_of(entry: Record) -> Record | None:
    """Return the gate verdict of an entry, or None where no gate was asked."""
    return (entry.get("record") or {}).get("gate")
