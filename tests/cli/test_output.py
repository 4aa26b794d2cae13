"""Tables on the command line: one line a row in a pipe, folded to the width of a terminal, and data stays text."""

import pytest
from rich.cells import cell_len

from perdure.cli.output import table

HEAD = ["task", "n", "text"]
ROWS = [["one", 8, "[red]a long text of many words[/red] that is folded"], ["twenty", 1200, "x" * 40 + "\x1b[31m"]]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))


def test_in_a_pipe_a_row_is_one_line_however_narrow_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert table(HEAD, ROWS, right=(1,)).split("\n") == [
        "task       n  text",
        "one        8  [red]a long text of many words[/red] that is folded",
        f"twenty  1200  {'x' * 40}\\x1b[31m",
    ]


def test_a_terminal_that_is_wide_enough_shows_what_a_pipe_gets(monkeypatch):
    piped = table(HEAD, ROWS, right=(1,))
    on_a_terminal(monkeypatch, 120)
    assert table(HEAD, ROWS, right=(1,)) == piped


def test_a_narrow_terminal_folds_long_cells_and_loses_nothing(monkeypatch):
    on_a_terminal(monkeypatch, 40)
    lines = table(HEAD, ROWS, right=(1,)).split("\n")
    assert max(map(len, lines)) <= 40
    assert lines[0].split() == HEAD
    assert lines[1].startswith("one        8  [red]a long text")
    texts = [line[14:].strip() for line in lines[1:]]
    assert " ".join(texts[:3]).startswith(ROWS[0][2])
    assert "".join(texts).endswith("x" * 40 + "\\x1b[31m")


def test_wide_characters_take_two_columns():
    lines = table(["task", "n"], [["\u4efb\u52a1", 1], ["ab", 2]]).split("\n")
    assert [cell_len(line) for line in lines] == [7, 7, 7]
