"""`perdure methods`, `recipe explain` and `recipe advise`: what people read before they train."""

import json
from pathlib import Path

import pytest
import yaml
from shell import run, run_json

from perdure.core.recipe import build_recipe
from perdure.methods.registry import all_methods


def test_a_method_is_explained_from_formula_to_source():
    text = run("methods", "gem").stdout
    for head in ("FORMULA", "SEAMS", "WHEN TO USE", "COST", "STATE", "FIELDS", "SOURCE", "DEVIATION"):
        assert f"\n{head}\n" in text
    assert "room for one method" in text
    assert "arXiv 1706.08840" in text
    (told,) = run_json("methods", "gem")
    assert {"name", "family", "seams", "fields", "source"} <= told.keys()
    assert set(told["fields"]) == {"mix", "margin"}


def test_explain_shows_who_owns_what_in_the_order_of_an_update():
    text = run("recipe", "explain", "dual_replay", "--set", "memory_per_label=7").stdout
    shown = text.split("WHO ACTS WHEN\n")[1].split("\n\n")[0].splitlines()[1:]
    seams = [line.removeprefix("each update").removeprefix("task closes").split()[0] for line in shown]
    assert seams == ["draw", "loss", "watch", "settle", "admit"]
    assert "settle: tail_average (so none of" in text
    assert "7 rows a label" in text
    told = run_json("recipe", "explain", "dual_replay", "--set", "memory_per_label=7")
    assert "memory_per_label" in told["changed"]
    assert told["columns"][0]["bytes_per_label_token"] == 6 * told["columns"][0]["top_k"] + 6
    assert told["model"] is None


def test_explain_tells_conflicts_and_what_is_switched_off(tmp_path: Path):
    (tmp_path / "two.yaml").write_text("methods: {gem: {}, pcgrad: {}}\n")
    assert (
        "room for one method, got ['gem', 'pcgrad']" in run("recipe", "explain", tmp_path / "two.yaml", code=1).stderr
    )
    found = run("recipe", "explain", "replay", "--set", "methods.ewc.strength=0")
    assert "switched off by their fields: ewc" in found.stderr
    assert "no recipe" in run("recipe", "explain", "nonesuch", code=1).stderr


def test_explain_in_a_workspace_tells_bytes_of_its_model_and_memory(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told = run_json("-w", learned, "recipe", "explain", "ema")
    assert told["model"]["state_bytes"]["ema"]["learning"] == 4 * told["model"]["trainable"]
    assert told["memory"]["now"]["rows"] == len(run_json("-w", learned, "memory", "list"))
    told = run_json("recipe", "explain", "ema", "-w", learned, "--set", "lora_r=16")
    assert told["model"]["trainable"] == 2 * run_json("recipe", "explain", "ema", "-w", learned)["model"]["trainable"]
    assert "in memory now" in run("-w", learned, "recipe", "explain", "replay").stdout
    assert "no workspace" in run("-w", tmp_path, "recipe", "explain", "replay", code=1).stderr
    monkeypatch.chdir(learned)
    assert run_json("recipe", "explain", "naive")["model"]["trainable"] > 0


def test_explain_for_a_model_needs_its_configuration_alone(tiny_model: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text((tiny_model / "config.json").read_text())
    told = run_json("recipe", "explain", "naive", "--model", tmp_path)
    assert told["model"]["trainable"] > 0
    assert told["model"]["state_bytes"] == {}


def test_advice_is_a_recipe_that_learn_takes(tmp_path: Path):
    words = ["--tasks", 8, "--no-rows", "--instructions", "--parameters", "1.5B"]
    found = run_json("recipe", "advise", *words)
    text = run("recipe", "advise", *words, "--yaml").stdout
    assert yaml.safe_load(text) == found["recipe"]
    assert text.startswith("# ")
    told = run("recipe", "advise", *words, "-o", tmp_path / "mine.yaml")
    assert "--recipe" in told.stderr
    assert yaml.safe_load((tmp_path / "mine.yaml").read_text()) == found["recipe"]
    assert run_json("recipe", "explain", tmp_path / "mine.yaml")["memory"]["keeps_rows"] is False
    for part in ("RECIPE", "WHY", "BE WARNED", "NOT BUILT HERE YET", "LEFT OUT"):
        assert part in told.stdout


def test_it_asks_and_talks_on_stderr():
    answers = ["many", "12", "0", "", "7B", "alike", "n", "y", "n", "n"]
    found = run("recipe", "advise", "--ask", "--json", input="\n".join(answers) + "\n")
    assert "'many' is no number" in found.stderr
    assert "How many tasks" in found.stderr
    told = json.loads(found.stdout[found.stdout.index("{") :])  # the runner echoes what is typed
    assert not build_recipe(told["recipe"], all_methods()).remembers
    assert any(line["what"] == "replay of generated samples" for line in told["not_here"])


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--parameters", "7X"], "write 135M or 7B"),
        (["--similarity", "same"], "is none of alike"),
        (["--time", "0.5"], "'--time'"),
        (["--tasks", "0"], "'--tasks'"),
    ],
)
def test_an_answer_that_makes_no_sense_is_wrong_usage(words: list[str], hint: str):
    assert hint in run("recipe", "advise", *words, code=2).stderr
