"""The Python API has every command of the command line, and returns values that print, tabulate and show themselves."""

import inspect
import json

import pytest
import typer

from perdure import Gate, Workspace
from perdure.cli.main import app
from perdure.core.records import BadRecord

OTHER_NAMES = {
    "eval": "evaluate",  # `eval` is a function of Python
    "edits list": "edits",
    "edits show": "show_fact",  # `show` is of entries
    "edits verify": "verify_edits",  # `verify` is of the store
    "guard accept": "guard_accept",  # `accept` is of candidates
    "guard add": "guard_add",
    "guard enforce": "guard_mode",
    "guard list": "guards",
    "guard remove": "guard_remove",
    "guard warn": "guard_mode",
    "memory list": "memory",
    "memory stats": "memory_stats",
    "memory delete": "delete_row",  # it deletes a row of any place
    "memory export": "export_memory",  # `export` is of adapters
    "recipe import": "import_recipe",  # `import` is a word of Python
    "recipe list": "recipes",
    "recipe show": "recipe",
    "task rename": "task_rename",
    "task remove": "task_remove",  # `remove` alone does not say what
}
EXCEPTIONS = {
    "demo": "it makes two workspaces of its own, and prints as it goes",
    "help": "it prints pages on the command line; `help(Workspace.learn)` is Python's",
}
FAST = {"num_train_epochs": 2, "learning_rate": 0.01, "max_length": 64}


def commands(group=None, before=""):
    """Yield every command, with the name of its group before it."""
    for name, command in (group or typer.main.get_command(app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            yield before + name


def test_every_command_has_a_method():
    every = set(commands())
    assert len(every) > 30
    assert not (set(OTHER_NAMES) | set(EXCEPTIONS)) - every  # nothing is excused that does not exist
    methods = {name for name, _ in inspect.getmembers(Workspace, callable) if not name.startswith("_")}
    wanted = {OTHER_NAMES.get(name, name.rpartition(" ")[2]) for name in every - set(EXCEPTIONS)}
    assert wanted - methods == set()


def test_every_method_has_a_real_signature_and_says_what_it_does():
    for name, method in inspect.getmembers(Workspace, callable):
        if name.startswith("_"):
            continue
        given = inspect.signature(method)
        assert method.__doc__, name
        assert given.return_annotation is not inspect.Signature.empty, name
        assert not [p for p in given.parameters.values() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)], name


@pytest.fixture(scope="module")
def ws(tiny_model, tmp_path_factory):
    """A workspace of two tasks."""
    folder = tmp_path_factory.mktemp("verbs")
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32")
    for task, gate in (("<one>", None), ("two", Gate(tolerance=0.9))):
        rows = [
            {"text": f"{task} {word} {i}", "label": label, "split": "test" if i > 5 else "train"}
            for label, word in (("yes", "good"), ("no", "bad"))
            for i in range(9)
        ]
        path = folder / f"{task.strip('<>')}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        ws.learn(task.strip("<>"), path, recipe="replay", overrides=FAST, gate=gate)
    return ws


def test_every_result_has_the_json_that_the_command_prints(ws, tmp_path):
    results = [
        *(ws.status(), ws.log(), ws.show(), ws.diff("head~1", "head"), ws.matrix(), ws.evaluate(), ws.gate(), ws.gc()),
        *(ws.memory(), ws.memory_stats(), ws.stored_rows("good 7"), ws.edits(), ws.methods("ewc"), ws.recipes()),
        *(ws.recipe("replay"), ws.explain("replay"), ws.advise(), ws.prune(), ws.verify(), ws.rollback("head")),
        *(ws.predict(["one good 1"], max_new_tokens=2), ws.pack(tmp_path / "ws.tar")),
    ]
    for result in results:
        assert json.loads(json.dumps(result.to_json(), allow_nan=False)) is not None
    for line in ws.memory():
        assert {"row", "pool", "task", "prompt"} <= line.to_json().keys()
    assert len(ws.stored_rows("GOOD 7")) == len(ws.stored_rows("good 7")) > 0


def test_files_are_written_and_read_again(ws, tmp_path):
    assert ws.report(tmp_path / "report.html", compare={"again": ws}).read_text("utf-8").startswith("<!doctype html>")
    rows = ws.export_memory(tmp_path / "memory.jsonl").read_text("utf-8").splitlines()
    assert len(rows) == len(ws.memory()) > 0
    checked = Workspace.check_evidence(ws.save_evidence(tmp_path / "evidence.json"))
    assert checked.verdict == ws.gate().verdict
    assert Workspace.unpack(ws.pack(tmp_path / "b.tar").file, tmp_path / "again").log() == ws.log()


def test_tables_of_matrix_gate_and_comparison(ws):
    matrix, gate, diff = ws.matrix(), ws.gate(), ws.diff("head~1", "head")
    frame = matrix.to_pandas()
    assert frame.columns.tolist() == ["after", "one", "two"]
    assert frame["two"].tolist()[-1] == matrix.score[-1][1]
    assert gate.to_pandas()["task"].tolist() == ["one"]
    assert gate.verdict.reason in gate._repr_html_()
    assert diff.to_pandas()["change"].tolist()[0] == diff.scores["one"].change.value
    assert ws.evaluate().to_pandas()["score"].tolist() == list(matrix.score[-1])
    for result in (matrix, gate, diff, ws.evaluate(), ws.log(), ws.memory()):
        assert result._repr_html_().startswith("<table>")


def test_records_refuse_what_they_are_not(ws):
    with pytest.raises(BadRecord, match="is missing"):
        type(ws.matrix()).from_json({})
