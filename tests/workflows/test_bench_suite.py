"""Suites: which rows they take, what decides a result, and what an error says."""

import json
import random
from pathlib import Path

import pytest
import yaml

from perdure.core.errors import BadInput, BadSpec
from perdure.workflows.bench.rows import DIGITS, choose, rows_of
from perdure.workflows.bench.suite import Part, Watched
from perdure.workflows.bench.suite_files import check_files, load_suite, suite_names

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SHARED = Path(__file__).parents[3] / "shared" / "data"
CLINC = SHARED / "intents" / "clinc150.jsonl.gz"
CLINC5 = json.loads((RESULTS / "clinc5" / "naive-0.json").read_text(encoding="utf-8"))["suite_hash"]
ROWS = [
    {"text": f"{label} {split} {i}", "label": label, "domain": domain, "split": split}
    for domain, labels in (("bank", ("balance", "apr")), ("home", ("lights", "song")))
    for label in labels
    for split, n in (("train", 6), ("valid", 3), ("test", 4))
    for i in range(n)
]
SUITE = {
    "sources": {"rows.jsonl": "the rows of somebody, from somewhere"},
    "defaults": {
        "file": "rows.jsonl",
        "train": {"split": "train", "per_label": 4},
        "test": {"split": "valid", "per_label": 2},
        "task": {"template": "Say: {text}"},
    },
    "tasks": [{"name": "bank", "where": {"domain": "bank"}}, {"name": "home", "where": {"domain": "home"}}],
}


def written(folder, **changes):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**SUITE, **changes}), encoding="utf-8")
    return str(path)


@pytest.fixture
def suite(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    return load_suite(written(tmp_path))


def test_each_label_gives_its_rows_as_a_plain_script_draws_them():
    def plain(n):
        out = []
        for label in ("apr", "balance"):
            texts = [row["text"] for row in ROWS if row["label"] == label and row["split"] == "train"]
            random.Random(3).shuffle(texts)
            out += texts[:n]
        return out

    mine = [row for row in ROWS if row["domain"] == "bank" and row["split"] == "train"]

    def chosen(seed, **part):
        return [row["text"] for row in choose(mine, seed, Part(split="train", **part), ["apr", "balance"])]

    assert chosen(3, per_label=4) == plain(4)
    assert chosen(4, per_label=4) != plain(4)
    few, many, rest = (set(chosen(3, **part)) for part in ({"per_label": 2}, {"per_label": 5}, {"skip": 2}))
    assert len(few) == 4
    assert few < many
    assert few | rest == set(plain(None))
    assert not few & rest


def test_a_task_has_the_rows_of_its_domain_and_split_alone(suite, tmp_path):
    rows = rows_of(suite.tasks[0], tmp_path, seed=0)
    assert {row["domain"] for row in rows} == {"bank"}
    assert sum(row["split"] == "train" for row in rows) == 2 * 4
    assert sum(row["split"] == "test" for row in rows) == 2 * 2
    assert all((" valid " in row["text"]) == (row["split"] == "test") for row in rows)


def test_labels_are_the_first_by_name_or_those_named(suite, tmp_path):
    def labels(wanted):
        task = suite.tasks[0].model_copy(update={"labels": wanted})
        return {row["label"] for row in rows_of(task, tmp_path, seed=0)}

    assert labels(1) == {"apr"}
    assert labels(["balance"]) == {"balance"}
    assert labels(None) == {"apr", "balance"}


def test_a_suite_is_known_by_what_decides_its_results(suite, tmp_path):
    assert load_suite(written(tmp_path, about="other words", sources={})).hash == suite.hash
    assert load_suite(written(tmp_path, tasks=SUITE["tasks"][::-1])).hash != suite.hash
    assert load_suite(written(tmp_path, settings={"num_train_epochs": 1})).hash != suite.hash
    guarded = load_suite(written(tmp_path, guards=["drift"], guards_at="last"))
    assert guarded.hash != suite.hash
    assert guarded.learned == suite.learned  # the same tasks, whatever the guards
    assert load_suite(written(tmp_path, tasks=SUITE["tasks"][::-1])).learned != suite.learned
    assert load_suite("clinc5").hash == CLINC5  # as in the results that are stored


def test_a_suite_takes_what_it_does_not_say_from_the_one_it_extends(suite, tmp_path):
    def mine(name, **says):
        (tmp_path / name).write_text(yaml.safe_dump(says), encoding="utf-8")
        return load_suite(str(tmp_path / name))

    watch = {"name": "talk", "file": "talk.jsonl", "test": {"split": "test"}}
    more = mine("more.yaml", extends="mine.yaml", watch=[watch], sources={"talk.jsonl": "somebody's talk"})
    assert (more.name, more.tasks, more.watch) == ("more", suite.tasks, [Watched(**watch)])
    assert more.sources == {**suite.sources, "talk.jsonl": "somebody's talk"}
    assert more.files == [*suite.files, Path("talk.jsonl")]
    assert more.hash != suite.hash
    defaults = {**SUITE["defaults"], "labels": 1}
    other = mine("other.yaml", extends="more.yaml", defaults=defaults, tasks=SUITE["tasks"][:1])
    assert (other.watch, [task.labels for task in other.tasks]) == (more.watch, [1])
    for again in ("other.yaml", f"../{tmp_path.name}/more.yaml"):
        with pytest.raises(BadSpec, match="extends itself"):
            mine("more.yaml", extends=again)
    with pytest.raises(BadSpec, match="write `tasks` too"):
        mine("more.yaml", extends="mine.yaml", defaults={"labels": 1})
    with pytest.raises(BadInput, match=r"no suite 'clinc6'.*clinc5"):
        mine("more.yaml", extends="clinc6")


def test_a_missing_file_is_told_with_its_source_and_its_place(suite, tmp_path):
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(BadInput) as error:
        check_files(suite, tmp_path)
    for words in ("rows.jsonl", str(tmp_path / "rows.jsonl"), "the rows of somebody", "--data DIR", "PERDURE_DATA"):
        assert words in str(error.value)


def test_a_part_without_rows_is_told_with_the_splits_there_are(suite, tmp_path):
    task = suite.tasks[0].model_copy(update={"where": {"domain": "nowhere"}})
    with pytest.raises(BadInput, match=r"no rows for its train part.*\['test', 'train', 'valid'\]"):
        rows_of(task, tmp_path, seed=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": [SUITE["tasks"][0]] * 2}, "a task appears twice"),
        ({"tasks": []}, "tasks"),
        ({"tasks": ["bank"]}, "a list of mappings"),
        ({"settings": {"methods.replay.mix": 0.5}}, "methods belong to the recipes"),
        ({"modle": "x"}, "modle"),
        ({"kind": "pictures"}, "kind"),
        ({"extends": ["clinc5"]}, "`extends` must be the name of a suite"),
        ({"sources": None}, "`sources` must be a mapping"),
        ({"defaults": [1]}, "`defaults` must be a mapping"),
        ({"tasks": 5}, "`tasks` must be a list"),
        ({"tasks": [{**SUITE["tasks"][0], "name": "a/b"}]}, "name"),
        ({"watch": [{"name": "bank", "file": "x", "test": {"split": "test"}}]}, "a task appears twice"),
        ({"guards": ["bank"]}, "'bank' names two tasks or guards"),
        ({"guards": ["drift", "drift.yaml"]}, "'drift' names two"),
        ({"guards_at": "never"}, "guards_at"),
        ({"kind": "features", "guards": ["drift"]}, "nothing to watch or guard"),
        ({"kind": "features", "general": {"file": "x", "train": {"split": "train"}}}, "no instructions to rehearse"),
    ],
)
def test_a_suite_that_is_none_is_refused(tmp_path, changes, words):
    with pytest.raises(BadSpec, match=words):
        load_suite(written(tmp_path, **changes))


def test_an_unknown_suite_is_told_with_the_nearest():
    with pytest.raises(BadInput, match="did you mean 'clinc3'"):
        load_suite("clinc33")


def test_prompt_and_completion_can_be_a_chat(tmp_path):
    row = {"prompt": "Say hello.", "completion": "Hello!", "split": "test", "source": "me"}
    (tmp_path / "talk.jsonl").write_text(json.dumps(row), encoding="utf-8")
    watched = Watched(name="talk", file="talk.jsonl", chat=True, test={"split": "test"})
    turns = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello!"}]
    assert rows_of(watched, tmp_path, 0) == [{"split": "test", "source": "me", "messages": turns}]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"text": "hello", "split": "test"}), encoding="utf-8")
    with pytest.raises(
        BadInput, match=r"talk\.jsonl: `chat` is for rows with a text prompt and completion; one has split, text"
    ):
        rows_of(watched, tmp_path, 0)


def test_rows_without_a_label_are_taken_beside_those_that_have_one(tmp_path):
    rows = [{"text": str(i), "split": "test", **({"label": "a"} if i < 2 else {})} for i in range(5)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    probe = Watched(name="all", file="rows.jsonl", test={"split": "test"})
    assert sorted(row["text"] for row in rows_of(probe, tmp_path, 0)) == list("01234")
    unlabelled = probe.model_copy(
        update={"where": {"text": "4"}, "labels": 3}
    )  # a number of labels, where there are none
    assert [row["text"] for row in rows_of(unlabelled, tmp_path, 0)] == ["4"]
    with pytest.raises(BadInput, match="skip 9"):
        rows_of(probe.model_copy(update={"test": Part(split="test", skip=9)}), tmp_path, 0)


@pytest.mark.parametrize("name", suite_names())
def test_a_shipped_suite_says_where_its_data_comes_from(name):
    suite = load_suite(name)
    files = {*suite.files} - {DIGITS}
    assert files == {Path(file) for file in suite.sources}
    assert suite.about
    assert all(task.train.split == "train" for task in suite.tasks)


def test_tuning_never_sees_the_test_rows():
    assert {task.test.split for task in load_suite("clinc3").tasks} == {"valid"}
    tuned, told = load_suite("clinc3_instruct"), load_suite("clinc5_instruct")
    assert tuned.tasks == load_suite("clinc3").tasks
    assert told.tasks == load_suite("clinc5").tasks
    for mine, theirs in zip(tuned.watch, told.watch, strict=True):
        assert (mine.name, mine.file) == (theirs.name, theirs.file)
        assert mine.test.per_label == theirs.test.skip  # drawn with one seed: those are others
    tuned, told = load_suite("clinc3").tasks[0], load_suite("clinc5").tasks[0]
    assert (tuned.file, tuned.train.split) == (told.file, told.train.split)


def test_digits_are_divided_once_for_all_seeds():
    pytest.importorskip("sklearn", reason="scikit-learn has the digits")
    suite = load_suite("digits5")
    rows = [rows_of(task, Path(), seed) for seed in (0, 1) for task in suite.tasks]
    assert sum(map(len, rows)) == 2 * 1797
    test = [
        {tuple(row["features"]) for own in part for row in own if row["split"] == "test"}
        for part in (rows[:5], rows[5:])
    ]
    train = {tuple(row["features"]) for own in rows for row in own if row["split"] == "train"}
    assert test[0] == test[1]
    assert not test[0] & train


@pytest.mark.data
@pytest.mark.skipif(not CLINC.exists(), reason="the shared CLINC150 file is not there")
def test_clinc10_has_the_rows_of_the_plain_stream():
    suite = load_suite("clinc10")
    for task in (suite.tasks[0], suite.tasks[-1]):
        rows = rows_of(task, SHARED, seed=0)
        assert len({row["label"] for row in rows}) == 15
        assert sum(row["split"] == "train" for row in rows) == 15 * 20
        assert sum(row["split"] == "test" for row in rows) == 15 * 8
        assert not {row["text"] for row in rows if row["split"] == "train"} & {
            row["text"] for row in rows if row["split"] == "test"
        }
