"""Entries, refs, objects, rows and scores of a workspace; imports no torch until an object is read or written."""

from perdure.ledger.entry import Entry, state_hash
from perdure.ledger.lock import writing
from perdure.ledger.objects import ObjectStore
from perdure.ledger.row_keys import RowPlace, row_key, row_name
from perdure.ledger.store import Ledger

__all__ = ["Entry", "Ledger", "ObjectStore", "RowPlace", "row_key", "row_name", "state_hash", "writing"]
