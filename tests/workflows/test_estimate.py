"""A dry run says what a learn takes, from two updates that leave nothing behind."""

import json
import shutil

import pytest
import torch

from perdure import Workspace
from perdure.ledger.records import LearnRecord
from perdure.workflows.learn import estimate, guard_time, probe, run
from perdure.workflows.learn.preview import preview

FAST = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01}


def write(path, task, n=22):
    rows = [{"prompt": f"{task} {'far ' * (i % 5)}{i}?", "completion": f" late {i % 3}"} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def learned(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimate")
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32")
    ws.learn("parcel", write(folder / "parcel.jsonl", "parcel"), recipe="replay", overrides=FAST, gate=None)
    return folder


@pytest.fixture
def folder(learned, tmp_path, monkeypatch):
    """A copy of the workspace, and a cache of its own."""
    monkeypatch.setenv("PERDURE_CACHE", str(tmp_path / "cache"))
    return shutil.copytree(learned / "ws", tmp_path / "ws")


@pytest.mark.parametrize(
    "recipe",
    ["naive", "dual_replay", {"name": "own", "keep": "best", "host": "loop", "methods": {"ewc": {}, "ema": {}}}],
)
def test_updates_and_tokens_are_those_of_the_learn_which_a_dry_run_does_not_change(folder, tmp_path, recipe):
    data = write(tmp_path / "bill.jsonl", "bill")
    ws, other = (Workspace.open(shutil.copytree(folder, tmp_path / name)) for name in ("a", "b"))
    planned = ws.plan("bill", data, recipe=recipe, overrides=FAST)
    shown = preview(ws.session, planned)
    assert not list((ws.ledger.root / "runs").glob("*"))
    learned, untouched = (made.learn("bill", data, recipe=recipe, overrides=FAST, gate=None) for made in (ws, other))
    assert learned.entry == untouched.entry  # to the bit
    record = ws.ledger.note(learned.entry, "record", LearnRecord)
    assert shown.updates == record.updates
    assert shown.estimate.tokens == learned.tokens
    assert (shown.tokens.total < learned.tokens) is (recipe == "dual_replay")  # rows of memory come on top
    assert shown.tokens.median <= shown.tokens.longest
    assert shown.estimate.seconds >= 0
    assert shown.estimate.peak_mib > 0


def test_what_a_probe_measured_is_read_again_until_something_that_decides_it_changes(folder, tmp_path, monkeypatch):
    calls = []
    measured = probe.probe
    monkeypatch.setattr(probe, "probe", lambda *words: calls.append(words) or measured(*words))
    data = write(tmp_path / "bill.jsonl", "bill")

    def takes(**changed):
        ws = Workspace.open(folder)
        found = preview(ws.session, ws.plan("bill", data, recipe="naive", overrides={**FAST, **changed}))
        return found.estimate

    first = takes()
    assert takes() == first
    assert len(calls) == 1
    takes(per_device_train_batch_size=2)
    assert len(calls) == 2
    for file in (tmp_path / "cache" / "estimates").iterdir():
        file.write_text("{")  # a file that was cut off is measured anew
    assert takes().peak_mib > 0
    assert len(calls) == 3


def test_an_update_that_does_not_fit_is_a_warning(folder, tmp_path, monkeypatch):
    from perdure.bridges import sizes

    ws = Workspace.open(folder)
    planned = ws.plan("bill", write(tmp_path / "bill.jsonl", "bill"), recipe="naive", overrides=FAST)
    monkeypatch.setattr(sizes, "LARGE", 1000)
    for rate, noticed in ((1e-3, True), (2e-3, False)):
        chosen = {**FAST, "learning_rate": rate}
        large = ws.plan("bill", tmp_path / "bill.jsonl", recipe="naive", overrides=chosen)
        assert any("try learning_rate" in text for text in large.notices) is noticed
    monkeypatch.setattr(sizes, "memory_bytes", lambda device: 2**20)
    (said,) = [text for text in preview(ws.session, planned).notices if "does not fit" in text]
    assert "there are 1;" in said
    shutil.rmtree(tmp_path / "cache")

    def fails(*words):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(probe, "probe", fails)
    found = estimate.estimated(ws.session, planned)
    assert found.estimate is None
    assert "CUDA out of memory; lower per_device_train_batch_size" in found.notices[0]


def test_what_the_user_changed_is_named(folder, tmp_path):
    data = write(tmp_path / "bill.jsonl", "bill")
    ws = Workspace.open(folder)
    changed = {"methods.tail_average": None, "methods.replay.mix": 0.5, "learning_rate": 0.002}
    found = preview(ws.session, ws.plan("bill", data, overrides=changed))
    assert found.changed == {"learning_rate": 0.002, "methods.replay.mix": 0.5, "methods.tail_average": None}
    assert preview(ws.session, ws.plan("bill", data)).changed == {}


def test_workspaces_with_different_attention_are_estimated_apart(folder, tmp_path):
    ws = Workspace.open(folder)
    planned = ws.plan("bill", write(tmp_path / "bill.jsonl", "bill"), recipe="naive", overrides=FAST)
    before = estimate._key(ws.session, planned)
    assert estimate._key(ws.session, planned) == before
    ws.ledger.config["attn_implementation"] = "eager"
    assert estimate._key(ws.session, planned) != before


SMALL = """ability_guard: {name}
test: rows.jsonl
ability: maths
max_new_tokens: 3
{more}items: {{learn: 6, quick: 8}}
"""


@pytest.fixture
def guarded(folder, tmp_path):
    """The workspace with two guards: one of answers, one of drift."""
    write(tmp_path / "rows.jsonl", "sum", n=10)
    for name, more in (("sums", ""), ("moves", "scorer: same\n")):
        (tmp_path / f"{name}.yaml").write_text(SMALL.format(name=name, more=more))
        Workspace.open(folder).guard_add(tmp_path / f"{name}.yaml")
    return folder


def test_guards_count_as_many_items_as_the_learn_scores(guarded, tmp_path, monkeypatch):
    data = write(tmp_path / "bill.jsonl", "bill")
    ws = Workspace.open(guarded)
    planned = ws.plan("bill", data, recipe="naive", overrides=FAST)
    scored = []
    measured = run.measure_guards
    monkeypatch.setattr(
        run, "measure_guards", lambda *words, **more: scored.append(measured(*words, **more)) or scored[-1]
    )
    assert (
        estimate.estimated(ws.session, planned).estimate.guard_items == 24
    )  # six of each guard, at the base and after
    assert not any(one.score for one in ws.guards())  # nothing is stored
    ws.learn("bill", data, recipe="naive", overrides=FAST)
    assert {name: (one.before.n, one.now.n) for name, one in scored[0].items()} == {"sums": (6, 6), "moves": (6, 6)}
    planned = ws.plan("mail", write(tmp_path / "mail.jsonl", "mail"), recipe="naive", overrides=FAST)
    later = estimate.estimated(ws.session, planned).estimate
    assert later.guard_items == 12  # the base is scored
    assert later.guard_seconds == pytest.approx(sum(one.seconds for one in stored(ws)), abs=0.06)


def stored(ws):
    state = ws.ledger.seen(ws.ledger.resolve("base"), None)
    return [ws.ledger.score(state, guard.score_version) for guard in ws.ledger.guards()]


def test_the_seconds_of_a_learn_have_those_of_its_guards(guarded, tmp_path, monkeypatch):
    monkeypatch.setattr(guard_time, "_seconds_a_row", lambda *_: 2.5)
    ws = Workspace.open(guarded)
    planned = ws.plan("bill", write(tmp_path / "bill.jsonl", "bill"), recipe="naive", overrides=FAST)
    with_guards, without = (estimate.estimated(ws.session, planned, guards=mode).estimate for mode in ("warn", "none"))
    assert with_guards.guard_seconds == 60
    assert with_guards.seconds == pytest.approx(without.seconds + 60)
    assert "guard_items" not in without.to_json()


def test_what_a_row_of_a_guard_takes_is_measured_once(guarded, tmp_path, monkeypatch):
    calls = []
    measured = guard_time.scoring_seconds
    monkeypatch.setattr(guard_time, "scoring_seconds", lambda *words: calls.append(words[1].name) or measured(*words))
    for task in ("bill", "mail"):
        ws = Workspace.open(guarded)
        planned = ws.plan(task, write(tmp_path / f"{task}.jsonl", task), recipe="naive", overrides=FAST)
        assert estimate.estimated(ws.session, planned).estimate.guard_seconds >= 0
    assert calls == ["sums", "moves"]
