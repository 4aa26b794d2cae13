"""Rows to tokens: what is trained, that its end is, and what is cut when a row is too long."""

from dataclasses import replace

import pytest

from perdure.core.errors import BadInput
from perdure.core.rows import Message, Row
from perdure.data.encode import Encoded, chat_text, encode, prompt_ids

CHAT = (
    Message("system", "Be brief."),
    Message("user", "Where is my parcel?"),
    Message("assistant", "At the depot."),
    Message("user", "And my refund?"),
    Message("assistant", "On its way."),
)
NO_END = (
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
THINKING = (  # the open prompt holds more than the turn it becomes
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>{% endif %}"
)
FORGETFUL = "{% for m in messages[-2:] %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def template(tokenizer):
    """Sets the chat template for one test."""
    before = tokenizer.chat_template
    yield lambda text: setattr(tokenizer, "chat_template", text)
    tokenizer.chat_template = before


def parts(encoded, tokenizer):
    """Return the text of each run of tokens that are all trained, or all not, as (trained, text)."""
    runs: list[tuple[bool, list[int]]] = []
    for token, trained in zip(encoded.ids, encoded.trained, strict=True):
        if not runs or runs[-1][0] != trained:
            runs.append((trained, []))
        runs[-1][1].append(token)
    return [(trained, tokenizer.decode(ids, skip_special_tokens=False)) for trained, ids in runs]


# --- prompt and completion


def test_the_completion_and_its_end_are_trained_and_the_prompt_is_not(tokenizer):
    row = encode(Row("Label:", " refund"), tokenizer, 64)
    assert parts(row, tokenizer) == [(False, "Label:"), (True, " refund<|im_end|>")]
    assert row.ids[-1] == tokenizer.eos_token_id
    assert (row.cut, row.targets) == (0, sum(row.trained))


def test_the_prompt_is_tokenised_as_it_will_be_asked(tokenizer):
    for row in (
        Row("Label:", " refund"),
        Row("Label: re", "fund"),
        Row("Text: a\nLabel:", "x"),
        Row(messages=CHAT[:3]),
    ):
        asked, made = prompt_ids(row, tokenizer), encode(row, tokenizer, 999)
        assert list(made.ids[: len(asked)]) == asked
        assert made.trained.index(True) == len(asked)


def test_a_token_that_straddles_the_seam_is_split_there(tokenizer):
    def ids(text):
        return tokenizer(text)["input_ids"]

    word = "parcel"
    cut = next(i for i in range(1, len(word)) if ids(word)[: len(ids(word[:i]))] != ids(word[:i]))
    row = encode(Row(word[:cut], word[cut:]), tokenizer, 64)
    assert parts(row, tokenizer) == [(False, word[:cut]), (True, word[cut:] + "<|im_end|>")]
    assert row.ids == (*ids(word[:cut]), *ids(word[cut:]), tokenizer.eos_token_id)


def test_pure_text_is_trained_from_its_second_token(tokenizer):
    row = encode(Row(completion="refund parcel"), tokenizer, 64)
    assert all(row.trained)
    assert (row.first, row.targets) == (1, len(row) - 1)


@pytest.mark.parametrize("row", [Row(), Row(source="rows.jsonl:7")])
def test_a_row_with_nothing_to_train_is_refused_with_its_place(tokenizer, row):
    with pytest.raises(BadInput, match=f"{row.source or 'a row'}: nothing to train"):
        encode(row, tokenizer, 64)


def test_a_closing_token_that_the_tokenizer_adds_to_the_prompt_is_not_kept():
    class Closing:
        eos_token, eos_token_id = "</s>", 2

        def __call__(self, text, add_special_tokens=True):
            return {"input_ids": [1] * add_special_tokens + [ord(c) for c in text] + [2] * add_special_tokens}

    row = encode(Row("ab", "c"), Closing(), 64)
    assert row == Encoded((1, 97, 98, 99, 2), (False, False, False, True, True))
    assert prompt_ids(Row("ab", "c"), Closing()) == [1, 97, 98]


# --- conversations


def test_every_assistant_turn_is_trained_with_its_end_and_nothing_else(tokenizer):
    row = encode(Row(messages=CHAT), tokenizer, 999)
    assert [text for trained, text in parts(row, tokenizer) if trained] == [
        "At the depot.<|im_end|>",
        "On its way.<|im_end|>",
    ]
    assert (
        "".join(text for _, text in parts(row, tokenizer)).strip() == chat_text(CHAT, tokenizer, prompt=False).strip()
    )


def test_the_last_turn_alone_or_the_whole_row_has_a_loss_where_it_is_wished(tokenizer):
    row = Row(messages=CHAT)
    plain, last, whole = (encode(row, tokenizer, 999, train_on=what) for what in ("completion", "last_turn", "all"))
    assert plain == encode(row, tokenizer, 999)
    assert plain.ids == last.ids == whole.ids
    trained = [text for trained, text in parts(plain, tokenizer) if trained]
    assert [text for trained, text in parts(last, tokenizer) if trained] == trained[-1:] != trained
    assert whole.trained[:-1] == (True,) * (len(whole) - 1)  # white space may follow the end
    pair = Row("Label:", " refund")
    text = encode(pair, tokenizer, 64, train_on="all")
    assert text.trained == (True,) * len(text)
    assert (text.first, text.targets) == (1, len(text) - 1)
    assert encode(Row("Label:", " refund"), tokenizer, 64, train_on="last_turn") == encode(
        Row("Label:", " refund"), tokenizer, 64
    )


def test_a_turn_that_says_so_has_no_loss(tokenizer):
    answers = [i for i, turn in enumerate(CHAT) if turn.role == "assistant"]
    turns = [replace(turn, train=False) if i in (answers[0] - 1, answers[0]) else turn for i, turn in enumerate(CHAT)]
    row = Row(messages=tuple(turns))
    plain, marked, whole = (
        encode(Row(messages=CHAT), tokenizer, 999),
        encode(row, tokenizer, 999),
        encode(row, tokenizer, 999, train_on="all"),
    )
    assert marked.ids == plain.ids == whole.ids
    trained = [text for trained, text in parts(plain, tokenizer) if trained]
    assert [text for trained, text in parts(marked, tokenizer) if trained] == trained[1:]
    left_out = "".join(text for trained, text in parts(whole, tokenizer) if not trained)
    for turn in turns[:-1]:
        assert (turn.content in left_out) is not turn.train
    assert row.hash != Row(messages=CHAT).hash
    assert Row.from_json(row.to_json()) == row
    assert "train" not in str(Row(messages=CHAT).to_json()["messages"])


def test_a_template_without_an_end_of_turn_gets_one(tokenizer, template):
    template(NO_END)
    row = encode(Row(messages=CHAT[:3]), tokenizer, 999)
    assert parts(row, tokenizer)[-1] == (True, "At the depot.<|im_end|>")


def test_a_thought_block_that_the_prompt_opens_is_closed_before_the_answer(tokenizer, template):
    template(THINKING)
    row = encode(Row(messages=CHAT[:3]), tokenizer, 999)
    asked = prompt_ids(Row(messages=CHAT[:3]), tokenizer)
    assert parts(row, tokenizer)[0] == (False, tokenizer.decode(asked))
    assert [text for trained, text in parts(row, tokenizer) if trained] == ["\n\n</think>\n\nAt the depot.<|im_end|>"]


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer, template):
    template(FORGETFUL)
    with pytest.raises(BadInput, match=r"chat\.jsonl:3: .*rewrites earlier turns.*split the conversation"):
        encode(Row(messages=CHAT, source="chat.jsonl:3"), tokenizer, 999)


def test_conversations_need_a_chat_template(tokenizer, template):
    template(None)
    with pytest.raises(BadInput, match="no chat template"):
        encode(Row(messages=CHAT), tokenizer, 999)


def test_a_conversation_without_an_answer_is_refused(tokenizer):
    with pytest.raises(BadInput, match=r"chat\.jsonl:3: nothing to train"):
        encode(Row(messages=CHAT[:2], source="chat.jsonl:3"), tokenizer, 999)


# --- too long


def test_a_long_prompt_loses_its_start_and_the_answer_stays(tokenizer):
    whole = encode(Row("very long " * 20 + "Label:", " refund"), tokenizer, 999)
    for length in range(whole.targets + 1, len(whole)):
        row = encode(Row("very long " * 20 + "Label:", " refund"), tokenizer, length)
        assert (row.ids, row.trained) == (whole.ids[-length:], whole.trained[-length:])
        assert (row.cut, row.targets) == (len(whole) - length, whole.targets)


def test_an_answer_that_is_too_long_loses_its_end_and_leaves_its_prompt_a_quarter(tokenizer):
    whole = encode(Row("Label:", " parcel" * 30), tokenizer, 999)
    for length in (2, 8, 12):
        row, left = encode(Row("Label:", " parcel" * 30), tokenizer, length), max(length // 4, 1)
        assert row.ids == whole.ids[whole.first - left :][:length]
        assert row.trained == (False,) * left + (True,) * (length - left)
        assert row.cut == len(whole) - length
    short = encode(Row("Label:", " parcel" * 30), tokenizer, 4 * whole.first)
    assert short.ids == whole.ids[: 4 * whole.first]  # a prompt below a quarter stays whole


def test_a_long_conversation_keeps_its_beginning(tokenizer):
    whole = encode(Row(messages=CHAT), tokenizer, 999)
    end = whole.trained.index(False, whole.first)
    for length in (len(whole) - 4, end + 1, end):
        row = encode(Row(messages=CHAT), tokenizer, length)
        assert (row.ids, row.trained) == (whole.ids[:length], whole.trained[:length])
    row = encode(Row(messages=CHAT), tokenizer, end - 4)
    assert row.ids == whole.ids[4:end]


@pytest.mark.parametrize("length", [8, 20, 40])
def test_a_long_conversation_keeps_its_length_and_something_to_train(tokenizer, length):
    row = encode(Row(messages=CHAT), tokenizer, length)
    assert len(row) == length
    assert row.targets > 0
    assert row.cut > 0
