from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.errors import BadInput
from perdure.core.rows import Row
from perdure.data.read import Record
from perdure.data.split import distinct, held_out, make_test_part, named_parts

labelled = st.builds(
    lambda question, label, answer: Row(prompt=f"{label} {question}", completion=f" {answer}", label=label),
    st.integers(0, 30),
    st.sampled_from(["a", "b", "c", None]),
    st.integers(0, 2),
)
rows_of = st.lists(labelled, max_size=60)
shares = st.floats(0.05, 0.95)


def questions(rows):
    return {row.question for row in rows}


@given(rows_of, shares, st.integers())
def test_sides_share_no_question_and_hold_every_row_in_order(rows, share, seed):
    train, test = make_test_part(rows, share, seed)
    assert not questions(train) & questions(test)
    asked = questions(test)
    assert train == [row for row in rows if row.question not in asked]
    assert test == [row for row in rows if row.question in asked]


@given(rows_of, shares, st.integers())
def test_each_label_gives_its_share_of_questions_at_least_one_and_never_all(rows, share, seed):
    per_label = Counter(row.label for row in {row.question: row for row in rows}.values())
    test = make_test_part(rows, share, seed)[1]
    drawn = Counter(row.label for row in {row.question: row for row in test}.values())
    if any(n > 1 for n in per_label.values()):
        for label, n in per_label.items():
            assert 0 < drawn[label] < n if n > 1 else drawn[label] == 0
            assert abs(drawn[label] - share * n) <= 1 or n == 1


@given(rows_of, shares, st.integers())
def test_same_seed_gives_the_same_split(rows, share, seed):
    assert make_test_part(rows, share, seed, "t") == make_test_part(rows, share, seed, "t")


def test_another_seed_gives_another_split():
    rows = [Row(prompt=str(i), completion="x") for i in range(50)]
    assert make_test_part(rows, 0.2, 0) != make_test_part(rows, 0.2, 1)


def test_new_rows_of_one_label_do_not_change_the_draw_of_another():
    old = [Row(prompt=f"a{i}", completion="x", label="a") for i in range(20)]
    more = [Row(prompt=f"b{i}", completion="x", label="b") for i in range(20)]
    assert make_test_part(old, 0.2, 0)[1] == [r for r in make_test_part(more + old, 0.2, 0)[1] if r.label == "a"]


def test_labels_with_one_row_each_are_drawn_from_together():
    rows = [Row(prompt=str(i), completion="x", label=str(i)) for i in range(10)]
    assert len(make_test_part(rows, 0.2, 0)[1]) == 2


def test_one_question_gives_no_test_part():
    rows = [Row(prompt="same", completion=str(i)) for i in range(10)]
    assert make_test_part(rows, 0.5, 0) == (rows, [])


@given(rows_of)
def test_distinct_keeps_each_text_once_where_it_first_stands(rows):
    kept = distinct(rows)
    assert len({row.hash for row in kept}) == len(kept)
    assert {row.hash for row in kept} == {row.hash for row in rows}
    positions = [next(i for i, other in enumerate(rows) if other.hash == row.hash) for row in kept]
    assert positions == sorted(positions)
    assert all(row is rows[i] for row, i in zip(kept, positions, strict=True))


def part_of(*splits):
    rows = [Row(completion=str(i)) for i in range(len(splits))]
    records = [Record({"text": "x"} | ({"split": s} if s != "none" else {}), f"f:{i}") for i, s in enumerate(splits, 1)]
    return {part: len(rows) for part, rows in named_parts(records, rows).items()}


def test_split_column_names_the_parts_and_validation_has_four_names():
    assert part_of("train", "Test", "validation", "val", "valid", "dev", "train") == {
        "train": 2,
        "validation": 4,
        "test": 1,
    }


def test_without_split_column_all_rows_are_train():
    assert part_of("none", "none") == {"train": 2, "validation": 0, "test": 0}
    assert part_of(None, None) == {"train": 2, "validation": 0, "test": 0}


@pytest.mark.parametrize("odd", ["edit", "", "none", None, 3])
def test_unknown_or_missing_split_is_refused_with_its_line(odd):
    with pytest.raises(BadInput, match=r"f:2: split is"):
        part_of("train", odd)


@given(st.integers(0, 50), st.floats(0.01, 0.49))
def test_what_is_held_out_is_a_share_at_least_one_and_never_all(n, share):
    train, validation = held_out(range(n), share, 0, "task")
    assert sorted([*train, *validation]) == list(range(n))
    assert (train, validation) == (sorted(train), sorted(validation))
    assert len(validation) == (max(round(share * n), 1) if n > 1 else 0)
    assert (len(train) > 0) == (n > 0)
