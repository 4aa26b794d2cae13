"""What stands in a ledger, as plain JSON for people and tools. Nothing here loads a model or, while reading, torch."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.core.errors import BadInput
from perdure.core.outputs import EVIDENCE, EVIDENCE_LINE, write_output
from perdure.core.records import in_stored_order
from perdure.ledger.lock import writer
from perdure.ledger.records import Evidence, GateOff, LearnRecord, Score, Verdict
from perdure.ledger.runs import unfinished
from perdure.workflows.edit.records import NOTE, VERIFIED, about, record_at
from perdure.workflows.inspect.memory_views import Json, held, memory_diff, rows_kept

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger

LEFT_OUT = ("evidence", "memory", "traces", VERIFIED)  # notes that `show` leaves out, or tells otherwise


@dataclass(frozen=True)
class GateView:
    """What a gate decided.

    Args:
        entry: Id of the entry.
        verdict: The decision.
        evidence: What it judged; None where it was switched off.
    """

    entry: str
    verdict: Verdict | GateOff
    evidence: Evidence | None


def status(ledger: "Ledger") -> Json:
    """Return where a workspace stands: model, head, what head knows and remembers, and what waits for a decision."""
    head, aside = ledger.resolve("head"), ledger.candidate()
    learned = ledger.note(head.id, "record", LearnRecord)
    edits = record_at(ledger, head).summary
    return {
        "workspace": str(ledger.root),
        "model": ledger.config.get("model"),
        "dtype": ledger.config.get("dtype"),
        "base": head.base,
        "head": {
            "entry": head.id,
            "kind": head.kind,
            "task": head.task,
            "about": about(ledger, head.id, head.task),
            "time": _times(ledger)[head.id],
        },
        "entries": len(ledger.entries()),
        "refs": ledger.refs(),
        "tasks": {task: cells["now"] for task, cells in score_table(ledger, head).items()},
        "memory": held(ledger, head).to_json(),
        "rows": rows_kept(ledger),
        "edits": {"facts": edits.facts, "held": edits.held},
        "gate": learned and {"verdict": learned.gate.verdict, "reason": learned.gate.reason},
        "candidate": aside and {"entry": aside.id, "task": aside.task, "reason": gate(ledger).verdict.reason},
        "writer": (busy := writer(ledger.root)),
        "unfinished": [
            {"task": run.task, "time": run.time, "goes_on": run.parent in (None, head.id)}
            for run in ([] if busy else unfinished(ledger.root))
        ],
    }


def task_order(ledger: "Ledger", entry: "Entry") -> list[str]:
    """Return the tasks of an entry in the order in which they were learned; the ledger itself keeps them by name."""
    seen: dict[str, None] = {}
    for ancestor in reversed(ledger.ancestors(entry)):
        seen.update(dict.fromkeys(ancestor.tasks))
    return [task for task in seen if task in entry.tasks]


def taken_out(ledger: "Ledger", entry: "Entry", task: str) -> "Entry | None":
    """Return the entry before or at `entry` that took a task out which `entry` does not know; None where none did."""
    if task in entry.tasks:
        return None
    return next((e for e in ledger.ancestors(entry) if e.kind == "revert" and e.data.get("task") == task), None)


def score_table(ledger: "Ledger", entry: "Entry") -> dict[str, dict[str, Json | None]]:
    """Return for each task of an entry its score "before" (at the parent) and "now"; None where not measured.

    Both are of the same test rows: where the parent was scored on others too, as before an update or a deletion, those are
    left out of "before".
    """
    parent = ledger.entry(entry.parent) if entry.parent else None
    table: dict[str, dict[str, Json | None]] = {}
    for task in task_order(ledger, entry):
        version = entry.tasks[task]
        now = _score(ledger, entry, task, version)
        before = _score(ledger, parent, task, version) if parent else None
        if parent and before is None and task in parent.tasks:
            before = _score(ledger, parent, task, parent.tasks[task])
        if before and now:
            before = over_rows(before, now.rows)
        table[task] = {"before": _summary(before), "now": _summary(now)}
    return table


def show(ledger: "Ledger", ref: str) -> Json:
    """Return all that is known of an entry or of the candidate, but for test items and row texts.

    Raises:
        NotFound: Nothing has this name.
    """
    entry = ledger.resolve(ref)
    notes = {key: value for key, value in ledger.notes(entry.id).items() if key not in LEFT_OUT}
    record = dict(notes.pop("record", None) or {})
    if NOTE in notes:
        notes[NOTE] = {key: in_stored_order(part) for key, part in record_at(ledger, entry).to_json().items()}
    slots = {name: {"object": found, "bytes": ledger.objects.size(found)} for name, found in _own_slots(entry)}
    return {
        "entry": entry.id,
        "parent": entry.parent,
        "kind": entry.kind,
        "task": entry.task,
        "about": about(ledger, entry.id, entry.task),
        "time": _times(ledger).get(entry.id),
        "refs": [name for name, target in ledger.refs().items() if target == entry.id],
        "seed": entry.seed,
        "base": entry.base,
        "state": ledger.state(entry),
        "tasks": entry.tasks,
        "data": entry.data,
        "recipe": entry.recipe,
        "slots": slots,
        "memory": held(ledger, entry).to_json(),
        "scores": score_table(ledger, entry),
        "gate": record.pop("gate", None),
        "record": record or None,
        **notes,
    }


def diff(ledger: "Ledger", a: str, b: str) -> Json:
    """Return how entry `b` differs from entry `a`: tasks, recipe, scores paired over test rows, memory and slots.

    Raises:
        NotFound: One of the refs is not known.
    """
    first, second = ledger.resolve(a), ledger.resolve(b)
    ours, theirs = _flat(first.recipe or {}), _flat(second.recipe or {})
    old, new = ledger.slots(first), ledger.slots(second)
    tasks = dict.fromkeys([*task_order(ledger, first), *task_order(ledger, second)])
    return {
        "a": first.id,
        "b": second.id,
        "tasks": _changed(first.tasks, second.tasks),
        "recipe": _changed(ours, theirs),
        "scores": {task: paired(ledger, first, second, task) for task in tasks},
        "memory": memory_diff(ledger, first, second),
        "slots": _changed(old, new),
    }


def gate(ledger: "Ledger", at: str | None = None) -> GateView:
    """Return what a learn's gate decided: at a ref, else the candidate's, else head's.

    Raises:
        NotFound: The ref is not known.
        BadInput: The entry has been through no gate.
    """
    entry = ledger.resolve(at) if at else ledger.candidate() or ledger.resolve("head")
    learned = ledger.note(entry.id, "record", LearnRecord)
    if learned is None:
        raise BadInput(f"entry {entry.id[:12]} ({entry.kind}) has been through no gate; only a learn has")
    return GateView(entry.id, learned.gate, ledger.note(entry.id, "evidence", Evidence))


def save_evidence(ledger: "Ledger", path: Path, at: str | None = None, *, force: bool = False) -> None:
    """Write a gate's evidence, which `evaluate.evidence.check_evidence` judges again without model or ledger.

    Args:
        ledger: The ledger.
        path: The file; older evidence there is replaced.
        at: Ref or entry; the candidate or head by default.
        force: Replace any other file too.

    Raises:
        BadInput: The entry has none, because no gate was asked; or the file is there and no evidence, or a workspace's own.
        PerdureError: The file cannot be written.
    """
    found = gate(ledger, at)
    if found.evidence is None:
        raise BadInput(f"entry {found.entry[:12]} was learned with its gate switched off, so there is no evidence")
    text = json.dumps(in_stored_order(found.evidence.to_json()), indent=1).removeprefix("{\n")
    write_output(path, f"{EVIDENCE_LINE}\n{text}\n", EVIDENCE, force=force, workspaces=[ledger.root])


# ---- what the views share


def over_rows(score: Score, rows: Iterable[str]) -> Score | None:
    """Return a score over those of its test rows that are among `rows`; None where none is."""
    wanted = set(rows)
    if wanted >= set(score.rows):
        return score
    from perdure.evaluate.scorers import score_record  # only here: it loads numpy

    kept = [i for i, row in enumerate(score.rows) if row in wanted]
    if not kept:
        return None
    items, said = [score.items[i] for i in kept], [score.predictions[i] for i in kept]
    return score_record(score.scorer, items, said, [score.rows[i] for i in kept], score.seconds)


def _summary(score: Score | None) -> Json | None:
    return score.summary.to_json() if score else None


def _score(ledger: "Ledger", entry: "Entry", task: str, version: str) -> Score | None:
    return ledger.score(ledger.seen(entry, task), version)


def _times(ledger: "Ledger") -> dict[str, str]:
    return {line.entry: line.time for line in ledger.log()}


def _own_slots(entry: "Entry") -> list[tuple[str, str]]:
    return [(name, found) for name, found in sorted(entry.slots.items()) if found is not None]


def _flat(value: Mapping[str, Any], before: str = "") -> Json:
    """Return nested settings with dotted keys, as `--set` writes them."""
    flat: Json = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{before}{key}.") if isinstance(inner, Mapping) else {f"{before}{key}": inner}
    return flat


def _changed(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return [in a, in b] for each key whose values differ; None where it is not there."""
    return {key: [a.get(key), b.get(key)] for key in {**a, **b} if a.get(key) != b.get(key)}


def paired(ledger: "Ledger", a: "Entry", b: "Entry", task: str) -> Json:
    """Return a task's scores at two entries, and b - a with its interval over the test rows that both scored."""
    from perdure.maths.statistics import paired_difference

    versions = [a.tasks.get(task) or b.tasks[task], b.tasks.get(task) or a.tasks[task]]
    old, new = (_score(ledger, entry, task, version) for entry, version in zip((a, b), versions, strict=True))
    pair: Json = {"a": _summary(old), "b": _summary(new), "change": None}
    if old and new:
        earlier = dict(zip(old.rows, old.items, strict=True))
        items = [(now, earlier[row]) for row, now in zip(new.rows, new.items, strict=True) if row in earlier]
        if items:
            value, low, high = paired_difference([now for now, _ in items], [then for _, then in items])
            pair["change"] = {"value": value, "low": low, "high": high, "n": len(items)}
    return pair
