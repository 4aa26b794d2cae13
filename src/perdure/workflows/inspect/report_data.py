"""The records that the report draws, of one workspace and of others to compare with."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from perdure.ledger.guards import REF
from perdure.ledger.records import SIGNATURE, GateOff, LearnRecord, Signature
from perdure.maths.statistics import interval_name
from perdure.workflows.checkup_records import Checkup, last_checkup
from perdure.workflows.fact_records import NOTE, records
from perdure.workflows.inspect.compare import side_by_side
from perdure.workflows.inspect.guard_views import guard_report
from perdure.workflows.inspect.matrix import matrix
from perdure.workflows.inspect.memory_views import held
from perdure.workflows.inspect.report_records import (
    ReportData,
    ReportedScore,
    ReportEntry,
    RoutedReport,
    WorkspaceInfo,
)
from perdure.workflows.inspect.routed_views import routed_report
from perdure.workflows.inspect.trace_notes import traces_at
from perdure.workflows.inspect.views import initial_view

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger


def report_data(ledger: "Ledger", compare: "Mapping[str, Ledger] | None" = None) -> ReportData:
    """Return the records that `perdure.report` draws.

    Args:
        ledger: Of the workspace.
        compare: Ledgers of other workspaces by name, whose matrix is shown next to this one.
    """
    from perdure import __version__

    head, entries = ledger.resolve("head"), ledger.entries()
    logged = {line.entry: line for line in ledger.log()}
    scores, line = _all_scores(ledger, head, entries), list(reversed(ledger.ancestors(head)))
    recipes = {entry.recipe["name"] for entry in line if entry.recipe}
    edited = {entry.id: record for entry, record in zip(line, records(ledger, line), strict=True)}
    facts = {name: record.summary for name, record in edited.items() if NOTE in ledger.notes(name)}
    data = ReportData(
        workspace=WorkspaceInfo(
            name=ledger.root.name,
            model=ledger.model,
            base=head.base,
            created=logged[entries[0].id].time,
            version=__version__,
            recipe=recipes.pop() if len(recipes) == 1 else None,
            quantization=ledger.config.get("quantization"),
            adapter=initial_view(ledger),
        ),
        head=head.id,
        facts=edited[head.id].facts,
        matrix=matrix(ledger, parts=True),
        entries=tuple(
            ReportEntry(
                **vars(logged[entry.id]),
                scores=scores[entry.id],
                record=ledger.note(entry.id, "record", LearnRecord),
                memory=held(ledger, entry),
                edits=facts.get(entry.id),
                traces=traces_at(ledger, entry),
                signature=ledger.note(entry.id, SIGNATURE, Signature) or Signature(),
            )
            for entry in entries
        ),
        reflog=tuple(move for move in reversed(ledger.reflog()) if move.old),
        references=tuple(move for guard in ledger.guards() for move in reversed(ledger.reflog(REF.format(guard.name)))),
        guards=guard_report(ledger, line),
        routed=routed_report(ledger, head),
        checkup=last_checkup(ledger, head),
        compare=tuple(side_by_side(ledger, name, other) for name, other in (compare or {}).items()),
    )
    return _renamed(data, ledger) if ledger.aliases else data


def _renamed(data: ReportData, ledger: "Ledger") -> ReportData:
    """Return what a report draws, each renamed task under its alias; the same task of another workspace too."""
    compare = tuple(
        replace(
            other,
            matrix=other.matrix.renamed(ledger.aliases),
            curves=tuple(map(ledger.shown_name, other.curves)),
        )
        for other in data.compare
    )
    return replace(
        data,
        matrix=data.matrix.renamed(ledger.aliases),
        routed=data.routed and _routed_renamed(data.routed, ledger),
        checkup=data.checkup and _checkup_renamed(data.checkup, ledger),
        entries=tuple(_entry_renamed(entry, ledger) for entry in data.entries),
        compare=compare,
    )


def _checkup_renamed(checkup: Checkup, ledger: "Ledger") -> Checkup:
    from perdure.evaluate.gate import renamed

    return replace(checkup, tasks=ledger.by_shown_name(checkup.tasks), gate=renamed(checkup.gate, ledger.aliases))


def _routed_renamed(routed: RoutedReport, ledger: "Ledger") -> RoutedReport:
    views = tuple(replace(view, task=ledger.shown_name(view.task)) for view in routed.views)
    return RoutedReport(routed.matrix and routed.matrix.renamed(ledger.aliases), views)


def _entry_renamed(entry: ReportEntry, ledger: "Ledger") -> ReportEntry:
    from perdure.evaluate.gate import renamed

    record = entry.record
    if record and not isinstance(record.gate, GateOff):
        record = replace(record, gate=renamed(record.gate, ledger.aliases))
    return replace(
        entry,
        task=entry.task and ledger.shown_name(entry.task),
        scores=ledger.by_shown_name(entry.scores),
        record=record,
        memory=replace(entry.memory, tasks=ledger.by_shown_name(entry.memory.tasks)),
    )


def _all_scores(ledger: "Ledger", head: "Entry", entries: Iterable["Entry"]) -> dict[str, dict[str, ReportedScore]]:
    """Return every measured cell by entry and task; before a task is known its first version counts, as in the matrix."""
    first: dict[str, str] = {}
    for entry in chain(reversed(ledger.ancestors(head)), entries):
        first = {**entry.tasks, **first}
    seen = {entry.id: ledger.seen_by(entry, first) for entry in entries}
    states = {state for line in seen.values() for state in line.values()}
    wanted = {version for entry in entries for version in (*entry.tasks.values(), *first.values())}
    stored = ledger.scores(states, wanted)
    cells = {e.id: {t: stored.get((seen[e.id][t], e.tasks.get(t, v))) for t, v in first.items()} for e in entries}
    return {
        name: {
            task: ReportedScore(**vars(score.summary), interval=interval_name(score.items))
            for task, score in line.items()
            if score
        }
        for name, line in cells.items()
    }
