"""What is in a ledger, for people and tools. Nothing here loads a model or, while reading, torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import JsonValue

from perdure.core.errors import BadInput
from perdure.core.outputs import EVIDENCE, EVIDENCE_LINE, write_output
from perdure.core.records import in_stored_order
from perdure.core.slots import INITIAL, kind_of_slot
from perdure.ledger.lock import writer
from perdure.ledger.records import (
    ADAPTER,
    CHECKED,
    CHECKUP,
    GATE,
    SIGNATURE,
    EditNote,
    Evidence,
    GateOff,
    InitialAdapter,
    LearnRecord,
    RevertNote,
    Signature,
    Verdict,
)
from perdure.ledger.runs import unfinished
from perdure.workflows.edit.records import about
from perdure.workflows.fact_records import NOTE, VERIFIED, record_at
from perdure.workflows.inspect.guard_lines import guards_at
from perdure.workflows.inspect.memory_views import held, memory_diff, rows_kept
from perdure.workflows.inspect.score_views import paired_tasks, score_table
from perdure.workflows.inspect.view_records import (
    CandidateView,
    DiffView,
    EditsView,
    EntryView,
    GateView,
    GateWord,
    HeadView,
    InitialView,
    SlotView,
    StatusView,
    UnfinishedLearn,
)

if TYPE_CHECKING:
    from perdure.ledger import Ledger

LEFT_OUT = (
    "record",
    "evidence",
    "memory",
    "traces",
    CHECKED,
    CHECKUP,
    VERIFIED,
    SIGNATURE,
    GATE,
)  # notes that `show` leaves out, or shows in another form
T = TypeVar("T")


def status(ledger: "Ledger") -> StatusView:
    """Return the status of a workspace: model, head, its tasks and memory, and a candidate that waits for a decision."""
    head, aside = ledger.resolve("head"), ledger.candidate()
    verdict = verdict_at(ledger, head.id)
    edits, busy = record_at(ledger, head).summary, writer(ledger.root)
    return StatusView(
        workspace=str(ledger.root),
        model=ledger.model,
        dtype=ledger.config["dtype"],
        quantization=ledger.config.get("quantization"),
        base=head.base,
        head=HeadView(head.id, head.kind, head.task, about(ledger, head.id, head.task), _times(ledger)[head.id]),
        entries=len(ledger.entries()),
        refs=ledger.refs(),
        tasks={task: cells.now for task, cells in score_table(ledger, head).items()},
        memory=held(ledger, head),
        rows=rows_kept(ledger),
        edits=EditsView(edits.facts, edits.held),
        gate=GateWord(verdict.verdict, verdict.reason) if verdict else None,
        candidate=CandidateView(aside.id, aside.task, gate(ledger).verdict.reason, aside.kind) if aside else None,
        writer=busy,
        unfinished=tuple(
            UnfinishedLearn(run.task, run.time, run.parent in (None, head.id))
            for run in ([] if busy else unfinished(ledger.root))
        ),
        aliases=ledger.aliases or None,
        adapter=initial_view(ledger),
        guard_scores=guards_at(ledger, head, verdict),
    )


def initial_view(ledger: "Ledger") -> InitialView | None:
    """Return the adapter that a workspace was made with; None without one."""
    base = ledger.resolve("base")
    given = ledger.note(base.id, ADAPTER, InitialAdapter)
    if given is None:
        return None
    stored = ledger.slots(base)[INITIAL]
    return InitialView(given.folder, given.modules, given.rank, stored, given.revision)


def show(ledger: "Ledger", ref: str) -> EntryView:
    """Return all that is known of an entry or of the candidate, but for test items and row texts.

    Raises:
        NotFound: Nothing has this name.
    """
    entry = ledger.resolve(ref)
    notes = {key: value for key, value in ledger.notes(entry.id).items() if key not in LEFT_OUT}
    edits = record_at(ledger, entry) if NOTE in notes else None
    if edits:
        notes[NOTE] = {key: in_stored_order(part) for key, part in edits.to_json().items()}
    reverted, verdict = notes.get("revert"), verdict_at(ledger, entry.id)
    of_facts = isinstance(reverted, dict) and "reverted" in reverted  # and not of a task
    return EntryView(
        entry=entry,
        about=about(ledger, entry.id, entry.task),
        time=_times(ledger).get(entry.id),
        refs=tuple(name for name, target in ledger.refs().items() if target == entry.id),
        state=ledger.state(entry),
        slots=_views(ledger, {name: slot for name, slot in sorted(entry.slots.items()) if slot is not None}),
        view=_views(ledger, ledger.slots(entry)),
        memory=held(ledger, entry),
        scores=score_table(ledger, entry),
        learned=ledger.note(entry.id, "record", LearnRecord),
        gate=verdict,
        edits=edits,
        edit=ledger.note(entry.id, "edit", EditNote),
        revert=ledger.note(entry.id, "revert", RevertNote) if of_facts else None,
        notes=notes,
        signature=ledger.note(entry.id, SIGNATURE, Signature) or Signature(),
        guard_scores=guards_at(ledger, entry, verdict),
    )


def diff(ledger: "Ledger", a: str, b: str) -> DiffView:
    """Return how entry `b` differs from entry `a`: tasks, recipe, scores paired over test rows, memory and slots.

    Raises:
        NotFound: One of the refs is not known.
    """
    first, second = ledger.resolve(a), ledger.resolve(b)
    return DiffView(
        a=first.id,
        b=second.id,
        tasks=_changed(first.tasks, second.tasks),
        recipe=_changed(_flat(first.recipe or {}), _flat(second.recipe or {})),
        scores=paired_tasks(ledger, first, second),
        memory=memory_diff(ledger, first, second),
        slots=_changed(ledger.slots(first), ledger.slots(second)),
    )


def gate(ledger: "Ledger", at: str | None = None) -> GateView:
    """Return what a gate decided on a learn or a merge, or said of an edit or a revert.

    It is that of a ref, else the candidate's, else head's.

    Raises:
        NotFound: The ref is not known.
        BadInput: The entry has been through no gate.
    """
    entry = ledger.resolve(at) if at else ledger.candidate() or ledger.resolve("head")
    verdict = verdict_at(ledger, entry.id)
    if verdict is None:
        raise BadInput(
            f"entry {entry.id[:12]} ({entry.kind}) has been through no gate; only a learn or a merge has, and an edit or a "
            "revert after which tasks were scored"
        )
    return GateView(entry.id, entry.kind, verdict, ledger.note(entry.id, "evidence", Evidence))


def verdict_at(ledger: "Ledger", entry: str) -> "Verdict | GateOff | None":
    """Return what a gate decided on a learn or a merge, or said of an edit or a revert; None of any other entry.

    Args:
        ledger: The ledger.
        entry: Id of an entry or of the candidate.
    """
    learned = ledger.note(entry, "record", LearnRecord)
    return learned.gate if learned else ledger.note(entry, GATE, Verdict)


def save_evidence(ledger: "Ledger", path: Path, at: str | None = None, *, force: bool = False) -> None:
    """Write a gate's evidence, which `evaluate.evidence.check_evidence` judges again without model or ledger.

    Args:
        ledger: The ledger.
        path: The file; older evidence there is replaced.
        at: Ref or entry; the candidate or head by default.
        force: Replace any other file too.

    Raises:
        BadInput: The entry has none, because its gate was off; or the file is there and no evidence, or a workspace's own.
        PerdureError: The file cannot be written.
    """
    view = gate(ledger, at)
    if view.evidence is None:
        why = "was learned with its gate switched off" if view.kind == "learn" else f"is of kind {view.kind}"
        raise BadInput(f"entry {view.entry[:12]} {why}, so there is no evidence")
    text = json.dumps(in_stored_order(view.evidence.to_json()), indent=1).removeprefix("{\n")
    write_output(path, f"{EVIDENCE_LINE}\n{text}\n", EVIDENCE, force=force, workspaces=[ledger.root])


def _times(ledger: "Ledger") -> dict[str, str]:
    return {line.entry: line.time for line in ledger.log()}


def _views(ledger: "Ledger", slots: Mapping[str, str]) -> dict[str, SlotView]:
    return {name: SlotView(kind_of_slot(name), slot, ledger.objects.size(slot)) for name, slot in slots.items()}


def _flat(value: Mapping[str, JsonValue], before: str = "") -> dict[str, JsonValue]:
    """Return nested settings with dotted keys, as `--set` writes them."""
    flat: dict[str, JsonValue] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{before}{key}.") if isinstance(inner, dict) else {f"{before}{key}": inner}
    return flat


def _changed(a: Mapping[str, T], b: Mapping[str, T]) -> dict[str, tuple[T | None, T | None]]:
    """Return (in a, in b) for each key whose values differ; None where it is not there."""
    return {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)}
