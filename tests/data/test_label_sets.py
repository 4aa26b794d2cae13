"""Several labels a row, templates over any column, and what is said where the answer is not named."""

import pytest

from json_files import rows_file
from perdure.core.errors import BadInput, BadSpec
from perdure.core.rows import Row
from perdure.data.columns import FORMATS
from perdure.data.load import load_task
from perdure.data.task import TaskData
from perdure.data.update import update_task

TOPICS = [["money", "post"], [], ["post", "money"], ["post"], ["post", "post"]]
SETS = [{"text": f"t{i}", "label": TOPICS[i % 5]} for i in range(20)]


def load(tmp_path, rows, **settings):
    return load_task("t", rows_file(tmp_path / "a.jsonl", rows), overrides=settings)


def everything(task):
    return sorted((*task.train, *task.test), key=lambda row: int(row.source.split(":")[1]))


def test_a_list_of_labels_is_one_answer_sorted_and_an_empty_list_is_none(tmp_path):
    task = load(tmp_path, SETS)
    rows = everything(task)
    assert task.format == "text_labels"
    assert [row.completion for row in rows[:5]] == [" money, post", " none", " money, post", " post", " post"]
    assert [row.label for row in rows[:5]] == ["money, post", "none", "money, post", "post", "post"]
    assert rows[0].prompt == "Classify the text.\nText: t0\nLabel:"
    assert task.labels == ["money", "none", "post"]
    assert task.scorer == {"name": "set_f1"}
    assert task.answers_are_labels
    assert not task.unread
    assert TaskData.from_json(task.to_json(), task.train, task.validation, task.test) == task
    assert task.prompt_row("x").prompt == "Classify the text.\nText: x\nLabel:"


def test_labels_of_a_list_have_texts_and_numbers_are_names(tmp_path):
    task = load(tmp_path, SETS, labels={"money": "cash", "none": "nothing applies"})
    assert [row.completion for row in everything(task)[:2]] == [" cash, post", " nothing applies"]
    numbers = load(tmp_path, [{"text": f"t{i}", "label": [2, 1.0, True]} for i in range(5)])
    assert numbers.train[0].completion == " 1, 2, true"


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (["a", None], "a.jsonl:2: a label of the list is empty"),
        (["a", " "], "a.jsonl:2: a label of the list is empty"),
        ([["a"]], "a.jsonl:2: label must be one text or number, got a list"),
        ([{"a": 1}], "a.jsonl:2: label must be one text or number, got a dict"),
        ([float("nan")], "a.jsonl:2: label is nan"),
        (["film, music"], r"a.jsonl:2: the label 'film, music' holds a comma, .* give it a text without one"),
        (None, "a.jsonl:2 has no label, which text_labels needs"),
    ],
)
def test_a_list_with_what_is_no_label_is_refused(tmp_path, label, message):
    rows = [{**row, "label": label} if i == 1 else row for i, row in enumerate(SETS)]
    with pytest.raises(BadInput, match=message):
        load(tmp_path, rows)


def test_a_text_without_a_comma_serves_a_label_with_one(tmp_path):
    rows = [{"text": f"t{i}", "label": ["film, music"]} for i in range(5)]
    assert load(tmp_path, rows, labels={"film, music": "film and music"}).train[0].completion == " film and music"


def test_one_label_among_lists_is_a_list_of_one_and_a_list_among_labels_is_refused(tmp_path):
    assert load(tmp_path, [*SETS, {"text": "u", "label": "post"}]).format == "text_labels"
    rows = [*({"text": f"u{i}", "label": "post"} for i in range(30)), *SETS]
    with pytest.raises(BadInput, match="label must be one text or number, got a list"):
        load(tmp_path, rows)


def test_lists_are_read_from_a_column_of_any_name_with_a_template(tmp_path):
    rows = [{"title": f"t{i}", "body": "b", "topics": TOPICS[i % 5]} for i in range(10)]
    task = load(tmp_path, rows, columns={"label": "topics"}, template="{title}: {body}\nTopics:")
    assert everything(task)[0].prompt == "t0: b\nTopics:"
    assert everything(task)[0].completion == " money, post"


def test_a_column_labels_that_holds_lists_of_texts_is_read_without_a_mapping(tmp_path):
    several = [{"text": f"t{i}", "labels": TOPICS[i % 5]} for i in range(10)]
    task = load(tmp_path, several)
    assert task.format == "text_labels"
    assert any("labels is read as label" in notice for notice in task.notices)
    assert not any("not read" in notice for notice in task.notices)
    assert task.unread == ()
    assert task.version == load(tmp_path, several, columns={"label": "labels"}).version
    assert load(tmp_path, [{**row, "label": "mine"} for row in several]).format == "text_label"
    for other in ([1, 2], "post", []):
        rows = [{**row, "labels": other} for row in several]
        if other:
            with pytest.raises(BadInput, match="give --columns label=labels"):
                load(tmp_path, rows)
        else:
            assert load(tmp_path, rows).format == "text"
    assert load(tmp_path, several, format="text").format == "text"


def test_an_update_keeps_the_texts_of_labels_in_lists(tmp_path):
    task = load(tmp_path, SETS[:10])
    new = [{"text": f"n{i}", "label": ["money", "new"]} for i in range(5)]
    more = load_task("t", rows_file(tmp_path / "b.jsonl", new), known=task)
    assert update_task(task, more).labels == ["money", "new", "none", "post"]
    other = load_task("t", rows_file(tmp_path / "b.jsonl", new), known=task, overrides={"labels": {"money": "cash"}})
    with pytest.raises(BadSpec, match=r"labels\.money"):
        update_task(task, other)


def test_texts_of_labels_that_no_list_has_are_named(tmp_path):
    assert not [n for n in load(tmp_path, SETS, labels={"post": "mail"}).notices if "`labels`" in n]
    assert [n for n in load(tmp_path, SETS, labels={"mail": "post"}).notices if "no row has such a label" in n]


def test_the_formats_of_one_label_and_of_several_are_told_apart_by_the_label_alone():
    assert FORMATS["text_labels"] == FORMATS["text_label"]
    assert list(FORMATS).index("text_label") < list(FORMATS).index("text_labels")


# ---- templates

PASSAGES = [{"context": f"c{i}", "question": f"q{i}?", "answer": f"a{i}", "id": i} for i in range(10)]
TEMPLATE = "{context}\n\nQ: {question}\nA:"


def test_a_template_names_any_column(tmp_path):
    task = load(tmp_path, PASSAGES, template=TEMPLATE, columns={"completion": "answer"})
    assert everything(task)[0].prompt == "c0\n\nQ: q0?\nA:"
    assert everything(task)[0].completion == " a0"
    plain = [{**row, "completion": row["answer"]} for row in PASSAGES]
    assert load(tmp_path, plain, template=TEMPLATE).format == "prompt_completion"


@pytest.mark.parametrize(
    ("answer", "mapping"), [("answer", "completion=answer"), ("category", "label=category"), ("x", "completion=COLUMN")]
)
def test_a_template_without_an_answer_shows_the_mapping_to_write(tmp_path, answer, mapping):
    rows = [{"context": "c", "question": f"q{i}?", answer: f"a{i}"} for i in range(10)]
    with pytest.raises(BadInput) as caught:
        load(tmp_path, rows, template=TEMPLATE)
    assert "a.jsonl:1: the template makes the prompt, and no column is the answer; name it: give" in str(caught.value)
    assert f"--columns {mapping} " in str(caught.value)


def test_a_file_that_cannot_be_read_shows_the_mapping_to_write_whatever_it_is(tmp_path):
    for name, content in (
        ("a.csv", "frage;antwort\nx;y\n"),
        ("a.tsv", "frage\tantwort\nx\ty\n"),
        ("folder/a.csv", "frage;antwort\nx;y\n"),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        with pytest.raises(
            BadInput, match="name the role of each column: give --columns prompt=frage,completion=antwort"
        ):
            load_task("t", path.parent if "/" in name else path)


# ---- system prompts


CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "2+2=", "completion": "4"}, "Be brief.\n\n2+2="),
        ({"query": "2+2=", "response": "4"}, "Be brief.\n\n2+2="),
        ({"text": "x", "label": "a"}, "Be brief.\n\nClassify the text.\nText: x\nLabel:"),
        ({"text": "x", "label": ["a"]}, "Be brief.\n\nClassify the text.\nText: x\nLabel:"),
    ],
)
def test_the_system_prompt_of_a_task_begins_the_prompt_of_plain_text(tmp_path, row, prompt):
    first, *_ = row
    task = load(tmp_path, [row, *({**row, first: f"{row[first]}{i}"} for i in range(6))], system="Be brief.")
    asked = everything(task)[0]
    assert asked.prompt == prompt
    assert task.prompt_row(row[first]) == Row(prompt=prompt, task="t")
    assert task.prompt_row(row[first]).question == asked.question


def test_the_system_prompt_of_a_task_opens_its_conversations(tmp_path):
    rows = [{"messages": [{"role": "user", "content": f"Hi {i}"}, CHAT[1]]} for i in range(8)]
    own = {"messages": [{"role": "system", "content": "Own."}, {"role": "user", "content": "Hi there"}, CHAT[1]]}
    task = load(tmp_path, [*rows, own], system="Be brief.", test_size=0.3)
    assert [row.messages[0].content for row in everything(task)] == ["Be brief."] * 8 + ["Own."]
    assert "1 row with a system prompt of their own, which is used instead of the task's" in task.notices
    same = load(tmp_path, [{"system": "Be brief.", **row} for row in rows])
    assert [row.hash for row in everything(same)] == [row.hash for row in everything(task)[:8]]
    assert task.prompt_row("x").messages[0].content == "Be brief."
    listed = [
        {"prompt": [{"role": "user", "content": f"Hi {i}"}], "completion": [{"role": "assistant", "content": str(i)}]}
        for i in range(8)
    ]
    assert load(tmp_path, listed, system="S").train[0].messages[0].content == "S"


def test_the_system_prompt_of_a_task_opens_the_prompt_of_alpaca(tmp_path):
    rows = [{"instruction": f"Add {i}.", "output": "4"} for i in range(6)]
    task = load(tmp_path, [*rows, {"instruction": "Sub.", "output": "1", "system": "Own."}], system="Be brief.")
    assert everything(task)[0].prompt.startswith("Be brief.\n\n### Instruction:\nAdd 0.")
    assert everything(task)[6].prompt.startswith("Own.\n\n")
    assert task.prompt_row("Add 0.").prompt == everything(task)[0].prompt
    assert "1 row with a system prompt of their own, which is used instead of the task's" in task.notices


def test_a_system_prompt_is_part_of_the_task(tmp_path):
    rows = [{"prompt": f"{i}+2=", "completion": "4"} for i in range(8)]
    plain, task = load(tmp_path, rows), load(tmp_path, rows, system="Be brief.")
    assert plain.version != task.version
    again = load_task("t", rows_file(tmp_path / "b.jsonl", [{"prompt": "9", "completion": "4"}] * 3), known=task)
    assert again.spec.system == "Be brief."
    with pytest.raises(BadSpec, match="learned with another system"):
        update_task(task, load(tmp_path, rows, system="Be long."))
    with pytest.raises(BadSpec, match="`system` belongs to rows with a question"):
        load(tmp_path, [{"text": f"t{i}"} for i in range(5)], system="S")
    with pytest.raises(BadSpec, match="`system`"):
        load(tmp_path, rows, system="")
