"""Rows of guards that ask for an edited fact: a wanted change is not forgetting, and edits are judged by themselves."""

from collections.abc import Collection, Sequence

from perdure.core.rows import Row
from perdure.ledger import Entry, Ledger
from perdure.workflows.fact_records import record_at
from perdure.workflows.guards.drift import question_of


def edited_rows(ledger: Ledger, entry: Entry, rows: Sequence[Row], further: Collection[str] = ()) -> set[str]:
    """Return the hashes of the rows of a guard whose prompt ends with that of a fact in force, or of another form of it.

    Args:
        ledger: The ledger.
        entry: An entry or a draft.
        rows: Rows of a guard.
        further: Prompts of facts that the entry does not record yet.
    """
    facts = record_at(ledger, entry).facts
    prompts = {*further, *(text for fact in facts for text in (fact.prompt, *fact.paraphrases))}
    endings = tuple(filter(None, map(_plain, prompts)))
    return {row.hash for row in rows if endings and _plain(question_of(row)).endswith(endings)}


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
