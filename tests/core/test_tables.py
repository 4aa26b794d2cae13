"""Results as tables: pandas frames and HTML."""

import sys
from dataclasses import dataclass

import pytest

from perdure.core.errors import BadInput
from perdure.core.records import Record
from perdure.core.tables import Grid, Records, Tabular


@dataclass(frozen=True)
class Cell(Record):
    name: str
    score: float | None
    parts: tuple[str, ...] = ()


class Table(Tabular):
    def grid(self):
        return Grid(("<task>", "score"), (("a & <b>", 0.25), ("c", None)), title='"both" <i>')


CELLS = Records((Cell("a", 0.5, ("x",)), Cell("b", None)))


def test_a_frame_has_the_columns_and_the_values_of_the_table():
    frame = Table().to_pandas()
    assert list(frame.columns) == ["<task>", "score"]
    assert frame["score"][0] == 0.25
    assert frame["score"].isna().tolist() == [False, True]
    assert CELLS.to_pandas()["name"].tolist() == ["a", "b"]
    assert CELLS.to_pandas()["parts"].tolist() == [["x"], []]


def test_html_escapes_every_text():
    html = Table()._repr_html_()
    assert "<caption>&quot;both&quot; &lt;i&gt;</caption>" in html
    assert "<th>&lt;task&gt;</th>" in html
    assert "<td>a &amp; &lt;b&gt;</td><td>0.250</td>" in html
    assert "<td>c</td><td>-</td>" in html
    assert "<td>[&quot;x&quot;]</td>" in CELLS._repr_html_()


def test_records_are_a_tuple_with_json():
    assert (Cell("a", 0.5, ("x",)), Cell("b", None)) == CELLS
    assert CELLS.to_json() == [{"name": "a", "score": 0.5, "parts": ["x"]}, {"name": "b", "score": None, "parts": []}]
    assert Records(()).to_pandas().empty


def test_without_pandas_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(BadInput, match=r"pip install 'perdure\[pandas\]'"):
        Table().to_pandas()
