"""An answer that is written as its tokens come: the pieces are the answer, whatever the tokenizer."""

import pytest

import chats
from perdure.data.answers import Reader
from perdure.data.streaming import TextStream

KINDS = ["chatml", "think", "cut", "turn", "labels", "sentencepiece"]
TEXTS = [
    "yes, cancel the bill",
    "  two\n\nlines and a tab\t. ",
    "<think>is it spam? maybe</think>\n\nno",
    "<think>a</think> <think>b</think> yes",
    "<think>it never ends",
    "<thin is no thought",
    "a <think>later one</think> stays",
    "café – naïve 字 🙂 done",
    "",
]


def streamed(reader, ids, tag):
    pieces: list[str] = []
    stream = TextStream(reader, tag, pieces.append)
    for token in ids:
        stream.add(token)
    before = "".join(pieces)
    stream.end()
    return before, pieces


@pytest.mark.parametrize("tag", [None, "<think>"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_are_the_answer(kind, text, tag):
    tokenizer = chats.tokenizer(kind)
    reader = Reader.of(tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    before, pieces = streamed(reader, ids, tag)
    answer = reader.text(ids, tag)
    assert "".join(pieces) == answer
    assert answer.startswith(before)
    assert "think" not in before or "think" in answer
    assert all("\ufffd" not in piece for piece in pieces)


def test_words_come_one_by_one_and_not_at_the_end():
    tokenizer = chats.tokenizer("chatml")
    ids = tokenizer("yes no maybe cancel help", add_special_tokens=False)["input_ids"]
    before, pieces = streamed(Reader.of(tokenizer), ids, None)
    assert before == "yes no maybe cancel help"
    assert len(pieces) > 4


def test_an_answer_that_a_tokenizer_reads_otherwise_later_is_written_again_whole():
    class Reads:
        before = ()

        def text(self, ids, tag=None):
            return ["", "one", "two", "two three"][len(ids)]

    _, pieces = streamed(Reads(), [1, 2, 3], None)
    assert pieces == ["one", "\n", "two three"]
