"""The script of a team's first week, step by step on a tiny model: exit codes, no traceback, no dash for a number."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

from shell import run, write_rows

import people

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "first_week.sh"
NUMBERS = {"eval", "gate", "edit", "edits", "learn", "revert", "status"}  # that print them
DASH = re.compile(r"(^|\s)[-\u2013\u2014](\s|$)", re.MULTILINE)


def test_a_team_s_first_week(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for part in people.make("gpt2"):
        part.save_pretrained(tmp_path / "model")
    facts = []
    for name in ("Dan Kim", "Dan Bly"):
        home = people.HOME[name]
        facts.append(
            {
                "subject": name,
                "prompt": people.FORMS[0],
                "target": next(city for city in people.CITIES if city != home),
                "ground_truth": home,
                "paraphrases": [people.FORMS[1].format(name)],
                "neighbours": [
                    {"prompt": people.FORMS[0].format(other), "answer": home}
                    for other in people.PEOPLE
                    if people.HOME[other] == home and other != name
                ][:2],
            }
        )
    facts_file = write_rows(tmp_path / "facts.jsonl", facts)
    command = ["bash", str(SCRIPT), str(tmp_path / "week"), str(tmp_path / "model"), str(facts_file)]
    listed = subprocess.run(command, env={**os.environ, "LIST": "1"}, capture_output=True, text=True, check=True)
    steps = [shlex.split(line) for line in listed.stdout.splitlines()]
    assert len(steps) >= 40
    for code, program, *words in steps:
        assert program == "perdure"
        done = run(*words, code=int(code))
        assert "Traceback" not in done.output, words
        if words[0] == "-w" and words[2] in NUMBERS:
            assert not DASH.search(done.stdout), f"{words}\n{done.stdout}"
        if "--json" in words:
            json.loads(done.stdout)
    assert (tmp_path / "week" / "copy" / "perdure.json").exists()
