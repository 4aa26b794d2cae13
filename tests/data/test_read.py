import gzip
import json
import tracemalloc

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from perdure.core.errors import BadInput
from perdure.data import unpack
from perdure.data.read import read_file, read_records

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


@pytest.mark.parametrize(
    "text",
    [
        "text, label\nhello, a\n",
        "text,label \nhello,a\n",
        "\ufefftext,label\nhello,a\n",
        '"text","label"\nhello,a\n',
        'text, "label"\nhello, "a"\n',
        "text;label\nhello;a\n",
        "text\tlabel\nhello\ta\n",
        "text|label\nhello|a\n",
        "sep=;\r\ntext;label\r\nhello;a\r\n",
        "\n\ntext,label\nhello,a\n",
        "text,label,\nhello,a,\n",
    ],
)
def test_headers_and_separators_as_tables_have_them_give_the_same_columns(tmp_path, text):
    records = read_records(written(tmp_path, "a.csv", text))
    assert [(record.fields["text"], record.fields["label"].strip()) for record in records] == [("hello", "a")]
    assert set(records[0].fields) == {"text", "label"}


@pytest.mark.parametrize(("separator", "called"), [(";", "';'"), ("\t", "tabs"), ("|", "'|'")])
def test_another_separator_is_told_and_commas_stay_in_the_cells(tmp_path, separator, called):
    path = written(tmp_path, "a.csv", f"text{separator}label\nwell, yes{separator}a\n")
    records, notices = read_file(path)
    assert records[0].fields == {"text": "well, yes", "label": "a"}
    assert notices == [f"a.csv is separated by {called}, and read so"]


def test_commas_in_the_header_leave_other_signs_alone(tmp_path):
    records, notices = read_file(written(tmp_path, "a.csv", 'text,"a;b|c"\nx,1\n'))
    assert (records[0].fields, notices) == ({"text": "x", "a;b|c": "1"}, [])


def test_lines_are_counted_behind_blank_ones_and_a_declared_separator(tmp_path):
    path = written(tmp_path, "a.csv", "\nsep=;\ntext;label\nx;a\ny;b\n")
    assert [record.source for record in read_records(path)] == ["a.csv:4", "a.csv:5"]


def test_a_column_without_a_name_is_called_by_its_number_where_it_holds_something(tmp_path):
    records = read_records(written(tmp_path, "a.csv", ",text,\n0,x,\n1,y,\n"))
    assert [record.fields for record in records] == [{"column 1": "0", "text": "x"}, {"column 1": "1", "text": "y"}]


def test_spaces_around_names_are_dropped_in_every_kind_of_file(tmp_path):
    row = {" text": "x", "label\u00a0": "a", "in between": 1}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    for name, text in (("a.jsonl", json.dumps(row)), ("a.json", json.dumps([row])), ("a.parquet", None)):
        path = written(tmp_path, name, text) if text else tmp_path / name
        assert read_records(path)[0].fields == {"text": "x", "label": "a", "in between": 1}


def test_classes_of_a_parquet_file_are_read_by_their_names(tmp_path):
    told = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "n": {"dtype": "int64"}}}}
    table = pyarrow.table({"text": ["a", "b", "c"], "label": [1, 0, -1], "n": [1, 0, 1]})
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(told)}), tmp_path / "a.parquet")
    rows = [record.fields for record in read_records(tmp_path / "a.parquet")]
    assert [(row["label"], row["n"]) for row in rows] == [("yes", 1), ("no", 0), (None, 1)]
    wrong = table.set_column(1, "label", [[1, 2, 0]])
    parquet.write_table(wrong.replace_schema_metadata({"huggingface": json.dumps(told)}), tmp_path / "b.parquet")
    with pytest.raises(BadInput, match=r"b.parquet:2: label is class 2, but the file names 2 classes"):
        read_records(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    "metadata", [b"", b"{", b"[]", b'{"info": 3}', b"\xff", b'{"info": {"features": {"label": {"names": 3}}}}']
)
def test_odd_metadata_of_a_parquet_file_is_no_fault_of_its_rows(tmp_path, metadata):
    table = pyarrow.table({"text": ["a"], "label": [1]}).replace_schema_metadata({b"huggingface": metadata})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert read_records(tmp_path / "a.parquet")[0].fields == {"text": "a", "label": 1}


def test_parquet_that_names_a_column_twice_is_refused(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(BadInput, match="names the column 'text' twice"):
        read_records(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz", "a.csv.gz"])
def test_a_gz_that_holds_far_more_than_its_size_is_refused_before_it_is_in_memory(tmp_path, monkeypatch, name):
    monkeypatch.setattr(unpack, "PLENTY", 2**20)
    path = written(tmp_path, name, '{"text": "a"}\n' * 300_000)  # 4 MiB
    tracemalloc.start()
    with pytest.raises(
        BadInput, match=rf"{name} holds more than 1 MiB, \d+ times its size.* unpack it .'gunzip -k {name}'"
    ):
        read_records(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 6 * 2**20


def test_the_user_sets_what_a_packed_file_may_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "PLENTY", 2**20)
    path = written(tmp_path, "a.jsonl.gz", '{"text": "a"}\n' * 100_000)  # 1.3 MiB
    with pytest.raises(BadInput, match=f"set {unpack.SETTING} to the MiB"):
        read_records(path)
    monkeypatch.setenv(unpack.SETTING, "2")
    assert len(read_records(path)) == 100_000
    monkeypatch.setenv(unpack.SETTING, "1")
    with pytest.raises(BadInput, match="holds more than 1 MiB"):
        read_records(path)
    monkeypatch.setenv(unpack.SETTING, "1 GiB")
    with pytest.raises(BadInput, match=f"{unpack.SETTING} is '1 GiB'; it is a whole number of MiB"):
        read_records(path)


def test_a_packed_file_may_hold_what_a_text_does_and_not_much_more():
    assert unpack.most(10) == 64 * 2**20
    assert unpack.most(10 * 2**20) == 500 * 2**20
    assert unpack.most(30 * 2**20) == 2**30
    assert unpack.most(2**30) == 20 * 2**30


def test_a_gz_of_ordinary_text_is_read_however_large(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "PLENTY", 2**10)
    text = "".join(json.dumps({"text": f"{i * 7919 % 1009} and {i}"}) + "\n" for i in range(5000))
    assert len(read_records(written(tmp_path, "a.jsonl.gz", text))) == 5000


def test_a_parquet_file_that_holds_far_more_than_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "PLENTY", 2**20)
    parquet.write_table(pyarrow.table({"text": ["x" * 1000] * 200_000}), tmp_path / "a.parquet")  # 200 MB
    with pytest.raises(BadInput, match="holds more than 1 MiB, far more than its"):
        read_records(tmp_path / "a.parquet")


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
        ("a.csv", "a,a\n1,2\n", "a.csv:1 must name each column once, and 'a' appears twice"),
        ("a.csv", "text, text\nx,y\n", "'text' appears twice"),
        ("a.csv", 'a,b\n1,2\n3,"4\n5,6\n', "a.csv:4 is broken CSV (the row begins in line 3)"),
        ("a.jsonl", SIX + '{"a": 1, "a ": 2}', "a.jsonl:7 names the column 'a' twice"),
        ("a.jsonl", SIX + '{"a": 1, "a": 2}', "a.jsonl:7 is broken JSON: 'a' is named twice in one object"),
        ("a.jsonl", SIX + '{"a": ' + "9" * 5000 + "}", "a.jsonl:7 is broken JSON: a number has more digits"),
        (
            "a.jsonl",
            SIX + '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
            "a.jsonl:7 is broken JSON: it is nested deeper",
        ),
        ("a.json", "[" * 100_000 + "]" * 100_000, "is broken JSON: it is nested deeper"),
        ("a.json", '[{"a": ' + "9" * 5000 + "}]", "a number has more digits"),
        ("a.tsv", "a\tb", "a.tsv holds no rows"),
        ("a.tsv", "a\tb\n1\n", "a.tsv:2 has 1 cells, but the header names 2"),
        ("a.tsv", "a\ta\n1\t2\n", "a.tsv:1 must name each column once"),
        ("a.arrow", "no arrow", "not a readable Arrow file"),
        ("a.arrow", b"ARROW1\0\0" + b"x" * 40, "not a readable Arrow file"),
        ("a.arrow.gz", "text", "the kind of this file"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16-le"), "is UTF-16 text; save it as UTF-8"),
        ("a.csv", "a,b\n1,2\n".encode("utf-32"), "is UTF-32 text; save it as UTF-8"),
        (
            "a.csv",
            "a,b\n1,caf\xe9\n".encode("latin-1"),
            "a.csv:2 is not UTF-8 text (byte 0xe9 as Latin-1 or",
        ),
        ("a.jsonl", b'{"a": 1}\n{"a": "\0"}\n', "a zero byte in line 2"),
        ("a.jsonl", b"PK\x03\x04\0\0\0", "is a binary file"),
        ("a.csv", "a,b\n1,2\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xe9"}', "a.jsonl:2 is not UTF-8"),
        ("a.parquet", "no parquet", "not a readable Parquet file"),
        ("a.txt", " \n\n", "a.txt is empty"),
        ("a.doc", "text", "name it .jsonl, .json, .csv, .tsv, .txt (also with .gz), .parquet or .arrow"),
        ("a.gz", "text", "the kind of this file"),
        ("a.parquet.gz", "text", "the kind of this file"),
        ("noname", "text", "the kind of this file"),
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


@pytest.mark.parametrize("content", [b'{"a": 1}', gzip.compress(b'{"a": 1}' * 50, mtime=0)[:-12]])
def test_gz_that_is_none_or_was_cut_is_refused(tmp_path, content):
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    with pytest.raises(BadInput, match="not a whole gzip file"):
        read_records(tmp_path / "a.jsonl.gz")


def test_missing_file_and_folder_are_refused(tmp_path):
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(BadInput, match="does not exist"):
        read_records(tmp_path / "none.jsonl")
    with pytest.raises(BadInput, match="does not exist"):
        read_records(tmp_path / "none")
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
