"""Doubts: repeated rows, labels that look alike, and texts with several labels are counted and told."""

from perdure.core.rows import Row
from perdure.data.doubts import doubts


def row(text, label, line=1):
    return Row(prompt=text, completion=f" {label}", label=label, source=f"f.csv:{line}")


def told(*rows, format="text_label"):
    return doubts({"train": rows, "test": ()}, format)


def test_nothing_is_told_of_clean_rows():
    assert told(row("a", "yes"), row("b", "no")) == []


def test_rows_repeated_within_a_part_are_counted():
    a, b = row("a", "yes"), row("b", "no")
    assert told(a, b, a) == ["1 duplicate row dropped"]
    assert doubts({"train": [a, a, a], "test": [b, b]}, "text_label") == ["3 duplicate rows dropped"]
    assert doubts({"train": [a], "test": [a]}, "text_label") == []  # a leak, which is refused elsewhere


def test_labels_that_are_one_but_for_case_and_spaces_are_named():
    found = told(row("a", "Bill_wrong"), row("b", "bill wrong"), row("c", "bill  wrong"), row("d", "late"))
    assert found == ["labels 'Bill_wrong' and 'bill  wrong' and 'bill wrong' differ only in case or spaces"]


def test_texts_with_several_labels_are_counted_from_where_the_second_stands():
    rows = (
        row("a", "yes", 2),
        row("b", "no", 3),
        row("a", "no", 4),
        row("b", "no", 5),
        row("b", "yes", 6),
        row("a", "yes", 7),
    )
    assert told(*rows)[-1] == "2 texts have several labels, first f.csv:4"
    assert not any("several" in said for said in told(*rows, format="prompt_completion"))  # two good answers
