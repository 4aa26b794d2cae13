"""The entry: one immutable record of a learn, edit, merge or revert, named by the hash of its content."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

from perdure.core.canonical import canonical_json, content_hash

Kind = Literal["base", "learn", "edit", "merge", "revert"]


@dataclass(frozen=True)
class Entry:
    """One ledger record. A draft is an entry that no ledger has recorded yet.

    Args:
        parent: Id of the entry it was made from; None only for the base entry.
        kind: The verb that made it.
        base: Hash of the base model.
        task: Name of the task it is about, for people; not part of the id, which covers `tasks` and `data`.
        recipe: The recipe as JSON.
        tasks: Version of every task known at this entry, by task name.
        data: Fingerprints of the data it read, by name.
        seed: The seed of the run.
        slots: Object hash by slot, for the slots this entry writes; None removes the slot.
        memory: Hash of the memory manifest, if it has a memory.
        columns: Hash of the object with the memory's tensor columns (teacher logits).
        state: Hash of the object with the methods' state for the next task (Fisher information, anchors).
    """

    parent: str | None
    kind: Kind
    base: str
    task: str | None = None
    recipe: dict[str, Any] | None = None
    tasks: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    slots: dict[str, str | None] = field(default_factory=dict)
    memory: str | None = None
    columns: str | None = None
    state: str | None = None

    @cached_property
    def id(self) -> str:
        """Hash of everything but `task`: the same work has the same id, whenever and wherever it was done."""
        content = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "task"}
        if self.state is None:  # the content of ids from before methods had a state
            del content["state"]
        # Converted to JSON first, because keys that are not strings sort differently afterwards.
        return content_hash(json.loads(canonical_json(content)))

    @property
    def objects(self) -> set[str]:
        """Hashes of the objects this entry names."""
        return {name for name in (*self.slots.values(), self.columns, self.state) if name is not None}

    def to_json(self) -> dict[str, Any]:
        """Return the entry as plain JSON; `from_json` restores an entry with the same id."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Entry":
        """Restore an entry written by `to_json`."""
        return cls(**data)


def state_hash(base: str, slots: Mapping[str, str]) -> str:
    """Return the identity of a model state: the base model's hash with the object hash of every slot."""
    return content_hash({"base": base, "slots": dict(slots)})
