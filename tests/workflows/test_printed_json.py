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

NEW = {
    "log --json": ("verdict", "score", "recipe", "author", "message"),
    "show": ("author", "message", "view"),
}

ONLY_A_LEARN = "has been through no gate; only a learn has"
OR_ANOTHER = "only a learn or a merge has, and an edit or a revert after which tasks were scored"


@pytest.fixture
def old(tmp_path):
    with tarfile.open(Path(__file__).parent / "old" / "schema_3.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_every_command_prints_the_same_json(old):
    now, then = printed(old / "workspace", old), json.loads((old / "printed.json").read_text("utf-8"))
    assert len(then) > 40
    for key, printed_now in now.items():
        if keys := NEW.get("show" if key.startswith("show ") else key):
            printed_now[1] = _without(printed_now[1], keys)
    assert now["log"][1].split()[0] == "entry"  # its columns are tested with the command
    for key in [key for key in then if key.startswith("matrix") and key.endswith("--json") and now[key] != then[key]]:
        before, after = json.loads(then[key][1]), json.loads(now[key][1])
        was, found = (matrix["metrics"].pop("forgetting") for matrix in (before, after))
        assert "was not scored after stage" in was["missing"]  # stages between are left out since, and named
        assert "not scored" in found.get("note", found.get("missing"))
        assert after == before
        now[key] = then[key]
    refused = [key for key in then if key.startswith("gate --at") and then[key][2].endswith(f"{ONLY_A_LEARN}\n")]
    assert len(refused) == 4  # the base, two edits and a revert, which noted no verdict then
    for key in refused:
        then[key][2] = then[key][2].replace("only a learn has", OR_ANOTHER)
    assert [key for key in then if key != "log" and now[key] != then[key]] == []


def _without(text, keys):
    """Return the JSON that was printed without the keys that are new since."""
    try:
        told = json.loads(text)
    except ValueError:
        return text
    for line in told if isinstance(told, list) else [told]:
        for slot in line.get("slots", {}).values():
            del slot["kind"]
        for key in keys:
            del line[key]
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"
