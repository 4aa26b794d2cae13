"""Rows, tasks, manifests and scores."""

from collections import Counter
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from perdure.core.errors import BadInput, Busy, NotFound
from perdure.core.rows import Message, Row
from perdure.ledger import Ledger, row_key
from perdure.ledger.database import tasks
from record_examples import remembered, score


def test_a_task_version_comes_back_as_it_was(ledger: Ledger, rows) -> None:
    talk = Row(messages=(Message("user", "hi"), Message("assistant", "hello")), label="greet", task="faq")
    parts = {"train": [rows[1], rows[0], rows[1], talk], "test": rows[2:4], "validation": []}
    for _ in range(2):  # the second time changes nothing
        ledger.put_task("faq", "v1", {"scorer": "exact"}, parts)
    spec, found = ledger.task("faq", "v1")
    assert spec == {"scorer": "exact"}
    assert found == {"train": parts["train"], "test": parts["test"]}
    assert ledger.task_rows("v1", "test") == rows[2:4]
    assert ledger.task_rows("v1", "validation") == []
    assert ledger.train_hashes("v1") == {rows[0].hash, rows[1].hash, talk.hash}


def test_a_version_never_changes(ledger: Ledger, rows) -> None:
    ledger.put_task("faq", "v1", {}, {"train": rows})
    for name, some in (("faq", rows[1:]), ("other", rows)):
        with pytest.raises(BadInput, match="stored already with other content"):
            ledger.put_task(name, "v1", {}, {"train": some})
    ledger.put_task("faq", "v1", {"train": "a file that moved"}, {"train": rows})
    assert ledger.task("faq", "v1") == ({}, {"train": rows})
    with pytest.raises(NotFound, match="no version v2 of task 'faq'"):
        ledger.task("faq", "v2")


def test_text_is_kept_once_however_often_it_is_used(ledger: Ledger, rows) -> None:
    ledger.put_task("faq", "v1", {}, {"train": rows[:3]})
    ledger.put_task("faq", "v2", {}, {"train": rows})
    ledger.put_task("faq", "v3", {}, {"train": [replace(rows[0], label="other")]})
    with ledger.reading() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM rows").scalar() == len(rows) + 1


def test_thousands_of_rows_are_no_limit(ledger: Ledger) -> None:
    many = [Row(prompt=str(i), completion="x") for i in range(11_000)]
    ledger.put_task("big", "v1", {}, {"train": many})
    assert ledger.task_rows("v1", "train") == many


def test_a_manifest_is_named_by_its_content(ledger: Ledger, rows) -> None:
    ledger.put_rows(rows)
    items = [replace(remembered(row), stage=i, score=0.25 * i) for i, row in enumerate(rows)]
    name = ledger.put_manifest(items)
    assert ledger.put_manifest(items) == name
    assert ledger.put_manifest(items[1:]) != name
    assert ledger.manifest(name) == items
    assert ledger.manifest_rows(name) == list(zip(items, rows, strict=True))
    assert ledger.manifest(ledger.put_manifest([])) == []
    with pytest.raises(BadInput, match=r"names rows that are not in .*ledger\.sqlite, such as 0000"):
        ledger.put_manifest([replace(items[0], row="0" * 64)])
    with pytest.raises(NotFound, match="no memory manifest"):
        ledger.manifest("0" * 64)


def test_a_deleted_row_is_gone_from_tasks_manifests_and_files_and_ids_stay(ledger: Ledger, draft, keep, rows) -> None:
    secret = Row(prompt="the customer's name is", completion="Rumpelstiltskin", task="faq")
    version = keep([*rows, secret])
    memory = ledger.put_manifest([remembered(row) for row in (rows[0], secret, rows[1])])
    base = ledger.resolve("base")
    aside = ledger.record(draft(0, slots={}), {}, ref="aside")
    first = ledger.record(draft(1, parent=base, tasks={"faq": version}, memory=memory), {})
    second = ledger.record(draft(2), {})
    report = ledger.delete_row(secret.hash).to_json()
    assert report == {"row": secret.hash, "rows": 1, "already": False, "entries": [first.id, second.id], "tests": []}
    assert ledger.delete_row(secret.hash).to_json() == {**report, "already": True}
    assert aside.id not in report["entries"]
    assert ledger.task_rows(version, "train") == rows
    assert [row for _, row in ledger.manifest_rows(memory)] == rows[:2]
    assert [item.row for item in ledger.manifest(memory)] == [row_key(rows[0]), row_key(rows[1])]
    assert ledger.manifest_keys(memory) == [row_key(row) for row in (rows[0], secret, rows[1])]
    assert secret.hash in ledger.train_hashes(version)
    assert ledger.deleted([secret.hash, rows[0].hash]) == {secret.hash}
    assert ledger.resolve("head~1") == first
    assert ledger.verify().to_json()["problems"] == []  # its hash is still there to check the task with
    for path in ledger.root.glob("ledger.sqlite*"):
        assert b"Rumpelstiltskin" not in path.read_bytes(), path


def test_a_deleted_row_does_not_come_back_with_the_same_data(ledger: Ledger, rows) -> None:
    ledger.put_task("faq", "v1", {}, {"train": rows})
    ledger.delete_row(rows[0].hash)
    ledger.put_task("faq", "v1", {}, {"train": rows})
    ledger.put_task("faq", "v2", {}, {"train": rows})
    assert ledger.task_rows("v1", "train") == ledger.task_rows("v2", "train") == rows[1:]


def test_deletion_says_so_when_a_reader_keeps_the_text_in_the_log(ledger: Ledger, rows) -> None:
    ledger.put_rows(rows)
    with ledger._engine.connect() as connection:  # the pool's one connection keeps the limit
        connection.exec_driver_sql("PRAGMA busy_timeout=20")
    log = ledger.path.with_name("ledger.sqlite-wal")
    reader = Ledger.open(ledger.root)
    with reader.reading() as snapshot:
        assert snapshot.exec_driver_sql("SELECT COUNT(*) FROM rows").scalar() == len(rows)
        for verb in (lambda: ledger.delete_row(rows[0].hash), ledger.gc):
            with pytest.raises(Busy, match=r"deleted text is still in the log of .*ledger\.sqlite.* again"):
                verb()
        assert b"answer 0" in log.read_bytes()
    assert ledger.gc().to_json()["removed"] == 0
    assert log.read_bytes() == b""
    assert ledger.delete_row(rows[0].hash).to_json()["rows"] == 1


def test_every_kept_row_is_listed_by_task(ledger: Ledger, rows) -> None:
    other = Row(prompt="a", completion="b", task="before")
    ledger.put_task("faq", "v1", {}, {"train": rows[:2], "test": rows[2:]})
    ledger.put_rows([other])
    ledger.delete_row(rows[3].hash)
    ordered = sorted((rows[i] for i in (0, 1, 2, 4)), key=lambda row: row.hash)
    assert ledger.kept_rows() == [other, *ordered]


def test_deletion_reaches_every_label_of_a_text_and_names_the_tests_it_left(ledger: Ledger, rows) -> None:
    ledger.put_task("a", "v1", {}, {"train": [replace(rows[0], label="x")]})
    ledger.put_task("b", "v2", {}, {"train": [rows[1]], "test": [replace(rows[0], label="y")]})
    report = ledger.delete_row(rows[0].hash).to_json()
    assert (report["rows"], report["tests"], report["entries"]) == (2, ["b"], [])
    assert ledger.task_rows("v1", "train") == ledger.task_rows("v2", "test") == []
    with pytest.raises(NotFound, match="no row 0000"):
        ledger.delete_row("0" * 64)


def test_rows_reach_entries_by_train_part_memory_and_descent_but_not_by_test(ledger: Ledger, draft, rows) -> None:
    base = ledger.resolve("base")
    ledger.put_task("a", "v1", {}, {"train": [rows[0]], "test": [rows[1]]})
    ledger.put_rows([rows[2]])
    memory = ledger.put_manifest([remembered(rows[2])])
    first = ledger.record(draft(1, tasks={"a": "v1"}), {})
    second = ledger.record(draft(2, memory=memory), {})
    side = ledger.record(draft(3, parent=base), {}, ref="side")
    ledger.put_candidate(draft(4), {})
    held = ledger.candidate()
    assert ledger.entries_trained_on(rows[0].hash) == [first.id, second.id, held.id]
    assert ledger.entries_trained_on(rows[2].hash) == [second.id, held.id]
    assert ledger.entries_trained_on(rows[1].hash) == []
    assert side.id not in ledger.entries_trained_on(rows[0].hash)


def test_scores_are_measured_once(ledger: Ledger) -> None:
    record = score([1.0, 0.0])
    ledger.put_score("s1", "v1", record)
    ledger.put_score("s1", "v1", replace(record, seconds=9.9))
    assert ledger.score("s1", "v1") == record
    assert ledger.score("s1", "v2") is None
    with pytest.raises(BadInput, match="scores are never replaced"):
        ledger.put_score("s1", "v1", score([0.0, 1.0]))
    other = score([1.0, 1.0])
    ledger.put_score("s2", "v2", other)
    assert ledger.scores(["s1", "s2", "s3"], ["v1", "v2"]) == {("s1", "v1"): record, ("s2", "v2"): other}
    assert ledger.scores([], ["v1"]) == {}


def test_a_cell_of_another_scoring_version_is_kept_and_read_no_more(ledger: Ledger, keep) -> None:
    plain, chinese = Row(prompt="ask", completion="Tokyo"), Row(prompt="ask", completion="东京")
    same, changed = keep([plain], [plain]), keep([chinese], [chinese])
    old, new = score([0.0]), score([1.0])
    for version in (same, changed):
        ledger.put_score("s1", version, old)  # as it was written before there were scoring versions
    assert ledger.scoring([same, changed]) == {same: 1, changed: 2}
    assert ledger.scores(["s1"], [same, changed]) == {("s1", same): old}
    assert ledger.score("s1", changed) is None
    ledger.put_score("s1", changed, new, 2)
    assert ledger.score("s1", changed) == ledger.score("s1", changed, 2) == new
    assert ledger.score("s1", changed, 1) == old


def test_the_scoring_version_of_a_task_from_before_is_read_from_its_rows(ledger: Ledger, keep) -> None:
    row = Row(prompt="ask", completion="东京")
    version = keep([row], [row])
    with ledger.changing() as connection:
        spec = connection.execute(select(tasks.c.spec).where(tasks.c.version == version)).scalar_one()
        told = {key: value for key, value in spec.items() if key not in ("scoring", "default")}
        connection.execute(update(tasks).where(tasks.c.version == version).values(spec=told))
    assert ledger.scoring([version]) == {version: 2}
    assert ledger.verify().to_json()["problems"] == []


def test_a_row_is_named_by_the_beginning_of_its_hash_if_it_is_the_only_one(ledger: Ledger) -> None:
    rows = [Row(prompt=str(i), completion="x") for i in range(2000)]  # some of so many begin with the same 4 digits
    ledger.put_rows(rows)
    beginnings = Counter(row.hash[:4] for row in rows)
    (twice, times), (once, _) = beginnings.most_common()[0], beginnings.most_common()[-1]
    assert times > 1
    assert ledger.row_hash(once) == next(row.hash for row in rows if row.hash.startswith(once))
    with pytest.raises(BadInput, match="several rows"):
        ledger.row_hash(twice)
    for nothing in ("", once[:3], "%%%%", "zzzz"):
        with pytest.raises(NotFound, match="no row"):
            ledger.row_hash(nothing)


def test_the_prompt_of_a_question_with_choices_is_found_where_it_is_learned(ledger):
    learned = Row("Which?", " x", task="t")
    ledger.put_task("t", "v" * 64, {}, {"train": [learned]})
    asked = Row("Which?", " x", choices=(" x", " y"), gold=0, task="u")
    assert [place.hash for place in ledger.places_of([asked])] == [learned.hash]
    assert ledger.places_of([Row("What?", " x", choices=(" x", " y"), gold=0)]) == []
