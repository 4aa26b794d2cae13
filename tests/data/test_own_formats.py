"""Formats of other packages: an entry point brings them in, and a package that is wrong is named."""

import sys

import pytest

from json_files import rows_file
from perdure.core.errors import BadInput, BadSpec
from perdure.data.load import load_task, read_again
from perdure.data.own_formats import GROUP
from perdure.data.task import TaskData

CODE = """
def faq(row):
    return {"prompt": row["q"]["text"], "completion": row["a"][0]}


def said(row):
    return {"text": row["q"]["text"].upper(), "label": row["a"]}


def none(row):
    return None


def unknown(row):
    return {"this": row["q"]["text"], "that": "y"}


word = "no function"
"""
ROWS = [{"q": {"text": f"What is {i}?"}, "a": [f"It is {i}"]} for i in range(10)]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that writes what pip leaves of an installed package; what is imported from it is forgotten later."""

    def write(package, lines, code=""):
        (tmp_path / "site" / f"{package}.py").write_text(code)
        info = tmp_path / "site" / f"{package}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}\n")

    (tmp_path / "site").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield write
    sys.modules.pop("rows_of_mine", None)


@pytest.fixture
def data(tmp_path, install):
    names = ("faq", "said", "none", "unknown")
    install("rows_of_mine", "\n".join(f"{name} = rows_of_mine:{name}" for name in names), CODE)
    return rows_file(tmp_path / "a.jsonl", ROWS)


def texts(rows):
    return {(row.prompt, row.completion) for row in rows}


def test_a_format_of_an_installed_package_has_the_name_of_its_entry_point(data, tmp_path):
    with pytest.raises(BadInput, match="known formats need"):
        load_task("t", data)
    task = load_task("t", data, overrides={"format": "faq"})
    assert texts((*task.train, *task.test)) == {(f"What is {i}?", f" It is {i}") for i in range(10)}
    assert (task.format, task.spec.format) == ("prompt_completion", "faq")
    assert task.train[0].source.startswith("a.jsonl:")
    assert len(read_again(task, data)) == 10

    more = rows_file(tmp_path / "more.jsonl", [{"q": {"text": "More?"}, "a": ["Yes"], "split": "train"}])
    update = load_task("t", more, known=task)  # by the same format
    assert texts(update.train) == {("More?", " Yes")}


def test_columns_and_template_name_what_the_format_returns(data):
    settings = {"format": "said", "template": "{text}\nA:"}
    task = load_task("t", data, overrides=settings)
    assert (task.format, task.train[0].prompt[:7]) == ("text_labels", "WHAT IS")
    mapped = load_task("t", data, overrides={"format": "unknown", "columns": {"prompt": "this", "completion": "that"}})
    assert texts((*mapped.train, *mapped.test)) == {(f"What is {i}?", " y") for i in range(10)}


def test_a_stored_task_is_restored_without_the_package(data, monkeypatch):
    task = load_task("t", data, overrides={"format": "faq"})
    monkeypatch.setattr("perdure.data.own_formats.brought", lambda group: ())
    assert TaskData.from_json(task.to_json(), task.train, task.validation, task.test).version == task.version
    with pytest.raises(BadSpec, match=r"`format`: unknown format 'faq'; known: messages, "):
        load_task("t", data, known=task)


@pytest.mark.parametrize(
    ("format", "said"),
    [
        ("none", r"a.jsonl:1: format none of package rows_of_mine 1.2 returned None; it returns columns by name"),
        ("unknown", r"a.jsonl:1 has columns that, this; known formats need"),
    ],
)
def test_a_format_that_returns_no_row_is_an_error_of_the_row(data, format, said):
    with pytest.raises(BadInput, match=said):
        load_task("t", data, overrides={"format": format})


def test_an_error_of_the_package_names_row_and_package(data, tmp_path):
    rows_file(data, [*ROWS, {"q": None, "a": []}])
    with pytest.raises(BadInput, match=r"a.jsonl:11: format faq of package rows_of_mine 1.2 failed: TypeError: "):
        load_task("t", data, overrides={"format": "faq"})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("alpaca = rows_of_mine:faq", "perdure and wrong 1.2 both have a format 'alpaca'; rename one"),
        ("faq = rows_of_mine:said", "rows_of_mine 1.2 and wrong 1.2 both have a format 'faq'; rename one"),
        (
            "word = rows_of_mine:word",
            "package wrong 1.2, entry point word = rows_of_mine:word of perdure.formats is no function",
        ),
        ("other = nothing_of_this_name:faq", "of perdure.formats cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_a_package_whose_format_is_unusable_is_named(data, install, line, said):
    install("wrong", line)
    with pytest.raises(BadSpec, match=r"wrong 1\.2") as error:
        load_task("t", data, overrides={"format": "faq"})
    assert said in str(error.value)
    rows = rows_file(data, [{"text": f"t{i}"} for i in range(10)])
    assert load_task("t", rows, overrides={"format": "text"}).format == "text"  # perdure's own need no package


def test_an_unknown_format_names_the_nearest(data):
    with pytest.raises(BadSpec, match=r"unknown format 'faqs', did you mean faq\?; known: messages, .*, faq, said"):
        load_task("t", data, overrides={"format": "faqs"})
