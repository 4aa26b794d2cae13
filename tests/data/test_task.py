import json
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from json_files import rows_file
from perdure.core.errors import BadInput, BadSpec
from perdure.core.rows import Message, Row
from perdure.data.leaks import refuse_leaks
from perdure.data.load import load_rows, load_task
from perdure.data.scoring import scoring_version
from perdure.data.spec import load_spec, make_spec
from perdure.data.task import TaskData, default_scorer
from perdure.data.update import update_task

REAL = Path(__file__).parents[3] / "shared" / "data"


def intents(start, stop, **more):
    return [{"text": f"message {i}", "label": f"intent_{i % 3}", **more} for i in range(start, stop)]


@pytest.fixture
def data(tmp_path):
    return rows_file(tmp_path / "cards.jsonl", intents(0, 30))


def texts(rows):
    return [row.prompt or row.completion for row in rows]


def hashes(rows):
    return {row.hash for row in rows}


# --- task files


def task_file(tmp_path, text):
    (tmp_path / "task.yaml").write_text(text, encoding="utf-8")
    return tmp_path / "task.yaml"


def test_paths_in_a_task_file_are_taken_from_its_folder(tmp_path):
    spec = load_spec(task_file(tmp_path, "train: a.jsonl\ntest: sub/b.jsonl\ngeneral: /g.jsonl\n"))
    assert (spec.name, spec.train, spec.test) == ("task", tmp_path / "a.jsonl", tmp_path / "sub/b.jsonl")
    assert spec.general == Path("/g.jsonl")


@pytest.mark.parametrize(
    ("written", "format"), [("text+label", "text_label"), ("Prompt/Completion", "prompt_completion")]
)
def test_formats_may_be_written_as_people_say_them(tmp_path, written, format):
    assert load_spec(task_file(tmp_path, f"train: a.jsonl\nformat: {written}\n")).format == format


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: a\ntemplat: x", "unknown key `templat`, did you mean template?"),
        ("train: a\nzzzzz: x", "unknown key `zzzzz`; known keys are name"),
        ("test: a", "`train` is missing"),
        ("train: a\nformat: mesages", "did you mean messages?"),
        ("train: a\nname: two words", "must begin with a letter"),
        ("train: a\ntest_size: 1.5", "`test_size`"),
        ("train: a\nscorer: {strict: true}", 'needs its "name"'),
        ("train: a\nlabels: {true: positive}", "put quotes around it"),
        ("train: a\nlabels: [a]", "`labels`"),
        ('train: "a\\0.jsonl"', "`train`: is no path of a file"),
        (f"train: {'a' * 9999}.jsonl", "`train`: is no path of a file"),
        ("train: a\nlabels: {1: a, '1': b}", "a label appears twice, as a number and in quotes"),
        ("train: a\nlabels: {a: b, a: c}", "task.yaml:2 is broken YAML: the key 'a' appears twice"),
        ('train: a\ntemplate: "{text}\\ud800"', "task.yaml:2 is broken YAML: a text contains half of a surrogate pair"),
        (f"train: a\nguard: {list(range(999))}", "; and 996 more"),
        (f"train: a\nseed: {'x' * 9999}", "got 'xxxx"),
        ("train: a\nguard: [1", "task.yaml:3 is broken YAML"),
        ("train: a\nguard: {b: [}", "task.yaml:2 is broken YAML"),
        ("just text", "must be a mapping"),
        ("", "must be a mapping"),
    ],
)
def test_bad_task_files_are_refused(tmp_path, text, message):
    with pytest.raises(BadSpec) as caught:
        load_spec(task_file(tmp_path, text + "\n"))
    assert message in str(caught.value)
    assert "task.yaml" in str(caught.value)
    assert len(str(caught.value)) < 800


def test_settings_that_have_no_bytes_are_refused_wherever_they_come_from(data):
    with pytest.raises(BadSpec, match="half of a surrogate pair"):
        load_task("cards", data, overrides={"template": "{text} \udcff"})
    for odd in (float("nan"), date(2026, 1, 1)):
        with pytest.raises(BadSpec, match="is no text, truth value or finite number"):
            load_task("cards", data, overrides={"scorer": {"name": "number", "tolerance": odd}})


def test_missing_and_binary_task_files_are_refused(tmp_path):
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="cannot read task file"):
        load_spec(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match="not UTF-8"):
        load_spec(tmp_path / "b.yaml")


# --- loading


def test_made_test_part_is_stratified_and_leaks_nothing(data):
    task = load_task("cards", data)
    assert (len(task.train), len(task.validation), len(task.test), task.test_made) == (24, 0, 6, True)
    assert {row.label for row in task.test} == {"intent_0", "intent_1", "intent_2"}
    assert {row.task for row in task.train} == {"cards"}
    refuse_leaks(task, [])


def test_task_file_sets_template_labels_and_share_and_overrides_stand_above_it(tmp_path, data):
    text = "name: other\ntrain: cards.jsonl\ntemplate: 'Request: {text}'\nlabels: {intent_0: zero}\ntest_size: 0.5\n"
    task = load_task("cards", task_file(tmp_path, text), overrides={"test_size": 0.1})
    assert (task.name, len(task.test)) == ("cards", 3)
    assert {row.answer for row in task.train} == {" zero", " intent 1", " intent 2"}
    assert all(row.prompt.startswith("Request: message") for row in task.train)


def test_labels_that_older_yaml_takes_for_truth_values_are_words(tmp_path):
    spec = load_spec(task_file(tmp_path, "train: cards.jsonl\nlabels: {yes: granted, no: refused, on: lit}\n"))
    assert spec.labels == {"yes": "granted", "no": "refused", "on": "lit"}


def test_split_column_is_followed_and_validation_kept_apart(tmp_path):
    rows = intents(0, 6, split="train") + intents(6, 8, split="dev") + intents(8, 10, split="test")
    task = load_task("t", rows_file(tmp_path / "a.jsonl", rows))
    assert (len(task.train), len(task.validation), len(task.test), task.test_made) == (6, 2, 2, False)


def test_given_test_file_is_taken_whole_in_the_format_of_the_train_file(tmp_path, data):
    test = rows_file(tmp_path / "test.jsonl", intents(100, 104, split="test"))
    task = load_task("cards", data, test=test)
    assert (len(task.train), len(task.test), task.test_made) == (30, 4, False)
    other = rows_file(tmp_path / "other.jsonl", [{"prompt": "a", "completion": "b"}])
    with pytest.raises(BadInput, match=r"other.jsonl:1 has no text and no label, which text_label needs"):
        load_task("cards", data, test=other)


def test_duplicate_rows_are_kept_once_in_each_part(tmp_path):
    rows = intents(0, 6, split="train") * 3 + intents(8, 10, split="test") * 2
    task = load_task("t", rows_file(tmp_path / "a.jsonl", rows))
    assert (len(task.train), len(task.test)) == (6, 2)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    picks=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=12, max_size=40), seed=st.integers(0, 99)
)
def test_made_part_never_leaks_however_often_rows_repeat(tmp_path, picks, seed):
    rows = [{"prompt": "p0", "completion": "x"}, {"prompt": "p1", "completion": "x"}]
    rows += [{"prompt": f"p{question}", "completion": f"c{answer}"} for question, answer in picks]
    task = load_task("t", rows_file(tmp_path / "a.jsonl", rows), overrides={"seed": seed})
    assert task.test
    refuse_leaks(task, [])
    assert not {row.question for row in task.train} & {row.question for row in task.test}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*intents(0, 5), {"text": "a"}], "a.jsonl:6 has no label"),
        ([*intents(0, 5), {"prompt": "a", "completion": "b"}], "a.jsonl:6 is prompt_completion"),
        (intents(0, 5, split="test"), "has no train rows"),
        (intents(0, 5, split="edit"), "a.jsonl:1: split is 'edit'"),
        (intents(0, 1), "has only one question"),
        ([{"prompt": "same", "completion": str(i)} for i in range(9)], "has only one question"),
    ],
)
def test_unusable_data_are_refused(tmp_path, rows, message):
    with pytest.raises(BadInput) as caught:
        load_task("t", rows_file(tmp_path / "a.jsonl", rows))
    assert message in str(caught.value)


def test_test_rows_named_twice_over_are_refused(tmp_path, data):
    rows = intents(0, 5, split="train") + intents(5, 9, split="test")
    with pytest.raises(BadInput, match=r"a.jsonl:6 is marked test, and a test file is given too"):
        load_task("t", rows_file(tmp_path / "a.jsonl", rows), test=data)


def test_format_that_is_set_is_not_guessed(tmp_path, data):
    task = load_task("t", data, overrides={"format": "text"})
    assert texts(task.train)[0].startswith("message")
    with pytest.raises(BadInput, match=r"cards.jsonl:1 has no messages, which messages needs"):
        load_task("t", data, overrides={"format": "messages"})


def test_settings_that_would_do_nothing_are_refused(tmp_path):
    path = rows_file(tmp_path / "a.jsonl", [{"query": str(i), "response": "b"} for i in range(5)])
    with pytest.raises(BadSpec, match="`labels` belongs to the format text_label"):
        load_task("t", path, overrides={"labels": {"a": "b"}})
    with pytest.raises(BadSpec, match="unknown key `sed`, did you mean seed"):
        load_task("t", path, overrides={"sed": 1})


def test_general_rows_are_read_without_a_test_part(tmp_path):
    rows = [{"query": str(i), "response": "b"} for i in range(5)]
    loaded = load_rows(rows_file(tmp_path / "a.jsonl", [*rows, *rows]))
    assert texts(loaded) == list("01234")
    assert {row.task for row in loaded} == {"general"}


# --- identity


def test_loading_again_gives_the_same_task(data):
    assert load_task("cards", data) == load_task("cards", data)


@pytest.mark.parametrize(
    "change",
    [
        {"template": "Q: {text}"},
        {"labels": {"intent_0": "zero"}},
        {"scorer": "f1"},
        {"max_new_tokens": 3},
        {"seed": 5},
        {"format": "text"},
    ],
)
def test_version_changes_with_whatever_changes_training_or_scoring(data, change):
    assert load_task("cards", data, overrides=change).version != load_task("cards", data).version


@pytest.mark.parametrize("change", [{"scorer": "exact"}, {"guard": ["a"]}, {"scorer": {"name": "exact"}}])
def test_version_does_not_change_with_what_changes_neither(data, change):
    assert load_task("cards", data, overrides=change).version == load_task("cards", data).version


def test_fingerprint_depends_on_train_rows_and_their_order_only(data):
    task = load_task("cards", data)
    parts = {"validation": (), "test": (), "format": task.format}
    assert TaskData(task.spec, task.train, **parts).fingerprint == task.fingerprint
    assert TaskData(task.spec, task.train[::-1], **parts).fingerprint != task.fingerprint


def test_json_round_trip_restores_the_task_and_keeps_its_version_when_rows_are_gone(data):
    task = load_task("cards", data, overrides={"scorer": {"name": "f1", "lower": True}, "guard": ["b"]})
    stored = json.loads(json.dumps(task.to_json()))
    assert TaskData.from_json(stored, task.train, task.validation, task.test) == task
    bare = TaskData.from_json(stored)
    assert (bare.version, bare.fingerprint, bare.train) == (task.version, task.fingerprint, ())
    assert bare.spec.inherited() == task.spec.inherited() == {"scorer": {"name": "f1", "lower": True}, "guard": ["b"]}


# --- scorer


def answers(*completions, label=None):
    return [Row(prompt=str(i), completion=c, label=label) for i, c in enumerate(completions)]


LONG = "nine words are one more than eight words are"


@pytest.mark.parametrize(
    ("rows", "format", "scorer"),
    [
        (answers("yes", "no"), "query_response", "exact"),
        (answers("yes", LONG[:-4]), "query_response", "exact"),
        (answers("yes", LONG), "query_response", "rouge_l"),
        (answers(LONG, LONG, label="a"), "text_label", "exact"),
        (answers(LONG + " 1", LONG + " 2", label="7"), "prompt_completion", "rouge_l"),
        (answers("short text"), "text", "rouge_l"),
        (answers("东京是日本的首都，位于本州岛东部"), "query_response", "rouge_l"),
        (answers("これはテストの正解です"), "prompt_completion", "rouge_l"),
        (answers("ฉันชอบกินข้าวผัด"), "prompt_completion", "rouge_l"),
        (answers("账单错误", "取消套餐"), "prompt_completion", "exact"),
        (answers("서울은 대한민국의 수도이다"), "prompt_completion", "exact"),  # three words
    ],
)
def test_default_scorer_is_exact_for_labels_and_short_answers(rows, format, scorer):
    assert default_scorer(rows, format) == scorer


def test_scorer_is_the_default_or_what_is_set(data):
    assert load_task("cards", data).scorer == {"name": "exact"}
    assert load_task("cards", data, overrides={"scorer": "f1"}).scorer == {"name": "f1"}
    assert load_task("cards", data).labels == ["intent_0", "intent_1", "intent_2"]


# --- asking


def made(tmp_path, rows, **overrides):
    return load_task("t", rows_file(tmp_path / "ask.jsonl", rows), overrides=overrides)


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": f"m{i}", "label": "a"} for i in range(9)],
        [{"query": f"m{i}", "response": "a"} for i in range(9)],
        [{"instruction": f"m{i}", "output": "a"} for i in range(9)],
        [{"prompt": f"m{i}", "completion": "a"} for i in range(9)],
        [
            {
                "messages": [
                    {"role": "system", "content": "Be kind."},
                    {"role": "user", "content": f"m{i}"},
                    {"role": "assistant", "content": "a"},
                ]
            }
            for i in range(9)
        ],
    ],
)
def test_asking_a_text_gives_the_question_of_the_row_made_from_it(tmp_path, rows):
    task = made(tmp_path, rows)
    asked = [task.prompt_row(f"m{i}") for i in range(9)]
    assert {row.question for row in asked} == {row.question for row in (*task.train, *task.test)}
    assert {row.answer for row in asked} == {""}


def test_differing_system_turns_are_not_asked(tmp_path):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "a"}]
    task = made(tmp_path, [{"messages": [{"role": "system", "content": str(i)}, *turns]} for i in range(12)])
    assert task.prompt_row("x").messages == (Message("user", "x"), Message("assistant", ""))


def test_template_with_several_columns_is_asked_by_column(tmp_path):
    rows = [{"premise": f"p{i}", "claim": "c", "label": "a"} for i in range(9)]
    task = made(tmp_path, rows, template="{premise} so {claim}:")
    assert task.prompt_row({"premise": "p1", "claim": "c"}).prompt == "p1 so c:"
    with pytest.raises(BadInput, match="also needs claim; give every column: premise, claim"):
        task.prompt_row("p1")


def test_columns_are_refused_where_one_text_is_asked(tmp_path):
    with pytest.raises(BadInput, match="is one text, not several"):
        made(tmp_path, [{"query": str(i), "response": "a"} for i in range(9)]).prompt_row({"query": "a"})


# --- updates


def updated(tmp_path, known, rows, earlier=(), **overrides):
    path = rows_file(tmp_path / "more.jsonl", rows)
    taught = {row.question for task in earlier for row in task.taught}
    return update_task(known, load_task("cards", path, overrides=overrides, known=known), taught)


def test_update_keeps_the_known_test_rows_and_adds_new_ones(tmp_path, data):
    known = load_task("cards", data)
    task = updated(tmp_path, known, intents(30, 60))
    assert task.test[:6] == known.test
    assert (len(task.train), len(task.test)) == (24, 12)
    assert task.version == TaskData(task.spec, task.train, (), task.test, task.format).version != known.version
    refuse_leaks(task, [known])


def test_update_with_the_same_data_is_the_same_version(tmp_path, data):
    known = load_task("cards", data)
    assert update_task(known, load_task("cards", data, known=known)).version == known.version


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 60), min_size=4, max_size=4), seed=st.integers(0, 9))
def test_updates_that_repeat_old_data_never_leak_and_lose_no_row(tmp_path, data, cuts, seed):
    first = load_task("cards", data, overrides={"seed": seed})
    start, stop = min(cuts[:2]), max(cuts[0], cuts[1], 30) + 8
    second = updated(tmp_path, first, intents(start, stop))
    third = updated(tmp_path, second, intents(*sorted((cuts[2], cuts[2] + 9))) + intents(0, 12), earlier=[first])
    refuse_leaks(second, [first])
    refuse_leaks(third, [first, second])
    assert hashes(first.test) <= hashes(second.test) <= hashes(third.test)
    held = set(texts((*second.train, *second.test)))
    assert {second.prompt_row(f"message {i}").prompt for i in range(start, stop)} <= held


def test_update_with_a_given_test_file_adds_only_rows_not_there_yet(tmp_path):
    train, more = (rows_file(tmp_path / f"{a}.jsonl", intents(a, a + 9)) for a in (0, 10))
    test, wider = (rows_file(tmp_path / f"{b}.jsonl", intents(50, b)) for b in (55, 57))
    known = load_task("cards", train, test=test)
    task = update_task(known, load_task("cards", more, test=wider, known=known))
    assert task.test[:5] == known.test
    assert (len(task.train), len(task.test)) == (9, 7)


def test_update_by_one_row_needs_no_test_part_of_its_own(tmp_path, data):
    known = load_task("cards", data)
    task = updated(tmp_path, known, intents(70, 71))
    assert (len(task.train), task.test) == (1, known.test)


def test_update_inherits_settings_and_may_add_labels(tmp_path, data):
    settings = {"template": "Q: {text}", "labels": {"intent_0": "zero"}, "scorer": "f1"}
    known = load_task("cards", data, overrides=settings)
    task = updated(tmp_path, known, intents(30, 60), labels={"intent_9": "nine"})
    assert {row.answer for row in task.train} == {" zero", " intent 1", " intent 2"}
    assert task.spec.labels == {"intent_0": "zero", "intent_9": "nine"}
    assert (task.spec.template, task.scorer) == ("Q: {text}", {"name": "f1"})


def test_update_with_other_answers_is_scored_as_before(tmp_path):
    known = load_task("cards", rows_file(tmp_path / "a.jsonl", answered(range(8), "yes it is")))
    task = updated(tmp_path, known, answered(range(8, 16), "one two three four five six seven eight nine"))
    assert default_scorer(task.test, task.format) == "rouge_l"
    assert task.scorer == known.scorer == {"name": "exact"}


def answered(numbers, answer):
    return [{"prompt": f"q{i}", "completion": answer, "split": "test" if i % 2 else "train"} for i in numbers]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"template": "Z: {text}"}, "another template"),
        ({"labels": {"intent_0": "zero"}}, "another labels.intent_0"),
        ({"format": "text"}, "another format"),
        ({"scorer": "f1"}, "another scorer"),
    ],
)
def test_update_that_asks_differently_is_refused(tmp_path, data, change, message):
    known = load_task("cards", data)
    with pytest.raises(BadSpec, match=message):
        updated(tmp_path, known, intents(30, 60), **change)


def test_update_of_known_test_rows_only_is_refused(tmp_path, data):
    known = load_task("cards", data)
    rows = [{"text": text.split("\n")[1].removeprefix("Text: "), "label": "intent_0"} for text in texts(known.test)]
    with pytest.raises(BadInput, match="nothing to learn"):
        updated(tmp_path, known, rows)


# --- leaks


def part(task, train=(), test=(), validation=()):
    rows = [[Row(prompt=p, completion="x", source=f"{task}:{p}") for p in names] for names in (train, validation, test)]
    spec = make_spec({"name": task, "train": "a.jsonl"}, "test")
    return TaskData(spec, *map(tuple, rows), format="query_response")


def test_disjoint_tasks_pass_and_shared_train_rows_are_no_leak():
    refuse_leaks(part("new", "abc", "de"), [part("old", "abf", "gh"), part("older", "ab", "de")])


@pytest.mark.parametrize(
    ("new", "old", "message"),
    [
        (
            part("new", "abc", "cbz"),
            part("old"),
            "2 of 3 test rows of task 'new' are also in the train part of the same task",
        ),
        (
            part("new", "a", "bc"),
            part("old", "cd"),
            "1 of 2 test rows of task 'new' are also in the train part of task 'old'",
        ),
        (
            part("new", "ab", "c"),
            part("old", "d", "b"),
            "1 of 2 train rows of task 'new' are also in the test part of task 'old'",
        ),
        (part("new", "a", "bc"), part("new", "cd"), "are also in the train part of its version"),
        (part("new", "a", "b", "b"), part("old"), "are also in the train part of the same task"),
    ],
)
def test_leaks_are_refused_with_count_both_sources_and_what_to_do(new, old, message):
    with pytest.raises(BadInput) as caught:
        refuse_leaks(new, [old])
    assert message in str(caught.value)
    assert "new:" in str(caught.value)
    assert "pass --allow-leaks" in str(caught.value)


def test_the_first_leak_is_named_on_both_sides():
    with pytest.raises(BadInput, match="the first new:c as old:c"):
        refuse_leaks(part("new", "a", "zcb"), [part("old", "bc")])


def test_same_question_with_another_answer_is_a_leak():
    new = part("new", "a", "b")
    other = TaskData(new.spec, (Row(prompt="b", completion="another", source="x"),), (), (), "query_response")
    with pytest.raises(BadInput, match="the first new:b as x"):
        refuse_leaks(new, [other])


def test_a_question_with_choices_leaks_where_its_prompt_is_learned_and_not_where_others_share_it():
    asked = Row("b", " x", choices=(" x", " y"), gold=0, source="asked")
    new = TaskData(part("new").spec, (), (), (asked,), "choices")
    old = part("old", "ab")
    with pytest.raises(BadInput, match=r"1 of 1 test rows of task 'new' .* the first asked as old:b"):
        refuse_leaks(new, [old])
    with pytest.raises(BadInput, match=r"1 of 2 train rows of task 'old' .* the first old:b as asked"):
        refuse_leaks(old, [new])
    other = Row("b", " z", choices=(" z", " y"), gold=0, source="other")
    refuse_leaks(new, [TaskData(old.spec, (other,), (), (), "choices")])


# --- real data


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data are not here")
def test_real_intents_are_read_and_their_known_leaks_found():
    task = load_task("clinc", REAL / "intents" / "clinc150.jsonl.gz")
    assert (len(task.train), len(task.validation), len(task.test), len(task.labels)) == (15100, 3100, 5500, 151)
    with pytest.raises(BadInput, match="2 of 5500 test rows"):
        refuse_leaks(task, [])


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="the shared real data are not here")
def test_real_worked_solutions_are_not_scored_as_labels():
    assert load_task("gsm8k", REAL / "ability" / "gsm8k.jsonl.gz").scorer == {"name": "rouge_l"}


@pytest.mark.parametrize(
    ("answer", "format", "scorer", "version"),
    [
        ("card lost", "text_label", "exact", 1),
        ("café, größer", "prompt_completion", "rouge_l", 1),
        ("card lost", "text_label", "choice", 2),
        ("card lost", "messages", "exact", 2),
        ("东京", "prompt_completion", "exact", 2),
        ("cafe\u0301", "prompt_completion", "exact", 2),
        ("<think>no</think>yes", "prompt_completion", "exact", 2),
        ("yes</s>", "prompt_completion", "exact", 2),
    ],
)
def test_a_task_whose_scores_change_has_another_scoring_version(answer, format, scorer, version):
    assert scoring_version(scorer, format, [Row(prompt="ask", completion=answer)]) == version


def test_a_task_keeps_its_scorer_and_its_scoring_version_when_rows_go(tmp_path):
    rows = (Row(prompt="介绍", completion="东京是日本的首都，位于本州岛东部"),)
    spec = make_spec({"name": "t", "train": "t.jsonl"}, "t.jsonl")
    task = TaskData(spec, rows, (), rows, "prompt_completion")
    told = task.to_json()
    assert (task.scorer["name"], task.scoring) == ("rouge_l", 2)
    again = TaskData.from_json(told)
    assert (again.scorer, again.scoring, again.version) == (task.scorer, 2, task.version)
    old = TaskData.from_json(
        {key: value for key, value in told.items() if key not in ("default", "scoring")}, rows, (), rows
    )
    assert (old.scorer["name"], old.scoring) == ("exact", 2)  # learned when the text counted as one word
