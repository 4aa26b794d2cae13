"""Records of a ledger as typed values: the notes of its entries, scores and evidence. The database stores their JSON.

A file of records is imported when one of its names is first used, since each class costs about a millisecond. A test compares the
names below with the classes in the files.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a type checker reads the files; what they import themselves is not public
    from perdure.ledger.records.edits import *
    from perdure.ledger.records.evidence import *
    from perdure.ledger.records.gate import *
    from perdure.ledger.records.guard import *
    from perdure.ledger.records.guards_verdict import *
    from perdure.ledger.records.history import *
    from perdure.ledger.records.initial import *
    from perdure.ledger.records.learn import *
    from perdure.ledger.records.log_entry import *
    from perdure.ledger.records.memory import *
    from perdure.ledger.records.merge import *
    from perdure.ledger.records.revert_task import *
    from perdure.ledger.records.score import *
    from perdure.ledger.records.signature import *
    from perdure.ledger.records.traces import *
    from perdure.ledger.records.upkeep import *
    from perdure.ledger.records.verdict import *

FILES = {
    "edits": [
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
    ],
    "evidence": ["Evidence", "FactKept", "GuardItems", "ItemScores"],
    "gate": ["Gate"],
    "guard": ["CHECKED", "CHECKUP", "CheckedGuards", "Guard", "GuardBudget", "Selection"],
    "guards_verdict": ["GuardVerdict", "GuardsVerdict", "MeanDrop", "WorstDrop"],
    "history": ["LogLine", "Move"],
    "initial": ["ADAPTER", "InitialAdapter"],
    "learn": [
        "Beats",
        "Heartbeat",
        "LearnRecord",
        "NewTaskKl",
        "Repair",
        "Resources",
        "RowCounts",
        "RowsRun",
        "TrainingRecord",
        "TriedScale",
    ],
    "log_entry": ["LogEntry"],
    "memory": ["MemoryItem"],
    "merge": ["MERGE", "MergeNote"],
    "revert_task": ["TaskRevertNote"],
    "score": ["Score", "ScoreSummary"],
    "signature": ["SIGNATURE", "Signature"],
    "traces": [
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
    ],
    "upkeep": ["DeletedRow", "DeletedTask", "DroppedTexts", "Freed", "KeptRows", "Verification"],
    "verdict": ["GATE", "FactsVerdict", "FloorVerdict", "GateOff", "TaskVerdict", "Verdict"],
}


def __getattr__(name: str) -> object:
    """Import the file that has a record."""
    for file, names in FILES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
