"""The evidence that a gate judged: everything needed to judge it again, without model or ledger."""

from collections.abc import Mapping
from dataclasses import dataclass

from perdure.core.records import Record, omitted
from perdure.ledger.records.gate import Gate
from perdure.ledger.records.verdict import Verdict


@dataclass(frozen=True)
class ItemScores(Record):
    """The scores of a task's test rows, now and when it was learned.

    Args:
        version: The task's version.
        rows: `Row.hash` of each test row that both scores have.
        learned: Score of each row when the task was learned; None for a task with nothing to lose.
        now: Score of each row now.
    """

    version: str
    rows: tuple[str, ...]
    learned: tuple[float, ...] | None
    now: tuple[float, ...]


@dataclass(frozen=True)
class FactKept(Record):
    """Whether the model answers with an edited fact.

    Args:
        fact: Id of the fact.
        prompt: Beginning of a sentence.
        target: End of the sentence.
        before: Whether the model answered with the target before the learn.
        now: Whether it does after the learn.
    """

    fact: str
    prompt: str
    target: str
    before: bool
    now: bool


@dataclass(frozen=True, kw_only=True)
class Evidence(Record):
    """The evidence that a gate judged, and its verdict.

    Args:
        format: Number of this format.
        gate: The rule.
        new_task: Name of the task just learned.
        tasks: Scores by task: those that are guarded, and the new one.
        facts: The edited facts in force.
        unguarded: Names of older tasks that are not judged.
        verdict: The gate's verdict.
    """

    format: int
    gate: Gate
    new_task: str
    tasks: Mapping[str, ItemScores]
    facts: tuple[FactKept, ...] = ()
    unguarded: tuple[str, ...] = omitted(())
    verdict: Verdict
