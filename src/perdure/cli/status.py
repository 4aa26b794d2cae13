"""`perdure status`: the state of a workspace."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.guard_line import guard_line
from perdure.cli.options import AsJson, Folder, open_ledger
from perdure.cli.output import clock, counted, emit, facts, interval, percent, print_message, print_text, short, table

if TYPE_CHECKING:
    from perdure.ledger import Ledger
    from perdure.ledger.records import KeptRows, RowCounts
    from perdure.workflows.inspect.disk import DiskView
    from perdure.workflows.inspect.view_records import InitialView, UnfinishedLearn


def status(
    on_disk: Annotated[
        bool, typer.Option("--disk", help="Show what takes space on disk, and what 'gc' would free.")
    ] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show head, its tasks and memory, and a candidate that waits for a decision.

    Example: perdure status -w support
    """
    from perdure.workflows.inspect import views

    ledger = open_ledger(folder)
    view, space = views.status(ledger), _space(ledger) if on_disk else None
    if as_json:
        return emit({**view.to_json(), **({"disk": space.to_json()} if space else {})})
    head, gate, edited = view.head, view.gate, view.edits.facts or None
    pairs = {
        "workspace": view.workspace,
        "model": f"{view.model} in {view.dtype}"
        + (f", linear layers in {view.quantization}" if view.quantization else ""),
        "adapter": view.adapter and _initial(view.adapter),
        "head": f"{short(head.entry)}, {head.kind} {head.about or ''}".rstrip() + f", {clock(head.time)} UTC",
        "entries": view.entries,
        "memory": _memory(view.memory, ledger),
        "rows": _rows(view.rows.rows),
        "edits": edited and f"{counted(edited, 'fact')} in force, {view.edits.held} said when last verified",
        "gate": gate and f"{gate.verdict.upper()}, {_reason(ledger, 'head') or gate.reason}",
        "guards": guard_line(view.guard_scores),
    }
    print_text(facts(pairs))
    if view.tasks:
        rows = [
            [name, percent(s), interval(s), s.n if s else "-"] for name, s in ledger.by_shown_name(view.tasks).items()
        ]
        print_text("\n" + table(["task", "score", "95% interval", "n"], rows, right=(1, 2, 3)))
    if space:
        print_text("\n" + _disk(space))
    if unscored := [ledger.shown_name(name) for name, score in view.tasks.items() if score is None]:
        print_message(f"not scored at head: {', '.join(unscored)}; 'perdure eval' scores them")
    if aside := view.candidate:
        what = f"{aside.kind} {ledger.shown_name(aside.task)}" if aside.task else aside.kind
        offer = "'perdure accept' or 'perdure discard'"
        if aside.kind == "learn":
            offer = "'perdure accept', 'perdure discard' or 'perdure learn --repair'"
        print_message(f"candidate {short(aside.entry)} ({what}) waits for {offer}")
        print_message(f"its gate failed: {_reason(ledger, 'candidate') or aside.reason}")
    if who := view.writer:
        print_message(f"being written by process {who.pid} ({who.command}) since {clock(who.time)} UTC")
    if view.unfinished:
        learns = counted(len(view.unfinished), "learn")
        print_message(
            f"{learns} stopped half-way; the same command goes on from its checkpoint: {_stopped(view.unfinished, ledger)}"
        )
    if any(not run.goes_on for run in view.unfinished):
        print_message("those that began at another head go on only from there; 'perdure gc' drops their checkpoints")


def _initial(given: "InitialView") -> str:
    """Return the adapter that the workspace was made with, in words."""
    at = f" at {short(given.revision)}" if given.revision else ""
    layers = counted(given.modules, "layer")
    return f"{given.folder}{at}, {layers}, rank {given.rank}, hash {short(given.object)}; part of the base"


def _reason(ledger: "Ledger", ref: str) -> str | None:
    """Return the sentence of a gate where tasks have aliases; None where its stored sentence is right."""
    if not ledger.aliases:
        return None
    from perdure.cli.learn_screen import reason_of
    from perdure.workflows.inspect import views

    return reason_of(views.gate(ledger, ref).verdict, ledger.aliases)


def _stopped(learns: "Sequence[UnfinishedLearn]", ledger: "Ledger") -> str:
    def text_of(run: "UnfinishedLearn") -> str:
        task = ledger.shown_name(run.task) if run.task else "unknown task"
        return f"{task} ({clock(run.time)} UTC{'' if run.goes_on else ', at another head'})"

    return ", ".join(map(text_of, learns))


def _space(ledger: "Ledger") -> "DiskView":
    from perdure.workflows.inspect.disk import disk

    return disk(ledger)


def _disk(space: "DiskView") -> str:
    """Return a table of bytes on disk by kind, and what can be freed."""
    kinds = {
        "base model": space.base,
        "adapters and edited weights of entries": space.adapters,
        "state of methods, tensors of memory": space.statistics,
        "objects that nothing needs": space.unneeded,
        "ledger with rows": space.rows,
        "checkpoints of stopped learns": space.checkpoints,
        "the user's cache, of all workspaces": space.cache,
        "'perdure gc' frees": space.gc,
        "'perdure gc --abandoned' frees besides": space.abandoned,
    }
    rows = [[name, "not found" if size is None else f"{size:,}"] for name, size in kinds.items()]
    return table(["on disk", "bytes"], rows, right=(1,))


def _memory(counts: "RowCounts", ledger: "Ledger") -> str:
    tasks = ", ".join(f"{task} {n}" for task, n in ledger.by_shown_name(counts.tasks).items())
    return counted(counts.rows, "row") + (f" ({tasks})" if tasks else "")


def _rows(stored: "KeptRows") -> str:
    """Return how many rows are stored with their text, and what for. 'memory stats' shows more.

    The line before counts head's memory; here a row counts that the memory of an earlier entry needs, too.
    """
    with_text = stored.with_text
    words = {"memory": "memory of any entry"}
    parts = ", ".join(f"{words.get(name, name)} {count}" for name, count in with_text.items())
    return f"{sum(with_text.values())} with text" + (f" ({parts})" if parts else "") + f", {stored.names} by hash"
