"""What commands print of a workspace without loading its model, to compare with what earlier code printed."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from perdure import Workspace, __version__
from perdure.cli.main import app


def printed(folder: Path, scratch: Path) -> dict[str, Any]:
    """Return what each command prints of the workspace in `folder`, or writes to a file, by its words.

    JSON is kept as it is printed, so that keys and their order count too; the folder and the version are named by words.
    """
    ws = Workspace.open(folder)
    entries = [entry.id for entry in ws.ledger.entries()]
    facts = [line.fact for line in ws.edits()]
    commands = [
        *(["status"], ["log"], ["matrix"], ["gate"], ["edits", "list"], ["memory", "list"], ["memory", "stats"]),
        *(["show", entry] for entry in [*entries, "candidate"]),
        *(["gate", "--at", entry] for entry in entries),
        *(["diff", one, "head"] for one in entries),
        *(["matrix", "--at", entry] for entry in entries),
        *(["edits", "show", fact] for fact in facts),
        ["eval"],
    ]
    found = {}
    for words in commands:
        for form in ([], ["--json"]):
            key = " ".join([*words, *form])
            done = CliRunner().invoke(app, [*words, *form, "-w", str(folder)], env={"COLUMNS": "200"})
            found[key] = [done.exit_code, *(_same(text, folder) for text in (done.stdout, done.stderr))]
    for at in ["candidate", *entries]:
        file = scratch / f"{at[:12]}.json"
        CliRunner().invoke(app, ["gate", "--at", at, "--save", str(file), "-w", str(folder)])
        if file.exists():
            judged = CliRunner().invoke(app, ["gate", "--evidence", str(file), "--json"])
            found[f"evidence {at}"] = [file.read_text("utf-8"), judged.stdout]
    page = scratch / "page.html"
    CliRunner().invoke(app, ["report", "-o", str(page), "--compare", str(folder), "-w", str(folder)])
    found["report"] = _same(page.read_text("utf-8"), folder)
    return found


def _same(text: str, folder: Path) -> str:
    return text.replace(str(folder), "FOLDER").replace(__version__, "VERSION")


if __name__ == "__main__":
    import sys

    file = Path(sys.argv[2])
    file.write_text(json.dumps(printed(Path(sys.argv[1]), file.parent), indent=1), "utf-8")
