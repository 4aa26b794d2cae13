import gzip
import json

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from perdure.core.errors import BadInput
from perdure.data.read import read_records

ROWS = [{"prompt": "2+2=", "completion": "4"}, {"prompt": 'Sämtliche, "Zeichen"\nhier', "completion": "ja"}]
CSV = 'prompt,completion\r\n2+2=,4\r\n"Sämtliche, ""Zeichen""\nhier",ja\r\n'
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
TEXTS = {
    "a.jsonl": LINES,
    "blank.jsonl": "\n" + LINES.replace("\n", "\r\n\r\n") + "\n\n",
    "bom.jsonl": "\ufeff" + LINES,
    "a.json": json.dumps(ROWS, indent=1),
    "wrapped.json": json.dumps({"data": ROWS, "version": 1}),
    "a.csv": CSV,
    "UPPER.CSV": CSV,
}


def written(tmp_path, name, content):
    data = content.encode() if isinstance(content, str) else content
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("name", TEXTS)
def test_every_text_format_gives_the_same_rows(tmp_path, name, zipped):
    path = written(tmp_path, name + zipped, TEXTS[name])
    assert [record.fields for record in read_records(path)] == ROWS


def test_parquet_gives_the_same_rows_nested_values_included(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "hi"}], "label": 1}, {"messages": [], "label": None}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    records = read_records(tmp_path / "a.parquet")
    assert [record.fields for record in records] == rows
    assert [record.source for record in records] == ["a.parquet:1", "a.parquet:2"]
    assert records[1].columns == {"messages"}


@pytest.mark.parametrize(
    ("name", "content", "sources"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": 2}\n', ["a.jsonl:1", "a.jsonl:3"]),
        ("a.json", '[\n{"a": 1},\n\n{"a": 2}]', ["a.json:1", "a.json:2"]),
        ("a.csv", 'a\n1\n\n"2\n2"\n3\n', ["a.csv:2", "a.csv:5", "a.csv:6"]),
    ],
)
def test_source_is_the_line_of_a_line_format_and_the_row_of_a_json_list(tmp_path, name, content, sources):
    assert [record.source for record in read_records(written(tmp_path, name, content))] == sources


def test_unicode_line_separators_inside_a_string_do_not_end_a_jsonl_line(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"text": "a\u2028b\u0085c"}')
    assert read_records(path)[0].fields == {"text": "a\u2028b\u0085c"}


def test_cells_longer_than_the_csv_modules_limit_are_read(tmp_path):
    path = written(tmp_path, "a.csv", f"text\n{'x' * 200_000}\n")
    assert len(read_records(path)[0].fields["text"]) == 200_000


SIX = '{"a": 1}\n' * 6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", "is empty"),
        ("a.jsonl.gz", "", "is empty"),
        ("a.jsonl", " \n\n", "is empty"),
        ("a.json", "[]", "holds no rows"),
        ("a.csv", "text,label\n", "holds no rows"),
        ("a.jsonl", SIX + '{"a": \n{"a": 1}\n', "a.jsonl:7 is broken JSON"),
        ("a.jsonl", SIX + '{"a": 1} {"a": 1}', "a.jsonl:7 is broken JSON"),
        ("a.json", '[\n{"a": 1},\n{"a" 1}]', "a.json:3 is broken JSON"),
        ("a.json", SIX, "is .jsonl"),
        ("a.jsonl", SIX + "[1, 2]", "a.jsonl:7 is a list"),
        ("a.json", '[{"a": 1}, 3]', "a.json:2 is a int"),
        ("a.json", '{"rows": []}', "must hold a list"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "a.csv:3 has 3 cells"),
        ("a.csv", "a,b\n1\n", "a.csv:2 has 1 cells"),
        ("a.csv", 'a,b\n1,"2\n3,4\n', "broken CSV"),
        ("a.csv", "a,a\n1,2\n", "name each column once"),
        ("a.jsonl", b"PK\x03\x04\0\0\0", "is a binary file"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xe9"}', "a.jsonl:2 is not UTF-8"),
        ("a.parquet", "no parquet", "not a readable Parquet file"),
        ("a.txt", "text", "cannot tell what kind"),
        ("a.gz", "text", "cannot tell what kind"),
        ("a.parquet.gz", "text", "cannot tell what kind"),
        ("noname", "text", "cannot tell what kind"),
    ],
)
def test_what_cannot_be_read_is_refused_and_says_where(tmp_path, name, content, message):
    with pytest.raises(BadInput) as caught:
        read_records(written(tmp_path, name, content))
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_parquet_without_rows_is_refused(tmp_path):
    parquet.write_table(pyarrow.table({"text": pyarrow.array([], pyarrow.string())}), tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="holds no rows"):
        read_records(tmp_path / "a.parquet")


@pytest.mark.parametrize("content", [b'{"a": 1}', gzip.compress(b'{"a": 1}' * 50)[:-12]])
def test_gz_that_is_none_or_was_cut_is_refused(tmp_path, content):
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    with pytest.raises(BadInput, match="not a whole gzip file"):
        read_records(tmp_path / "a.jsonl.gz")


def test_missing_file_and_folder_are_refused(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(BadInput, match="does not exist"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="is a folder"):
        read_records(tmp_path / "folder.jsonl")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60), name=st.sampled_from(["f.jsonl", "f.json", "f.csv", "f.parquet", "f.csv.gz"]))
def test_any_bytes_give_rows_or_bad_input_and_no_other_error(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    try:
        outcome = len(read_records(tmp_path / name))
    except BadInput as error:
        outcome = str(error).count(name)
    assert outcome > 0
