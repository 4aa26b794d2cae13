"""The note of a merge."""

from collections.abc import Mapping
from dataclasses import dataclass

from perdure.core.records import Record, omitted
from perdure.core.words import counted
from perdure.ledger.records.score import ScoreSummary

MERGE = "merge"  # name of the note, and of what an entry of this kind says in its data
DROP = "drop"  # `how` of an entry that merges nothing, and drops the tasks' own adapters that a merge before has


@dataclass(frozen=True)
class MergeNote(Record):
    """What a merge notes of itself.

    Args:
        rank: Rank of the merged adapter.
        how: How the adapters were merged; `DROP` where own adapters were dropped that an earlier merge has.
        tasks: Tasks whose adapters were merged, those of a sum under the others included; or dropped.
        kept: Those of them whose own adapters stay.
        error: Relative error of the truncation to this rank: ||before - after|| / ||before||, Frobenius norms over all modules.
        before: Score of each task before the merge, as requests for it went then.
        scores: Score of each task through the merged adapter.
        warnings: What the user should know.
        angle: Angle in radians between the two updates, flattened over all modules, where they were merged by `slerp`.
        rows: Rows that the merged adapter was trained on afterwards, with the adapters before as teachers; 0 where it was not.
        loss: The first and the last logged loss of that training, in nats a label token; empty where there was none.
    """

    rank: int
    how: str
    tasks: tuple[str, ...]
    kept: tuple[str, ...]
    error: float
    before: Mapping[str, ScoreSummary]
    scores: Mapping[str, ScoreSummary]
    warnings: tuple[str, ...]
    angle: float | None = omitted(None)
    rows: int = omitted(0)
    loss: tuple[float, ...] = omitted(())

    @property
    def about(self) -> str:
        """What the merge is about, for people."""
        if self.how == DROP:
            return f"{counted(len(self.tasks), 'own adapter')} dropped"
        return f"{self.how}, rank {self.rank}"
