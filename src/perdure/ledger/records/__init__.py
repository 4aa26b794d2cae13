"""What stands beside the entries of a ledger, as typed values; their JSON is what the database and evidence files hold."""

from perdure.ledger.records.evidence import Evidence, FactKept, ItemScores
from perdure.ledger.records.gate import Gate
from perdure.ledger.records.history import LogLine, Move
from perdure.ledger.records.learn import Beats, Heartbeat, LearnRecord, RowCounts, TrainingRecord
from perdure.ledger.records.score import Score, ScoreSummary
from perdure.ledger.records.verdict import FactsVerdict, FloorVerdict, GateOff, TaskVerdict, Verdict

__all__ = [
    "Beats",
    "Evidence",
    "FactKept",
    "FactsVerdict",
    "FloorVerdict",
    "Gate",
    "GateOff",
    "Heartbeat",
    "ItemScores",
    "LearnRecord",
    "LogLine",
    "Move",
    "RowCounts",
    "Score",
    "ScoreSummary",
    "TaskVerdict",
    "TrainingRecord",
    "Verdict",
]
