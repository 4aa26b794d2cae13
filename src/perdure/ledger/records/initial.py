"""The note of the adapter that a workspace was made with."""

from dataclasses import dataclass

from perdure.core.records import Record, omitted

ADAPTER = "adapter"  # the note of the base entry that has one


@dataclass(frozen=True)
class InitialAdapter(Record):
    """A user's adapter, which the base entry has in the slot `initial`.

    Args:
        folder: Name of its folder, without the path, or its hub id.
        modules: Number of layers with factors.
        rank: Largest rank among them.
        trained_on: The base model that its configuration names; None where it names none.
        revision: Its commit on the hub; left out of the JSON for a local folder.
    """

    folder: str
    modules: int
    rank: int
    trained_on: str | None
    revision: str | None = omitted(None)
