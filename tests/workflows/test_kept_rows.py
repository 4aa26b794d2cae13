"""Which texts a workspace keeps: those of memory and the test rows, and none but those in any byte of its folder."""

import json
import re
import sqlite3

import pytest

from perdure import Gate, Workspace
from perdure.core.errors import BadInput, BrokenStore, Interrupted
from perdure.train.update import Update
from perdure.workflows.inspect.memory_views import memory_stats
from perdure.workflows.learn.remember import LedgerMemory

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop"}
REFUSED = Gate(floor=1.0)  # a random model never says every answer


def data(path, word, n=8, tests=4, label=False):
    """Write rows that each have a word of their own, by part: `word`train0, `word`test0, `word`validation0."""
    sizes = {"train": n, "test": tests, "validation": 2}
    rows = [
        {"text": f"about {word}{part}{i}q", "label": f"{word}{i % 2}", "split": part}
        if label
        else {"prompt": f"what of {word}{part}{i}q?", "completion": f" {word}{part}{i}a", "split": part}
        for part, size in sizes.items()
        for i in range(size)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def texts(root, word):
    """Return the parts whose rows stand in some file of the folder, with how many of each."""
    found = set()
    for file in root.rglob("*"):
        if file.is_file():
            found |= set(re.findall(rf"{word}(train|validation|test)(\d+)[qa]".encode(), file.read_bytes()))
    counts = {}
    for part, _ in found:
        counts[part.decode()] = counts.get(part.decode(), 0) + 1
    return counts


@pytest.fixture
def ws(tiny_model, tmp_path):
    return Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")


def learn(ws, path, task, recipe="naive", gate=None, **options):
    return ws.learn(task, path, recipe=recipe, overrides=FAST, gate=gate, **options)


def test_after_a_learn_without_memory_the_texts_of_the_test_rows_stay_alone(ws, tmp_path):
    learn(ws, data(tmp_path / "a.jsonl", "ant"), "a", recipe="ewc")
    assert texts(ws.ledger.root, "ant") == {"test": 4}
    kept = memory_stats(ws.ledger).kept
    rows = kept.rows
    assert (rows.test, rows.memory, rows.train, rows.validation, rows.names) == (4, 0, 0, 0, 10)
    assert kept.setting == "needed"
    assert ws.verify().ok


def test_with_memory_its_rows_stay_too_and_no_other(ws, tmp_path):
    overrides = {**FAST, "memory_size": 6}
    ws.learn("a", data(tmp_path / "a.jsonl", "ant", n=16), recipe="replay", overrides=overrides, gate=None)
    remembered = len(LedgerMemory.at(ws.ledger, ws.ledger.resolve("head")).rows)
    assert 0 < remembered < 16
    assert texts(ws.ledger.root, "ant") == {"test": 4, "train": remembered}
    learn(ws, data(tmp_path / "b.jsonl", "bee"), "b", recipe="replay")  # draws from it
    assert texts(ws.ledger.root, "ant") == {"test": 4, "train": remembered}


def test_a_row_goes_over_from_its_name_to_its_text_when_a_memory_takes_it(ws, tmp_path):
    path = data(tmp_path / "a.jsonl", "ant")
    learn(ws, path, "a")
    version = ws.ledger.resolve("head").tasks["a"]
    learn(ws, path, "a", recipe="replay")
    assert ws.ledger.resolve("head").tasks["a"] == version
    assert texts(ws.ledger.root, "ant") == {"test": 4, "train": 8}
    assert ws.verify().ok


def test_discard_and_gc_remove_what_only_the_candidate_had(ws, tmp_path):
    learn(ws, data(tmp_path / "a.jsonl", "ant"), "a", recipe="replay")
    before = texts(ws.ledger.root, "ant")
    made = learn(ws, data(tmp_path / "b.jsonl", "bee"), "b", recipe="replay", gate=REFUSED)
    assert not made.moved
    assert texts(ws.ledger.root, "bee")["test"] == 4
    ws.gc()
    assert texts(ws.ledger.root, "bee")["test"] == 4  # the candidate still waits
    ws.discard()
    assert ws.gc().rows > 0
    assert texts(ws.ledger.root, "bee") == {}
    assert texts(ws.ledger.root, "ant") == before
    assert ws.verify().ok
    assert learn(ws, data(tmp_path / "b.jsonl", "bee"), "b", recipe="replay").entry == made.entry


def test_an_unfinished_learn_keeps_no_text_and_ends_in_the_same_bits(ws, tmp_path, monkeypatch, tiny_model):
    path = data(tmp_path / "a.jsonl", "ant")
    finish = Update.finish

    def stop(self):
        finish(self)
        raise Interrupted("stopped")

    from perdure.train import checkpoint

    monkeypatch.setattr(Update, "finish", stop)
    monkeypatch.setattr(checkpoint.Keeper, "resume", lambda self, optimizer: (_saved(self, optimizer), 0)[1])
    with pytest.raises(Interrupted):
        learn(ws, path, "a")
    assert texts(ws.ledger.root, "ant") == {}
    monkeypatch.undo()
    whole = learn(ws, path, "a")
    assert texts(ws.ledger.root, "ant") == {"test": 4}
    other = Workspace.init(tmp_path / "other", str(tiny_model), dtype="float32")
    assert learn(other, path, "a").entry == whole.entry


def _saved(keeper, optimizer):
    keeper.save(optimizer, 0)


def test_what_learning_needs_of_rows_without_text_is_still_known(ws, tmp_path):
    path = data(tmp_path / "a.jsonl", "ant", label=True)
    learn(ws, path, "a")
    with pytest.raises(BadInput, match=r"in the train part of task 'a', the first test\.jsonl:1 as a\.jsonl:1"):
        learn(ws, _rows(tmp_path / "v.jsonl", path, "test"), "b", test=_rows(tmp_path / "test.jsonl", path, "train"))
    again = ws.plan("a", path, recipe="naive")
    assert "every train row of a was learned before" in again.notices
    assert ws.session.task("a", ws.ledger.resolve("head")).labels == ["ant0", "ant1"]
    assert ws.ledger.entries_trained_on(_hash(ws, path)) == [ws.ledger.resolve("head").id]


def _rows(path, source, part):
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    kept = [{k: v for k, v in row.items() if k != "split"} for row in rows if row["split"] == part]
    path.write_text("\n".join(map(json.dumps, kept)), encoding="utf-8")
    return path


def _hash(ws, path):
    return ws.plan("a", path, recipe="naive").task.train[0].hash


def test_a_row_known_by_name_is_deleted_and_does_not_come_back(ws, tmp_path):
    path = data(tmp_path / "a.jsonl", "ant")
    row = ws.plan("a", path, recipe="naive").task.train[0]
    learn(ws, path, "a")
    found = ws.delete_row(row.hash)
    assert found.entries == (ws.ledger.resolve("head").id,)
    notices = ws.plan("a", path, recipe="naive").notices
    assert "deleted from this workspace before, and left out: 1 row" in notices
    assert ws.verify().ok


def test_choices_outlive_the_rows_they_stood_in(ws, tmp_path):
    path = data(tmp_path / "a.jsonl", "ant", label=True)
    options = {"settings": {"scorer": "choice"}}
    learn(ws, path, "a", **options)
    assert ws.session.task("a", ws.ledger.resolve("head")).choices == (" ant0", " ant1")
    learn(ws, data(tmp_path / "b.jsonl", "bee"), "b")  # scores a again
    assert ws.ledger.verify().to_json()["ok"]


def test_joint_takes_the_rows_that_are_not_kept_from_files_to_the_same_bits(ws, tmp_path, tiny_model):
    a, b = data(tmp_path / "a.jsonl", "ant"), data(tmp_path / "b.jsonl", "bee")
    first = learn(ws, a, "a", recipe="joint")
    assert any("its next learn needs --rows a=FILE" in warning for warning in first.warnings)
    with pytest.raises(
        BadInput, match=r"8 of task a\); give the files .* --rows a=FILE, or learn in .*--keep-rows all"
    ):
        learn(ws, b, "b", recipe="joint")
    changed = tmp_path / "changed.jsonl"
    changed.write_text(a.read_text().replace("anttrain3q", "anttrain3z"))
    with pytest.raises(BadInput, match=r"--rows a: 1 of 14 rows are not rows of task a, the first changed.jsonl:4"):
        learn(ws, b, "b", recipe="joint", rows={"a": changed})
    part = tmp_path / "part.jsonl"
    part.write_text("\n".join(a.read_text().splitlines()[1:]))
    with pytest.raises(BadInput, match="--rows a: 1 train rows of task a are in none of its files"):
        learn(ws, b, "b", recipe="joint", rows={"a": [part]})
    with pytest.raises(BadInput, match="--rows names c, which head did not learn before"):
        learn(ws, b, "b", recipe="joint", rows={"a": a, "c": a})
    with pytest.raises(BadInput, match="recipe naive reads no rows of older tasks; leave out --rows"):
        learn(ws, b, "b", recipe="naive", rows={"a": a})
    given = learn(ws, b, "b", recipe="joint", rows={"a": a}).entry
    assert texts(ws.ledger.root, "ant") == {"test": 4}
    keeping = Workspace.init(tmp_path / "all", str(tiny_model), dtype="float32", keep_rows="all")
    learn(keeping, a, "a", recipe="joint")
    assert texts(keeping.ledger.root, "ant") == {"test": 4, "train": 8, "validation": 2}
    assert learn(keeping, b, "b", recipe="joint").entry == given


def test_a_task_can_keep_all_its_rows(ws, tmp_path):
    data(tmp_path / "a.jsonl", "ant")
    (tmp_path / "a.yaml").write_text("train: a.jsonl\nkeep_rows: all\n")
    learn(ws, tmp_path / "a.yaml", "a", recipe="joint")
    assert texts(ws.ledger.root, "ant") == {"test": 4, "train": 8, "validation": 2}
    learn(ws, data(tmp_path / "b.jsonl", "bee"), "b", recipe="joint")
    assert texts(ws.ledger.root, "bee") == {"test": 4}
    assert ws.prune().to_json() == {"rows": 0, "bytes": 0, "kept": ["a"]}
    assert ws.prune(["a"]).rows == 10
    assert texts(ws.ledger.root, "ant") == {"test": 4}


def old_layout(root):
    """Make a workspace look as the first released version left it."""
    with sqlite3.connect(root / "ledger.sqlite") as connection:
        connection.execute("DROP TABLE row_names")
        connection.execute("DROP TABLE questions")
        connection.execute("UPDATE meta SET schema_version = 1")
    connection.close()
    config = json.loads((root / "perdure.json").read_text())
    del config["keep_rows"]
    (root / "perdure.json").write_text(json.dumps(config))
    return Workspace.open(root)


def test_an_old_workspace_goes_on_as_it_is_until_it_is_pruned(tiny_model, tmp_path):
    made = Workspace.init(tmp_path / "old", str(tiny_model), dtype="float32", keep_rows="all")
    learn(made, data(tmp_path / "a.jsonl", "ant", label=True), "a", settings={"scorer": "choice"})
    learn(made, data(tmp_path / "b.jsonl", "bee"), "b", recipe="replay")
    made.ledger.close()
    ws, root = old_layout(tmp_path / "old"), tmp_path / "old"
    bytes_before = (root / "ledger.sqlite").read_bytes()
    entries, matrix = ws.ledger.entries(), ws.matrix()
    assert ws.verify().ok
    kept = memory_stats(ws.ledger).kept
    assert (kept.setting, kept.rows.names, kept.rows.train) == ("all", 0, 8)
    ws.ledger.close()
    assert (root / "ledger.sqlite").read_bytes() == bytes_before  # reading changes nothing
    assert learn(ws, data(tmp_path / "c.jsonl", "cat"), "c").moved
    assert texts(root, "cat") == {"test": 4, "train": 8, "validation": 2}
    found = ws.prune()
    assert found.rows == 8 + 2 + 2 + 8 + 2  # of a, of b but its 8 in memory, of c
    assert found.bytes > 1000
    assert texts(root, "cat") == texts(root, "ant") == {"test": 4}
    assert texts(root, "bee") == {"test": 4, "train": 8}
    ws = Workspace.open(root)
    assert ws.ledger.entries()[: len(entries)] == entries
    assert ws.verify().ok
    assert ws.matrix(entries[-1].id) == matrix
    learn(
        ws, data(tmp_path / "d.jsonl", "dog"), "d"
    )  # scores a by its choices, although they stand in no row but test rows
    assert texts(root, "dog") == {"test": 4}
    assert ws.prune().rows == 0


def test_a_deleted_row_leaves_no_byte(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", keep_rows="all")
    learn(ws, data(tmp_path / "a.jsonl", "ant", n=40), "a", recipe="replay")
    row = next(row for row in ws.ledger.kept_rows() if "anttrain7q" in row.prompt)
    ws.delete_row(row.hash[:12])
    assert not any(b"anttrain7q" in file.read_bytes() for file in ws.ledger.root.rglob("*") if file.is_file())
    assert ws.verify().ok


def test_a_changed_name_or_text_of_a_row_is_found(ws, tmp_path):
    learn(ws, data(tmp_path / "a.jsonl", "ant", label=True), "a")
    with ws.ledger.changing() as connection:
        connection.exec_driver_sql("UPDATE rows SET body = replace(body, 'anttest1q', 'anttest9q')")
    assert not ws.verify().ok
    with pytest.raises(BrokenStore, match=r"row .* of the ledger is damaged"):
        ws.session.task("a", ws.ledger.resolve("head"))


def test_a_setting_that_is_none_is_refused(tiny_model, tmp_path):
    with pytest.raises(BadInput, match="keep_rows is 'some'"):
        Workspace.init(tmp_path / "ws", str(tiny_model), keep_rows="some")
