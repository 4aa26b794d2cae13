"""Entries, refs and the candidate."""

import json
from pathlib import Path

import pytest
import torch

from perdure.core.errors import BadInput, BrokenStore, NotFound, PerdureError
from perdure.ledger import Entry, Ledger, database, state_hash
from perdure.ledger.records import LearnRecord
from record_examples import remembered

BASE = "b" * 64


def test_a_new_workspace_stands_at_its_base(ledger: Ledger, root) -> None:
    again = Ledger.open(root)
    base = again.resolve("base")
    assert (base.kind, base.parent, base.base, base.seed) == ("base", None, BASE, 7)
    assert again.resolve("head") == base
    assert again.config["model"] == "tiny"
    assert again.state(base) == state_hash(BASE, {})
    assert [move.why for move in again.reflog("head")] == ["init"]


def test_a_workspace_is_not_made_twice(ledger: Ledger, root) -> None:
    with pytest.raises(BadInput, match="is a workspace already"):
        Ledger.create(root, {"base": BASE})


def test_any_folder_name_will_do_and_the_current_folder_may_change(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger.create("what? 100% #1", {"base": BASE})
    ledger.close()
    monkeypatch.chdir("/")
    assert ledger.resolve("head").kind == "base"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["what? 100% #1"]


def test_an_interrupted_init_can_be_repeated_but_never_takes_over_other_work(ledger: Ledger, root, draft) -> None:
    (root / "perdure.json").unlink()
    assert Ledger.create(root, {"base": BASE, "seed": 7}).resolve("head").kind == "base"
    ledger.record(draft(1), {})
    (root / "perdure.json").unlink()
    with pytest.raises(BrokenStore, match=r"no perdure\.json; restore that"):
        Ledger.create(root, {"base": BASE, "seed": 7})


def test_opening_says_what_is_wrong(ledger: Ledger, root, tmp_path) -> None:
    with pytest.raises(NotFound, match=r"nowhere is no workspace; run 'perdure init"):
        Ledger.open(tmp_path / "nowhere")
    with ledger.changing() as connection:
        connection.exec_driver_sql(f"UPDATE meta SET schema_version = {database.SCHEMA_VERSION + 1}")
    known = database.SCHEMA_VERSION
    with pytest.raises(BrokenStore, match=f"schema version {known + 1}, this perdure knows up to {known}; upgrade"):
        Ledger.open(root)
    config = json.loads((root / "perdure.json").read_text())
    (root / "perdure.json").write_text(json.dumps({**config, "format": 2}))
    with pytest.raises(BrokenStore, match=r"format 2.*upgrade"):
        Ledger.open(root)
    (root / "perdure.json").write_text("{")
    with pytest.raises(BrokenStore, match="cannot be read"):
        Ledger.open(root)


@pytest.mark.parametrize("key", ["base", "model", "weights", "dtype"])
def test_a_config_that_lacks_something_is_a_broken_store(ledger: Ledger, root, key: str) -> None:
    config = json.loads((root / "perdure.json").read_text())
    del config[key]
    (root / "perdure.json").write_text(json.dumps(config))
    with pytest.raises(BrokenStore, match=f"does not have {key}; restore"):
        Ledger.open(root)


def test_versions_that_never_were_are_refused(ledger: Ledger, root) -> None:
    config = json.loads((root / "perdure.json").read_text())
    (root / "perdure.json").write_text(json.dumps({**config, "format": 0}))
    with pytest.raises(BrokenStore, match="format 0, which no perdure wrote"):
        Ledger.open(root)
    (root / "perdure.json").write_text(json.dumps(config))
    with ledger.changing() as connection:
        connection.exec_driver_sql("UPDATE meta SET schema_version = 0")
    with pytest.raises(BrokenStore, match="schema version 0, which no perdure wrote"):
        Ledger.open(root)


@pytest.mark.parametrize("body", ["replace(body, '\"seed\"', '\"seeds\"')", "'[]'"])
def test_an_entry_of_another_version_is_named(ledger: Ledger, root, draft, body: str) -> None:
    aside = draft(2)
    entry = ledger.record(draft(1), {})
    ledger.put_candidate(aside, {})
    with ledger.changing() as connection:
        for table in ("entries", "candidate"):
            connection.exec_driver_sql(f"UPDATE {table} SET body = {body} WHERE id IN ('{entry.id}', '{aside.id}')")
    again = Ledger.open(root)
    for verb, name in ((again.entries, entry.id), (again.candidate, aside.id), (again.accept, aside.id)):
        with pytest.raises(BrokenStore, match=f"entry {name[:12]} was written by another version of perdure"):
            verb()
    assert not again.verify().to_json()["ok"]


def test_a_folder_that_cannot_be_made_is_an_error_in_words(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "under", Path("/proc/nowhere")):
        with pytest.raises(PerdureError, match=f"cannot write {place}: .*choose another place"):
            Ledger.create(place, {"base": BASE})


def test_a_ledger_in_a_read_only_folder_is_read_as_it_lies_there(ledger: Ledger, root, draft, monkeypatch) -> None:
    entry = ledger.record(draft(1), {"note": 1})
    ledger.close()
    monkeypatch.setattr(database.os, "access", lambda *_: False)
    before = sorted(root.iterdir())
    frozen = Ledger.open(root)
    assert (frozen.resolve("head"), frozen.notes(entry.id)) == (entry, {"note": 1})
    assert frozen.verify().to_json()["problems"] == []
    assert sorted(root.iterdir()) == before  # no log and no index beside it
    with pytest.raises(PerdureError, match="workspace is read-only; get write permission, or copy it"):
        frozen.move("mine", entry.id, "test")
    monkeypatch.undo()
    ledger.move("other", entry.id, "test")  # there is a log now, and what is in it counts
    monkeypatch.setattr(database.os, "access", lambda *_: False)
    Ledger.open(root).move("mine", entry.id, "test")


def test_a_file_that_is_no_database_is_a_broken_store(ledger: Ledger, root) -> None:
    ledger.close()
    (root / "ledger.sqlite").write_bytes(b"no database at all, but long enough to be looked at" * 50)
    with pytest.raises(BrokenStore, match="not a sound ledger"):
        Ledger.open(root)


def test_the_id_covers_everything_but_the_task_name() -> None:
    plain = {"parent": "p", "kind": "learn", "base": BASE, "slots": {"skill": "s"}, "tasks": {"a": "1"}}
    entry = Entry(**plain)
    changes = {
        "parent": "q", "kind": "edit", "base": "c", "recipe": {"lr": 1}, "tasks": {"a": "2"}, "data": {"train": "f"},
        "seed": 1, "slots": {"skill": "t"}, "memory": "m", "columns": "c",
    }  # fmt: skip
    ids = {Entry(**{**plain, name: value}).id for name, value in changes.items()}
    assert len(ids | {entry.id}) == len(changes) + 1
    assert Entry(**plain, task="a").id == entry.id
    assert Entry.from_json(json.loads(json.dumps(entry.to_json()))) == entry


def test_an_id_survives_json_also_with_keys_that_are_numbers() -> None:
    entry = Entry("p", "learn", BASE, recipe={"decay_at": {2: 0.1, 10: 0.01}, "betas": (0.9, 0.99)})
    assert Entry.from_json(json.loads(json.dumps(entry.to_json()))).id == entry.id


def test_recording_moves_head_and_keeps_the_notes(ledger: Ledger, draft) -> None:
    base = ledger.resolve("head")
    entry = ledger.record(draft(1, task="faq"), {"train_seconds": 1.5, "loss": [[0, 2.0]]})
    assert ledger.resolve("head") == entry
    assert ledger.notes(entry.id) == {"train_seconds": 1.5, "loss": [[0, 2.0]]}
    ledger.annotate(entry.id, "train_seconds", 2.0)
    assert ledger.notes(entry.id)["train_seconds"] == 2.0
    assert [(move.old, move.new, move.why) for move in ledger.reflog()] == [
        (base.id, entry.id, "learn"),
        (None, base.id, "init"),
    ]
    newest = ledger.log()[0]
    assert (newest.entry, newest.parent, newest.kind, newest.task) == (entry.id, base.id, "learn", "faq")
    assert newest.refs == ("head",)


def test_a_new_ledger_says_which_migrations_its_schema_has(ledger: Ledger) -> None:
    with ledger.reading() as connection:
        lines = connection.exec_driver_sql("SELECT version, about, time FROM migrations ORDER BY version").all()
    assert [line[:2] for line in lines] == [(step.version, step.about) for step in database.MIGRATIONS]
    assert all(time for *_, time in lines)


def everything(ledger: Ledger) -> list:
    with ledger.reading() as connection:
        tables = ("entries", "notes", "refs", "reflog", "candidate", "manifests", "rows", "tasks", "task_rows")
        return [connection.exec_driver_sql(f"SELECT * FROM {table}").all() for table in tables]


def test_recording_again_changes_nothing(ledger: Ledger, draft) -> None:
    first = ledger.record(draft(1), {"note": 1})
    ledger.record(draft(2), {})
    before = everything(ledger)
    assert ledger.record(first, {"note": 2}) == first
    assert everything(ledger) == before


def test_the_same_work_after_a_rollback_brings_head_back(ledger: Ledger, draft) -> None:
    first = ledger.record(draft(1), {})
    ledger.move("head", ledger.resolve("base").id, "rollback")
    assert ledger.record(draft(1), {}) == first
    assert ledger.resolve("head") == first
    assert len(ledger.entries()) == 2


def test_the_newest_writer_of_a_slot_wins_and_none_takes_it_away(ledger: Ledger, draft, put) -> None:
    first = ledger.record(draft(1), {})
    second = ledger.record(draft(2, slots={"task:b": put(2), "edits": put(3)}), {})
    third = ledger.record(draft(0, slots={"skill": put(4), "task:b": None}), {})
    assert ledger.slots(first) == {"skill": put(1)}
    assert ledger.slots(second) == {"edits": put(3), "skill": put(1), "task:b": put(2)}
    assert ledger.slots(third) == {"edits": put(3), "skill": put(4)}
    assert list(ledger.slots(second)) == sorted(ledger.slots(second))
    assert ledger.state(third) == state_hash(BASE, ledger.slots(third))
    assert ledger.ancestors(third) == [third, second, first, ledger.resolve("base")]


def test_a_revert_to_the_same_slots_is_the_same_state(ledger: Ledger, draft, put) -> None:
    first = ledger.record(draft(1), {})
    ledger.record(draft(2), {})
    third = ledger.record(draft(1, slots={"skill": put(1)}), {})
    assert third.id != first.id
    assert ledger.state(third) == ledger.state(first)


def test_an_entry_must_fit_the_ledger(ledger: Ledger, draft, put) -> None:
    before = everything(ledger)
    with pytest.raises(BrokenStore, match=r"object 000000000000 of entry .* is missing"):
        ledger.record(draft(1, slots={"skill": "0" * 64}), {})
    with pytest.raises(BrokenStore, match="object 000000000000"):
        ledger.put_candidate(draft(1, columns="0" * 64), {})
    with pytest.raises(BadInput, match="parent nobody, which is not in"):
        ledger.record(Entry("nobody", "learn", BASE), {})
    with pytest.raises(BadInput, match="parent None"):
        ledger.record(Entry(None, "base", BASE, seed=8), {})
    with pytest.raises(BadInput, match="made on base model cccc"):
        ledger.record(Entry(ledger.resolve("head").id, "learn", "c" * 64), {})
    with pytest.raises(BadInput, match="has memory 0000"):
        ledger.record(draft(1, memory="0" * 64), {})
    with pytest.raises(BadInput, match=r"task 'faq' is not in .*ledger"):
        ledger.record(draft(1, tasks={"faq": "v1"}), {})
    with pytest.raises(BadInput, match="none of them NaN"):
        ledger.record(draft(1), {"loss": float("nan")})
    assert everything(ledger) == before


def test_names_are_resolved(ledger: Ledger, draft) -> None:
    base = ledger.resolve("base")
    first, second = ledger.record(draft(1), {}), ledger.record(draft(2), {})
    ledger.move("release/1", first.id, "tag")
    assert ledger.resolve("release/1") == first
    assert ledger.resolve(first.id) == first
    assert ledger.resolve(first.id[:8]) == first
    assert ledger.resolve("head~") == ledger.resolve("head~1") == first
    assert ledger.resolve("head~0") == second
    assert ledger.resolve(f"{second.id[:10]}~2") == base
    assert ledger.refs() == {"base": base.id, "head": second.id, "release/1": first.id}


def test_names_that_mean_nothing_are_refused(ledger: Ledger, draft) -> None:
    entry = ledger.record(draft(1), {})
    ledger.move("production", entry.id, "tag")
    with pytest.raises(NotFound, match="no ref or entry 'producton'; nearest refs: production"):
        ledger.resolve("producton")
    with pytest.raises(NotFound, match="nearest refs: base, head, production"):
        ledger.resolve("zzz")
    with pytest.raises(NotFound):
        ledger.resolve(entry.id[:3])
    with pytest.raises(NotFound, match="goes back too far: 'head' has 1 entry before it"):
        ledger.resolve("head~2")
    with pytest.raises(BadInput, match="go back after ~"):
        ledger.resolve("head~x")
    with pytest.raises(NotFound, match="no candidate waits"):
        ledger.resolve("candidate")


def test_a_beginning_that_two_entries_share_is_refused(ledger: Ledger, draft, monkeypatch) -> None:
    entries = [Entry(None, "base", BASE, seed=seed) for seed in range(2)]
    for number, entry in enumerate(entries):
        entry.__dict__["id"] = f"abcd{number}" + "0" * 59
    monkeypatch.setattr(ledger, "entries", lambda: entries)
    with pytest.raises(BadInput, match="2 entries begin with 'abcd': abcd00000000"):
        ledger.resolve("abcd")
    assert ledger.resolve("abcd1") is entries[1]


@pytest.mark.parametrize("name", ["base", "candidate", "cafe", "a b", "x~1", ""])
def test_refs_have_names_that_mean_nothing_else(ledger: Ledger, draft, name: str) -> None:
    entry = ledger.record(draft(1), {})
    with pytest.raises(BadInput, match="cannot be moved"):
        ledger.move(name, entry.id, "tag")


def test_a_ref_never_points_nowhere(ledger: Ledger) -> None:
    with pytest.raises(NotFound):
        ledger.move("head", "0" * 64, "rollback")


def test_the_log_shows_all_entries_and_a_line_only_its_own(ledger: Ledger, draft) -> None:
    base = ledger.resolve("base")
    first = ledger.record(draft(1), {})
    side = ledger.record(draft(2, parent=base), {}, ref="trial", why="try")
    assert ledger.resolve("head") == first
    assert [line.entry for line in ledger.log()] == [side.id, first.id, base.id]
    assert [line.entry for line in ledger.log(first)] == [first.id, base.id]


def test_a_candidate_is_no_entry_until_it_is_accepted(ledger: Ledger, draft) -> None:
    entry = draft(1)
    ledger.put_candidate(entry, {"gate": {"verdict": "fail"}})
    ledger.put_candidate(entry, {"gate": {"verdict": "fail"}})
    assert ledger.candidate() == ledger.resolve("candidate") == ledger.resolve(entry.id[:9]) == entry
    assert ledger.state(entry) == state_hash(BASE, entry.slots)
    assert ledger.notes(entry.id) == {"gate": {"verdict": "fail"}}
    assert len(ledger.log()) == 1
    with pytest.raises(BadInput, match="still waits; run 'perdure accept' or 'perdure discard' first"):
        ledger.put_candidate(draft(2), {})
    assert ledger.accept() == entry
    assert ledger.resolve("head") == entry
    assert ledger.candidate() is None
    assert ledger.notes(entry.id) == {"gate": {"verdict": "fail"}}
    assert ledger.reflog()[0].why == "accept"


def test_a_discarded_candidate_leaves_nothing(ledger: Ledger, draft) -> None:
    before = everything(ledger)
    entry = draft(1)
    ledger.put_candidate(entry, {"note": 1})
    assert ledger.discard() == entry
    assert everything(ledger) == before
    for verb in (ledger.accept, ledger.discard):
        with pytest.raises(NotFound, match="no candidate waits"):
            verb()


def test_a_candidate_whose_parent_is_no_longer_head_is_refused(ledger: Ledger, draft) -> None:
    entry = draft(1)
    ledger.put_candidate(entry, {})
    other = ledger.record(draft(2), {})
    with pytest.raises(BadInput, match=f"head moved to {other.id[:12]}"):
        ledger.accept()
    assert ledger.resolve("head") == other
    ledger.move("head", ledger.resolve("base").id, "rollback")
    assert ledger.accept() == entry


def test_a_rolled_back_head_has_its_state_and_memory_again(ledger: Ledger, draft, rows) -> None:
    ledger.put_task("faq", "v1", {}, {"train": rows})
    small, large = (ledger.put_manifest([remembered(row) for row in some]) for some in (rows[:1], rows))
    first = ledger.record(draft(1, memory=small), {})
    state, tensors = ledger.state(first), ledger.objects.get(ledger.slots(first)["skill"])
    ledger.record(draft(2, memory=large), {})
    ledger.move("head", first.id, "rollback")
    head = Ledger.open(ledger.root).resolve("head")
    assert ledger.state(head) == state
    assert [row for _, row in ledger.manifest_rows(head.memory)] == rows[:1]
    assert torch.equal(ledger.objects.get(ledger.slots(head)["skill"])["weight"], tensors["weight"])


def test_a_task_with_slots_of_its_own_sees_them_whatever_comes_later(ledger: Ledger, draft) -> None:
    """What an isolated task sees has one identity for ever, and its score is kept under it."""
    skill, own = (ledger.objects.put({"x": torch.full((1,), float(n))}) for n in (1, 2))
    shared = ledger.record(draft(1, slots={"skill": skill}), {})
    isolated = ledger.record(draft(2, parent=shared, slots={"task:b": own, "task:b/skill": skill}), {})
    later = ledger.record(draft(3, parent=isolated, slots={"skill": own}), {})
    assert ledger.view(later, "b") == {"task:b": own, "task:b/skill": skill}
    assert ledger.seen(isolated, "b") == ledger.seen(later, "b")
    assert ledger.view(later) == ledger.view(later, "a") == {"skill": own}
    assert ledger.seen(shared, "a") == ledger.seen(isolated, "a") == ledger.state(shared)
    assert ledger.seen(later, "a") != ledger.seen(isolated, "a")
    assert ledger.state(isolated) != ledger.seen(isolated, "a")


def test_tasks_of_other_names_with_the_same_slots_see_the_same_model(ledger: Ledger, draft) -> None:
    own = ledger.objects.put({"x": torch.ones(1)})
    one = ledger.record(draft(1, slots={"task:a": own, "task:b": own}), {})
    assert ledger.seen(one, "a") == ledger.seen(one, "b")


def test_a_damaged_note_is_named_with_its_entry_its_key_and_the_field(ledger: Ledger, draft) -> None:
    entry = ledger.record(draft(1), {"record": {"updates": "many"}})
    with pytest.raises(
        BrokenStore, match=rf"note 'record' of entry {entry.id[:12]} .*heartbeats is missing.*from a backup"
    ):
        ledger.note(entry.id, "record", LearnRecord)
    assert ledger.note(entry.id, "evidence", LearnRecord) is None
