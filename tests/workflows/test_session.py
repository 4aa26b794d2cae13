"""What a learn reads, decodes and tokenises: once, and no more of it the longer the workspace lives."""

import inspect
import json
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import event

from perdure import Workspace
from perdure.core.errors import BadInput
from perdure.core.rows import Row
from perdure.data.spec import make_spec
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger
from perdure.workflows import session as session_module
from perdure.workflows import task_cache
from perdure.workflows.learn import encoder
from perdure.workflows.learn.kept_rows import parts_to_keep

TASKS = ("ant", "bee", "cat", "dog")
FAST = {"per_device_train_batch_size": 8, "num_train_epochs": 1}


def rows(task, part, start, n=4):
    return tuple(
        Row(f"{task} {part} {i}?", f" {task}", task=task, label=task, source=f"{part}:{i}")
        for i in range(start, start + n)
    )


def grow(ledger: Ledger, versions: int) -> None:
    """Record as many learns, each of a task version with rows of its own, that left the model as it was."""
    for i in range(versions):
        name = TASKS[i % len(TASKS)]
        spec = make_spec({"name": name, "train": Path(f"{i}.jsonl"), "max_new_tokens": 2}, "test")
        task = TaskData(spec, rows(name, "train", 4 * i), (), rows(name, "test", 4 * i), "prompt_completion")
        ledger.put_task(name, task.version, task.to_json(), parts_to_keep(ledger, task))
        head = ledger.resolve("head")
        tasks = {**head.tasks, name: task.version}
        ledger.record(Entry(parent=head.id, kind="learn", base=head.base, task=name, tasks=tasks), {})


def new_data(path: Path, task: str = "elk", n: int = 8) -> Path:
    lines = [
        {"prompt": f"{task} asks {i}?", "completion": f" {task}", "split": "test" if i < 4 else "train"}
        for i in range(n)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.fixture
def counted(monkeypatch):
    """Count decoded rows and tasks, tokenised rows, and statements to the ledger."""
    counts: dict[str, Counter] = {name: Counter() for name in ("row", "task", "encoded", "prompt", "statement")}
    row_from, task_from = Row.from_json.__func__, TaskData.from_json.__func__
    encode, prompt_ids = encoder.encode, task_cache.prompt_ids

    def row(cls, data):
        made = row_from(cls, data)
        counts["row"][made.hash] += 1
        return made

    def task(cls, data, *args, **more):
        made = task_from(cls, data, *args, **more)
        counts["task"][made.version] += 1
        return made

    def encoded(row, *args):
        counts["encoded"][row.hash] += 1
        return encode(row, *args)

    def prompt(row, *args):
        counts["prompt"][row.hash] += 1
        return prompt_ids(row, *args)

    monkeypatch.setattr(Row, "from_json", classmethod(row))
    monkeypatch.setattr(TaskData, "from_json", classmethod(task))
    monkeypatch.setattr(encoder, "encode", encoded)
    monkeypatch.setattr(task_cache, "prompt_ids", prompt)
    return counts


def listen(ledger: Ledger, statements: Counter) -> None:
    for engine in (ledger._engine, ledger._reader):
        event.listen(engine, "before_cursor_execute", lambda *args: statements.update([args[2].partition("WHERE")[0]]))


@pytest.mark.parametrize("recipe", ["naive", "dual_replay"])
def test_the_cost_of_a_learn_outside_training_and_scoring_does_not_grow(recipe, tiny_model, tmp_path, counted):
    found = {}
    for versions in (8, 200):
        ws = Workspace.init(tmp_path / str(versions), str(tiny_model), dtype="float32")
        grow(ws.ledger, versions)
        ws.ledger.close()  # else the collector closes it during the learn, and the log that is then written back looks like news
        ws = Workspace.open(ws.ledger.root)
        for counter in counted.values():
            counter.clear()
        listen(ws.ledger, counted["statement"])
        ws.learn("elk", new_data(tmp_path / "elk.jsonl"), recipe=recipe, overrides=FAST, gate=None)
        found[versions] = {name: counter.total() for name, counter in counted.items()}
        assert {name for name in ("task", "encoded", "prompt") if max(counted[name].values(), default=0) > 1} == set()
        assert set(counted["task"]) == {
            version for name, version in ws.ledger.resolve("head").tasks.items() if name != "elk"
        }
    assert found[200] == found[8]


def test_a_leak_into_an_old_version_is_found_and_names_it(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    grow(ws.ledger, 8)
    lines = [{"prompt": f"own {i}?", "completion": " x", "split": "train"} for i in range(4)]
    path = tmp_path / "elk.jsonl"
    for part, other, words in (
        ("test", "train", "test rows of task 'elk' are also in the train part of task 'ant'"),
        ("train", "test", "train rows of task 'elk' are also in the test part of task 'ant'"),
    ):
        leak = {"prompt": f"ant {other} 1?", "completion": " whatever", "split": part}
        path.write_text("\n".join(map(json.dumps, [*lines, {**lines[0], "prompt": "t?", "split": "test"}, leak])))
        for opened in (Workspace.open(ws.ledger.root), older(ws.ledger.root, tmp_path / f"old-{part}")):
            with pytest.raises(BadInput, match=f"1 of . {words}"):
                opened.plan("elk", path, recipe="naive")
            assert opened.plan("elk", path, recipe="naive", allow_leaks=True).task.name == "elk"


def older(root: Path, to: Path) -> Workspace:
    """Return a copy of a workspace as it was before rows were found by what they ask."""
    import shutil

    shutil.copytree(root, to)
    with sqlite3.connect(to / "ledger.sqlite") as connection:
        connection.execute("DROP TABLE questions")
        connection.execute("UPDATE meta SET schema_version = 2")
    connection.close()
    return Workspace.open(to)


def test_an_older_ledger_gets_its_index_with_the_first_write(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    grow(ws.ledger, 4)
    wanted = index(ws.ledger.root)
    old = older(ws.ledger.root, tmp_path / "old")
    asked = rows("ant", "test", 0)
    assert sorted(map(str, old.ledger.places_of(asked))) == sorted(map(str, ws.ledger.places_of(asked)))
    old.rollback("head~1")
    assert index(old.ledger.root) == wanted
    assert len(wanted) == 32
    deleted = asked[0]
    old.delete_row(deleted.hash)
    assert len(index(old.ledger.root)) == 31
    assert old.ledger.places_of([deleted]) == []
    assert old.verify().ok


def index(root: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(root / "ledger.sqlite") as connection:
        found = connection.execute("SELECT key, question FROM questions ORDER BY key").fetchall()
    connection.close()
    return found


def test_a_row_that_another_process_deletes_is_scored_no_more(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    ws.learn("elk", new_data(tmp_path / "elk.jsonl"), recipe="naive", overrides=FAST, gate=None)
    head = ws.ledger.resolve("head")
    row = ws.session.task("elk", head).test[0]
    assert ws.session.task("elk", head) is ws.session.task("elk", head)
    Workspace.open(ws.ledger.root).delete_row(row.hash)
    assert row not in ws.session.task("elk", head).test
    assert len(ws.session.tasks.prompts(ws.session.task("elk", head), ws.tokenizer)) == 3


def test_what_the_model_holds_is_known_by_the_runtime_alone(tiny_model, tmp_path, monkeypatch):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    done = ws.learn("elk", new_data(tmp_path / "elk.jsonl"), recipe="naive", overrides=FAST, gate=None)
    head = ws.ledger.resolve("head")
    assert done.entry == head.id
    assert ws.runtime.loaded == ws.ledger.state(head)
    loads = []
    monkeypatch.setattr(session_module, "tensors_of", lambda *args: loads.append(args) or {})
    ws.session.load(head)
    assert loads == []
    ws.runtime.start_adapter(
        ws.plan("fox", new_data(tmp_path / "fox.jsonl", "fox"), recipe="naive").recipe.settings, 0, "fox"
    )
    assert ws.runtime.loaded is None
    ws.session.load(head)
    assert len(loads) == 1


def test_the_facade_says_what_each_verb_takes():
    verbs = {name: verb for name, verb in inspect.getmembers(Workspace, inspect.isfunction) if not name.startswith("_")}
    assert {"plan", "plan_knowledge", "learn", "edit", "export", "trace_facts"} <= verbs.keys()
    loose = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    assert not [name for name, verb in verbs.items() if any(p.kind in loose for p in signature(verb))]
    shared = ("recipe", "overrides", "test", "settings", "allow_leaks", "rows")
    for name in ("plan", "plan_knowledge", "learn"):
        assert {p.name: p.default for p in signature(verbs[name]) if p.name in shared} == dict(
            zip(shared, ("lora_mlp", None, None, None, False, None), strict=True)
        )


def signature(verb):
    return inspect.signature(verb).parameters.values()


def test_the_template_writes_each_conversation_of_a_learn_once(tiny_model, tmp_path, monkeypatch):
    """Twice, that is: the turns before the answer as the model is prompted, and the whole; trained, scored and examined."""
    from transformers import PreTrainedTokenizerBase

    written: Counter = Counter()
    original = PreTrainedTokenizerBase.apply_chat_template

    def apply(self, turns, **options):
        written[turns[0]["content"], options["add_generation_prompt"]] += 1
        return original(self, turns, **options)

    monkeypatch.setattr(PreTrainedTokenizerBase, "apply_chat_template", apply)
    path, lines = tmp_path / "elk.jsonl", []
    for i, part in enumerate(["train"] * 6 + ["validation"] * 2 + ["test"] * 4):
        turns = [{"role": "user", "content": f"elk {i}?"}, {"role": "assistant", "content": f"moss {i}"}]
        lines.append(json.dumps({"messages": turns, "split": part}))
    path.write_text("\n".join(lines))
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    written.clear()
    ws.plan("elk", path, recipe="naive", overrides=FAST)
    asked = {f"elk {i}?" for i in range(12)}
    assert {key: times for key, times in written.items() if key[0] in asked} == {
        (text, prompt): 1 for text in asked for prompt in (True, False)
    }
