"""`perdure init --adapter` on the command line, and what the verbs after it print."""

from pathlib import Path

from shell import learn_quickly, run, run_json

from peft_folders import save


def test_a_workspace_starts_from_an_adapter(tiny_model: Path, files: Path, tmp_path: Path):
    given, ws = save(tiny_model, tmp_path / "mine"), tmp_path / "ws"
    told = run("init", ws, "--model", tiny_model, "--dtype", "float32", "--adapter", given).stdout
    assert "it starts from the adapter mine (4 layers, rank 4), which is part of the base" in told
    assert run_json("-w", ws, "show", "base")["adapter"]["rank"] == 4
    assert "mine, 4 layers, rank 4" in run("-w", ws, "show", "base").stdout
    stored = run_json("-w", ws, "show", "base")["slots"]["initial"]["object"]
    assert run_json("-w", ws, "status")["adapter"] == {"folder": "mine", "modules": 4, "rank": 4, "object": stored}
    assert f"mine, 4 layers, rank 4, hash {stored[:12]}; part of the base" in run("-w", ws, "status").stdout
    learn_quickly(ws, files, "parcel", "--no-gate")
    run("-w", ws, "predict", "parcel 1?", "--task", "parcel", "--compare", "base")
    run("-w", ws, "rollback", "base")
    run("-w", ws, "export", tmp_path / "out")
    assert run_json("-w", ws, "verify")["ok"]


def test_an_adapter_given_as_the_model_names_the_option(tiny_model: Path, tmp_path: Path):
    given = save(tiny_model, tmp_path / "mine")
    assert "--adapter" in run("init", tmp_path / "ws", "--model", given, code=1).stderr
