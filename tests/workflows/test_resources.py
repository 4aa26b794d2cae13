"""Time and memory of a learn: shown while it runs, recorded beside the entry, and in no id."""

import json
import os
import shutil

import pytest

from perdure import Workspace
from perdure.cli.resources import resource_pairs
from perdure.core import clock as clocks
from perdure.core import files
from perdure.core import stages as stages_module
from perdure.core.clock import Clock
from perdure.core.errors import Interrupted
from perdure.core.stages import Stages
from perdure.ledger.records import LearnRecord, Resources
from perdure.workflows import upkeep
from perdure.workflows.init import init
from perdure.workflows.inspect import views

RECIPE = {
    "keep": "best",
    "methods": {"ewc": {}, "replay": {"admission": "surprise"}, "distill": {"teacher": "settled"}, "lwf": {}},
}
FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop"}


def data(path, word):
    rows = [{"prompt": f"{word} {i}?", "completion": f" {word[:3]} {i % 2}"} for i in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def learned(tiny_model, tmp_path_factory):
    """A workspace with two tasks, and what was shown while the second one was learned."""
    folder, shown = tmp_path_factory.mktemp("resources"), []
    patch = pytest.MonkeyPatch()
    patch.setattr(stages_module, "SILENT", 0.0)
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32")
    ws.learn("parcel", data(folder / "parcel.jsonl", "parcel"), recipe=RECIPE, overrides=FAST, gate=None)
    start = shutil.copytree(folder / "ws", folder / "start")
    result = ws.learn(
        "refund",
        data(folder / "refund.jsonl", "refund"),
        recipe=RECIPE,
        overrides=FAST,
        gate=None,
        tick=lambda *words: shown.append(words),
    )
    patch.undo()
    return ws, result, shown, start, folder


def test_every_stage_shows_how_far_it_is(learned):
    _, _, shown, _, _ = learned
    whats = {what.partition(",")[0] for what, _, _ in shown}
    assert {
        "scoring refund",
        "scoring parcel",
        "learning refund",
        "statistics of ewc after training",
        "validation of refund",
        "distributions of the teacher settled",
    } <= whats
    assert all(0 <= done <= total and total > 0 for _, done, total in shown)
    for what in whats:
        done, total = next((done, total) for name, done, total in reversed(shown) if name.partition(",")[0] == what)
        assert done == total, what


def test_the_record_has_the_seconds_of_each_stage_the_peak_and_the_speed(learned):
    ws, result, _, _, _ = learned
    record = ws.ledger.note(result.entry, "record", LearnRecord)
    resources = record.resources
    assert resources == result.resources
    assert {
        "loading",
        "scoring",
        "rows",
        "start",
        "updates",
        "statistics",
        "validation",
        "memory",
        "teachers",
        "storing",
    } == set(resources.seconds)
    assert all(seconds >= 0 for seconds in resources.seconds.values())
    assert resources.seconds["updates"] > 0
    assert resources.peak_of == "the process"
    assert 100 < resources.peak_mib < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    seconds = resources.seconds["updates"]  # rounded to milliseconds, of which a fast machine needs few
    assert resources.tokens_per_second == pytest.approx(record.tokens / seconds, rel=0.01 + 0.0005 / seconds)
    shown = views.show(ws.ledger, result.entry).to_json()
    assert shown["record"]["resources"]["peak_mib"] == resources.peak_mib
    pairs = resource_pairs(resources)
    assert pairs["peak memory"] == f"{resources.peak_mib:,} MiB of the process"
    assert pairs["speed"].endswith(" tokens/s")


def test_no_id_depends_on_them(learned, tmp_path):
    _, result, _, start, folder = learned
    again = Workspace.open(shutil.copytree(start, tmp_path / "ws"))
    other = again.learn("refund", folder / "refund.jsonl", recipe=RECIPE, overrides=FAST, gate=None)
    assert other.entry == result.entry
    assert "resources" not in json.dumps(again.ledger.resolve("head").to_json())


def test_an_entry_of_before_is_shown_without_them(learned):
    ws, result, _, _, _ = learned
    record = ws.ledger.note(result.entry, "record", LearnRecord).to_json()
    del record["resources"]
    old = LearnRecord.from_json(record)
    assert old.resources is None
    assert "resources" not in old.to_json()
    assert resource_pairs(None) == {}
    assert resource_pairs(Resources({"updates": 0.01}, 900, "torch on cuda:0"))["stages"] is None


def test_a_stage_inside_another_one_is_counted_once_and_processes_add_up(monkeypatch):
    now = {"now": 0.0}
    monkeypatch.setattr(clocks.time, "perf_counter", lambda: now["now"])
    clock = Clock()
    with clock.stage("updates"):
        now["now"] += 3
        with clock.stage("validation"):
            now["now"] += 5
        now["now"] += 1
        stored = clock.to_json()
        now["now"] += 1
    assert clock.stages == {"updates": 5.0, "validation": 5.0}
    assert stored["stages"] == {"updates": 4.0, "validation": 5.0}
    later = Clock()
    with later.stage("updates"):
        later.go_on(stored)
        now["now"] += 2
    assert later.stages == {"updates": 6.0, "validation": 5.0}


def test_a_short_stage_is_silent_and_a_signal_ends_a_long_one(monkeypatch):
    now, shown = {"now": 0.0}, []
    monkeypatch.setattr(stages_module.time, "perf_counter", lambda: now["now"])
    stages = Stages(tick=lambda *words: shown.append(words))
    with stages.stage("statistics", "statistics of ewc"):
        now["now"] += 0.5
        stages.show(1, 4)
        now["now"] += 0.6
        stages.show(2, 4)
        with stages.stage("inner"):
            now["now"] += 9
            stages.show(3, 4)
    stages.show(4, 4)
    assert shown == [("statistics of ewc", 2, 4)]

    def stop(*_):
        raise Interrupted("stopped by SIGTERM")

    stages.tick = stop
    with stages.stage("statistics", "statistics of ewc"):
        now["now"] += 2
        with pytest.raises(Interrupted):
            stages.show(1, 4)
    assert set(stages.clock.stages) == {"statistics", "inner"}


def test_hashing_shows_how_far_it_is_and_gives_the_same_hash(learned, tiny_model, tmp_path, monkeypatch):
    ws, _, _, _, _ = learned
    monkeypatch.setattr(stages_module, "SILENT", 0.0)
    monkeypatch.setattr(files, "PART", 1000)
    sizes = []
    weights = tiny_model / "model.safetensors"
    assert files.file_hash(weights, sizes.append) == files.file_hash(weights)
    assert sum(sizes) == weights.stat().st_size
    assert len(sizes) > 2

    shown = []
    assert upkeep.verify(ws.session, lambda *words: shown.append(words)).ok
    objects = [(done, total) for what, done, total in shown if what == "hashing objects"]
    assert objects == [(n, len(objects)) for n in range(1, len(objects) + 1)]
    assert any(what == "hashing the base model, in MiB" for what, _, _ in shown)
    shown.clear()
    init(tmp_path / "ws", str(tiny_model), tick=lambda *words: shown.append(words))
    assert {what for what, _, _ in shown} == {"hashing the base model, in MiB"}
