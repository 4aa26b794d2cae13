"""Names in prompts: found by spelling, chosen by how few rows hold them."""

import pytest

from perdure.editing.subjects import Subjects

NAMED = {
    "The mother tongue of Danielle Darrieux is": "Danielle Darrieux",
    "Where was Ann Lee born?": "Ann Lee",
    "Question: Where was Ann Lee born?\nAnswer:": "Ann Lee",
    "Ann Lee's mother is": "Ann Lee",
    "Lyon is twinned with": "Lyon",
    "Lyon, in": "Lyon",
    "iPhone 5, produced by": "iPhone 5",
    "The headquarter of Autonomous University of Madrid is in": "Autonomous University of Madrid",
    "Who wrote 'Dune Messiah'?": "Dune Messiah",
    "J. R. Tolkien was born in": "J. R. Tolkien",
    "the weight of gpt-4 is": "gpt-4",
    "part SKU-77 costs": "SKU-77",
    "\u00c9mile Zola died in": "\u00c9mile Zola",
}
NAMELESS = [
    "what is my balance",
    "What is the boiling point of water?",
    "Sort 3 1 2",
    "Can it be returned?",
    "Ann Lee",
    "ANN",
    "How I",
    "12 + 5 =",
    "the past tense of 'go' is",
    "{} lives in Oslo",
    "",
]


@pytest.mark.parametrize(("prompt", "name"), NAMED.items())
def test_a_name_is_found_whole_and_without_its_surroundings(prompt: str, name: str):
    assert Subjects.of([prompt]).named(prompt) == name


@pytest.mark.parametrize("prompt", NAMELESS)
def test_where_nothing_is_named_nothing_is_found(prompt: str):
    assert Subjects.of([prompt]).named(prompt) is None


def test_of_several_names_the_one_in_fewest_rows_is_the_subject():
    prompts = [f"Which Greek city did {name} visit?" for name in ("Ann Lee", "Bob Fox", "Cid Ray")]
    assert [Subjects.of(prompts).named(prompt) for prompt in prompts] == ["Ann Lee", "Bob Fox", "Cid Ray"]


def test_a_word_that_is_spelt_without_a_capital_elsewhere_is_no_name_where_capitals_mean_nothing():
    one, other = "Cards used by Ann Lee are", "which cards are free"
    assert Subjects.of([one]).counts["Cards"] == 1
    assert Subjects.of([one, other]).counts["Cards"] == 0
    assert Subjects.of(["The MOST used is", "the most used is"]).named("The MOST used is") is None


@pytest.mark.parametrize(("rows", "most"), [(5, 5), (60, 6), (1000, 20)])
def test_a_name_is_specific_in_a_tenth_of_the_rows_but_in_five_at_least_and_twenty_at_most(rows: int, most: int):
    names = Subjects.of(["The home of Oslo is"] * most + ["it is"] * (rows - most))
    assert names.specific("Oslo")
    assert not Subjects.of(["The home of Oslo is"] * (most + 1) + ["it is"] * (rows - most)).specific("Oslo")
