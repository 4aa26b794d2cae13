"""Rows whose answers are programs: the beginning of a function, and a test that runs it."""

from perdure.core.canonical import canonical_json
from perdure.core.rows import Check

PROGRAM = "program"
"""Kind of the check that a program passes its test."""


def program_check(test: str, entry_point: str) -> Check:
    """Return the check of a row whose answer is a program.

    Args:
        test: Statements that raise where the program is wrong; or they define `check`, which is called with the function.
        entry_point: Name of the function.
    """
    return Check(PROGRAM, canonical_json({"entry_point": entry_point, "test": test}))
