"""What a gate is given of guards, and what it says of them to the user."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from perdure.ledger import Ledger
from perdure.ledger.records import Gate, GuardItems, GuardsVerdict
from perdure.workflows.guards.attach import Mode, mode_of
from perdure.workflows.guards.groups import groups_of
from perdure.workflows.guards.measure import MeasuredGuard, not_run_guards
from perdure.workflows.session import Session

WARNS = "guards: "  # begins the warning of guards that fell
NOTE = "guards"  # note of an entry that was made without scoring the guards of its workspace


def mode_for(ledger: Ledger, wanted: Mode | None, gate: Gate | None) -> Mode:
    """Return what a guard that fell does: "none" without a gate, else as wanted, as the gate says, or as the workspace has it."""
    chosen = mode_of(ledger, wanted)
    if gate is None:
        return "none"
    return "enforce" if wanted is None and gate.guards == "enforce" else chosen


def gate_with(gate: Gate, mode: Mode) -> Gate:
    """Return a gate that guards are part of where they are enforced."""
    return replace(gate, guards="enforce" if mode == "enforce" else "warn")


def guard_items(measured: Mapping[str, MeasuredGuard], budget: str = "learn") -> dict[str, GuardItems]:
    """Return measured guards as a gate compares them.

    Args:
        measured: The guards by name.
        budget: Name of the budget by which their rows were chosen.
    """
    return {
        name: GuardItems(
            ability=one.guard.ability,
            version=one.guard.version,
            reference=one.guard.reference,
            budget=budget,
            chance=one.guard.chance,
            rows=one.now.rows,
            before=one.before.items,
            now=one.now.items,
            groups=groups_of(one.rows),
            selected=one.guard.selection is not None,
        )
        for name, one in measured.items()
    }


def guard_warnings(verdict: GuardsVerdict | None) -> tuple[str, ...]:
    """Return a warning of the guards that fell, with what can be done; none where nothing fell or the gate refuses anyway."""
    if verdict is None or not verdict.alarms or (verdict.enforced and verdict.verdict == "fail"):
        return ()
    fallen = [f"{one.guard}: {one.reason}" for one in verdict.guards if one.verdict == "fail" or one.warns]
    what = "; ".join(fallen) or verdict.reason
    return (f"{WARNS}{what}. What to do: {'; '.join(verdict.advice)}",)


def guard_notices(session: Session, measured: Mapping[str, MeasuredGuard]) -> tuple[str, ...]:
    """Return the notices about prompts, answers and rows of measured guards, and about guards that may not run, each once."""
    about = [text for one in measured.values() for text in one.notices]
    return tuple(dict.fromkeys([*about, *not_run_guards(session)]))


def skipped_note(ledger: Ledger, mode: Mode) -> dict[str, Any]:
    """Return the note of an entry whose guards were not scored; nothing where there are none, or they were."""
    return {NOTE: "not scored"} if mode == "none" and ledger.guards() else {}
