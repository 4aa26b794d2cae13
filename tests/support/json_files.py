"""Files of JSON that tests write and change."""

import json


def rows_file(path, rows):
    """Write rows as JSONL; return the path."""
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def change(path, **fields):
    """Give fields of a JSON object on disk other values."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
