"""What makes a learn likely to teach little or to decide nothing is said before anything is trained."""

import numpy as np
import pytest

from perdure.core.rows import Message, Row
from perdure.data.spec import make_spec
from perdure.data.task import TaskData
from perdure.ledger.records import Gate
from perdure.maths.statistics import items_needed, items_to_decide, paired_difference
from perdure.methods.registry import load_recipe
from perdure.workflows.learn.cautions import cautions, few_updates, rare_labels, repeated, small_test_part


def row(text, label="yes", source=""):
    return Row(prompt=text, completion=label, label=label, source=source)


def task(train, test, format="text_label"):
    return TaskData(make_spec({"name": "mail", "train": "a.jsonl"}, "task"), tuple(train), (), tuple(test), format)


def test_few_updates_are_told_with_their_number():
    recipe = load_recipe("naive", {"num_train_epochs": 7, "per_device_train_batch_size": 4})
    assert "(here 49)" in few_updates(28, recipe)[0]
    assert few_updates(32, recipe) == []


def test_labels_with_few_train_rows_are_named_unless_they_were_learned_before():
    train = [*(row(f"a {i}") for i in range(3)), *(row(f"b {i}", "no") for i in range(2))]
    made = task(train, [row("c", "never"), row("d")])
    (said,) = rare_labels(made, None)
    assert "2 labels have fewer than 3 train rows" in said
    assert "never has none" in said
    assert rare_labels(made, task([row("e", "no"), row("f", "never")], [])) == []
    assert rare_labels(task(train, [], "prompt_completion"), None) == rare_labels(task(train, []), None)
    sets = [row(f"g {i}", label) for i, label in enumerate(("a, b", "a, b", "a, c", "b"))]
    assert "1 label has fewer than 3 train rows, and will hardly be learned: 'c'" in rare_labels(
        task(sets, [], "text_labels"), None
    )[0].replace("c (c", "'c' (c")


def test_test_rows_in_the_words_of_a_train_row_are_counted():
    train = [row("My parcel, order 12: where?", source="a:1"), row("?", source="a:2")]
    test = [
        row("my parcel order 12 WHERE", source="b:1"),
        row("my parcel order 13 where", source="b:2"),
        row("!", source="b:3"),
    ]
    (said,) = repeated(task(train, test))
    assert "1 of 3 test rows asks what a train row asks, in the same words (the first b:1 as a:1)" in said
    turns = (Message("system", "x"), Message("user", "My parcel, order 12: where"), Message("assistant", "yes"))
    assert len(repeated(task(train, [Row(messages=turns, source="c:1")]))) == 1
    assert repeated(task(train, test[1:])) == []


@pytest.mark.parametrize("tolerance", [0.01, 0.03, 0.1])
def test_so_many_rows_decide_the_gate_where_nothing_changes_and_no_fewer(tolerance):
    least = items_to_decide(0.0, tolerance)
    for n, decided in ((least, True), (least - 1, False)):
        same = np.ones(n)
        assert (paired_difference(same, same, one_sided=True)[2] <= tolerance) is decided
    some = np.concatenate([np.ones(190), np.zeros(210)])
    other = np.concatenate(
        [np.zeros(10), np.ones(180), np.ones(10), np.zeros(200)]
    )  # one in twenty changes, 0 in the mean
    more = items_needed(some, other, tolerance)
    assert more == max(items_to_decide(0.05, tolerance) - 400, 0)
    tests = [row(f"{i}") for i in range(least - 1)]
    (said,) = small_test_part(task([row("a")], tests), Gate(tolerance=0.9, tolerances={"mail": tolerance}))
    assert f"that takes {least:,} where no answer changes" in said
    assert small_test_part(task([row("a")], [*tests, row("b")]), Gate(tolerance=tolerance)) == []


def test_without_a_gate_its_rows_are_not_counted():
    made = task([row(f"a {i}") for i in range(900)], [row("b")])
    assert cautions(made, None, 900, load_recipe("naive"), None) == []
    assert len(cautions(made, None, 900, load_recipe("naive"), Gate())) == 1
