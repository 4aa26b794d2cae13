"""The JSON that commands print, and the evidence that gates write, is what the code printed before its records had types.

`old/schema_3.tar.gz` holds a workspace with learns, edits, a revert, a trace and a candidate, and printed.json, what was printed
of it then.
A change of a key, of an order or of a sentence in that JSON is a change that users' scripts see: where one is meant, write
printed.json anew with `tests/support/printed.py`.
"""

import json
import tarfile
from pathlib import Path

import pytest

from printed import printed


@pytest.fixture
def old(tmp_path):
    with tarfile.open(Path(__file__).parent / "old" / "schema_3.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_every_command_prints_the_same_json(old):
    now, then = printed(old / "workspace", old), json.loads((old / "printed.json").read_text("utf-8"))
    assert len(then) > 40
    assert [key for key in then if now[key] != then[key]] == []
