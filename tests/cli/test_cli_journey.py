"""The main job through the command line, and the JSON that other tools rely on."""

import json
from pathlib import Path

from shell import answered, contents, learn_quickly, run, run_json, settings, write_rows

from cautioned import without_size


def test_two_tasks_are_learned_measured_rolled_back_used_and_reported(tiny_model: Path, files: Path, tmp_path: Path):
    folder = tmp_path / "ws"
    told = run("init", folder, "--model", tiny_model, "--dtype", "float32").stdout
    assert str(folder) in told
    assert "float32" in told
    first = learn_quickly(folder, files, "parcel").stdout
    assert "gate: PASS" in first
    assert "first task: nothing to lose" in first
    assert "parcel *" in first
    assert "100.0%" in first
    learn_quickly(folder, files, "invoice", "--no-gate")
    assert run("-w", folder, "predict", "about invoice 1?", "--task", "invoice").stdout == "invoice\n"

    table = run("-w", folder, "matrix").stdout
    assert "1 learn parcel" in table
    assert "2 learn invoice" in table
    assert "bwt" in table
    lines = run("-w", folder, "log").stdout.splitlines()
    assert len(lines) == 4
    assert "learn invoice" in lines[1]
    assert "head" in lines[1]

    before = run_json("-w", folder, "eval", "parcel", "--at", "head~1")["tasks"]
    run("-w", folder, "rollback", "head~1")
    assert run_json("-w", folder, "eval")["tasks"] == before
    told = run("-w", folder, "predict", "-", "--task", "parcel", input="about parcel 1?\n\nparcel 7?\n")
    assert told.stdout == "parcel\n\nparcel\n"
    assert "(not in head)" in run("-w", folder, "log").stdout

    assert run_json("-w", folder, "verify") == {"ok": True, "entries": 3, "objects": 4, "problems": []}
    assert run_json("-w", folder, "gc") == {"removed": 0, "rows": 0, "runs": 0, "bytes": 0}
    run("-w", folder, "report", "-o", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "parcel" in page
    assert "rollback head~1" in page


def test_the_same_data_from_another_place_is_the_same_entry(ws: Path, files: Path, tmp_path: Path):
    head = run_json("-w", ws, "status")["head"]["entry"]
    run("-w", ws, "rollback", "head~1")
    for name in ("invoice.yaml", "invoice.jsonl", "invoice-test.jsonl"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    learn_quickly(ws, tmp_path, "invoice", "--no-gate")
    assert run_json("-w", ws, "status")["head"]["entry"] == head


def test_json_shapes_are_those_promised(ws: Path, files: Path):
    log = run_json("-w", ws, "log")
    promised = {"entry", "parent", "kind", "task", "time", "refs", "verdict", "score", "recipe", "author", "message"}
    assert [set(line) for line in log] == [promised] * 3
    assert [line["task"] for line in log] == ["invoice", "parcel", None]
    assert (log[0]["refs"], log[2]["refs"], log[0]["parent"]) == (["head"], ["base"], log[1]["entry"])

    found = run_json("-w", ws, "eval", "--at", "head~1")
    assert set(found) == {"ref", "tasks"}
    assert found["ref"] == "head~1"
    assert {name: set(task) for name, task in found["tasks"].items()} == {
        "parcel": {"score", "low", "high", "n", "scorer"}
    }
    assert found["tasks"]["parcel"]["n"] == 8

    matrix = run_json("-w", ws, "matrix")
    assert set(matrix) == {"tasks", "stages", "score", "n", "metrics"}
    assert matrix["tasks"] == ["parcel", "invoice"]
    assert [stage["kind"] for stage in matrix["stages"]] == ["base", "learn", "learn"]
    assert all(set(stage) == {"entry", "kind", "task"} for stage in matrix["stages"])
    assert [len(line) for line in matrix["score"]] == [len(line) for line in matrix["n"]] == [2, 2, 2]
    assert set(matrix["metrics"]) == {"acc", "bwt", "forgetting", "fwt", "learning_accuracy"}
    assert all({"value", "low", "high"} <= set(metric) for metric in matrix["metrics"].values())

    verified = run_json("-w", ws, "verify")
    assert set(verified) == {"ok", "entries", "objects", "problems"}
    methods = run_json("methods")
    assert all({"name", "family", "seams", "fields", "source"} <= set(method) for method in methods)
    assert [m["name"] for m in methods] == sorted(m["name"] for m in methods)
    assert "replay" in {m["name"] for m in methods}


def test_learn_json_is_alone_on_stdout(fresh: Path, files: Path):
    result = learn_quickly(fresh, files, "parcel", "--json")
    told = json.loads(result.stdout)
    promised = {"entry", "task", "train_seconds", "train_cpu_seconds", "eval_seconds", "tokens", "gate", "scores"}
    assert set(told) == {*promised, "before", "moved", "warnings", "resources"}
    assert told["resources"]["seconds"]["updates"] > 0
    assert (told["moved"], without_size(told["warnings"])) == (True, [])
    updates, tests = told["warnings"]  # told before the training, and once
    assert result.stderr.count(f"warning: {updates}\n") == result.stderr.count(f"warning: {tests}\n") == 1
    assert result.stderr.index(tests) < result.stderr.index("learning parcel")
    assert set(told["before"]) == {"base", "head"}
    assert told["gate"]["verdict"] == "pass"
    assert set(told["scores"]) == {"parcel"}
    assert told["tokens"] > 0
    assert run_json("-w", fresh, "status")["head"]["entry"] == told["entry"]
    assert "learning parcel, loss" in result.stderr
    assert "tokens/s" in result.stderr


def test_more_data_for_a_known_task_updates_it(ws: Path, tmp_path: Path):
    more = write_rows(tmp_path / "more.jsonl", answered("another parcel", "yes"))
    run("-w", ws, "learn", "parcel", more, *settings(), "--no-gate")
    assert set(run_json("-w", ws, "show")["tasks"]) == {"parcel", "invoice"}
    assert run_json("-w", ws, "eval", "parcel")["tasks"]["parcel"]["n"] > 8  # the old test rows, and some of the new
    assert list(run_json("-w", ws, "diff", "head~1", "head")["tasks"]) == ["parcel"]


def test_a_dry_run_shows_the_masked_part_and_changes_nothing(ws: Path, files: Path, tmp_path: Path):
    before = contents(ws)
    long = write_rows(tmp_path / "long.jsonl", [{"text": f"{'far ' * 40}{i}", "label": "a_b"} for i in range(5)])
    words = ("-w", ws, "learn", "new", long, "--dry-run", "--set", "max_length=32", "--template", r"Is:\n{text}\nIt is")
    told = run(*words)
    assert "4 train, 0 validation, 1 test (made from the train rows)" in told.stdout
    assert "> " in told.stdout
    assert "a b<|im_end|>" in told.stdout
    assert "  | It is" in told.stdout
    assert "4 of 4 rows, at max_length 32" in told.stdout
    assert "recipe lora_mlp" in told.stdout
    assert "nothing was changed" in told.stderr
    found = run_json(*words)
    assert [part["trained"] for part in found["example"]] == [False, True]
    assert found["cut"] == 4
    assert found["format"] == "text_label"
    assert found["recipe"]["max_length"] == 32
    assert contents(ws) == before
    assert not list((ws / "runs").glob("*"))


def test_the_workspace_is_named_before_or_after_the_command_or_by_the_environment(
    ws: Path, monkeypatch, tmp_path: Path
):
    head = run_json("-w", ws, "status")["head"]
    monkeypatch.chdir(tmp_path)
    assert run_json("status", "--workspace", ws)["head"] == head
    assert json.loads(run("status", "--json", env={"PERDURE_WORKSPACE": str(ws)}).stdout)["head"] == head
    elsewhere = {"PERDURE_WORKSPACE": str(tmp_path)}
    assert json.loads(run("status", "-w", ws, "--json", env=elsewhere).stdout)["head"] == head
    assert json.loads(run("memory", "-w", ws, "stats", "--json", env=elsewhere).stdout)["entry"] == head["entry"]
    assert "no workspace" in run("status", code=1).stderr
    monkeypatch.chdir(ws)
    assert run_json("status")["head"] == head


def test_the_device_is_named_before_or_after_the_command_or_by_the_environment(ws: Path, monkeypatch):
    from perdure.bridges.runtime import Runtime

    places: list[object] = []
    load = Runtime._load
    monkeypatch.setattr(Runtime, "_load", lambda self, dtype: places.append(self.device) or load(self, dtype))
    words = ("predict", "one?", "--raw", "--max-new-tokens", "1", "-w", ws)
    run("--device", "cpu", *words)
    run(*words, "--device", "cpu")
    run(*words, env={"PERDURE_DEVICE": "cpu"})
    run("--device", "cpu", *words, env={"PERDURE_DEVICE": "cuda:7"})
    run("edits", "--device", "cpu", "verify", "-w", ws)
    assert len(places) >= 4
    assert set(places) == {"cpu"}
    places.clear()
    run(*words)
    assert places == ["auto"]


def test_a_device_that_is_not_one_or_not_here_is_refused_before_anything_loads(ws: Path, tmp_path: Path, monkeypatch):
    import torch

    from perdure.bridges import models

    def fail(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(models, "_load", fail)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    for words in (("predict", "one?"), ("eval",), ("learn", "t", "t.jsonl"), ("verify",), ("edits", "verify")):
        assert "no device cuda here; there is cpu" in run(*words, "-w", ws, "--device", "cuda", code=1).stderr
        assert "unknown device 'gpu'; choose auto, cpu" in run(*words, "-w", ws, "--device", "gpu", code=2).stderr
    told = run("predict", "one?", "-w", ws, env={"PERDURE_DEVICE": "mps"}, code=1).stderr
    assert "no device mps here" in told
    assert "unknown device" in run("--device", "tpu", "status", "-w", ws, code=2).stderr
    twice = run("--device", "cpu", "eval", "-w", ws, "--device", "auto", code=2).stderr
    assert "cpu before the command's name and auto after it" in " ".join(twice.replace("│", " ").split())
    run("init", tmp_path / "new", "--model", "none", "--device", "cuda:3", code=1)
    run("demo", "--out", tmp_path / "demo", "--device", "cuda:3", code=1)
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "demo").exists()


def test_no_id_depends_on_the_device(tiny_model: Path, tmp_path: Path):
    made = [
        run_json("init", tmp_path / name, "--model", tiny_model, "--device", name)["entry"] for name in ("auto", "cpu")
    ]
    assert made[0] == made[1]
    assert "device" not in json.loads((tmp_path / "cpu" / "perdure.json").read_text())


def test_the_base_id_depends_on_weights_and_dtype_and_a_slow_one_is_a_notice(
    tiny_model: Path, tmp_path: Path, monkeypatch
):
    import torch

    own = run_json("init", tmp_path / "own", "--model", tiny_model)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    words = ("init", tmp_path / "slow", "--model", tiny_model, "--device", "cpu", "--dtype")
    assert "slowly in bfloat16" in run(*words, "bfloat16").stderr
    told = run("init", tmp_path / "same", "--model", tiny_model, "--device", "cpu")
    assert "slowly" not in told.stderr
    for folder, dtype, same in (("own", "float32", True), ("same", "float32", True), ("slow", "bfloat16", False)):
        config = json.loads((tmp_path / folder / "perdure.json").read_text())
        assert config["dtype"] == dtype
        assert (config["base"] == own["base"]) == same
        assert "slowly" not in json.dumps(config)


def test_a_float16_base_learns_and_answers_on_a_processor(tiny_model: Path, files: Path, tmp_path: Path):
    run("init", tmp_path / "ws", "--model", tiny_model, "--dtype", "float16", "--device", "cpu")
    more = ("--set", "num_train_epochs=8")
    gone = learn_quickly(tmp_path / "ws", files, "parcel", "--no-gate", *more, code=1)  # 65,504 is its largest number
    assert "lower the learning rate" in gone.stderr
    learn_quickly(tmp_path / "ws", files, "parcel", "--no-gate", *more, "--set", "learning_rate=0.02")
    assert json.loads((tmp_path / "ws" / "perdure.json").read_text())["dtype"] == "float16"
    found = run_json("-w", tmp_path / "ws", "eval")
    assert found["tasks"]["parcel"]["score"] == 1.0


def test_the_report_stands_beside_another_workspace(ws: Path, learned: Path, tmp_path: Path):
    from perdure.workflows.inspect.report_data import report_data
    from perdure.workspace.facade import Workspace

    data = report_data(Workspace.open(ws).ledger, {"other": Workspace.open(learned).ledger})
    assert [entry.kind for entry in data.entries] == ["base", "learn", "learn"]
    assert set(data.entries[0].scores) == {"parcel", "invoice"}  # what the base could do
    assert data.entries[2].gate is None  # it was off
    assert [move.why for move in data.reflog] == ["learn parcel", "learn invoice"]
    assert data.compare[0].matrix == data.matrix
    assert data.head == data.entries[2].entry
    run("-w", ws, "report", "-o", tmp_path / "r.html", "--compare", learned)
    assert "Compared with another workspace" in (tmp_path / "r.html").read_text()


def test_export_writes_an_adapter(ws: Path, tmp_path: Path):
    found = run_json("-w", ws, "export", tmp_path / "out", "--at", "head~1")
    assert found["entry"] == run_json("-w", ws, "log")[1]["entry"]
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    assert "not an empty folder" in run("-w", ws, "export", tmp_path / "out", code=1).stderr
