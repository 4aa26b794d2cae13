"""Two ways of saying one thing on the command line: nothing that was said is dropped in silence."""

import pytest
from shell import run, run_json, settings, write_rows


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-w", "{ws}", "log", "-w", "{other}"], "give one of them"),
        (["init", "{other}", "-w", "{ws}"], "one workspace is made at a time"),
        (["-w", "{ws}", "init", "{other}"], "one workspace is made at a time"),
        (["recipe", "advise", "--ask", "--tasks", "3"], "leave them out"),
        (["recipe", "advise", "--no-rows", "--memory-rows", "10"], "contradict each other; drop one"),
        (["recipe", "advise", "--tasks", "3", "--json", "--yaml"], "two forms of one answer"),
        (["-w", "{ws}", "memory", "list", "--all", "--at", "base"], "leave --at out"),
        (["-w", "{ws}", "learn", "t", "x.jsonl", "--no-gate", "--guard", "parcel"], "nothing for --guard to decide"),
        (["-w", "{ws}", "learn", "t", "x.jsonl", "--set", "methods.replay="], "methods.NAME=null takes a method out"),
        (["-w", "{ws}", "learn", "t", "x.jsonl", "--set", "num_train_epochs="], "has no value"),
    ],
)
def test_options_that_contradict_are_wrong_usage(learned, tmp_path, words, said):
    found = run(*[word.format(ws=learned, other=tmp_path / "other") for word in words], code=2)
    assert said in " ".join(found.stderr.replace("│", " ").split())


def test_a_table_of_some_arms_is_told_to_be_of_all(tmp_path):
    found = run("bench", "digits5", "--table", "--recipes", "naive", "--out", tmp_path)
    assert "--recipes and --seeds are not used" in found.stderr


def test_an_option_given_twice_is_told_and_the_last_one_counts(learned, tmp_path):
    found = run("-w", learned, "eval", "--at", "base", "--at", "head", "--json")
    assert "warning: --at is given 2 times; the last one counts" in found.stderr
    assert '"ref": "head"' in found.stdout
    data = write_rows(tmp_path / "x.jsonl", [{"prompt": f"{i}?", "completion": "a"} for i in range(8)])
    words = [
        "-w",
        learned,
        "learn",
        "x",
        data,
        "--dry-run",
        *settings("num_train_epochs=7", "methods.tail_average=null"),
    ]
    told = run(*words)
    assert "warning: --set num_train_epochs is given twice; the last one counts: 7" in told.stderr
    shown = run_json(*words)["recipe"]
    assert shown["num_train_epochs"] == 7
    assert set(shown["methods"]) == {"distill", "instruction_replay", "replay"}
    assert "given" not in run("-w", learned, "eval", "--at", "head", "--json").stderr


@pytest.mark.parametrize("value", ["false", "0", "[]", "0.3", "mix"])
def test_what_is_no_mapping_is_no_way_to_set_a_method(learned, tmp_path, value):
    found = run("-w", learned, "learn", "x", tmp_path / "x.jsonl", "--set", f"methods.tail_average={value}", code=1)
    assert "error: methods.tail_average must be a mapping of its fields" in found.stderr
    assert "write null to remove the method" in found.stderr
