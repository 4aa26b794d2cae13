"""What stands beside the entries of a ledger, as typed values; their JSON is what the database and evidence files hold."""

from perdure.ledger.records.score import Score, ScoreSummary

__all__ = ["Score", "ScoreSummary"]
