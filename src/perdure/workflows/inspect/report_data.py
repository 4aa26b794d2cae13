"""The records that the report draws, of one workspace and of others beside it."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING

from perdure.ledger.records import Score
from perdure.maths.statistics import interval_name
from perdure.workflows.edit.records import NOTE, counted, records
from perdure.workflows.inspect.compare import side_by_side
from perdure.workflows.inspect.matrix import matrix
from perdure.workflows.inspect.memory_views import held
from perdure.workflows.inspect.views import Json

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger


def report_data(ledger: "Ledger", compare: "Mapping[str, Ledger] | None" = None) -> Json:
    """Return the records that `perdure.report` draws.

    Args:
        ledger: Of the workspace.
        compare: Ledgers of other workspaces by the name they get, whose matrix stands beside this one's.
    """
    from perdure import __version__

    head, entries = ledger.resolve("head"), ledger.entries()
    logged = {line["entry"]: line for line in ledger.log()}
    scores, line = _all_scores(ledger, head, entries), list(reversed(ledger.ancestors(head)))
    recipes = {entry.recipe["name"] for entry in line if entry.recipe}
    edited = {entry.id: record for entry, record in zip(line, records(ledger, line), strict=True)}
    return {
        "workspace": {
            "name": ledger.root.name,
            "model": ledger.config.get("model"),
            "base": head.base,
            "created": logged[entries[0].id]["time"],
            "version": __version__,
            "recipe": recipes.pop() if len(recipes) == 1 else None,
        },
        "head": head.id,
        "facts": edited[head.id]["facts"],
        "matrix": matrix(ledger, parts=True),
        "entries": [{**logged[e.id], "scores": scores[e.id], **_reported(ledger, e, edited)} for e in entries],
        "reflog": [move for move in reversed(ledger.reflog()) if move["old"]],
        "compare": [{"name": name, **side_by_side(ledger, other)} for name, other in (compare or {}).items()],
    }


def _reported(ledger: "Ledger", entry: "Entry", edited: Mapping[str, Json]) -> Json:
    """Return the learn record, the memory as it is now, the edits and the traces of an entry; a gate that was off is none."""
    notes = ledger.notes(entry.id)
    record = notes.get("record")
    if record and record["gate"]["verdict"] == "off":
        record = {**record, "gate": None}
    facts = counted(edited[entry.id]) if NOTE in notes and entry.id in edited else None
    return {"record": record, NOTE: facts, "memory": held(ledger, entry), "traces": notes.get("traces")}


def _all_scores(ledger: "Ledger", head: "Entry", entries: Iterable["Entry"]) -> dict[str, dict[str, Json]]:
    """Return every measured cell by entry and task; before a task is known its first version counts, as in the matrix."""
    first: dict[str, str] = {}
    for entry in chain(reversed(ledger.ancestors(head)), entries):
        first = {**entry.tasks, **first}
    seen = {entry.id: ledger.seen_by(entry, first) for entry in entries}
    states = {state for line in seen.values() for state in line.values()}
    wanted = {version for entry in entries for version in (*entry.tasks.values(), *first.values())}
    found = ledger.scores(states, wanted)
    cells = {e.id: {t: found.get((seen[e.id][t], e.tasks.get(t, v))) for t, v in first.items()} for e in entries}
    return {name: {task: _named(score) for task, score in line.items() if score} for name, line in cells.items()}


def _named(score: Score) -> Json:
    """Return a score with its interval, and by whose method that was made."""
    return {**score.summary.to_json(), "interval": interval_name(score.items)}
