"""Files as they go wrong: valid ones for each reader, and what becomes of them by chance."""

import gzip
import io
import json
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import yaml
from pyarrow import parquet

TEXTS = [{"text": f"message {i}", "label": f"kind_{i % 3}", "id": i} for i in range(8)]
PROMPTS = [
    {"prompt": f"What is {i}?", "completion": f"It is {i}", "split": "test" if i > 5 else "train"} for i in range(8)
]
CHATS = [
    {
        "messages": [{"role": "user", "content": f"Hi {i}"}, {"role": "assistant", "content": "Hello"}],
        "system": "Be kind.",
    }
    for i in range(6)
]
TOOLS = [
    {
        "messages": [
            {"role": "user", "content": f"Hi {i}"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "3", "name": "f"},
            {"role": "assistant", "content": [{"type": "text", "text": "Three"}], "reasoning_content": "Hm."},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    for i in range(4)
]
SHAREGPT = [
    {"conversations": [{"from": "human", "value": f"Hi {i}"}, {"from": "gpt", "value": "Hello"}]} for i in range(5)
]
ALPACA = [{"instruction": f"Add {i}.", "input": "2 2", "output": "4", "history": [["Hi", "Hello"]]} for i in range(5)]
FACTS = [
    {"subject": "Rome", "prompt": "{} lies in", "target": "Spain", "paraphrases": ["{} is in"]},
    {
        "subject": "Oslo",
        "prompt": "Oslo lies in",
        "target": "Chile",
        "neighbours": [{"prompt": "Bergen is in", "answer": "Norway"}],
    },
]
TASK = {
    "train": "rows.jsonl",
    "format": "text_label",
    "template": "Text: {text}\nLabel:",
    "labels": {"kind_0": "zero", 1: "one"},
    "scorer": {"name": "f1"},
    "max_new_tokens": 4,
    "guard": ["a"],
    "test_size": 0.3,
    "columns": {"text": "text"},
    "seed": 3,
}
RECIPE = {
    "learning_rate": 1e-4,
    "lora_r": 4,
    "keep": "last",
    "methods": {"replay": {"mix": 0.2}, "ewc": {"strength": 1.0}},
}
SAVED = {"_data_files": [{"filename": "data.arrow"}], "_fingerprint": "f", "_split": None}
SUITE = {
    "name": "s",
    "model": "m",
    "settings": {"num_train_epochs": 1},
    "defaults": {"file": "rows.jsonl", "train": {"split": "train"}},
    "sources": {"rows.jsonl": "here"},
    "tasks": [{"name": "a", "test": {"split": "test", "per_label": 3}, "where": {"id": 1}}],
}
EVIDENCE = {
    "format": 1,
    "gate": {"tolerance": 0.03, "floor": 0.2, "tolerances": {"a": 0.1}},
    "new_task": "b",
    "tasks": {
        "a": {"version": "v", "rows": ["x", "y"], "learned": [1, 0.5], "now": [1, 0]},
        "b": {"version": "w", "rows": ["z"], "learned": None, "now": [1]},
    },
    "facts": [{"fact": "f", "prompt": "p", "target": "t", "before": True, "now": False}],
    "verdict": {"verdict": "fail", "tasks": [{"task": "a", "drop": 0.25}]},
}
CONFIG = {
    "format": 1,
    "model": "m",
    "dtype": "float32",
    "base": "b" * 64,
    "weights": "w" * 64,
    "seed": 0,
    "revision": None,
}

ODD: list[Callable[[random.Random], Any]] = [
    lambda _: None,
    lambda _: True,
    lambda _: 0,
    lambda _: -1,
    lambda _: 10**30,
    lambda _: 10**4200,
    lambda _: float("nan"),
    lambda _: float("inf"),
    lambda _: 1e-320,
    lambda _: "",
    lambda _: " \n",
    lambda _: "nan",
    lambda _: "x" * 70_000,
    lambda _: "\ud800",
    lambda _: "\0\x1b[31m\u202e",
    lambda _: "{a.__class__!r:>9}{0}{",
    lambda _: "{text}" * 200,
    lambda _: [],
    lambda _: {},
    lambda _: [[]],
    lambda _: {"": None},
    lambda _: [None, 1, "a"],
    lambda _: "<script>|`[x](y)",
    lambda _: "a\u2028b",
    lambda _: {"role": [], "content": {}},
    lambda _: [{"role": "assistant", "content": [{"type": "image"}]}],
    lambda _: ["a", ["b"]],
    lambda rng: _nested(rng.choice([3, 60, 99, 101, 800, 3000])),
    lambda rng: rng.random(),
    lambda rng: str(rng.random()),
]
PIECES = [
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\n",
    b"\r",
    b'"',
    b"'",
    b",",
    b";",
    b"\t",
    b"|",
    b"{",
    b"}",
    b"[",
    b"]",
    b": ",
    b"- ",
    b"&a ",
    b"*a ",
    b"<<: *a",
    b"!!int ",
    b"!!timestamp x",
    b"? ",
    b"#",
    b"%",
    b"NaN",
    b"1e999",
    b"9" * 5000,
    b"[" * 3000,
    b"{" * 3000,
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b" ",
    b"  ",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"...\n---\n",
    b"0x",
    b"1:2:3",
    b"2026-99-01",
]


def _nested(levels: int) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = [value]
    return value


def text_of(value: Any, kind: str, rng: random.Random) -> bytes:
    """Return a value as a file of a kind: .jsonl, .json, .csv, .tsv, .txt, .parquet, .arrow or .yaml."""
    if kind in (".parquet", ".arrow"):
        return _columnar(value, kind)
    if kind == ".txt":
        text = rng.choice(["\n\n", "\n \n", "\n", "\r\n\r\n"]).join(
            map(_cell, value if isinstance(value, list) else [value])
        )
    elif kind in (".csv", ".tsv"):
        rows = [row if isinstance(row, dict) else {"text": row} for row in value]
        names = list(dict.fromkeys(name for row in rows for name in row))
        separator, lines = (
            "\t" if kind == ".tsv" else rng.choice([",", ",", ";", "\t", "|", ", "]),
            [names, *([row.get(n) for n in names] for row in rows)],
        )
        text = "\n".join(separator.join('"' + _cell(cell).replace('"', '""') + '"' for cell in line) for line in lines)
    elif kind == ".yaml":
        try:
            text = yaml.safe_dump(value, sort_keys=False)
        except (yaml.YAMLError, RecursionError, UnicodeError):
            text = _json(value)
    else:
        text = "\n".join(map(_json, value)) if kind == ".jsonl" and isinstance(value, list) else _json(value)
    return text.encode("utf-8", "surrogatepass")


def _cell(value: Any) -> str:
    try:
        return str(value)
    except RecursionError:
        return "[" * 5000


def _json(value: Any) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        return "[" * 5000


def _columnar(rows: list[Any], kind: str) -> bytes:
    write = parquet.write_table if kind == ".parquet" else _write_arrow
    file = io.BytesIO()
    try:
        table = pyarrow.Table.from_pylist([row for row in rows if isinstance(row, dict)] or [{"text": "a"}])
        classes = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}
        write(table.replace_schema_metadata({"huggingface": json.dumps(classes)}), file)
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError, RecursionError, AttributeError):
        file = io.BytesIO()
        write(pyarrow.table({"text": ["a", None], "label": pyarrow.array([0, 7])}), file)
    return file.getvalue()


def _write_arrow(table: pyarrow.Table, file: io.BytesIO) -> None:
    with pyarrow.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def changed(value: Any, rng: random.Random) -> Any:
    """Return a copy of nested data in which one place, at random, is something else."""
    if rng.random() < 0.15:
        return rng.choice(ODD)(rng)
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        way = rng.random()
        if way < 0.1:
            return {name: inner for name, inner in value.items() if name != key}
        if way < 0.25:
            new = rng.choice(
                [
                    f" {key}",
                    str(key).upper(),
                    "",
                    "images",
                    "tools",
                    "label",
                    "chosen",
                    "context",
                    "category",
                    "\x1b[0m",
                ]
            )
            return {new if name == key else name: inner for name, inner in value.items()}
        if way < 0.35:
            return {
                **value,
                rng.choice(["rejected", "category", "labels", "tools", "context", "extra"]): rng.choice(ODD)(rng),
            }
        return {**value, key: changed(value[key], rng)}
    if isinstance(value, list) and value:
        place = rng.randrange(len(value))
        if rng.random() < 0.1:
            return value[:place] + value[place + 1 :]
        return [changed(inner, rng) if n == place else inner for n, inner in enumerate(value)]
    return rng.choice(ODD)(rng)


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few of them lost, repeated, flipped or put in."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        start = rng.randrange(len(data) + 1)
        stop = min(len(data), start + rng.choice([1, 1, 4, 30, 400]))
        way = rng.randrange(5)
        if way == 0:
            data = data[:start] + data[stop:]
        elif way == 1:
            data = data[:stop] + data[start:]
        elif way == 2:
            data = data[:start] + rng.choice(PIECES) + data[start:]
        elif way == 3:
            data = data[:start] + bytes(rng.randrange(256) for _ in range(stop - start)) + data[stop:]
        else:
            data = data[: rng.choice([start, len(data)])] + rng.choice([b"", data[:start]])
    return data


def mutated(name: str, seed: int) -> tuple[str, bytes]:
    """Return a file for the reader `name`, as its name and its bytes."""
    rng = random.Random(seed)
    values, kinds, _ = READERS[name]
    value, kind = rng.choice(values), rng.choice(kinds)
    for _ in range(rng.choice([0, 1, 1, 2])):
        value = changed(value, rng)
    if kind.removesuffix(".gz") in (".csv", ".tsv", ".parquet", ".arrow", ".jsonl") and not isinstance(value, list):
        value = [value]
    data = text_of(value, kind.removesuffix(".gz"), rng)
    if rng.random() < 0.4:
        data = damaged(data, rng)
    if kind.endswith(".gz"):
        data = gzip.compress(data, mtime=0)
        data = damaged(data, rng) if rng.random() < 0.3 else data
    return f"file{kind}", data


def outcome(name: str, seed: int, folder: Path) -> tuple[str, float, Path]:
    """Return what came of one file ("rows", "error", or else in words), the seconds it took, and the file."""
    from perdure.core.errors import PerdureError

    file, data = mutated(name, seed)
    path = folder / file
    path.write_bytes(data)
    began = time.process_time()
    try:
        READERS[name][2](path)
        came = "rows"
    except PerdureError as error:
        told = str(error)
        came = "error" if 0 < len(told) < 3000 else f"an error of {len(told)} characters"
    except (Exception, RecursionError, MemoryError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if "/perdure/" in frame.filename]
        came = f"{type(error).__name__} at {ours[-1] if ours else '?'}: {str(error)[:100]!r}"
    return came, time.process_time() - began, path


def _task(path: Path) -> None:
    from perdure.data.load import load_task

    (path.parent / "rows.jsonl").write_bytes(text_of(TEXTS, ".jsonl", random.Random(0)))
    load_task("t", path)


def _general(path: Path) -> None:
    from perdure.data.load import load_rows

    load_rows(path)


def _recipe(path: Path) -> None:
    from perdure.methods.registry import load_recipe

    load_recipe(str(path))


def _suite(path: Path) -> None:
    from perdure.workflows.bench.suite_files import load_suite

    load_suite(str(path))


def _facts(path: Path) -> None:
    from perdure.editing.facts import read_facts

    read_facts(path)


def _routes(path: Path) -> None:
    from perdure.data.sources import read_sources
    from perdure.editing.routing import route

    route(read_sources(path).records)


def _saved(path: Path) -> None:
    """Read a folder that `datasets` saved, with this file in the place of its list of files."""
    from perdure.data.load import load_task

    folder = path.parent / "saved"
    folder.mkdir(exist_ok=True)
    (folder / "data.arrow").write_bytes(_columnar(TEXTS, ".arrow"))
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_bytes(path.read_bytes())
    load_task("t", folder)


def _piped(path: Path) -> None:
    """Read a file from stdin."""
    from perdure.data.load import load_task

    before = sys.stdin
    try:
        with path.open("rb") as file, io.TextIOWrapper(file) as sys.stdin:
            load_task("t", Path("-"))
    finally:
        sys.stdin = before


def _evidence(path: Path) -> None:
    from perdure.evaluate.evidence import check_evidence

    check_evidence(path)


def _config(path: Path) -> None:
    from perdure.ledger.store import _read_config

    _read_config(path)


TABLES = [".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".csv.gz"]
ROWS = [TEXTS, PROMPTS, CHATS, TOOLS, SHAREGPT, ALPACA]
READERS: dict[str, tuple[list[Any], list[str], Callable[[Path], None]]] = {
    "rows": (ROWS, TABLES, _task),
    "parquet": (ROWS, [".parquet"], _task),
    "csv": ([TEXTS, PROMPTS, ALPACA], [".csv"], _task),
    "tsv": ([TEXTS, PROMPTS, ALPACA], [".tsv", ".tsv.gz"], _task),
    "texts": ([[row["text"] for row in TEXTS]], [".txt", ".txt.gz"], _task),
    "arrow": (ROWS, [".arrow"], _task),
    "saved folder": ([SAVED], [".json"], _saved),
    "stdin": (ROWS, [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow"], _piped),
    "task file": ([TASK], [".yaml"], _task),
    "general": (ROWS, TABLES, _general),
    "recipe": ([RECIPE], [".yaml"], _recipe),
    "suite": ([SUITE], [".yaml"], _suite),
    "facts": ([FACTS], [".jsonl", ".json", ".csv"], _facts),
    "knowledge": ([[*FACTS, *PROMPTS], CHATS], [".jsonl", ".json"], _routes),
    "evidence": ([EVIDENCE], [".json"], _evidence),
    "perdure.json": ([CONFIG], [".json"], _config),
}
"""By name: valid values, kinds of file, and what reads such a file."""
