"""The page as text: self-contained, escaped, whole, and honest about what was not measured."""

import re
import subprocess
import sys
from dataclasses import is_dataclass, replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_examples import (
    EXAMPLES,
    empty,
    entry_id,
    fifteen_tasks,
    four_tasks,
    many_tasks,
    one_task,
    with_entry,
    with_record,
)

from perdure.core.errors import PerdureError
from perdure.core.plain_text import visible
from perdure.evaluate.matrix import Metric
from perdure.ledger.records import FloorVerdict, RowCounts
from perdure.report import render, write_report
from perdure.report.history import backwards, lanes
from perdure.workflows.inspect.report_records import ReportEntry

SECTIONS = ["matrix", "tasks", "gate", "training", "methods", "history"]
VOID = {"meta", "link", "br", "hr", "wbr"}


class Page(HTMLParser):
    """Collects elements with their attributes and the text of the page, and insists on balanced tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.broken = False  # by a <wbr>, where a word may break and its text goes on
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.broken = tag == "wbr"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.broken = False

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(self.text.pop() + data if self.broken else data)
            self.broken = False

    def of(self, tag: str, name: str = "") -> list[dict[str, str]]:
        return [a for t, a in self.elements if t == tag and (not name or name in (a.get("class") or "").split())]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_section_is_there_and_every_tag_is_closed(name):
    page = Page(render(EXAMPLES[name]()))
    ids = [a["id"] for a in page.of("section") if "id" in a]
    assert [i for i in ids if i != "compare"] == SECTIONS
    assert ("compare" in ids) == bool(EXAMPLES[name]().compare)
    assert {a["href"] for a in page.of("a")} == {f"#{i}" for i in ids}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_page_loads_nothing(name):
    html = render(EXAMPLES[name]())
    page = Page(html)
    for _, attributes in page.elements:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:"))
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in page.of("meta")[1]["content"]


def test_every_text_of_the_records_is_escaped():
    hostile = '<script>alert("x")</script>'

    def spoil(value, key=""):
        if is_dataclass(value):
            return type(value)(**{name: spoil(one, name) for name, one in vars(value).items()})
        if isinstance(value, tuple):
            return tuple(spoil(one) for one in value)
        if isinstance(value, dict):
            rename = key in ("scores", "heartbeats", "settings", "methods", "tasks")
            return {hostile + k if rename else k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v) for v in value]
        return hostile + value if isinstance(value, str) and key not in ("verdict", "kind") else value

    html = render(spoil(four_tasks()))
    assert "<script>alert" not in html
    assert html.count("<script>") == 1
    Page(html)


@settings(max_examples=40)
@given(st.text(min_size=1, max_size=40))
def test_any_task_name_comes_back_as_the_text_it_is(name):
    data = one_task()
    base, learn = data.matrix.stages
    data = replace(data, matrix=replace(data.matrix, tasks=(name,), stages=(base, replace(learn, task=name))))
    titles = [a["title"] for a in Page(render(data)).of("th") if "title" in a]
    assert visible(name) in titles


def test_a_cell_says_score_interval_and_n_and_marks_what_was_just_learned():
    page = Page(render(replace(four_tasks(), compare=())))
    cells = page.of("td", "just")
    assert len(cells) == 4
    assert cells[0]["title"].startswith(
        "broadband, stage 1 (broadband): 93.8%, 95% Wilson interval 89.0 to 98.6, n = 96, exact"
    )


def test_cells_that_were_not_measured_are_hatched_and_said_to_be_so():
    page = Page(render(replace(four_tasks(), compare=())))
    assert len(page.of("td", "gap")) == 3
    assert all(a["title"].endswith("not measured") for a in page.of("td", "gap"))


def test_headline_numbers_stand_with_their_intervals_and_the_items_behind_them():
    words = Page(render(four_tasks())).words
    assert "89.8 % 86.8 to 92.8 95% interval, n = 384" in words
    assert "−2.5 points −4.4 to −0.6 95% interval, n = 288" in words
    assert "Earlier tasks have lost 2.5 points since they were learned (95% interval 0.6 to 4.4)." in words


def test_the_worst_task_stands_beside_the_mean_change():
    assert "Worst: broadband, \u22123.2." in Page(render(four_tasks())).words


def test_a_floor_that_did_not_decide_is_told_beside_the_reason():
    data = four_tasks()
    reason = "the new task's 92.7% (96 test items) reaches the floor of 80.0%"
    floor = FloorVerdict("energy", "pass", 0.927, 96, 0.8, reason)
    data = with_record(data, -1, gate=replace(data.entries[-1].gate, floor=floor))
    words = Page(render(data)).words
    assert f"would decide. energy: {reason}. To decide, learn the task again with more test rows" in words
    assert "Tolerance 3.0 points" in words


def test_a_task_learned_twice_counts_from_its_first_learn_and_is_marked_at_both():
    data = replace(four_tasks(), compare=())
    stages = (*data.matrix.stages[:4], replace(data.matrix.stages[4], task="broadband"))
    data = replace(data, matrix=replace(data.matrix, stages=stages))
    page = Page(render(data))
    assert data.matrix.learned_at("broadband") == 1
    assert [a["title"][:18] for a in page.of("td", "just")].count("broadband, stage 4") == 1
    assert len(page.of("circle", "just")) == 4


def test_a_metric_that_cannot_be_computed_says_why():
    assert "needs a second task" in Page(render(one_task())).words


def test_scores_within_the_error_are_not_called_lost():
    data = four_tasks()
    metrics = {**data.matrix.metrics, "bwt": Metric(-0.004, -0.02, 0.01, 288)}
    data = replace(data, matrix=replace(data.matrix, metrics=metrics))
    words = Page(render(data)).words
    assert "kept their scores within the error" in words
    assert "Earlier tasks have lost" not in words


def test_an_empty_ledger_says_what_to_do():
    words = Page(render(empty())).words
    assert "Nothing has been learned yet" in words
    assert "perdure learn TASK DATA" in words


def test_a_failed_gate_is_told_at_the_top_in_words_and_in_its_table():
    page = Page(render(four_tasks()))
    assert "the gate failed: broadband lost 33.4 points" in page.words
    assert "It is not part of head." in page.words
    assert len(page.of("span", "fail")) == 4  # verdict, two rows, the ledger's table
    assert [("open" in a) for a in page.of("details") if a.get("class") != "quiet"] == [True, False, True, False, False]


def test_a_rollback_is_seen_in_the_tree_in_the_table_and_in_the_moves_of_head():
    data = four_tasks()
    page = Page(render(data))
    assert lanes(data)[entry_id("c")] == 1
    assert [backwards(data, move) for move in data.reflog] == [0, 0, 0, 1, 0, 0]
    assert len(page.of("g", "back")) == 1
    assert len(page.of("tr", "off")) == 1
    assert "back by 1" in page.words


def test_side_branches_have_their_own_rows_and_go_on_in_them():
    def node(name, parent):
        return ReportEntry(name, parent, "learn", None, "", (), {}, None, RowCounts(0, {}))

    entries = [node("base", None), node("a", "base"), node("x", "base"), node("y", "x"), node("z", "x"), node("b", "a")]
    assert lanes(replace(four_tasks(), head="b", entries=tuple(entries))) == {
        "base": 0,
        "a": 0,
        "b": 0,
        "x": 1,
        "y": 1,
        "z": 2,
    }


def test_edits_merges_and_reverts_are_named_as_stages_without_a_task():
    page = Page(render(fifteen_tasks()))
    assert {"edit", "merge", "revert"} <= {a.get("title") for a in page.of("th")}


def test_a_method_that_did_nothing_is_said_to_have_had_no_effect():
    data = four_tasks()
    assert "no effect" in Page(render(data)).words
    assert "no effect" not in Page(render(with_record(data, 1, heartbeats={}))).words


def test_losses_that_are_no_numbers_are_left_out():
    data = with_record(one_task(), 1, loss=((0, 2.0), (1, float("nan")), (3, 1.0)))
    html = render(data)
    assert "nan" not in html.lower().replace("nanoseconds", "")
    assert "loss 2 to 1" in Page(html).words


def test_the_validation_curve_is_drawn_with_its_lowest_loss():
    data = with_record(one_task(), 1, loss=((0, 2.0), (7, 1.0)), validation=((3, 1.5), (5, 1.25), (7, 1.75)))
    page = Page(render(data))
    assert "validation 1.5 to 1.75, least 1.25 after update 6" in page.words
    assert "loss on validation rows" in page.words
    assert sum(path.get("class") == "line other" for path in page.of("path")) == 1
    assert "loss on validation rows" not in Page(render(one_task())).words


def test_records_may_be_missing():
    data = four_tasks()
    for number in range(len(data.entries)):
        data = with_entry(data, number, record=None, scores={})
    words = Page(render(data)).words
    assert "No learn has been through the gate yet." in words
    assert "Nothing has been trained yet." in words


def test_another_recipe_stands_beside_ours_only_where_the_streams_agree():
    data = four_tasks()
    assert len(Page(render(data)).of("path", "other")) >= 4
    (naive,) = data.compare
    base, first, *rest = naive.matrix.stages
    other = replace(naive.matrix, stages=(base, replace(first, task="energy"), *rest))
    page = Page(render(replace(data, compare=(replace(naive, matrix=other),))))
    assert page.of("path", "other") == []
    assert "naive" in page.words


def test_the_same_records_give_the_same_page():
    assert render(four_tasks()) == render(four_tasks())


def test_the_page_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.html"
    write_report(four_tasks(), path)
    assert path.read_text(encoding="utf-8") == render(four_tasks())
    with pytest.raises(PerdureError, match="is a folder; name a file in it"):
        write_report(four_tasks(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_report_does_not_import_torch():
    code = "import sys, perdure.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(("tasks", "learns"), [(52, None), (50, 300), (300, 300)])
def test_a_long_page_stays_small_and_says_what_is_folded(tasks, learns):
    html = render(many_tasks(tasks, learns))
    assert len(html.encode()) < 3_000_000
    learns = learns or tasks
    assert f"<summary>{tasks - 8} more tasks</summary>" in html
    assert f"<summary>{learns} learns, the newest first</summary>" in html
    assert f"<summary>{learns - 3} earlier verdicts, " in html
    whole = f"{tasks - 16} more tasks and {learns - 8} more stages"
    assert f"<summary>{whole}: the whole matrix</summary>" in html or f"{whole}: <code>perdure matrix --all" in html


def test_an_inconclusive_gate_is_reported_in_its_section_alone_with_what_to_do():
    html = render(four_tasks())
    reason = next(e.gate.reason for e in four_tasks().entries if e.gate and e.gate.verdict == "inconclusive")
    assert html.count(reason.rstrip(".")) == 1
    assert html.count("To decide, learn the task again with more test rows") == 1
