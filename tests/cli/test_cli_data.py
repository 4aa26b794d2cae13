"""Data on the command line: columns that are named, and text that steers nothing."""

import json
import re

import pytest
from shell import init_people, run, run_json, settings, write_rows

from cautioned import without_size
from perdure.core.errors import BadInput
from perdure.report.markup import el
from perdure.workflows.export.card_words import plain

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
HOSTILE = "\x1b[31m[red]a\u202eb\r\x07"
HTML = "<script>alert(1)</script>"


def asked(**more):
    return [{"question": f"Who is {i}?", "answer": "parcel", **more} for i in range(8)]


def test_columns_are_named_on_the_command_line_and_in_a_task_file(fresh, tmp_path):
    data = write_rows(tmp_path / "a.jsonl", asked(mood="good", id=3))
    refused = run("-w", fresh, "learn", "t", data, "--dry-run", code=1)
    assert (
        "give --columns prompt=question,completion=answer (`columns: {prompt: question, completion: answer}`"
        in refused.stderr
    )
    found = run_json("-w", fresh, "learn", "t", data, "--dry-run", "--columns", "prompt=question, completion=answer")
    assert (found["format"], found["unread"]) == ("prompt_completion", ["mood", "id"])
    (tmp_path / "t.yaml").write_text("train: a.jsonl\ncolumns: {prompt: question, completion: answer}\n")
    shown = run("-w", fresh, "learn", "t", tmp_path / "t.yaml", "--dry-run")
    assert re.search(r"not read +mood, id\n", shown.stdout)
    assert "warning: columns not read, with their filled rows: mood (8), id (8)" in shown.stderr


def test_several_files_a_folder_and_stdin_are_read_with_the_same_columns(fresh, tmp_path):
    (tmp_path / "rows").mkdir()
    rows = [{"question": f"Who is {i}?", "answer": "parcel"} for i in range(8)]
    paths = [
        write_rows(tmp_path / "rows" / name, part) for name, part in (("a.jsonl", rows[:5]), ("b.jsonl", rows[5:]))
    ]
    options = ["--dry-run", "--json", "--columns", "prompt=question,completion=answer"]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    found = [
        json.loads(run("-w", fresh, "learn", "t", *data, *options, input=lines if data == ["-"] else None).stdout)
        for data in (paths, [tmp_path / "rows"], ["-"])
    ]
    assert [one["rows"] for one in found] == [found[0]["rows"]] * 3
    assert [one["example"] for one in found] == [found[0]["example"]] * 3
    assert found[0]["rows"]["train"] + found[0]["rows"]["test"] == 8
    short = run_json("-w", fresh, "learn", "t", paths[0], *options[:1], *options[2:], "--max-rows", "4")
    assert short["rows"]["train"] + short["rows"]["test"] == 4


def test_a_data_set_on_the_hub_without_datasets_is_one_line_and_loads_nothing(fresh, monkeypatch):
    monkeypatch.setattr("perdure.bridges.hub_data.find_spec", lambda name: None)
    monkeypatch.setattr("perdure.bridges.models.load_tokenizer", lambda folder: pytest.fail("loaded"))
    refused = run("-w", fresh, "learn", "t", "hub:org/name", code=1)
    assert refused.stderr == (
        "error: hub:org/name: data sets of the hub need the package datasets, which is not installed: "
        "pip install 'perdure[datasets]'\n"
    )


@pytest.mark.parametrize("columns", ["prompt", "prompt=", "=question", "prompt=question,prompt=answer", ""])
def test_a_mapping_that_is_none_is_wrong_usage(fresh, tmp_path, columns):
    data = write_rows(tmp_path / "a.jsonl", asked())
    assert "--columns" in run("-w", fresh, "learn", "t", data, "--dry-run", "--columns", columns, code=2).stderr


def test_columns_hold_for_facts_and_skills_too(tmp_path):
    ws = init_people(tmp_path, "plain")
    data = write_rows(tmp_path / "a.jsonl", asked(kind="skill"))
    found = run_json(
        "-w",
        ws,
        "learn",
        "t",
        data,
        "--kind",
        "knowledge",
        "--dry-run",
        "--columns",
        "prompt=question,completion=answer",
    )
    assert found["skill"]["unread"] == ["kind"]
    assert without_size(found["skill"]["notices"]) == []


def test_text_of_the_data_steers_neither_the_terminal_nor_a_page(fresh, tmp_path):
    rows = [
        {"text": f"{HOSTILE} {HTML} {i}", "label": HOSTILE if i % 2 else HTML, f"extra {HOSTILE}": "x"}
        for i in range(12)
    ]
    data = write_rows(tmp_path / "a.jsonl", rows)
    shown = [
        run("-w", fresh, "learn", "t", data, "--dry-run"),
        run("-w", fresh, "learn", "t", data, *settings(), "--no-gate"),
    ]
    for words in (
        ["memory", "list"],
        ["memory", "list", "--all"],
        ["memory", "stats"],
        ["memory", "export", "-"],
        ["status"],
        ["log"],
    ):
        shown.append(run("-w", fresh, *words))
    shown += [run("-w", fresh, "predict", rows[0]["text"]), run("-w", fresh, "memory", "list", "--json")]
    for result in shown:
        assert not STEERING.search(result.stdout + result.stderr)
    assert "\\x1b[31m[red]a\\u202eb" in shown[0].stdout
    kept = [json.loads(line) for line in shown[5].stdout.splitlines()]
    assert {row["label"] for row in kept} == {HOSTILE.strip(), HTML}
    assert {row["label"] for row in json.loads(shown[-1].stdout)} == {HOSTILE.strip(), HTML}
    run("-w", fresh, "report", "-o", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert HTML not in page
    assert not STEERING.search(page)
    run("-w", fresh, "export", tmp_path / "out")
    assert HTML not in (tmp_path / "out" / "README.md").read_text()


def test_an_error_that_quotes_data_steers_nothing_and_is_short(fresh, tmp_path):
    rows = [{"messages": [{"role": f"{HOSTILE}{'x' * 50_000}", "content": "x"}]}] * 4
    told = run("-w", fresh, "learn", "t", write_rows(tmp_path / "a.jsonl", rows), "--dry-run", code=1).stderr
    first, error = told.split("\n", 1)
    assert first == "dry run: stopped by what follows; nothing was changed"
    assert error.startswith("error: a.jsonl:1, turn 1: role is ")
    assert not STEERING.search(told)
    assert len(told) < 600


def test_the_card_shows_what_facts_say_as_text():
    text = f"[x](javascript:y) ![i](http://z) `c` *b* |\n# {HTML} &lt; {HOSTILE}"
    shown = plain(text)
    assert not re.search(r"(?<!\\)[\[\]<>`*|#&!]", shown)
    assert "\n" not in shown
    assert not STEERING.search(shown)
    assert plain("The Eiffel Tower is in Rome, isn't it? (1889)") == "The Eiffel Tower is in Rome, isn't it? (1889)"


def test_a_page_shows_what_would_turn_its_text():
    assert el("p", "a\u202eb\x1b", title="\u2066x\"'<") == '<p title="\\u2066x&quot;&#x27;&lt;">a\\u202eb\\x1b</p>'


def test_progress_takes_a_bracket_for_a_bracket(monkeypatch, capsys):
    from perdure.cli import progress

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with progress.progress("first") as tick:
        tick(f"scoring [/red] {HOSTILE}", 1, 2)
    assert "\x1b[31m[red]" not in capsys.readouterr().err


def test_an_error_of_any_length_is_cut_where_it_is_printed(capsys):
    from perdure.cli.output import LONGEST, print_message

    print_message(str(BadInput("x" * 10**6)))
    assert len(capsys.readouterr().err) <= LONGEST + 1
