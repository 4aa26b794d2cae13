"""Records of a ledger as typed values: the notes of its entries, scores and evidence. The database stores their JSON.

A file of records is imported when one of its names is first used, since each class costs about a millisecond.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.ledger.records.edits import (
        Answer,
        Answers,
        Drift,
        EditNote,
        EditsNote,
        EditsRecord,
        EditsSummary,
        FactLine,
        ListedFact,
        Neighbour,
        RefusedFact,
        RevertedFact,
        RevertNote,
        SupersededFact,
        WrittenFact,
    )
    from perdure.ledger.records.evidence import (
        Evidence,
        FactKept,
        ItemScores,
    )
    from perdure.ledger.records.gate import (
        Gate,
    )
    from perdure.ledger.records.history import (
        LogLine,
        Move,
    )
    from perdure.ledger.records.learn import (
        Beats,
        Heartbeat,
        LearnRecord,
        Resources,
        RowCounts,
        TrainingRecord,
    )
    from perdure.ledger.records.log_entry import (
        LogEntry,
    )
    from perdure.ledger.records.memory import (
        MemoryItem,
    )
    from perdure.ledger.records.score import (
        Score,
        ScoreSummary,
    )
    from perdure.ledger.records.signature import (
        SIGNATURE,
        Signature,
    )
    from perdure.ledger.records.traces import (
        AverageKind,
        EditMeasures,
        Effects,
        HarmonicMean,
        LeftOut,
        Mean,
        Strongest,
        Sweep,
        SweepResult,
        SweptLayer,
        TracedAverage,
        TracedFact,
        TracedKind,
        TracedPrompt,
        TraceNotes,
        measures_of,
    )
    from perdure.ledger.records.upkeep import (
        DeletedRow,
        DroppedTexts,
        Freed,
        KeptRows,
        Verification,
    )
    from perdure.ledger.records.verdict import (
        FactsVerdict,
        FloorVerdict,
        GateOff,
        TaskVerdict,
        Verdict,
    )

_FILES = {
    "edits": (
        "Answer",
        "Answers",
        "Drift",
        "EditNote",
        "EditsNote",
        "EditsRecord",
        "EditsSummary",
        "FactLine",
        "ListedFact",
        "Neighbour",
        "RefusedFact",
        "RevertNote",
        "RevertedFact",
        "SupersededFact",
        "WrittenFact",
    ),
    "evidence": ("Evidence", "FactKept", "ItemScores"),
    "gate": ("Gate",),
    "history": ("LogLine", "Move"),
    "learn": ("Beats", "Heartbeat", "LearnRecord", "Resources", "RowCounts", "TrainingRecord"),
    "log_entry": ("LogEntry",),
    "memory": ("MemoryItem",),
    "score": ("Score", "ScoreSummary"),
    "signature": ("SIGNATURE", "Signature"),
    "traces": (
        "AverageKind",
        "EditMeasures",
        "Effects",
        "HarmonicMean",
        "LeftOut",
        "Mean",
        "Strongest",
        "Sweep",
        "SweepResult",
        "SweptLayer",
        "TraceNotes",
        "TracedAverage",
        "TracedFact",
        "TracedKind",
        "TracedPrompt",
        "measures_of",
    ),
    "upkeep": ("DeletedRow", "DroppedTexts", "Freed", "KeptRows", "Verification"),
    "verdict": ("FactsVerdict", "FloorVerdict", "GateOff", "TaskVerdict", "Verdict"),
}

__all__ = [
    "SIGNATURE",
    "Answer",
    "Answers",
    "AverageKind",
    "Beats",
    "DeletedRow",
    "Drift",
    "DroppedTexts",
    "EditMeasures",
    "EditNote",
    "EditsNote",
    "EditsRecord",
    "EditsSummary",
    "Effects",
    "Evidence",
    "FactKept",
    "FactLine",
    "FactsVerdict",
    "FloorVerdict",
    "Freed",
    "Gate",
    "GateOff",
    "HarmonicMean",
    "Heartbeat",
    "ItemScores",
    "KeptRows",
    "LearnRecord",
    "LeftOut",
    "ListedFact",
    "LogEntry",
    "LogLine",
    "Mean",
    "MemoryItem",
    "Move",
    "Neighbour",
    "RefusedFact",
    "Resources",
    "RevertNote",
    "RevertedFact",
    "RowCounts",
    "Score",
    "ScoreSummary",
    "Signature",
    "Strongest",
    "SupersededFact",
    "Sweep",
    "SweepResult",
    "SweptLayer",
    "TaskVerdict",
    "TraceNotes",
    "TracedAverage",
    "TracedFact",
    "TracedKind",
    "TracedPrompt",
    "TrainingRecord",
    "Verdict",
    "Verification",
    "WrittenFact",
    "measures_of",
]


def __getattr__(name: str) -> object:
    """Import the file that has a record."""
    for file, names in _FILES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
