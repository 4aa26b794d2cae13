"""Guards of a benchmark's runs: scored at every stage over the same rows, and again without learning where runs are kept."""

import json
from dataclasses import replace

import pytest
import yaml

from perdure.core.errors import BadInput
from perdure.core.records import plain
from perdure.ledger import Ledger
from perdure.methods.registry import load_recipe
from perdure.workflows.bench import text
from perdure.workflows.bench.guards import add_guards, check_guards
from perdure.workflows.bench.jobs import Job, read_arm
from perdure.workflows.bench.kept import KeptPlace
from perdure.workflows.bench.suite import Suite
from perdure.workflows.bench.suite_files import load_suite
from perdure.workflows.session import Session

QUICK = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01, "host": "loop"}
WORDS = ("parcel", "refund", "invoice", "late")
TAUGHT = "Classify the text.\nText: parcel train 0\nLabel:"  # what a train row asks


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """Data, two guard files, and a suite of two tasks that names them."""
    made = tmp_path_factory.mktemp("guards")
    rows = [
        {"text": f"{label} {split} {i}", "label": label, "split": split}
        for label in WORDS
        for split, n in (("train", 4), ("test", 2))
        for i in range(n)
    ]
    talk = [{"prompt": f"Say {i}:", "completion": f" it is {i % 3}", "kind": f"kind {i % 3}"} for i in range(9)]
    talk.append({"prompt": TAUGHT, "completion": " hello", "kind": "kind 0"})
    for name, lines in (("rows", rows), ("talk", talk)):
        (made / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    own = {"test": "talk.jsonl", "scorer": "f1", "max_new_tokens": 4, "items": {"quick": 4, "standard": 10}}
    for name, more in (
        ("talk", {"group": "kind"}),
        ("sums", {"where": {"kind": ["kind 1", "kind 2"]}, "chance": 0.25}),
    ):
        guard = {"ability_guard": name, "ability": "maths" if name == "sums" else "instruction", **own, **more}
        (made / f"{name}.yaml").write_text(yaml.safe_dump(guard), encoding="utf-8")
    spec = {
        "model": str(tiny_model),
        "dtype": "float32",
        "defaults": {"file": "rows.jsonl", "train": {"split": "train"}, "test": {"split": "test"}},
        "tasks": [{"name": "one", "labels": ["parcel", "refund"]}, {"name": "two", "labels": ["invoice", "late"]}],
    }
    (made / "tiny.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    guarded = {"extends": "tiny.yaml", "guards": ["talk.yaml", "sums.yaml"], "guard_budget": "full"}
    (made / "guarded.yaml").write_text(yaml.safe_dump(guarded), encoding="utf-8")
    return made


def run(folder, suite, scratch, keep=None):
    told = []
    (folder / scratch).mkdir()
    result = text.run_text(suite, load_recipe("naive", QUICK), 1, folder, folder / scratch, told.append, keep=keep)
    assert told == ["one", "two"]
    return result


@pytest.fixture(scope="module")
def plain_run(folder):
    """The suite without guards, with its workspace kept."""
    suite = load_suite(str(folder / "tiny.yaml"))
    place = Job(suite, read_arm("naive", QUICK), 1).place(folder / "kept")
    return run(folder, suite, "plain", place), place


def test_a_kept_run_is_scored_on_guards_without_learning_it_again(folder, plain_run, monkeypatch):
    measures, place = plain_run
    assert measures.guards is None

    def fails(*words, **more):
        raise AssertionError("it learned again")

    monkeypatch.setattr(text, "learn", fails)
    suite = load_suite(str(folder / "guarded.yaml"))
    assert Job(suite, read_arm("naive", QUICK), 1).place(folder / "kept") == place
    found = run(folder, suite, "again", place)
    assert plain(replace(found, guards=None)) == plain(measures)
    session = Session(Ledger.open(place.workspace))
    ledger, talk = session.ledger, found.guards["talk"]
    assert list(found.guards) == ["talk", "sums"]
    assert (talk.ability, talk.chance, found.guards["sums"].chance) == ("instruction", None, 0.25)
    assert sorted(talk.groups) == sorted(f"kind {i % 3}" for i in range(9))  # the row that a task taught is left out
    assert found.guards["sums"].groups == ()
    guard = ledger.guard("talk")
    task = session.tasks.get("talk", guard.version)
    stages = [entry for entry in reversed(ledger.ancestors(ledger.resolve("head"))) if entry.kind == "learn"]
    for entry, scores in zip([ledger.resolve("base"), *stages], [talk.base, *talk.stages], strict=True):
        stored = ledger.score(ledger.seen(entry, None), guard.score_version, task.scoring)
        by_row = dict(zip([row[:16] for row in stored.rows], stored.items, strict=True))
        assert talk.by_row(scores) == pytest.approx({row: by_row[row] for row in talk.rows}, abs=1e-6)
    json.dumps(found.to_json(), allow_nan=False)
    last = run(folder, suite.model_copy(update={"guards": ["talk.yaml"], "guards_at": "last"}), "last", place)
    assert last.guards == {"talk": replace(talk, stages=(None, talk.stages[-1]))}
    text_of = (folder / "talk.yaml").read_text(encoding="utf-8")
    (folder / "talk.yaml").write_text(text_of.replace("f1", "exact"), encoding="utf-8")
    assert add_guards(session, suite, folder) == ("talk", "sums")
    assert ledger.guard("talk").version != guard.version
    (folder / "talk.yaml").write_text(text_of, encoding="utf-8")


def test_the_same_is_learned_whatever_the_guards(folder, plain_run):
    measures, _ = plain_run
    found = run(folder, load_suite(str(folder / "guarded.yaml")), "guarded")
    assert found.items == measures.items
    assert all(state is not None for guard in found.guards.values() for state in (guard.base, *guard.stages))


def test_what_a_kept_run_did_not_watch_is_missed(folder, plain_run):
    _, place = plain_run
    watched = {"name": "more", "file": "talk.jsonl", "test": {"split": "test"}}
    suite = load_suite(str(folder / "guarded.yaml"))
    more = Suite.model_validate({**suite.model_dump(), "watch": [watched]})
    assert more.learned == suite.learned
    with pytest.raises(BadInput, match="no scores of the watched 'more'"):
        text.run_text(more, load_recipe("naive", QUICK), 1, folder, folder, [].append, keep=place)


def test_a_kept_run_of_something_else_is_refused(folder, plain_run, tmp_path):
    suite = load_suite(str(folder / "tiny.yaml"))
    _, place = plain_run
    other = Job(suite, read_arm("replay", QUICK), 1)
    assert other.place(folder / "kept").key != place.key
    with pytest.raises(BadInput, match="keeps a run of other tasks, another recipe or another seed"):
        KeptPlace(place.folder, other.learned).read()
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInput, match="is not a run that was kept"):
        KeptPlace(tmp_path / "mine", place.key).read()


def test_a_guard_that_cannot_be_scored_is_refused_before_anything_is_learned(folder, tmp_path):
    suite = load_suite(str(folder / "guarded.yaml"))
    check_guards(suite, folder)
    with pytest.raises(BadInput, match="no guard 'nothing' is shipped"):
        check_guards(suite.model_copy(update={"guards": ["nothing"]}), folder)
    guard = {"ability_guard": "one", "ability": "maths", "test": str(folder / "talk.jsonl")}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(guard), encoding="utf-8")
    with pytest.raises(BadInput, match="is called one, as a task"):
        check_guards(suite.model_copy(update={"guards": ["mine.yaml"]}), tmp_path)
