"""Instructions that a model wrote: their form, and copies among them."""

import pytest

from perdure.data.instructions import has_form, shingles, similarity, without_copies


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("What is the capital of France?", True),
        ("Explain gravity", False),  # two words
        (" ".join(["word"] * 60), True),
        (" ".join(["word"] * 61), False),
        ("What is this?\nIt is that.", False),
        ("What does <|im_end|> mean here?", False),
        ("What is the \ufffd of it?", False),  # tokens that are no whole character
        ("assistant: here is an answer", False),
        ("Users of this page ask much", False),  # begins as a role does
        ("\u5929\u6c14\u600e\u4e48\u6837", True),  # five letters of a script without spaces
    ],
)
def test_the_form_of_an_instruction(text, good):
    assert has_form(text, ["<|im_end|>"]) is good


def test_similarity_is_the_share_of_runs_that_both_have():
    assert shingles("abcdef") == {"abcde", "bcdef"}
    assert shingles("ABC") == {"abc"}
    assert similarity(shingles("abcdef"), shingles("bcdefg")) == pytest.approx(1 / 3)


def test_near_copies_are_left_out_in_order():
    texts = [
        "What is the capital city of France?",
        "what is the  capital city of France?!",
        "Name a tree and its leaves.",
    ]
    assert without_copies(texts) == [texts[0], texts[2]]
    assert without_copies(texts, known=["Name a tree and its leaves"]) == [texts[0]]
