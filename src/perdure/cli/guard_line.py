"""The guards of a workspace in one line."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.workflows.inspect.guard_lines import GuardLine, GuardsView


def guard_line(view: "GuardsView | None") -> str | None:
    """Return the guards of a workspace in one line: verdict, and the score of each at its reference and now; None without one."""
    if view is None:
        return None
    word = view.verdict.upper() if view.verdict else "not judged"
    enforced = " (enforced)" if view.mode == "enforce" else ""
    return f"{word}{enforced}, " + ", ".join(_reading(name, one) for name, one in view.guards.items())


def _reading(name: str, one: "GuardLine") -> str:
    if one.now is None:
        return f"{name} not scored"
    if one.verdict == "blind":
        return f"{name} blind"
    before = "" if one.before is None or one.ability == "drift" else f" ({100 * one.before:.1f}% before)"
    return f"{name} {100 * one.now:.1f}%{before}" + (" FAIL" if one.verdict == "fail" else "")
