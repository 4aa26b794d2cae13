import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.errors import BadInput, BadSpec
from perdure.core.rows import Check, Message, Row
from perdure.data.columns import IN_TASK
from perdure.data.formats import FORMATS, alpaca_prompt, detect, fill, names_in, to_rows
from perdure.data.programs import program_check
from perdure.data.read import Record

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}
TALK = (Message("user", "Hi"), Message("assistant", "Hello"))
SYSTEM = Message("system", "Be kind.")
PLAIN = "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
PAIRED = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
)

EXAMPLES = [
    ("messages", {"messages": [USER, ANSWER]}, {"messages": TALK}),
    ("messages", {"messages": [USER, ANSWER, USER]}, {"messages": TALK}),
    ("messages", {"messages": [{**USER, "content": [{"type": "text", "text": "Hi"}]}, ANSWER]}, {"messages": TALK}),
    ("messages", {"messages": [USER, {**ANSWER, "tool_calls": None}], "prompt": "Hi"}, {"messages": TALK}),
    ("sharegpt", {"conversations": [HUMAN, GPT]}, {"messages": TALK}),
    ("sharegpt", {"conversations": [HUMAN, GPT], "system": "Be kind."}, {"messages": (SYSTEM, *TALK)}),
    (
        "sharegpt",
        {"conversations": [{"from": "system", "value": "Be kind."}, HUMAN, GPT]},
        {"messages": (SYSTEM, *TALK)},
    ),
    ("prompt_completion", {"prompt": "2+2=", "completion": "4"}, {"prompt": "2+2=", "completion": " 4"}),
    ("prompt_completion", {"prompt": "2+2=\n", "completion": "4"}, {"prompt": "2+2=\n", "completion": "4"}),
    ("prompt_completion", {"prompt": "2+2=", "completion": "\n4"}, {"prompt": "2+2=", "completion": "\n4"}),
    ("prompt_completion", {"prompt": "", "completion": "4"}, {"completion": "4"}),
    ("prompt_completion", {"prompt": [USER], "completion": [ANSWER]}, {"messages": TALK}),
    (
        "prompt_completion",
        {"prompt": "a", "completion": "b", "label": 3},
        {"prompt": "a", "completion": " b", "label": "3"},
    ),
    (
        "alpaca",
        {"instruction": "Add.", "input": "", "output": "4"},
        {"prompt": PLAIN + "### Instruction:\nAdd.\n\n### Response:\n", "completion": "4"},
    ),
    (
        "alpaca",
        {"instruction": "Add.", "input": "2 2", "output": "4"},
        {"prompt": PAIRED + "### Instruction:\nAdd.\n\n### Input:\n2 2\n\n### Response:\n", "completion": "4"},
    ),
    (
        "alpaca",
        {"instruction": "Add.", "output": "4", "system": "Be kind.", "history": [["Hi", "Hello"]]},
        {
            "prompt": "Be kind.\n\n### Instruction:\nHi\n\n### Response:\nHello"
            "\n\n### Instruction:\nAdd.\n\n### Response:\n",
            "completion": "4",
        },
    ),
    ("query_response", {"query": "Hi", "response": "Hello"}, {"prompt": "Hi", "completion": " Hello"}),
    ("text", {"text": "Once."}, {"completion": "Once."}),
    (
        "choices",
        {"prompt": "Hot?", "choices": ["sun", "moon"], "gold": 0, "completion": "A"},
        {"prompt": "Hot?", "completion": " sun", "choices": (" sun", " moon"), "gold": 0},
    ),
    (
        "choices",
        {"prompt": "2+2=\n", "choices": [3, "4"], "gold": "4", "group": "sums", "date": 2021},
        {"prompt": "2+2=\n", "completion": "4", "choices": ("3", "4"), "gold": 1, "group": "sums", "date": "2021"},
    ),
    (
        "contexts",
        {"contexts": ["Ann", "Bob"], "choices": "ran.", "gold": 1},
        {"prompt": "Bob", "completion": " ran.", "choices": (" ran.",), "contexts": ("Ann", "Bob"), "gold": 1},
    ),
    (
        "checks",
        {"prompt": "Hi", "instruction_ids": ["a:b", "c:d"], "kwargs": [{"n": 1, "m": None}, None]},
        {
            "messages": (Message("user", "Hi"), Message("assistant", "")),
            "checks": (Check("a:b", '{"n":1}'), Check("c:d")),
        },
    ),
    (
        "text_label",
        {"text": "so good", "label": "very_good"},
        {"prompt": "Classify the text.\nText: so good\nLabel:", "completion": " very good", "label": "very_good"},
    ),
    (
        "text_labels",
        {"text": "so good", "label": ["very_good", "bad"]},
        {
            "prompt": "Classify the text.\nText: so good\nLabel:",
            "completion": " bad, very good",
            "label": "bad, very_good",
        },
    ),
    (
        "programs",
        {"prompt": "def two():\n", "test": "assert two() == 2", "entry_point": "two"},
        {"prompt": "def two():\n", "checks": (program_check("assert two() == 2", "two"),)},
    ),
]


def records(*rows):
    return [Record(row, f"f.jsonl:{line}") for line, row in enumerate(rows, start=1)]


@pytest.mark.parametrize(("format", "fields", "expected"), EXAMPLES)
def test_each_format_is_detected_and_gives_its_row(format, fields, expected):
    assert detect(records(fields)) == format
    assert to_rows(records(fields), format, task="t") == [Row(**expected, task="t", source="f.jsonl:1")]


def test_examples_cover_every_format_that_is_detected():
    assert {format for format, _, _ in EXAMPLES} == set(FORMATS) - {"aliases"}  # which is read only where it is named


def test_null_columns_do_not_decide_the_format():
    assert detect(records({"text": "a", "label": None, "messages": None})) == "text"


@pytest.mark.parametrize(
    ("label", "name", "answer"),
    [
        (0, "0", " negative"),
        (1.0, "1", " fine"),
        (2, "2", " 2"),
        (True, "true", " true"),
        ("not_sure", "not_sure", " not sure"),
    ],
)
def test_verbaliser_gives_the_answer_and_the_label_keeps_its_name(label, name, answer):
    rows = to_rows(records({"text": "a", "label": label}), "text_label", labels={"0": "negative", "1": "fine"})
    assert (rows[0].label, rows[0].completion) == (name, answer)


def test_template_may_name_other_columns_than_text():
    template = "{{A}} {premise} / {hypothesis}:"
    fields = records({"premise": "p {text}", "hypothesis": "h", "label": "yes"})
    assert detect(fields, template) == "text_label"
    assert to_rows(fields, "text_label", template=template)[0].prompt == "{A} p {text} / h:"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{txet}:", "did you mean {text}?"),
        ("{zzz}:", "columns are label, text"),
        ("{text.__class__}", "which is not a column"),
        ("{0}{text}", "which is not a column"),
        ("{}", "which is not a column"),
        ("{text!r}", "plain {column}"),
        ("{text:>9}", "plain {column}"),
        ("{text", "write {column}"),
        ("no column", "names no column"),
    ],
)
def test_bad_template_is_refused_with_the_nearest_column(template, message):
    with pytest.raises(BadSpec) as caught:
        to_rows(records({"text": "a", "label": "b"}), "text_label", template=template)
    assert message in str(caught.value)


@pytest.mark.parametrize("setting", [{"template": "{text}"}, {"labels": {"a": "b"}}])
def test_settings_of_text_label_are_refused_for_other_formats(setting):
    with pytest.raises(BadSpec, match="belongs to the format text_label"):
        to_rows(records({"text": "a"}), "text", **setting)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "a", "completion": " \n"}, "completion is empty"),
        ({"prompt": "a"}, "has no completion"),
        ({"prompt": "a", "completion": None}, "has no completion"),
        ({"prompt": "a", "completion": 0.1}, "completion must be text, got the number 0.1; put it in quotes"),
        ({"prompt": "a", "completion": True}, "completion must be text, got true; write the answer of the model"),
        ({"prompt": "a", "completion": {"text": ["b"], "at": [1]}}, "got an object (text, at); write the text"),
        ({"query": "a", "response": ["b", "c"]}, "got a list of 2; write the text"),
        ({"prompt": [USER], "completion": "x"}, "both text or both lists"),
        ({"prompt": "a", "completion": "b", "label": [1]}, "label must be one text or number"),
        ({"prompt": "a", "completion": "\ud800"}, "surrogate"),
        ({"query": "a", "response": ""}, "response is empty"),
        ({"text": ""}, "text is empty"),
        ({"text": "a", "label": ""}, "label is empty"),
        ({"text": " ", "label": "b"}, "text is empty"),
        ({"instruction": "a", "output": ""}, "output is empty"),
        ({"instruction": "a", "output": "b", "history": [["only one"]]}, "history must be"),
        ({"messages": []}, "has no assistant turn"),
        ({"messages": [USER]}, "has no assistant turn"),
        ({"messages": [USER, {**ANSWER, "content": ""}]}, "empty assistant turn"),
        ({"messages": [ANSWER]}, "has no user turn before"),
        ({"messages": "Hi"}, "turns must be a list"),
        ({"messages": [USER, "Hello"]}, "turn 2 must be an object"),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, "content must be text"),
        ({"messages": [USER, {"role": "bot", "content": "x"}]}, "turn 2: role is 'bot'"),
        ({"messages": [USER, {**ANSWER, "tool_calls": [{"id": 1}]}]}, "names no function"),
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "marks every assistant turn with train: false"),
        ({"conversations": [HUMAN, {"from": "bing", "value": "x"}]}, "turn 2: from is 'bing'"),
    ],
)
def test_row_with_nothing_to_train_or_of_wrong_shape_is_refused_with_its_line(fields, message):
    good = {
        "prompt": {"prompt": "a", "completion": "b"},
        "query": {"query": "a", "response": "b"},
        "text": {"text": "a", "label": "b"} if "label" in fields else {"text": "a"},
        "instruction": {"instruction": "a", "output": "b"},
        "messages": {"messages": [USER, ANSWER]},
        "conversations": {"conversations": [HUMAN, GPT]},
    }[next(iter(fields))]
    rows = records(good, good, fields)
    with pytest.raises(BadInput) as caught:
        to_rows(rows, detect(rows))
    assert "f.jsonl:3" in str(caught.value)
    assert message in str(caught.value)


def test_turns_that_are_not_trained_are_read_and_a_conversation_ends_with_its_last_trained_answer():
    turns = [USER, {**ANSWER, "train": False}, USER, ANSWER, USER, {**ANSWER, "weight": 0}]
    (row,) = to_rows(records({"messages": turns}), "messages")
    assert [turn.train for turn in row.messages] == [True, False, True, True]
    (plain,) = to_rows(records({"messages": [{**turn, "train": True} for turn in turns[:4]]}), "messages")
    assert plain == to_rows(records({"messages": [USER, ANSWER, USER, ANSWER]}), "messages")[0]


def test_a_whole_number_is_read_as_the_text_that_writes_it():
    rows = records({"prompt": "what is 2 + 2?", "completion": 4}, {"prompt": 7, "completion": "seven"})
    assert [(row.prompt, row.completion) for row in to_rows(rows, detect(rows))] == [
        ("what is 2 + 2?", " 4"),
        ("7", " seven"),
    ]


def test_a_hint_that_would_map_a_nested_column_says_first_that_it_is_no_text():
    squad = {"context": "c", "question": "q", "answers": {"text": ["a"], "answer_start": [1]}}
    with pytest.raises(BadInput, match=r"answers holds an object \(text, answer_start\); write the text in a column"):
        detect(records(squad))
    with pytest.raises(BadInput, match="answers holds a list of 2; write the text"):
        detect(records({"question": "q", "answers": ["a", "b"]}))


def test_label_missing_in_one_row_is_named_with_its_line():
    rows = records({"text": "a"}, {"text": "a", "label": "b"}, {"text": "a", "label": "b"})
    with pytest.raises(BadInput, match=r"f.jsonl:1 has no label"):
        to_rows(rows, detect(rows))


def test_mixed_formats_name_the_first_row_that_differs():
    rows = records({"text": "a"}, {"messages": [USER, ANSWER]}, {"query": "a", "response": "b"}, {"text": "b"})
    with pytest.raises(BadInput, match=r"f.jsonl:2 is messages .* 2 rows are text, the first f.jsonl:1"):
        detect(rows)


def test_unknown_columns_are_named_beside_the_known_formats():
    with pytest.raises(
        BadInput, match=r"f.jsonl:1 has columns answer, question; known formats need messages | .*prompt"
    ):
        detect(records({"question": "a", "answer": "b"}))


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        (
            {"question": "a", "answer": "b"},
            r"give --columns prompt=question,completion=answer \(`columns: \{prompt: question, ",
        ),
        ({"question": "a", "answer": "b", "passage": "c"}, "prompt=question,context=passage,completion=answer"),
        (
            {"instruction": "a", "context": "b", "response": "c", "category": "d"},
            "--columns input=context,output=response ",
        ),
        ({"input": "a", "output": "b"}, "--columns prompt=input,completion=output "),
        ({"source": "a", "target": "b"}, "--columns prompt=source,completion=target "),
        ({"sentence": "a", "topic": "b"}, "--columns text=sentence,label=topic "),
        ({"review": "a", "intent_name": "b", "intent_id": 3}, "--columns text=review,label=intent_name "),
        ({"premise": "a", "hypothesis": "b", "label": 0}, r"--template '\{premise\} \{hypothesis\}'"),
        ({"ans": "a", "qn": "b"}, "name the role of each column: give --columns prompt=qn,completion=ans "),
        ({"id": 1, "output": "a", "given": "b"}, "give --columns prompt=given,completion=output "),
        ({"target": "a", "given": "b"}, "give --columns prompt=given,completion=target "),
        ({"left": "a", "right": "b"}, "name the role of each column: give --columns prompt=left,completion=right "),
    ],
)
def test_unknown_columns_come_with_a_next_step(fields, hint):
    with pytest.raises(BadInput, match=hint):
        detect(records(fields), how=IN_TASK)


def test_spaces_around_a_label_make_no_other_class():
    rows = to_rows(records({"text": "a", "label": "yes "}, {"text": "a", "label": "yes"}), "text_label")
    assert [(row.label, row.completion) for row in rows] == [("yes", " yes")] * 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_label_that_is_no_number_is_refused(value):
    with pytest.raises(BadInput, match=r"f\.jsonl:2: label is (nan|inf), which is no value"):
        to_rows(records({"text": "a", "label": 1.0}, {"text": "b", "label": value}), "text_label")


NAN = float("nan")


@pytest.mark.parametrize("value", [NAN, float("inf"), float("-inf"), np.float64("nan"), np.datetime64("NaT")])
@pytest.mark.parametrize(
    ("fields", "column"),
    [
        ({"text": NAN, "label": "a"}, "text"),
        ({"text": NAN}, "text"),
        ({"text": "a", "label": NAN}, "label"),
        ({"prompt": NAN, "completion": "a"}, "prompt"),
        ({"prompt": "a", "completion": NAN}, "completion"),
        ({"prompt": "a", "completion": "b", "label": NAN}, "label"),
        ({"instruction": "a", "input": NAN, "output": "b"}, "input"),
        ({"instruction": "a", "output": NAN}, "output"),
        ({"query": NAN, "response": "a"}, "query"),
        ({"messages": [USER, ANSWER], "system": NAN}, "system"),
    ],
)
def test_a_value_that_is_not_there_is_no_text(fields, column, value):
    rows = records(fields, {name: value if item is NAN else item for name, item in fields.items()})
    good = Record({name: "x" if item is NAN else item for name, item in fields.items()}, "f.jsonl:1")
    with pytest.raises(BadInput, match=rf"f\.jsonl:2: {column} is (nan|-?inf|NaT), which is no value"):
        to_rows([good, rows[1]], detect(rows))


def test_the_word_nan_is_a_text():
    rows = to_rows(records({"text": "nan", "label": "nan"}), "text_label")
    assert (rows[0].prompt, rows[0].label) == ("Classify the text.\nText: nan\nLabel:", "nan")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (NAN, "b is nan, which is no value"),
        ([1], "b is a list, and a prompt"),
        ({}, "b is a dict"),
        (b"x", "b is a bytes"),
    ],
)
def test_what_is_no_text_is_refused_in_a_template(value, message):
    with pytest.raises(BadInput, match=rf"f\.jsonl:1: {message}"):
        to_rows(records({"a": "x", "b": value, "label": "y"}), "text_label", template="{a} {b}")


@pytest.mark.parametrize("template", ["{text}" * 101, "{text} " + "x" * 50_000])
def test_a_template_without_end_is_refused(template):
    with pytest.raises(BadSpec, match="are the most"):
        to_rows(records({"text": "a", "label": "b"}), "text_label", template=template)


def test_a_template_makes_the_prompt_of_a_mapped_completion():
    fields = {"passage": "p", "question": "q", "completion": "an_answer"}
    rows = records(fields)
    template = "{passage}\n{question}:"
    assert detect(rows, template, {"completion": "answer"}) == "prompt_completion"
    assert detect(rows, template, {"completion": "answer", "label": "x"}) == "text_label"
    row = to_rows(rows, "prompt_completion", template=template)[0]
    assert (row.prompt, row.completion) == ("p\nq:", " an_answer")


@pytest.mark.parametrize(
    ("format", "fields", "prompt"),
    [
        ("prompt_completion", {"prompt": "q", "completion": "a"}, "c\n\nq"),
        ("query_response", {"query": "q", "response": "a"}, "c\n\nq"),
        ("alpaca", {"instruction": "q", "output": "a"}, alpaca_prompt("q", "c")),
    ],
)
def test_a_mapped_context_stands_before_what_is_asked(format, fields, prompt):
    rows = records({**fields, "context": "c"}, {**fields, "context": None})
    assert [row.prompt for row in to_rows(rows, format, mapped=["context"])] == [
        prompt,
        to_rows(rows[1:], format)[0].prompt,
    ]


def test_a_system_column_opens_a_conversation_once():
    both = {"messages": [{"role": "system", "content": "Be kind."}, USER, ANSWER], "system": "Be kind."}
    rows = to_rows(records({"messages": [USER, ANSWER], "system": "Be kind."}, both), "messages")
    assert [row.messages for row in rows] == [(SYSTEM, *TALK)] * 2


@pytest.mark.parametrize("role", [["user"], {}, 3, None, True])
def test_a_role_that_is_no_text_is_refused(role):
    with pytest.raises(BadInput, match=r"f\.jsonl:1, turn 1: role is"):
        to_rows(records({"messages": [{"role": role, "content": "x"}]}), "messages")


@given(values=st.dictionaries(st.sampled_from(["text", "a.b", "0", "my col"]), st.text(), min_size=1))
def test_fill_writes_values_as_they_are_whatever_braces_they_hold(values):
    template = "|".join(f"{{{name}}}" for name in values)
    assert names_in(template) == list(values)
    assert fill(template, values) == "|".join(values.values())


def test_alpaca_prompt_mentions_an_input_only_where_there_is_one():
    assert "paired with an input" in alpaca_prompt("Add.", "2 2")
    assert "Input" not in alpaca_prompt("Add.")
