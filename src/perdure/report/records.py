"""Queries that several sections share: the entries that learned, the line of an entry, the score of a cell."""

import math
from collections.abc import Mapping

from perdure.ledger.records import LearnRecord
from perdure.workflows.inspect.report_records import ReportData, ReportedScore, ReportEntry

Cells = Mapping[tuple[str, str], ReportedScore]  # by (entry id, task)
MEASURES = ("efficacy", "paraphrase", "neighbourhood", "generation")  # of an edited fact


def learned(data: ReportData) -> list[tuple[ReportEntry, LearnRecord]]:
    """Return the entries that carry a learn record, oldest first, with it."""
    return [(entry, entry.record) for entry in data.entries if entry.record]


def only_edits(data: ReportData) -> bool:
    """Return whether facts were edited, and no task was ever learned or scored."""
    return any(entry.edits for entry in data.entries) and not data.matrix.tasks and not learned(data)


def lineage(data: ReportData, entry: str | None) -> list[str]:
    """Return `entry` and its ancestors, newest first; unknown ids end the walk."""
    parents = {one.entry: one.parent for one in data.entries}
    line: list[str] = []
    while entry is not None and entry in parents and entry not in line:
        line.append(entry)
        entry = parents[entry]
    return line


def cells(data: ReportData) -> Cells:
    """Return the score of every entry and task that was measured."""
    return {(one.entry, task): score for one in data.entries for task, score in one.scores.items()}


def finite(value: object) -> bool:
    """Return whether `value` is a number that can be drawn."""
    return isinstance(value, (int, float)) and math.isfinite(value)
