"""The labels of every picture: no two lie over each other, and none leaves its picture."""

import re
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_examples import EXAMPLES, ReportData, four_tasks, with_entry
from test_report_edits import entry, fact, note
from test_traces import ROLES, a_prompt, a_sweep, an_average

from perdure.evaluate.matrix import Matrix, Stage
from perdure.ledger.records import AverageKind, TraceNotes
from perdure.report import plots, render
from perdure.report.curves import curves
from perdure.report.edits import edits
from perdure.report.traces import traces
from perdure.report.words import MINUS

WIDE, HIGH = 5.8, 9.0  # pixels of a letter, and of a line of text without its leading, at the page's 11 pixels
LABEL = re.compile(r"<text\b([^>]*)>([^<]*)</text>")


def boxes(svg: str) -> list[tuple[str, float, float, float, float]]:
    """Return text, left, right, top and bottom of each label."""
    found = []
    for attributes, text in LABEL.findall(svg):
        told = dict(re.findall(r'([\w-]+)="([^"]*)"', attributes))
        x, y, long = float(told["x"]), float(told["y"]), WIDE * len(text)
        left = x - long * {"end": 1.0, "middle": 0.5}.get(told.get("text-anchor", ""), 0.0)
        found.append((text, left, left + long, y - HIGH, y))
    return found


def over(a: tuple, b: tuple) -> bool:
    return a[1] < b[2] and b[1] < a[2] and a[3] < b[4] and b[3] < a[4]


def check(page: str) -> int:
    """Assert that no two labels of a picture overlap; return how many there are."""
    count = 0
    for svg in re.findall(r"<svg\b.*?</svg>", page, re.S):
        found = boxes(svg)
        count += len(found)
        bad = [(a, b) for a, b in combinations(found, 2) if over(a, b)]
        assert not bad, bad[0]
    return count


def told(rises: list[float]) -> ReportData:
    """Edits whose facts raise the perplexity by these shares, entry by entry."""
    data, parent = four_tasks(), "e"
    for number, rise in enumerate(rises):
        name = f"edit {number}"
        edited = entry(name, parent, "edit", None, "2026-03-01T08:00:00+00:00", {}, edits=note([fact(0)], rise))
        data, parent = replace(data, entries=(*data.entries, edited)), name
    return replace(data, head=data.entries[-1].entry, facts=(fact(0),))


@pytest.mark.parametrize("name", EXAMPLES)
def test_no_two_labels_of_a_page_lie_over_each_other(name):
    assert check(render(EXAMPLES[name]())) >= 0


def test_where_perplexity_falls_its_axis_still_reads():
    """The case that was found: the axis ran from -30% to 1%, and the labels of 0% and 1% were one."""
    page = edits(told([-0.3, -0.25]))["edits"]
    assert check(page) >= 4
    assert ">0.0%<" in page
    assert f">{MINUS}30.0%<" in page
    assert ">1.0%<" not in page


@given(st.lists(st.floats(-0.9, 5.0), min_size=1, max_size=6))
def test_whatever_the_perplexity_does_its_labels_are_apart(rises):
    check(edits(told(rises))["edits"])


@given(st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=100))
def test_whatever_a_trace_finds_its_labels_are_apart(values):
    rows = tuple(tuple(values) for _ in ROLES)
    found = replace(an_average(), kinds={"block": AverageKind(1, rows, rows, rows, (20,) * len(ROLES))})
    check(traces(with_entry(four_tasks(), 0, traces=TraceNotes(average=found)))["traces"])


@pytest.mark.parametrize("stages", [1, 2, 11, 12, 30, 52, 300, 2500])
def test_the_numbers_below_a_curve_are_apart_however_many_stages_there_are(stages):
    kinds = tuple(Stage(str(i), "edit", None) for i in range(stages))
    matrix = Matrix(("a",), kinds, ((0.5,),) * stages, ((20,),) * stages, {})
    page = curves(replace(four_tasks(), matrix=matrix, entries=(), compare=()))
    assert check(page) >= 4


@pytest.mark.parametrize("layers", [2, 4, 9, 12, 48])
def test_what_is_written_in_a_png_stays_inside_and_apart(layers, monkeypatch, tmp_path):
    figures = []
    real = plots._save

    def save(path, size, draw):
        def kept(figure):
            draw(figure)
            figures.append(figure)

        return real(path, size, kept)

    monkeypatch.setattr(plots, "_save", save)

    def wide(rows):
        return tuple((row * 8)[:layers] for row in rows)

    average, prompt = an_average(), a_prompt()
    arrays = ("mean", "low", "high")
    means = {
        kind: replace(part, **{name: wide(getattr(part, name)) for name in arrays})
        for kind, part in average.kinds.items()
    }
    average = replace(average, kinds=means)
    prompt = replace(
        prompt, kinds={kind: replace(part, restored=wide(part.restored)) for kind, part in prompt.kinds.items()}
    )
    sweep = a_sweep(average)
    sweep = replace(sweep, layers=tuple(replace(sweep.layers[0], layer=n) for n in range(layers)))
    plots.draw_average(average, tmp_path)
    plots.draw_prompt(prompt, tmp_path)
    plots.draw_sweep(sweep, tmp_path)
    for figure in figures:
        whole = figure.bbox
        title = figure._suptitle.get_window_extent() if figure._suptitle else whole
        assert whole.x0 <= title.x0 < title.x1 <= whole.x1
        for axes in figure.axes:
            texts = [axes.title, axes.xaxis.label, axes.yaxis.label]
            for text in (t for t in texts if t.get_text()):
                box = text.get_window_extent()
                assert whole.x0 - 1 <= box.x0, text.get_text()
                assert box.x1 <= whole.x1 + 1, text.get_text()
            for axis in (axes.xaxis, axes.yaxis):
                shown = [t.get_window_extent() for t in axis.get_ticklabels() if t.get_text()]
                assert not any(a.overlaps(b) for a, b in combinations(shown, 2))
