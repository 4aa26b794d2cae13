"""What a model card reads from the ledger: the base, and the last learn."""

from typing import Any

from perdure.ledger import Entry, Ledger
from perdure.ledger.records import ADAPTER, InitialAdapter

EMBEDDED = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}  # what the embedded model was quantised from


def origin(ledger: Ledger) -> str:
    """Return the name of the base model, as the hub has it where it is known."""
    model = ledger.model
    return EMBEDDED.get(model, model)


def initial_adapter(ledger: Ledger) -> InitialAdapter | None:
    """Return the note of the adapter that a workspace was made with; None without one."""
    return ledger.note(ledger.resolve("base").id, ADAPTER, InitialAdapter)


def last_learn(ledger: Ledger, entry: Entry) -> Entry | None:
    """Return the newest learn that an entry stands on, itself among them."""
    return next((one for one in ledger.ancestors(entry) if one.kind == "learn"), None)


def notes_of_learn(ledger: Ledger, entry: Entry) -> dict[str, Any]:
    """Return what was noted at the last learn; nothing where there is none."""
    learned = last_learn(ledger, entry)
    return ledger.notes(learned.id) if learned else {}
