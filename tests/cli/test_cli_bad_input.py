"""Bad input: a clear message, exit code 1 (2 for wrong usage), and a workspace that is what it was."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from shell import answered, contents, learn_quickly, run, run_json, settings, write_rows

from perdure.ledger import Ledger, objects, writing

GOOD = [json.dumps(row) for row in answered("question", "yes", 10)]
FILES: dict[str, tuple[bytes | None, list[str]]] = {  # what the file holds, and what the message must say
    "missing.jsonl": (None, ["does not exist"]),
    "empty.jsonl": (b"", ["is empty"]),
    "line7.jsonl": ("\n".join([*GOOD[:6], '{"prompt": "x"', *GOOD[7:]]).encode(), ["line7.jsonl:7", "broken JSON"]),
    "lacks.jsonl": ("\n".join([*GOOD[:4], '{"prompt": "x"}']).encode(), ["lacks.jsonl:5", "no completion"]),
    "blank.jsonl": (
        "\n".join([*GOOD, '{"prompt": "x", "completion": " "}']).encode(),
        ["blank.jsonl:11", "nothing to train"],
    ),
    "mixed.jsonl": ("\n".join([*GOOD, '{"instruction": "x", "output": "y"}']).encode(), ["mixed.jsonl:11", "alpaca"]),
    "binary.jsonl": (b"\x00\x01PK\xff" * 50, ["binary file"]),
    "model.bin": (b"\x00", ["the kind of this file"]),
    "latin.csv": ("prompt,completion\nq,caf\xe9\n".encode("latin-1"), ["latin.csv:2", "UTF-8"]),
    "broken.yaml": (b"train: [", ["broken YAML"]),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_is_refused_with_its_line_and_changes_nothing(ws: Path, tmp_path: Path, name: str):
    data, words = FILES[name]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    before = contents(ws)
    result = run("-w", ws, "learn", "new", tmp_path / name, *settings(), code=1)
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""
    assert [word for word in words if word not in result.stderr] == []
    assert contents(ws) == before


WORDS: dict[str, tuple[list[str], int, str]] = {
    "unknown recipe": (["learn", "new", "{good}", "--recipe", "naiv"], 1, "did you mean 'naive'"),
    "unknown key": (["learn", "new", "{good}", "--set", "learning_rat=1"], 1, "did you mean 'learning_rate'"),
    "unknown method": (["learn", "new", "{good}", "--set", "methods.repaly.mix=0.1"], 1, "did you mean 'replay'"),
    "unknown field": (["learn", "new", "{good}", "--set", "methods.replay.mixx=0.1"], 1, "did you mean 'mix'"),
    "bad value": (["learn", "new", "{good}", "--set", "num_train_epochs=many"], 1, "num_train_epochs"),
    "unknown scorer": (["learn", "new", "{good}", "--scorer", "exat"], 1, "exact"),
    "unknown format": (["learn", "new", "{good}", "--format", "alpacca"], 1, "alpaca"),
    "unknown guard": (["learn", "new", "{good}", "--guard", "nobody"], 1, "nobody"),
    "bad task name": (["learn", "a b", "{good}"], 1, "letter or digit"),
    "bad tolerance": (["learn", "new", "{good}", "--tolerance", "3"], 1, "gate tolerance is 3.0; give a share"),
    "unknown ref": (["rollback", "hed"], 1, "nearest refs: head"),
    "unknown entry": (["show", "0123abcd"], 1, "no ref or entry"),
    "too far back": (["eval", "--at", "head~9"], 1, "goes back too far"),
    "no ref": (["diff", "head", "head~x"], 1, "is no ref"),
    "unknown task": (["eval", "parcle"], 1, "known are"),
    "unknown task to ask": (["predict", "hello", "--task", "parcle"], 1, "known are"),
    "nothing to ask": (["predict", "-"], 1, "there is no prompt"),
    "unknown method shown": (["methods", "repaly"], 1, "did you mean 'replay'"),
    "unknown recipe shown": (["recipe", "show", "naiv"], 1, "did you mean 'naive'"),
    "unknown row": (["memory", "delete", "00000000"], 1, "memory list"),
    "no evidence": (["gate", "--evidence", "nowhere.json"], 1, "cannot read"),
    "unwritable report": (["report", "-o", "{good}/x.html"], 1, ""),
    "no candidate to go to": (["rollback", "candidate"], 1, "no candidate waits"),
    "no candidate to score": (["eval", "--at", "candidate"], 1, "no candidate waits"),
    "no second ref": (["diff", "head"], 2, "Missing argument 'B'"),
    "negative seed": (["init", "{good}", "--seed", "-1"], 2, "greater than or equal to 0"),
    "unknown command": (["lern"], 2, "Did you mean 'learn'"),
    "no pair": (["learn", "new", "{good}", "--set", "learning_rate"], 2, "no KEY=VALUE"),
    "no gate to be strict": (["learn", "new", "{good}", "--no-gate", "--strict"], 2, "nothing for --strict"),
    "missing argument": (["learn", "new"], 2, "DATA"),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_bad_argument_is_refused_with_a_hint_and_changes_nothing(ws: Path, tmp_path: Path, name: str):
    words, code, hint = WORDS[name]
    good = write_rows(tmp_path / "good.jsonl", answered("question", "yes", 10))
    before = contents(ws)
    result = run("-w", ws, *(word.replace("{good}", str(good)) for word in words), code=code, input="\n")
    assert hint in " ".join(result.stderr.replace("│", "").split())
    assert contents(ws) == before


def test_a_test_row_in_train_is_refused_also_across_tasks(ws: Path, files: Path, tmp_path: Path):
    before = contents(ws)
    rows = answered("question", "yes", 6)
    data, test = (
        write_rows(tmp_path / "d.jsonl", rows),
        write_rows(tmp_path / "t.jsonl", rows[2:3] + answered("else", "no", 3)),
    )
    words = ("-w", ws, "learn", "new", data, "--test", test, *settings())
    result = run(*words, code=1)
    assert "1 of 4 test rows" in result.stderr
    assert "t.jsonl:1 as d.jsonl:3" in result.stderr
    assert "--allow-leaks" in result.stderr
    result = run("-w", ws, "learn", "new", data, "--test", files / "parcel.jsonl", *settings(), code=1)
    assert "task 'parcel'" in result.stderr
    assert contents(ws) == before
    stopped = run(*words, "--dry-run", code=1).stderr
    assert "dry run: stopped by what follows; nothing was changed" in stopped
    assert "(rows read: 6 train, 0 validation, 4 test, as prompt_completion)" in stopped
    run(*words, "--allow-leaks", "--dry-run")


@pytest.mark.parametrize(
    "words", [["status"], ["log"], ["learn", "a", "b.jsonl"], ["eval"], ["verify"], ["memory", "list"]]
)
def test_a_folder_that_is_no_workspace_is_named(tmp_path: Path, words: list[str]):
    assert f"{tmp_path} is no workspace; run 'perdure init" in run("-w", tmp_path, *words, code=1).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_is_not_made_twice(ws: Path, tiny_model: Path):
    before = contents(ws)
    assert "is a workspace already" in run("init", ws, "--model", tiny_model, code=1).stderr
    assert contents(ws) == before


@pytest.mark.parametrize(("model", "says"), [("./nowhere", "no model folder"), ("somebody/some-model", "hub")])
def test_a_model_that_cannot_be_had_leaves_no_workspace(tmp_path: Path, model: str, says: str):
    assert says in run("init", tmp_path / "ws", "--model", model, code=1).stderr
    assert not (tmp_path / "ws").exists()


def test_a_folder_that_cannot_be_made_is_named(tiny_model: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "under", Path("/proc/nowhere")):
        assert f"error: cannot write {place}: " in run("init", place, "--model", tiny_model, code=1).stderr
    assert (tmp_path / "file").read_text() == ""


def test_a_file_that_the_system_refuses_is_named_and_a_reader_who_went_away_is_not_blamed(ws: Path, monkeypatch: Any):
    def refuse(number: int) -> None:
        monkeypatch.setattr(Ledger, "log", Mock(side_effect=OSError(number, os.strerror(number), "/some/file")))

    refuse(errno.EACCES)
    assert run("-w", ws, "log", code=1).stderr == "error: cannot use /some/file: Permission denied\n"
    refuse(errno.EPIPE)
    assert run("-w", ws, "log", code=1).stderr == ""


def test_code_in_a_model_folder_is_refused_and_never_run(tiny_model: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    own = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": own}))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    result = run("init", tmp_path / "ws", "--model", folder, code=1)
    assert "trust_remote_code" in result.stderr
    assert "never runs code" in result.stderr
    assert not (tmp_path / "ws").exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("what", ["weights", "config"])
def test_a_base_model_that_changed_on_disk_is_refused(tiny_model: Path, files: Path, tmp_path: Path, what: str):
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    ws = tmp_path / "ws"
    run("init", ws, "--model", folder, "--dtype", "float32")
    before = contents(ws)
    if what == "weights":
        path = next(folder.glob("*.safetensors"))
        weights = load_file(path)
        weights["model.norm.weight"][0] += 1e-3
        save_file(weights, path, {"format": "pt"})
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    for words in (["predict", "hello"], ["learn", "parcel", files / "parcel.jsonl", *settings()]):
        assert "changed on disk" in run("-w", ws, *words, code=1).stderr
    assert "changed on disk" in run_json("-w", ws, "verify", code=1)["problems"][0]
    assert contents(ws) == before


def test_a_touched_model_that_is_the_same_is_taken(tiny_model: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    run("init", tmp_path / "ws", "--model", folder, "--dtype", "float32")
    os.utime(next(folder.glob("*.safetensors")), (1, 1))
    run("-w", tmp_path / "ws", "predict", "hello", "--max-new-tokens", "1")


def test_a_full_disk_while_an_object_is_written_changes_nothing(ws: Path, files: Path, monkeypatch: Any):
    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run("-w", ws, "rollback", "base")
    before = contents(ws, without=["scores"])  # what was measured before the disk was full is true all the same
    with monkeypatch.context() as patch:
        patch.setattr(objects, "save_tensors", full)
        words = ("--set", "num_train_epochs=1")
        result = learn_quickly(ws, files, "parcel", *words, code=1)
    assert "No space left on device" in result.stderr
    assert "free some space" in result.stderr
    assert contents(ws, without=["scores"]) == before
    learn_quickly(ws, files, "parcel", *words)
    assert run_json("-w", ws, "verify")["ok"]


@pytest.mark.parametrize("words", [["rollback", "base"], ["gc"], ["discard"], ["memory", "delete", "abcd"]])
def test_who_writes_is_named_to_who_comes_second(ws: Path, words: list[str]):
    before = contents(ws)
    with writing(ws):
        result = run("-w", ws, *words, code=1)
    assert f"is being written by process {os.getpid()}" in result.stderr
    assert contents(ws) == before


def test_a_second_learn_is_refused_and_readers_are_not(ws: Path, files: Path):
    run("-w", ws, "rollback", "head~1")
    before = contents(ws)
    with writing(ws):
        assert "is being written by" in learn_quickly(ws, files, "invoice", code=1).stderr
        assert "parcel" in run("-w", ws, "status").stdout
    assert contents(ws) == before


def test_a_damaged_object_is_found_and_nothing_is_built_on_it(ws: Path):
    path = max(ws.glob("objects/*/*.safetensors"), key=lambda file: file.stat().st_size)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\1\2\3")
    assert "damaged" in run_json("-w", ws, "verify", code=1)["problems"][0]
    assert "problem: " in run("-w", ws, "verify", code=1).stderr


def test_learning_the_same_again_heals_a_damaged_object(ws: Path, files: Path):
    run("-w", ws, "rollback", "base")
    again = ("--no-gate",)
    for path in ws.glob("objects/*/*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    assert len(run_json("-w", ws, "verify", code=1)["problems"]) == len(list(ws.glob("objects/*/*.safetensors"))) > 1
    for task in ("parcel", "invoice"):
        learn_quickly(ws, files, task, *again)
    assert run_json("-w", ws, "verify")["problems"] == []


def test_rows_are_not_written_into_a_folder_that_is_not_there(ws: Path, tmp_path: Path):
    told = run("-w", ws, "memory", "export", tmp_path / "nowhere" / "rows.jsonl", code=1).stderr
    assert f"there is no folder {tmp_path / 'nowhere'}" in told
    assert not (tmp_path / "nowhere").exists()


def test_a_base_model_that_was_moved_can_be_named_again(ws: Path, tmp_path: Path):
    config = json.loads((ws / "perdure.json").read_text("utf-8"))
    place = config["model"]
    (ws / "perdure.json").write_text(json.dumps({**config, "model": str(tmp_path / "gone")}), "utf-8")
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}])
    for words in (["predict", "parcel"], ["learn", "parcel", tmp_path / "rows.jsonl"]):
        told = run("-w", ws, *words, code=1).stderr
        assert f"no model folder at {tmp_path / 'gone'}; this workspace was made with it" in told
        assert f"'perdure relocate -w {ws} --model PATH'" in told
    (ws / "perdure.json").write_text(json.dumps({**config, "model": place}), "utf-8")
    assert "Traceback" not in run("-w", ws, "predict", "parcel").stderr


def test_a_task_name_that_is_none_is_named_and_not_the_file(ws: Path, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}), "utf-8")
    told = run("-w", ws, "learn", "my task", tmp_path / "rows.jsonl", code=1).stderr
    assert "error: task 'my task': `name`: must begin with a letter or digit" in told
    assert "rows.jsonl" not in told
