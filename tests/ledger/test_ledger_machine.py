"""Any sequence of verbs leaves the ledger that a dictionary would predict."""

import tempfile
from pathlib import Path

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from perdure.ledger import Entry, Ledger, state_hash

BASE = "b" * 64
CONFIG = {"model": "tiny", "dtype": "float32", "weights": "w" * 64, "base": BASE}
SLOTS = ("skill", "task:a", "edits")


class LedgerMachine(RuleBasedStateMachine):
    """The model: slots by entry id, parent by entry id, target by ref."""

    entries = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger.create(Path(self.folder.name) / "w", CONFIG)
        self.objects = [self.ledger.objects.put({"w": torch.tensor([float(i)])}) for i in range(3)]
        base = self.ledger.resolve("base")
        self.slots: dict[str, dict[str, str]] = {base.id: {}}
        self.refs = {"head": base.id, "base": base.id}
        self.moves = 1
        self.held: Entry | None = None

    def expect(self, entry: Entry) -> None:
        merged = {**self.slots[entry.parent], **entry.slots}
        self.slots[entry.id] = {slot: name for slot, name in merged.items() if name is not None}

    def point(self, ref: str, target: str) -> None:
        self.moves += ref == "head" and self.refs["head"] != target
        self.refs[ref] = target

    def line(self, entry_id: str) -> set[str]:
        return {entry.id for entry in self.ledger.ancestors(self.ledger.entry(entry_id))}

    def draft(self, parent: str, writes: dict[str, int | None], seed: int) -> Entry:
        slots = {slot: None if number is None else self.objects[number] for slot, number in writes.items()}
        return Entry(parent, "learn", BASE, slots=slots, seed=seed)

    writes = st.dictionaries(st.sampled_from(SLOTS), st.none() | st.integers(0, 2), max_size=2)

    @rule(target=entries, writes=writes, seed=st.integers(0, 1))
    def learn(self, writes: dict, seed: int) -> str:
        entry = self.draft(self.refs["head"], writes, seed)
        self.ledger.record(entry, {"seed": seed})
        self.expect(entry)
        self.point("head", entry.id)
        return entry.id

    @rule(entry_id=entries)
    def record_again(self, entry_id: str) -> None:
        stays = entry_id in self.line(self.refs["head"])
        self.ledger.record(self.ledger.entry(entry_id), {"seed": "another"})
        if not stays:
            self.point("head", entry_id)

    @rule(entry_id=entries, ref=st.sampled_from(["head", "production"]))
    def move(self, entry_id: str, ref: str) -> None:
        self.ledger.move(ref, entry_id, "rollback")
        self.point(ref, entry_id)

    @rule()
    def back_to_base(self) -> None:
        self.ledger.move("head", self.refs["base"], "rollback")
        self.point("head", self.refs["base"])

    @precondition(lambda self: self.held is None)
    @rule(writes=writes)
    def hold(self, writes: dict) -> None:
        self.held = self.draft(self.refs["head"], writes, 2)
        self.ledger.put_candidate(self.held, {})

    @precondition(lambda self: self.held is not None and self.held.parent == self.refs["head"])
    @rule(target=entries)
    def accept(self) -> str:
        entry = self.ledger.accept()
        self.expect(entry)
        self.point("head", entry.id)
        self.held = None
        return entry.id

    @precondition(lambda self: self.held is not None)
    @rule()
    def discard(self) -> None:
        self.ledger.discard()
        self.held = None

    @rule()
    def open_again(self) -> None:
        self.ledger.close()
        self.ledger = Ledger.open(self.ledger.root)

    @invariant()
    def refs_stand_where_they_were_put(self) -> None:
        assert self.ledger.refs() == self.refs
        assert len(self.ledger.reflog()) == self.moves
        assert self.ledger.reflog()[0].new == self.refs["head"]
        assert self.ledger.candidate() == self.held

    @invariant()
    def every_entry_has_the_slots_of_its_line(self) -> None:
        entries = self.ledger.entries()
        assert {entry.id for entry in entries} == self.slots.keys() == {line.entry for line in self.ledger.log()}
        for entry in entries:
            assert self.ledger.slots(entry) == self.slots[entry.id]
            assert self.ledger.state(entry) == state_hash(BASE, self.slots[entry.id])

    def teardown(self) -> None:
        assert self.ledger.verify().to_json()["problems"] == []
        self.ledger.close()
        self.folder.cleanup()


LedgerMachine.TestCase.settings = settings(max_examples=10, stateful_step_count=12, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase
