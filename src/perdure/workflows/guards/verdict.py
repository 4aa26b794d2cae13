"""What the gate compares of measured guards."""

from collections.abc import Mapping

from perdure.ledger.records import GuardItems
from perdure.workflows.guards.measure import MeasuredGuard


def guard_items(measured: Mapping[str, MeasuredGuard], budget: str) -> dict[str, GuardItems]:
    """Return the items of measured guards as the gate judges them.

    Args:
        measured: By guard.
        budget: Name of the budget by which rows were chosen.
    """
    return {name: _items(one, budget) for name, one in measured.items()}


def _items(one: MeasuredGuard, budget: str) -> GuardItems:
    guard = one.guard
    groups = tuple(row.group for row in one.rows)
    return GuardItems(
        ability=guard.ability,
        version=guard.version,
        reference=guard.reference,
        budget=budget,
        chance=guard.chance,
        rows=one.now.rows,
        before=one.before.items,
        now=one.now.items,
        groups=groups if all(groups) else (),
    )
