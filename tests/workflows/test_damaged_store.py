"""A damaged ledger: every reading verb gives the right answer, a named error, or fails where the check names the damage."""

import json
import random
import shutil
import sqlite3

import pytest
from typer.testing import CliRunner

from perdure import Workspace
from perdure.cli.main import app
from perdure.core.errors import BrokenStore, PerdureError
from perdure.ledger import Ledger
from perdure.workflows.inspect import memory_views, views

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop"}
PAGE = 4096
READS = {
    "status": views.status,
    "log": lambda ledger: ledger.log(),
    "show": lambda ledger: views.show(ledger, "head"),
    "diff": lambda ledger: views.diff(ledger, "head~1", "head"),
    "gate": views.gate,
    "matrix": lambda ledger: Workspace(ledger).matrix(),
    "stats": memory_views.memory_stats,
    "list": memory_views.kept,
    "verify": lambda ledger: ledger.verify(),
}


@pytest.fixture(scope="module")
def sound(tiny_model, tmp_path_factory):
    """A workspace with two learned tasks, closed."""
    folder = tmp_path_factory.mktemp("sound")
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32")
    for task in ("ant", "bee"):
        rows = [{"prompt": f"what of {task} {i}?", "completion": f" {task} {i % 3}"} for i in range(12)]
        (folder / f"{task}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        ws.learn(task, folder / f"{task}.jsonl", overrides=FAST)
    ws.ledger.empty_log()
    ws.ledger.close()
    return folder / "ws"


@pytest.fixture
def root(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "ws")


def damages(size):
    """Yield functions that damage the bytes of a file: pages zeroed, filled, moved, and bytes flipped."""
    draw = random.Random(0)
    for page in range(size // PAGE):
        yield f"page {page} zeroed", page * PAGE, bytes(PAGE)
    for page in draw.sample(range(size // PAGE), 8):
        yield f"page {page} random", page * PAGE, draw.randbytes(PAGE)
    for _ in range(12):
        at = draw.randrange(size)
        yield f"byte {at} flipped", at, None


def test_a_damaged_page_or_byte_is_a_named_error_or_no_harm(root):
    file = root / "ledger.sqlite"
    whole = file.read_bytes()
    for name, at, content in damages(len(whole)):
        changed = content or bytes([whole[at] ^ 0xFF])
        file.write_bytes(whole[:at] + changed + whole[at + len(changed) :])
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        try:
            ledger = Ledger.open(root)
        except PerdureError:
            continue
        wrong = [(verb, error) for verb, read in READS.items() if (error := failure(read, ledger))]
        assert not wrong or ledger.damage() is not None, (name, wrong)
        ledger.close()


def failure(read, ledger):
    """Return what a reader raises that no user should see."""
    try:
        read(ledger)
    except PerdureError:
        return None
    except Exception as error:
        return repr(error)
    return None


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize("words", [["status"], ["log"], ["show"], ["learn", "x", "{rows}"], ["memory", "stats"]])
def test_the_command_line_names_the_damage(root, sound, words):
    with sqlite3.connect(root / "ledger.sqlite") as connection:
        connection.execute("DELETE FROM tasks")
        connection.execute("UPDATE notes SET value = '{}'")
        connection.execute("UPDATE scores SET record = '{}'")
        connection.execute("UPDATE manifests SET items = '[{}]'")
    connection.close()
    given = [word.replace("{rows}", str(sound.parent / "ant.jsonl")) for word in words]
    done = run("-w", root, *given)
    if words != ["log"]:
        assert done.exit_code == 1, done.output
        assert "error: " in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET parent = (SELECT id FROM entries WHERE kind = 'base') WHERE number = 3",
        "UPDATE entries SET task = 'cat' WHERE number = 3",
        "UPDATE entries SET kind = 'edit' WHERE number = 2",
    ],
)
def test_what_was_changed_by_hand_beside_an_entry_is_found_and_not_shown(root, statement):
    before = Ledger.open(root).log()
    with sqlite3.connect(root / "ledger.sqlite") as connection:
        connection.execute(statement)
    connection.close()
    ledger = Ledger.open(root)
    assert ledger.log() == before
    assert any("is not what was recorded" in problem for problem in ledger.verify().to_json()["problems"])


def test_a_parent_changed_in_the_body_is_an_error_that_names_the_entry(root):
    with sqlite3.connect(root / "ledger.sqlite") as connection:
        (name,) = connection.execute("SELECT id FROM entries WHERE number = 3").fetchone()
        connection.execute("UPDATE entries SET body = json_set(body, '$.parent', 'f00') WHERE number = 3")
    connection.close()
    ledger = Ledger.open(root)
    with pytest.raises(BrokenStore, match=f"entry {name[:12]} is not what was recorded"):
        ledger.log()
    assert not ledger.verify().to_json()["ok"]


def test_a_ref_to_nothing_is_a_broken_store(root):
    with sqlite3.connect(root / "ledger.sqlite") as connection:
        connection.execute("UPDATE refs SET entry = 'f00' WHERE name = 'head'")
    connection.close()
    with pytest.raises(BrokenStore, match="ref 'head' names f00, which is no entry"):
        views.status(Ledger.open(root))
