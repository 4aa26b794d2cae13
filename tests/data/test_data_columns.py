"""Every column of a file is read, or named; one that carries the task is not left out without a word."""

import pytest

from json_files import rows_file
from perdure.bridges.trainer_rows import rows_of
from perdure.core.errors import BadInput, BadSpec
from perdure.data.load import load_probe, load_rows, load_task
from perdure.data.update import update_task

CLASSIFY = "Classify the text.\nText: {}\nLabel:"


def many(**fields):
    return [
        {name: value.format(i) if isinstance(value, str) else value for name, value in fields.items()}
        for i in range(10)
    ]


def load(tmp_path, rows, **settings):
    return load_task("t", rows_file(tmp_path / "a.jsonl", rows), overrides=settings)


@pytest.mark.parametrize(
    ("fields", "mapping"),
    [
        ({"text": "t{}", "category": "c"}, "label=category"),
        ({"text": "t{}", "intent_name": "c", "intent_id": 3}, "label=intent_name"),
        ({"text": "t{}", "labels": [1, 2]}, "label=labels"),
        ({"text": "t{}", "sentiment": 1, "id": 3}, "label=sentiment"),
        ({"text": "t{}", "target": True}, "label=target"),
        ({"text": "t{}", "summary": "s"}, "prompt=text,completion=summary"),
        ({"text": "t{}", "question": "q{}", "answer": "a"}, "prompt=question,completion=answer"),
        ({"instruction": "i{}", "context": "c", "output": "o"}, "input=context"),
        ({"query": "q{}", "passage": "c", "response": "o"}, "context=passage"),
    ],
)
def test_a_column_that_carries_the_task_is_not_left_out(tmp_path, fields, mapping):
    with pytest.raises(BadInput) as caught:
        load(tmp_path, many(**fields))
    told = str(caught.value)
    assert (
        f"give --columns {mapping} (`columns: {{{mapping.replace('=', ': ').replace(',', ', ')}}}` in a task file)"
        in told
    )
    assert told.startswith("a.jsonl:1: ")
    written = dict(pair.split("=") for pair in mapping.split(","))
    if "labels" not in fields:
        assert load(tmp_path, many(**fields), columns=written).train
    chosen = (
        {"format": "text"} if "text" in fields else {"format": "alpaca" if "output" in fields else "query_response"}
    )
    left = load(tmp_path, many(**fields), **chosen)
    assert set(left.unread) == set(fields) - {"text", "instruction", "output", "query", "response"}


def test_a_mapping_gives_the_rows_that_other_names_would_give(tmp_path):
    plain = load(tmp_path, many(prompt="q{}", completion="a{}"))
    task = load(tmp_path, many(question="q{}", answer="a{}"), columns={"prompt": "question", "completion": "answer"})
    assert (task.format, task.version, task.unread) == (plain.format, plain.version, ())
    assert [row.hash for row in task.train] == [row.hash for row in plain.train]
    assert task.to_json()["spec"]["columns"] == {"prompt": "question", "completion": "answer"}
    assert "columns" not in plain.to_json()["spec"]


@pytest.mark.parametrize(
    ("fields", "columns", "prompt", "completion"),
    [
        (
            {"review": "r{}", "topic": "a_b"},
            {"text": "review", "label": "topic"},
            CLASSIFY.format("r0"),
            " a b",
        ),
        (
            {"text": "t{}", "label": "x", "category": "y"},
            {"label": "category"},
            CLASSIFY.format("t0"),
            " y",
        ),
        ({"prompt": "p{}", "completion": "c", "messages": "m"}, {"prompt": "messages"}, "m", " c"),
        (
            {"prompt": "p{}", "completion": "c"},
            {"text": "prompt", "label": "completion"},
            "Classify the text.\nText: p0\nLabel:",
            " c",
        ),
        ({"body": "b{}"}, {"text": "body"}, "", "b0"),
        ({"q": "q{}", "c": "c", "a": "a"}, {"prompt": "q", "context": "c", "completion": "a"}, "c\n\nq0", " a"),
    ],
)
def test_a_mapping_stands_above_the_names_that_the_file_has(tmp_path, fields, columns, prompt, completion):
    rows = many(**fields)
    task = load_probe("t", rows_file(tmp_path / "a.jsonl", rows), {"columns": columns})
    assert (task.test[0].prompt, task.test[0].completion) == (prompt, completion)


def test_a_template_may_name_a_column_by_either_name(tmp_path):
    rows = many(passage="p", question="q{}", answer="a")
    columns = {"prompt": "question", "completion": "answer"}
    for name in ("question", "prompt"):
        task = load(tmp_path, rows, columns=columns, template=f"{{passage}} {{{name}}}:")
        assert task.format == "prompt_completion"
        assert sorted(row.prompt for row in (*task.train, *task.test)) == [f"p q{i}:" for i in range(10)]
        assert task.prompt_row({"passage": "x", name: "y"}).prompt == "x y:"
    with pytest.raises(BadInput, match="also needs"):
        task.prompt_row("y")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": "questoin", "completion": "answer"}, "takes prompt from 'questoin'.*; did you mean 'question'"),
        ({"prompt": "zzz", "completion": "answer"}, "it has question, answer"),
        ({"promt": "question"}, "unknown name 'promt', did you mean prompt?"),
        ({"zzz": "question"}, "unknown name 'zzz'; known are messages"),
        (
            {"prompt": "question", "completion": "answer", "history": "question"},
            "gives history, and the format prompt_completion reads",
        ),
        ({"prompt": 3}, "columns"),
        ("prompt=question", "columns"),
    ],
)
def test_a_mapping_that_is_of_no_use_is_refused(tmp_path, columns, message):
    with pytest.raises(BadSpec, match=message):
        load(tmp_path, many(question="q{}", answer="a{}"), columns=columns)


def test_columns_that_nothing_reads_are_told_once_with_their_rows(tmp_path):
    rows = many(text="t{}", label="a", domain="d", id=3, meta={"a": 1}, empty="", none=None, list=[])
    rows[0]["note"] = "n"
    task = load(tmp_path, rows)
    assert set(task.unread) == {"domain", "id", "meta", "note"}
    told = [text for text in task.notices if text.startswith("columns not read")]
    assert told == [
        "columns not read, with their filled rows: domain (10), note (1), id (10), meta (10); to use one, name it in a template "
        "({domain}) or name its role (--columns context=domain)"
    ]


def test_columns_that_say_where_a_row_comes_from_are_no_warning(tmp_path):
    rows = many(
        text="t{}", label="a", id=1, source="s", doc_id=4, url="u", created_at="c", __index_level_0__=3, task="t"
    )
    task = load(tmp_path, rows)
    assert task.unread == ("id", "source", "doc_id", "url", "created_at", "__index_level_0__", "task")
    assert task.notices == ()


def test_a_thousand_columns_are_one_short_line(tmp_path):
    task = load(
        tmp_path,
        [{**row, **{f"note {n} {'x' * 90}\x1b": "y" for n in range(1000)}} for row in many(text="t{}", label="a")],
    )
    assert len(task.unread) == 1000
    assert max(map(len, task.notices)) < 700
    assert "and 992 more" in task.notices[0]
    assert "\x1b" not in task.notices[0]


def test_tools_are_read_in_a_conversation_and_told_elsewhere(tmp_path):
    answer = [{"role": "assistant", "content": "Hello"}]
    asked = [[{"role": "user", "content": f"Hi {i}"}] for i in range(6)]
    more = {"tools": [{"name": "f"}], "system": "Be kind."}
    for rows in (
        [{"messages": q + answer, **more} for q in asked],
        [{"prompt": q, "completion": answer, **more} for q in asked],
    ):
        task = load(tmp_path, rows)
        assert (task.unread, task.notices) == ((), ())
        assert {row.messages[0].content for row in task.train} == {"Be kind."}
    told = load(tmp_path, many(prompt="p{}", completion="c", tools=[{"name": "f"}])).notices
    assert told == (
        "columns not read, with their filled rows: tools (10); tools belong to conversations (messages), and the model "
        "does not see these",
    )


@pytest.mark.parametrize("odd", [float("nan"), [{"function": {"name": "f", "arguments": {"x": float("inf")}}}]])
def test_what_a_template_is_given_must_be_plain(tmp_path, odd):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x", "tool_calls": odd}]
    with pytest.raises(BadInput, match=r"a.jsonl:1, turn 2: "):
        load(tmp_path, [{"messages": turns}] * 3)


def test_a_thousand_fields_of_turns_are_a_few_lines(tmp_path):
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "x", **{f"{'f' * 99}{n}": 1 for n in range(999)}},
    ]
    told = [
        text
        for text in load(
            tmp_path, [{"messages": [{**turns[0], "content": f"{i}"}, turns[1]]} for i in range(5)]
        ).notices
    ]
    assert len(told) == 9
    assert max(map(len, told)) < 150
    assert told[-1] == "991 more fields of turns are not read"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "p{}", "chosen": "a", "rejected": "b"}, "preference data .DPO"),
        ({"chosen": [{"role": "user", "content": "p"}], "rejected": "b", "score": 1}, "preference data .DPO"),
        (
            {"prompt": "p{}", "completion": "x", "chosen": "a", "rejected": "b"},
            "preference data .DPO.*--columns completion=chosen",
        ),
        ({"text": "p{}", "chosen": "a", "rejected": "b"}, "preference data .DPO"),
        (
            {"prompt": "p{}", "completion": "x", "images": ["a.png"]},
            "the column images is not read, for perdure trains on text",
        ),
    ],
)
def test_preferences_and_pictures_are_refused(tmp_path, fields, message):
    with pytest.raises(BadInput, match=message):
        load(tmp_path, many(**fields))


def test_answers_marked_true_and_false_are_preference_data(tmp_path):
    rows = [{"prompt": f"p{i}", "completion": f"a{i}", "label": i % 2 == 0} for i in range(9)]
    with pytest.raises(
        BadInput, match=r"a.jsonl:1: a label of true or false with free answers is preference data \(KTO\)"
    ):
        load(tmp_path, rows)
    decided = [{"prompt": f"p{i}", "completion": ["no", "yes"][i % 2], "label": i % 2 == 1} for i in range(9)]
    assert load(tmp_path, decided).labels == ["false", "true"]


def test_chosen_answers_may_be_learned_by_name(tmp_path):
    task = load(tmp_path, many(prompt="p{}", chosen="a{}", rejected="b"), columns={"completion": "chosen"})
    assert {row.completion[:2] for row in task.train} == {" a"}
    assert task.unread == ("rejected",)


def test_names_that_differ_in_case_alone_are_taken_for_the_known_ones(tmp_path):
    task = load(tmp_path, many(Text="t{}", LABEL="a", Domain="d"))
    assert (task.format, task.unread) == ("text_label", ("Domain",))
    assert "a.jsonl: Text, LABEL is read as text, label" in task.notices
    assert load(tmp_path, many(Text="t{}", LABEL="a"), template="{Text}:").train[0].prompt.startswith("t")
    two = load(tmp_path, many(text="t{}", label="a", Label="b"))
    assert (two.labels, two.unread) == (["a"], ("Label",))


def test_texts_for_labels_that_no_row_has_are_told(tmp_path):
    rows = many(text="t{}", label="yes")
    told = "`labels` gives texts for 0, 1, and no row has such a label; they are yes"
    assert told in load(tmp_path, rows, labels={"0": "no", "1": "yes"}).notices
    assert load(tmp_path, rows, labels={"yes": "fine", "no": "bad"}).notices == ()


def test_general_rows_and_test_rows_are_held_to_the_same(tmp_path):
    path = rows_file(tmp_path / "g.jsonl", many(instruction="i{}", context="c", response="r"))
    with pytest.raises(BadInput, match="rename context to input, response to output in the file"):
        load_rows(path)
    train = rows_file(tmp_path / "a.jsonl", many(text="t{}", label="a"))
    test = rows_file(tmp_path / "test.jsonl", many(text="s{}", label="a", domain="d"))
    assert load_task("t", train, test=test).unread == ("domain",)


def test_an_update_is_read_by_the_columns_of_the_task(tmp_path):
    columns = {"prompt": "question", "completion": "answer"}
    known = load(tmp_path, many(question="q{}", answer="a"), columns=columns)
    more = rows_file(tmp_path / "b.jsonl", many(question="more {}", answer="a"))
    assert len(update_task(known, load_task("t", more, known=known)).train) == 8
    other = rows_file(tmp_path / "c.jsonl", many(prompt="other {}", completion="a"))
    with pytest.raises(BadSpec, match="takes prompt from 'question', a column that c"):
        load_task("t", other, known=known)
    names = {"prompt": "prompt", "completion": "completion"}
    assert load_task("t", other, known=known, overrides={"columns": names}).train


class Dataset(list):
    """Rows with features, as `datasets` has them."""

    class features:
        """What the columns are."""

        @staticmethod
        def to_dict():
            """Return them as a schema of Parquet has them."""
            return {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}


def test_a_dataset_of_a_training_script_is_held_to_the_same(tiny_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = Dataset({"text": f"t{i}", "label": i % 2, "domain": "d"} for i in range(4))
    with pytest.warns(UserWarning, match="columns not read, with their filled rows: domain"):
        kept = rows_of(rows, tokenizer, task="t", stage=0, max_length=64)
    assert [one.label for one in kept] == ["no", "yes", "no", "yes"]
    with pytest.raises(BadInput, match=r"train_dataset\[0\]: .* rename category to label in the file"):
        rows_of([{"text": "a", "category": "b"}], tokenizer, task="t", stage=0, max_length=64)
