"""Rows come from files of every kind, folders, several files and stdin, with the same columns and the same bounds."""

import gzip
import io
import json
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from json_files import rows_file
from perdure.core.errors import BadInput, BadSpec
from perdure.data.folders import part_of_name
from perdure.data.load import load_rows, load_task, read_again
from perdure.data.read import read_file, read_records
from perdure.data.sources import HubData, HubSplit, read_sources
from perdure.data.spec import load_spec

QA = [{"question": f"What is {i}?", "answer": f"It is {i}"} for i in range(10)]
MAPPED = {"prompt": "question", "completion": "answer"}
TEXTS = [{"text": f"message {i}", "label": f"kind {i % 2}"} for i in range(10)]
CLASSES = {
    "info": {
        "features": {
            "text": {"dtype": "string", "_type": "Value"},
            "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
            "tags": {"feature": {"names": ["a", "b"], "_type": "ClassLabel"}, "_type": "List"},
            "old": {"feature": [{"names": ["a", "b"], "_type": "ClassLabel"}], "_type": "Sequence"},
        }
    }
}


def fields(records):
    return [record.fields for record in records]


def sources(records):
    return [record.source for record in records]


def table(rows, features=None):
    made = pyarrow.Table.from_pylist(rows)
    return made.replace_schema_metadata({"huggingface": json.dumps(features)}) if features else made


def arrow(path, rows, features=None, *, kind="stream"):
    made = table(rows, features)
    with getattr(pyarrow.ipc, f"new_{kind}")(path, made.schema) as writer:
        writer.write_table(made)
    return path


def saved(folder, rows, features=None, files=1):
    """Write what `Dataset.save_to_disk` writes (datasets 5.2)."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{files:05}.arrow" for i in range(files)]
    size = -(-len(rows) // files)
    for i, name in enumerate(names):
        arrow(folder / name, rows[i * size : (i + 1) * size], features)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "f", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(
        json.dumps({"features": (features or {}).get("info", {}).get("features")})
    )
    return folder


def pipe(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data.encode() if isinstance(data, str) else data)))


# ---- files


def test_a_tsv_has_no_quotes_but_around_whole_cells(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b'text\tlabel\r\n"so he said\t1\r\n\r\n"a ""b"""\t0\n')
    records, notices = read_file(path)
    assert fields(records) == [{"text": '"so he said', "label": "1"}, {"text": 'a "b"', "label": "0"}]
    assert sources(records) == ["a.tsv:2", "a.tsv:4"]
    assert notices == []


def test_a_tsv_whose_quotes_enclose_tabs_and_line_breaks_is_read_as_csv_is(tmp_path):
    path = tmp_path / "a.tab"
    path.write_text('text\tlabel\n"a\tb\t\nc"\t1\nd\t0\n')
    assert fields(read_records(path)) == [{"text": "a\tb\t\nc", "label": "1"}, {"text": "d", "label": "0"}]


def test_a_tsv_without_a_tab_is_a_table_with_another_separator(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("text;label\nx;1\n")
    records, notices = read_file(path)
    assert fields(records) == [{"text": "x", "label": "1"}]
    assert notices == ["a.tsv is separated by ';', and read so"]


def test_the_separator_of_a_csv_is_found_and_reported_with_the_task(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("question;answer\n" + "".join(f"{r['question']};{r['answer']}\n" for r in QA))
    task = load_task("t", path, overrides={"columns": MAPPED})
    assert "a.csv is separated by ';', and read so" in task.notices
    assert len(task.train) + len(task.test) == 10


def test_a_text_is_read_by_paragraphs_or_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\nOne\r\nline two\r\n\r\n \r\nTwo\n\n\nThree\n")
    records, notices = read_file(path)
    assert fields(records) == [{"text": "One\nline two"}, {"text": "Two"}, {"text": "Three"}]
    assert sources(records) == ["a.txt:2", "a.txt:6", "a.txt:9"]
    assert notices == ["a.txt: 3 paragraphs, each of them a row (documents: file reads it as one)"]
    (whole,), notices = read_file(path, "file")
    assert (whole.fields, whole.source, notices) == (
        {"text": "One\nline two\n\n \nTwo\n\n\nThree"},
        "a.txt:1",
        [],
    )


@pytest.mark.parametrize("kind", ["stream", "file"])
def test_arrow_gives_rows_and_names_of_classes_those_in_lists_too(tmp_path, kind):
    rows = [
        {"text": "x", "label": 1, "tags": [0, 1], "old": [1]},
        {"text": "y", "label": -1, "tags": [], "old": None},
    ]
    read = fields(read_records(arrow(tmp_path / "a.arrow", rows, CLASSES, kind=kind)))
    assert read == [
        {"text": "x", "label": "yes", "tags": ["a", "b"], "old": ["b"]},
        {"text": "y", "label": None, "tags": [], "old": None},
    ]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "saved", "folder"])
def test_the_names_of_classes_are_used_whatever_holds_the_rows(tmp_path, name):
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(10)]
    path = tmp_path / name
    if name == "saved":
        saved(path, rows, CLASSES)
    elif name == "a.arrow":
        arrow(path, rows, CLASSES)
    else:
        path = path / "rows.parquet" if name == "folder" else path
        path.parent.mkdir(exist_ok=True)
        parquet.write_table(table(rows, CLASSES), path)
    task = load_task("t", tmp_path / name)
    assert task.labels == ["no", "yes"]
    with pytest.raises(BadInput, match="label is class 7, but the file names 2 classes"):
        read_records(arrow(tmp_path / "bad.arrow", [{"label": 7}], CLASSES))


def test_arrow_that_holds_far_more_than_its_size_is_refused(tmp_path):
    made = pyarrow.table({"text": ["x" * 2**20] * 80})
    options = pyarrow.ipc.IpcWriteOptions(compression="zstd")
    with pyarrow.ipc.new_stream(tmp_path / "a.arrow", made.schema, options=options) as writer:
        writer.write_table(made)
    assert (tmp_path / "a.arrow").stat().st_size < 2**20
    with pytest.raises(BadInput, match="holds more than 64 MiB, far more than its"):
        read_records(tmp_path / "a.arrow")


# ---- folders that `datasets` saved


def test_a_saved_data_set_is_read_in_the_order_of_its_list_of_files(tmp_path):
    found = read_sources(saved(tmp_path / "set", QA, files=3))
    assert fields(found.records) == QA
    assert sources(found.records)[:5] == [
        *(f"set/data-00000-of-00003.arrow:{n}" for n in (1, 2, 3, 4)),
        "set/data-00001-of-00003.arrow:1",
    ]


def test_saved_splits_are_parts_and_a_split_that_is_none_is_named(tmp_path):
    folder = tmp_path / "set"
    for split, rows in (("train_sft", QA[:6]), ("test", QA[6:8]), ("validation", QA[8:9]), ("extra", QA[9:])):
        saved(folder / split, rows)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train_sft", "test", "validation", "extra"]}))
    task = load_task("t", folder, overrides={"columns": MAPPED})
    assert [len(part) for part in (task.train, task.validation, task.test)] == [6, 1, 2]
    assert task.test[0].source == "set/test:1"
    assert "set: the split extra is not read, since its name is no part (train, validation, test)" in task.notices
    assert "read as train rows by name: set/train_sft (6)" in task.notices


def test_a_test_split_that_keeps_its_labels_secret_is_left_out(tmp_path):
    folder = tmp_path / "set"
    saved(folder / "train", [{"text": f"t{i}", "label": i % 2} for i in range(10)], CLASSES)
    saved(folder / "test", [{"text": "u", "label": -1}], CLASSES)
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    task = load_task("t", folder)
    assert (len(task.train), len(task.test), task.test_made) == (8, 2, True)
    assert "set/test has no labels, and is not read: the test rows are made from the others" in task.notices


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_data_files": [{"filename": "../../etc/passwd"}]}, "does not list the files"),
        ({"_data_files": [{"filename": "/etc/passwd"}]}, "does not list the files"),
        ({"_data_files": [{"filename": ".."}]}, "does not list the files"),
        ({"_data_files": []}, "does not list the files"),
        ({"_data_files": 3}, "does not list the files"),
        ({"_data_files": [{"filename": "none.arrow"}]}, "none.arrow does not exist"),
        ({"_data_files": [{"filename": "state.json"}]}, "state.json"),
        ({"_indices_data_files": [{"filename": "i.arrow"}]}, "another order than its files"),
    ],
)
def test_a_saved_folder_that_is_broken_or_leads_out_of_itself_is_refused(tmp_path, change, message):
    folder = saved(tmp_path / "set", QA)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps({**state, **change}))
    with pytest.raises(BadInput, match=message):
        read_sources(folder)


@pytest.mark.parametrize("content", ["[]", '{"splits": ["../x"]}', '{"splits": 1}', "{", "[" * 10_000])
def test_a_broken_list_of_splits_is_refused(tmp_path, content):
    (tmp_path / "dataset_dict.json").write_text(content)
    with pytest.raises(BadInput, match="save"):
        read_sources(tmp_path)


# ---- folders


def test_a_folder_is_read_with_its_parts_by_name(tmp_path):
    folder = tmp_path / "data"
    (folder / "test").mkdir(parents=True)
    (folder / ".git").mkdir()
    rows_file(folder / "train-00000-of-00002.jsonl", TEXTS[:3])
    rows_file(folder / "train-00001-of-00002.jsonl", TEXTS[3:6])
    rows_file(folder / "more.jsonl", TEXTS[6:7])
    rows_file(folder / "test" / "a.jsonl", TEXTS[7:])
    rows_file(folder / ".git" / "hidden.jsonl", TEXTS)
    (folder / "README.md").write_text("# Read me")
    (folder / "licence.txt").write_text("Free")
    task = load_task("t", folder)
    assert [row.source for row in task.test] == [f"data/test/a.jsonl:{n}" for n in (1, 2, 3)]
    assert len(task.train) == 7
    assert not task.test_made
    assert "data: not read 2 files: README.md, licence.txt" in task.notices
    assert "read as test rows by name: data/test/a.jsonl (3)" in task.notices


def test_the_texts_of_a_folder_are_a_document_each_and_their_names_say_no_part(tmp_path):
    for name in ("test plan", "train", "notes"):
        (tmp_path / f"{name}.txt").write_text(f"{name}\n\nend")
    found = read_sources(tmp_path)
    assert fields(found.records) == [{"text": f"{name}\n\nend"} for name in ("notes", "test plan", "train")]
    divided = read_sources(tmp_path, documents="paragraph")
    assert len(divided.records) == 6
    spec = {"documents": "paragraph"}
    assert len(load_task("t", tmp_path, overrides=spec).train) + len(load_task("t", tmp_path, overrides=spec).test) == 4


def test_a_folder_without_data_and_one_with_too_many_files_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a.md").write_text("x")
    with pytest.raises(BadInput, match=r"without a data file .*; it holds a\.md"):
        read_sources(tmp_path)
    monkeypatch.setattr("perdure.data.folders.MOST_FILES", 2)
    for name in ("b.txt", "c.txt"):
        (tmp_path / name).write_text("x")
    with pytest.raises(BadInput, match="holds more than 2 files"):
        read_sources(tmp_path)


def test_a_link_to_a_folder_is_not_followed(tmp_path):
    (tmp_path / "in").mkdir()
    rows_file(tmp_path / "in" / "a.jsonl", TEXTS)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    assert len(read_sources(tmp_path / "in").records) == 10


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train", "train"),
        ("Test", "test"),
        ("dev", "validation"),
        ("train-00000-of-00002", "train"),
        ("spam_valid", "validation"),
        ("train_sft", "train"),
        ("auxiliary_train", "train"),
        ("my-test-00001", "test"),
        ("bills", None),
        ("the_test_cases", None),
        ("latest", None),
        ("00", None),
    ],
)
def test_the_first_or_last_word_of_a_name_says_the_part(name, part):
    assert part_of_name(name) == part


# ---- several


def test_several_files_are_one_task_and_rows_know_their_file(tmp_path):
    paths = (rows_file(tmp_path / "a.jsonl", QA[:6]), tmp_path / "b.csv")
    paths[1].write_text("question,answer\n" + "".join(f"{r['question']},{r['answer']}\n" for r in QA[6:]))
    task = load_task("t", paths, overrides={"columns": MAPPED})
    assert {row.source.partition(":")[0] for row in (*task.train, *task.test)} == {"a.jsonl", "b.csv"}
    assert len(task.train) + len(task.test) == 10
    assert task.to_json()["spec"]["train"] == [str(path) for path in paths]
    assert "10 rows are read from 2 files: a.jsonl, b.csv" in task.notices


def test_several_files_name_their_parts_and_a_column_split_is_stronger(tmp_path):
    train, test = rows_file(tmp_path / "train.jsonl", TEXTS[:8]), rows_file(tmp_path / "test.jsonl", TEXTS[8:])
    task = load_task("t", (train, test))
    assert (len(task.train), len(task.test), task.test_made) == (8, 2, False)
    rows_file(test, [{**row, "split": "train"} for row in TEXTS[8:]])
    assert len(load_task("t", (train, test)).train) == 8
    assert load_task("t", (train, test)).test_made
    with pytest.raises(BadInput, match="is marked test, and a test file is given too"):
        load_task("t", (train, rows_file(test, TEXTS[8:])), test=train)


def test_one_file_is_taken_whole_whatever_its_name(tmp_path):
    task = load_task("t", rows_file(tmp_path / "test.jsonl", TEXTS))
    assert task.test_made


def test_a_task_file_lists_files_relative_to_itself(tmp_path):
    rows_file(tmp_path / "a.jsonl", TEXTS[:5])
    rows_file(tmp_path / "b.jsonl", TEXTS[5:])
    file = tmp_path / "t.yaml"
    file.write_text("train: [a.jsonl, b.jsonl]\nmax_rows: 4\n")
    assert load_spec(file).train == (tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    task = load_task("t", file)
    assert len(task.train) + len(task.test) == 8
    assert len(read_again(task, file)) == 8
    with pytest.raises(BadInput, match="is a task file, and is given alone"):
        load_task("t", (file, tmp_path / "a.jsonl"))
    with pytest.raises(BadInput, match="is given twice"):
        load_task("t", (tmp_path / "a.jsonl", tmp_path / "a.jsonl"))


@pytest.mark.parametrize("value", ["[]", "3", "[a.jsonl, 3]", "{a: b}", '"a\\0"', "[[a.jsonl]]"])
def test_a_source_that_is_no_path_is_refused(tmp_path, value):
    (tmp_path / "t.yaml").write_text(f"train: {value}\n")
    with pytest.raises(BadSpec, match=r"`train`: (is no path of a file|names no file)"):
        load_spec(tmp_path / "t.yaml")


def test_settings_of_the_sources_are_inherited_and_checked(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(f"paragraph {i}" for i in range(10)))
    task = load_task("t", path, overrides={"max_rows": 6, "documents": "paragraph"})
    assert len(task.train) + len(task.test) == 6
    path.write_text("\n\n".join(f"paragraph {i}" for i in range(10, 20)))
    again = load_task("t", path, known=task)
    assert (again.spec.max_rows, again.spec.documents) == (6, "paragraph")
    for bad in ({"max_rows": 0}, {"max_rows": "x"}, {"documents": "line"}):
        with pytest.raises(BadSpec, match=f"`{next(iter(bad))}`"):
            load_task("t", path, overrides=bad)


def test_general_data_may_be_several_files(tmp_path):
    paths = (rows_file(tmp_path / "a.jsonl", TEXTS[:5]), rows_file(tmp_path / "b.jsonl", TEXTS[5:]))
    assert len(load_rows(paths)) == 10


# ---- stdin

LINES = "\n".join(map(json.dumps, TEXTS))
CSV = "text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in TEXTS)


@pytest.mark.parametrize(
    "data",
    [
        LINES,
        "\ufeff\n" + LINES,
        json.dumps(TEXTS),
        json.dumps({"data": TEXTS}),
        json.dumps({"data": TEXTS}, indent=1),
        CSV,
        CSV.replace(",", ";"),
        CSV.replace(",", "\t"),
    ],
)
def test_rows_from_stdin_are_those_of_a_file(monkeypatch, tmp_path, data):
    pipe(monkeypatch, data)
    assert fields(read_sources(Path("-")).records) == TEXTS


@pytest.mark.parametrize("write", [parquet.write_table, lambda t, p: arrow(p, t.to_pylist()), None])
def test_tables_from_stdin(monkeypatch, tmp_path, write):
    path = tmp_path / "x"
    if write:
        write(table(TEXTS), path)
    else:
        arrow(path, TEXTS, kind="file")
    pipe(monkeypatch, path.read_bytes())
    assert fields(read_sources(Path("-")).records) == TEXTS


def test_text_from_stdin_is_paragraphs(monkeypatch):
    pipe(monkeypatch, "One\n\nTwo")
    assert sources(read_sources(Path("-")).records) == ["stdin:1", "stdin:3"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "stdin is empty"),
        (b"\x1f\x8b123", "gunzip -c FILE"),
        (b'{"text": \n', "stdin:2 is broken JSON, column 1"),
        (b'{"text"}\n{"text": "x"}', "stdin:1 is broken JSON, column 8"),
        (b"\xff\xfe{\0", "UTF-16"),
        (b"caf\xe9", "stdin:1 is not UTF-8"),
    ],
)
def test_what_stdin_holds_may_be_wrong(monkeypatch, data, message):
    pipe(monkeypatch, data)
    with pytest.raises(BadInput, match=message):
        read_sources(Path("-"))


def test_a_closed_stdin_is_an_error(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(BadInput, match="stdin is empty"):
        read_sources(Path("-"))


# ---- what holds for every source

TABLES = ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv", "semicolons.csv", "a.tsv", "folder"]
SCHEMAS = ["a.parquet", "a.arrow", "saved", "hub"]
PIPES = ["- jsonl", "- csv", "- parquet", "- arrow"]
PASSAGES = [{"context": f"Fact {i}.", "question": f"What is {i}?", "answer": f"It is {i}"} for i in range(10)]
MESSAGES = [{"message": f"m{i}", "category": i % 2} for i in range(10)]
CATEGORIES = {
    "info": {
        "features": {
            "message": {"dtype": "string", "_type": "Value"},
            "category": {"names": ["no", "yes"], "_type": "ClassLabel"},
        }
    }
}


def delimited(rows, separator):
    return "".join(separator.join(map(str, line)) + "\n" for line in (rows[0], *(row.values() for row in rows)))


def content(kind, rows):
    """Return the bytes of a file of a kind."""
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    text = {
        "a.jsonl": lines,
        "a.json": json.dumps(rows),
        "a.csv": delimited(rows, ","),
        "semicolons.csv": delimited(rows, ";"),
        "a.tsv": delimited(rows, "\t"),
    }
    return gzip.compress(lines.encode()) if kind == "a.jsonl.gz" else text[kind].encode()


@pytest.fixture
def source(tmp_path, monkeypatch):
    """Return a function that writes rows as a source of some kind, and reads it as a task."""

    def load(kind, rows, features=None, **settings):
        if features and kind not in (*SCHEMAS, "- parquet", "- arrow"):  # a file without a schema holds the names
            rows = [
                {**row, "category": features["info"]["features"]["category"]["names"][row["category"]]} for row in rows
            ]
        path = tmp_path / kind
        if kind.startswith("- "):
            load.path(f"a.{kind[2:]}", rows, features)
            pipe(monkeypatch, (tmp_path / f"a.{kind[2:]}").read_bytes())
            path = Path("-")
        elif kind != "hub":
            path = load.path(kind, rows, features)

        def hub(name, most):
            return HubData(name, [HubSplit("train", rows)], (features or {}).get("info", {}).get("features", {}))

        data = Path("hub:org/name") if kind == "hub" else path
        return load_task("t", data, overrides=settings, hub=hub)

    def write(kind, rows, features):
        path = tmp_path / kind
        if kind == "a.parquet":
            parquet.write_table(table(rows, features), path)
        elif kind == "a.arrow":
            arrow(path, rows, features)
        elif kind == "saved":
            return path if path.exists() else saved(path, rows, features)
        elif kind == "folder":
            path.mkdir(exist_ok=True)
            rows_file(path / "part.jsonl", rows)
        else:
            path.write_bytes(content(kind, rows))
        return path

    load.path = write
    return load


@pytest.mark.parametrize("kind", [*TABLES, *SCHEMAS, *PIPES])
def test_errors_show_the_mapping_and_a_template_names_any_column_in_every_source(source, kind):
    with pytest.raises(BadInput, match="give --columns prompt=question,context=context,completion=answer ") as error:
        source(kind, PASSAGES)
    assert "(`columns: {prompt: question, context: context, completion: answer}` in a task file)" in str(error.value)
    mapping = {"prompt": "question", "context": "context", "completion": "answer"}  # what the error shows
    mapped = source(kind, PASSAGES, columns=mapping)
    assert {row.prompt for row in (*mapped.train, *mapped.test)} == {f"Fact {i}.\n\nWhat is {i}?" for i in range(10)}

    template = "{context}\n\nQ: {question}\nA:"
    with pytest.raises(BadInput, match="no column is the answer; name it: give --columns completion=answer "):
        source(kind, PASSAGES, template=template)
    task = source(kind, PASSAGES, template=template, columns={"completion": "answer"})
    assert (task.format, task.unread) == ("prompt_completion", ())
    texts = {(row.prompt, row.completion) for row in (*task.train, *task.test)}
    assert texts == {(f"Fact {i}.\n\nQ: What is {i}?\nA:", f" It is {i}") for i in range(10)}


@pytest.mark.parametrize("kind", [*TABLES, *SCHEMAS, *PIPES])
def test_names_of_classes_are_the_labels_in_every_source(source, kind):
    with pytest.raises(BadInput, match="give --columns text=message,label=category "):
        source(kind, MESSAGES, CATEGORIES)
    task = source(kind, MESSAGES, CATEGORIES, columns={"text": "message", "label": "category"})
    assert task.labels == ["no", "yes"]
    assert {row.completion for row in (*task.train, *task.test)} == {" no", " yes"}


@pytest.mark.parametrize("kind", ["a.txt", "-"])
def test_a_text_has_one_column_for_templates_and_mappings(tmp_path, monkeypatch, kind):
    def load(**settings):
        (tmp_path / "a.txt").write_text("One\n\nTwo\n\nThree")
        pipe(monkeypatch, "One\n\nTwo\n\nThree")
        return load_task("t", Path("-") if kind == "-" else tmp_path / kind, overrides=settings)

    with pytest.raises(
        BadSpec, match=r"takes prompt from 'question', a column that .* does not have or fill; it has text"
    ):
        load(columns={"prompt": "question"})
    with pytest.raises(BadInput, match="no column is the answer; name it: give --columns completion=COLUMN "):
        load(template="{text}\nA:")
    task = load(template="Repeat: {text}\nText:", columns={"completion": "text"})
    assert {row.prompt for row in (*task.train, *task.test)} == {
        f"Repeat: {word}\nText:" for word in ("One", "Two", "Three")
    }
