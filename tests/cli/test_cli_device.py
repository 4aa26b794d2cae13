"""Every command that loads a model takes a device, and no other command does."""

import shutil
from pathlib import Path

import pytest
from shell import run, run_json, settings

from commands import all_commands
from perdure.bridges.runtime import Runtime

LEAVES = {
    words.removeprefix("perdure "): command
    for words, command in all_commands().items()
    if not hasattr(command, "commands")
}
WITH = sorted(words for words, command in LEAVES.items() if any("--device" in option.opts for option in command.params))
LOADS = {
    "init": "{new} --model {model}",
    "learn": "parcel {files}/parcel.yaml",
    "edit": "Ann {{}}_is parcel",
    "merge": "--rank 4",
    "eval": "",
    "checkup": "",
    "revert": "{fact}",
    "demo": "--out {new}",
    "predict": "one?",
    "chat": "",
    "export": "{new}",
    "verify": "",
    "bench": "clinc3 --out {new}",
    "trace": "Anna --subject Ann",
    "edits verify": "",
}
LOADS_NONE = {  # in the order in which they run: a candidate waits at first
    "gate": "--at head~1",
    "accept": "",
    "discard": "",
    "matrix": "",
    "status": "",
    "log": "",
    "show": "",
    "diff": "head~1 head",
    "report": "--output {new}.html",
    "methods": "",
    "help": "",
    "edits list": "",
    "edits show": "{fact}",
    "recipe explain": "dual_replay",
    "recipe advise": "--tasks 3",
    "recipe list": "",
    "recipe show": "dual_replay",
    "recipe import": "{yaml}",
    "memory list": "",
    "memory stats": "",
    "memory export": "{new}.jsonl",
    "memory prune": "",
    "memory delete": "{row}",
    "guard add": "arithmetic",
    "guard list": "",
    "guard accept": "arithmetic",
    "guard enforce": "",
    "guard warn": "",
    "guard remove": "arithmetic",
    "task rename": "invoice bill",
    "task remove": "invoice",
    "rollback": "head~1",
    "workspace relocate": "--model {model}",
    "relocate": "--model {model}",
    "workspace pack": "{new}.tgz",
    "workspace unpack": "{new}.tgz {new}",
    "gc": "",
}
OWN_FOLDER = ("init", "demo", "bench", "help", "methods", "recipe", "workspace unpack")  # take no workspace


@pytest.fixture(scope="module")
def given(learned: Path, files: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the commands are given: a workspace with a fact in force and a candidate that waits, and the names in it."""
    folder = tmp_path_factory.mktemp("device")
    ws = Path(shutil.copytree(learned, folder / "ws"))
    fact = run_json("-w", ws, "edit", "Ann", "{} is", "parcel", "--no-gate", "--no-score")["applied"][0]
    run("-w", ws, "learn", "parcel", files / "parcel.yaml", *settings(), "--floor", "1", "--tolerance", "0", code=3)
    (folder / "axolotl.yaml").write_text("base_model: some/model\nlearning_rate: 0.001\ndatasets: []\n")
    row = run_json("-w", ws, "memory", "list")[0]["row"]
    paths = {"ws": ws, "new": folder / "new", "model": tiny_model, "files": files, "yaml": folder / "axolotl.yaml"}
    return {**{name: str(path) for name, path in paths.items()}, "fact": fact, "row": row}


def words_of(command: str, given: dict[str, str], arguments: str) -> list[str]:
    """Return the words of a command, with its workspace where it takes one."""
    words = [*command.split(), *(word.format(**given) for word in arguments.split())]
    return words if command.startswith(OWN_FOLDER) else [*words, "-w", given["ws"]]


def test_a_command_is_in_one_of_the_lists() -> None:
    assert sorted(LOADS) == WITH
    assert sorted({*LOADS, *LOADS_NONE}) == sorted(LEAVES)


@pytest.mark.parametrize("command", WITH)
def test_an_absent_device_is_refused_by_every_command_that_loads_a_model(
    command: str, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def fail(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Runtime, "_load", fail)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    words = words_of(command, given, LOADS[command])
    for refused in (
        run(*words, "--device", "cuda", code=1),
        run("--device", "cuda", *words, code=1),
        run(*words, env={"PERDURE_DEVICE": "cuda"}, code=1),
    ):
        assert "no device cuda here; there is cpu" in refused.stderr
    assert not Path(given["new"]).exists()


def test_no_other_command_loads_a_model_and_a_device_before_its_name_does_not_break_it(
    given: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Runtime, "__init__", fail)
    here = {**given, "ws": str(shutil.copytree(given["ws"], tmp_path / "ws")), "new": str(tmp_path / "new")}
    for command, arguments in LOADS_NONE.items():
        run("--device", "cuda", *words_of(command, here, arguments))
    assert "Commands that load no model ignore it" in " ".join(run("--help", env={"COLUMNS": "300"}).stdout.split())
