"""The guards in force at an entry, in short: what each scored last, and what the entry's gate said of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.core.records import Record
from perdure.ledger.records import Verdict

if TYPE_CHECKING:
    from perdure.ledger import Entry, Ledger
    from perdure.ledger.records import GateOff, Guard, GuardsVerdict


@dataclass(frozen=True)
class GuardLine(Record):
    """A guard in short.

    Args:
        ability: What it measures.
        before: Its score at its reference; None where it was not scored.
        now: Its score at the entry, over the same rows; None where it was not scored.
        n: Number of rows.
        verdict: "pass", "inconclusive", "fail" or "blind" of the entry's gate; None where the gate did not judge it.
    """

    ability: str
    before: float | None
    now: float | None
    n: int
    verdict: str | None


@dataclass(frozen=True)
class GuardsView(Record):
    """The guards of a workspace at an entry.

    Args:
        mode: What a guard that falls does at the next learn: "warn" or "enforce".
        verdict: The verdict of the entry's gate on all of them; None where it judged none.
        reason: Its sentence; None with it.
        guards: Each guard of the workspace by its name.
    """

    mode: str
    verdict: str | None
    reason: str | None
    guards: Mapping[str, GuardLine]


def guards_at(ledger: "Ledger", entry: "Entry", gate: "Verdict | GateOff | None") -> GuardsView | None:
    """Return the guards of a workspace at an entry; None where it has none.

    Args:
        ledger: The ledger.
        entry: The entry, or the candidate.
        gate: The verdict of its gate.
    """
    if not ledger.has_guards:
        return None
    judged = gate.guards if isinstance(gate, Verdict) else None
    return GuardsView(
        mode="enforce" if ledger.config.get("guards") == "enforce" else "warn",
        verdict=judged.verdict if judged else None,
        reason=judged.reason if judged else None,
        guards={guard.name: _line(ledger, entry, guard, judged) for guard in ledger.guards()},
    )


def _line(ledger: "Ledger", entry: "Entry", guard: "Guard", judged: "GuardsVerdict | None") -> GuardLine:
    """Return a guard as the entry's gate judged it; else with the scores that a checkup measured."""
    for one in judged.guards if judged else ():
        if one.guard == guard.name:
            return GuardLine(one.ability, one.before, one.now, one.n, one.verdict)
    states = [ledger.seen(place, None) for place in (ledger.entry(guard.reference), entry)]
    if not ledger.scores(states, [guard.score_version]):
        return GuardLine(guard.ability, None, None, 0, None)
    from perdure.workflows.guards.columns import guard_scores  # only here: it loads numpy

    then, present = guard_scores(ledger, guard, [ledger.entry(guard.reference), entry])
    return GuardLine(
        guard.ability,
        before=then.score if then else None,
        now=present.score if present else None,
        n=next((score.n for score in (present, then) if score), 0),
        verdict=None,
    )
