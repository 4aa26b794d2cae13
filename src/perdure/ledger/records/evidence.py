"""The evidence that a gate judged: everything needed to judge it again, without model or ledger."""

from collections.abc import Mapping
from dataclasses import dataclass

from perdure.core.records import Record, omitted, omitted_mapping
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
class GuardItems(Record):
    """The scores of a guard's rows at its reference and now.

    Args:
        ability: What the guard measures: "instruction", "knowledge", "drift", and so on.
        version: The guard's version.
        reference: Id of the entry that it is compared with.
        budget: Name of the budget by which its rows were chosen.
        chance: Expected score of guessing, in [0, 1); None where there is no such score, as of drift.
        rows: `Row.hash` of each row.
        before: Score of each row at the reference.
        now: Score of each row now.
        groups: Group of each row; empty where rows are independent.
        selected: The rows were selected at the base, so that their score is that of no benchmark.
    """

    ability: str
    version: str
    reference: str
    budget: str
    chance: float | None
    rows: tuple[str, ...]
    before: tuple[float, ...]
    now: tuple[float, ...]
    groups: tuple[str, ...] = omitted(())
    selected: bool = omitted(False)


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
        format: 1 where at most one task is guarded, or "fail" is not corrected for their number, and there are no guards; else 2.
            Each format has its own rule, so that a stored verdict is judged again as it was.
        gate: The rule.
        new_task: Name of the task just learned.
        tasks: Scores by task: those that are guarded, and the new one.
        facts: The edited facts in force.
        unguarded: Names of older tasks that are not judged.
        guards: Scores by guard.
        verdict: The gate's verdict.
    """

    format: int
    gate: Gate
    new_task: str
    tasks: Mapping[str, ItemScores]
    facts: tuple[FactKept, ...] = ()
    unguarded: tuple[str, ...] = omitted(())
    guards: Mapping[str, GuardItems] = omitted_mapping()
    verdict: Verdict
