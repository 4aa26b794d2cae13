"""Damaged records: every reading verb of the Python API answers, or raises an error that names the place and the remedy."""

import json
import os
import random
import re
import shutil

import pytest

import damage
from edited import FACTS, SAID, SPEC
from perdure import Gate, Workspace
from perdure.core.errors import PerdureError
from perdure.workflows.inspect import memory_views, views
from perdure.workflows.inspect.report_data import report_data

SEEDS, PLACES = range(int(os.environ.get("DAMAGE_SEEDS", "1"))), int(os.environ.get("DAMAGE_PLACES", "40"))
FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 2}
VERBS = {
    "status": lambda ws: views.status(ws.ledger),
    "log": lambda ws: ws.ledger.log(),
    "show": lambda ws: [views.show(ws.ledger, ref) for ref in ("head", "candidate")],
    "matrix": lambda ws: ws.matrix(parts=True),
    "report": lambda ws: report_data(ws.ledger),
    "diff": lambda ws: views.diff(ws.ledger, "head~2", "candidate"),
    "memory list": lambda ws: (memory_views.remembered(ws.ledger), memory_views.kept(ws.ledger)),
    "memory stats": lambda ws: memory_views.memory_stats(ws.ledger),
    "edits list": lambda ws: ws.edits(),
    "gate": lambda ws: views.gate(ws.ledger),
    "predict": lambda ws: ws.predict(["Dan Kim lives in"], "ann", max_new_tokens=1),
    "verify": lambda ws: ws.ledger.verify(),  # `ws.verify` loads the base after it, which is not damaged here
    "rollback": lambda ws: ws.rollback("head~1"),
}
PLACE = re.compile(r"perdure\.json|ledger\.sqlite|entry|task|object|row|ref|manifest|candidate|score|table|model")
REMEDY = re.compile(
    r"restore|roll back|perdure [a-z]+|upgrade|--[a-z]+|free some space|put |point |write |give|choose|only a learn"
)


@pytest.fixture(scope="module")
def sound(bare, tmp_path_factory):
    """Two learned tasks, an edit, and a candidate that waits."""
    folder = tmp_path_factory.mktemp("sound")
    ws = Workspace.open(shutil.copytree(bare.ledger.root, folder / "ws"))
    for task, gate in (("ann", Gate()), ("bob", Gate()), ("cid", Gate(floor=1.0))):
        rows = [
            {"prompt": f"{task.title()} {last} lives in", "completion": " Rome"}
            for last in ("Lee", "Fox", "Ray", "Kim")
        ]
        (folder / f"{task}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        if task == "cid":
            ws.edit(FACTS[0], spec=SPEC, gate=SAID)
        try:
            ws.learn(task, folder / f"{task}.jsonl", recipe="dual_replay", overrides=FAST, gate=gate)
        except PerdureError:
            assert task == "cid"
    assert [entry.kind for entry in ws.ledger.entries()][-3:] == ["learn", "learn", "edit"]
    assert ws.ledger.candidate() is not None
    ws.ledger.empty_log()
    ws.ledger.close()
    return ws


def wrong(sound, root):
    """Return what each verb raises, on a fresh copy, that no user should see."""
    try:
        ws = Workspace.open(root)
    except PerdureError as error:
        return {"open": str(error)} if vague(error) else {}
    if ws.ledger.config == sound.ledger.config:
        ws.session.runtime = sound.runtime  # the base is the same: loading it again would be most of the time
    found = {}
    for verb, read in VERBS.items():
        try:
            read(ws)
        except PerdureError as error:
            if vague(error):
                found[verb] = str(error)
        except Exception as error:
            found[verb] = error
    ws.ledger.close()
    return found


def vague(error):
    return not (PLACE.search(str(error)) and REMEDY.search(str(error)))


def test_the_whole_workspace_answers(sound, tmp_path):
    assert wrong(sound, shutil.copytree(sound.ledger.root, tmp_path / "whole")) == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_every_verb_answers_or_names_what_is_damaged(sound, tmp_path, seed):
    failures = {}
    places = list(damage.damages(sound.ledger.root, seed))
    for number, (name, change) in enumerate(random.Random(seed).sample(places, min(PLACES, len(places)))):
        root = shutil.copytree(sound.ledger.root, tmp_path / str(number))
        change(root)
        if found := wrong(sound, root):
            failures[name] = found
        shutil.rmtree(root)
    assert not failures, "\n".join(f"{name}: {found}" for name, found in failures.items())
