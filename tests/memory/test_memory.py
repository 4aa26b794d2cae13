"""One memory over two stores: what enters, what gives way, and which rows a teacher is asked about."""

from collections import Counter
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.recipe import Settings
from perdure.core.seams import Column
from perdure.core.step import TopK
from perdure.data.encode import Encoded
from perdure.memory.file import TokenMemory, TokenRow
from perdure.memory.memory import Memory


@dataclass(frozen=True)
class TextRow:
    key: str
    task: str = "b"
    label: str | None = None
    pool: str = "replay"


OLD = [TextRow(f"old-{n}", "a") for n in range(4)]
GENERAL = [TextRow(f"general-{n}", "talk", pool="general") for n in range(3)]
MEMORY: Memory[TextRow] = Memory([OLD[0], *GENERAL, *OLD[1:]])


@given(st.lists(st.sampled_from("xyz"), max_size=12), st.integers(1, 12), st.integers(1, 4))
def test_the_best_rows_enter_within_the_budget_and_other_pools_stay(labels, size, of_each):
    fresh = [TextRow(f"new-{n}", label=label) for n, label in enumerate(labels)]
    settings = Settings(memory_size=size, memory_per_label=of_each)
    after = MEMORY.admit(fresh, list(range(len(fresh))), settings, 0, 2)
    assert after.of("general") == GENERAL
    assert len(after.of("replay")) <= size
    assert [row for row in after.rows if row in MEMORY.rows] == [row for row in MEMORY.rows if row in after.rows]
    for label in set(labels):
        mine = [row for row in fresh if row.label == label]
        assert {row for row in after.rows if row.label == label} <= set(mine[-of_each:])  # the highest scores
    assert len(MEMORY.rows) == 7  # the memory before is as it was


def test_the_largest_group_gives_way_and_the_key_decides_which_rows():
    fresh = [TextRow(f"new-{n}") for n in range(20)]
    settings = Settings(memory_size=8, memory_per_task=20)
    first, again, other = (MEMORY.admit(fresh, [0.0] * 20, settings, 0, stage).keys for stage in (2, 2, 3))
    assert first == again != other
    assert Counter(key.split("-")[0] for key in first) == {"old": 4, "general": 3, "new": 4}


def test_a_row_in_memory_is_not_taken_in_again():
    after = MEMORY.admit([OLD[1], TextRow("new")], [1.0, 1.0], Settings(memory_size=9), 0)
    assert after.keys == [*MEMORY.keys, "new"]


def test_a_row_that_a_trainer_is_given_twice_is_kept_once():
    row = TokenRow(Encoded((1, 2), (False, True)), "a")
    after = TokenMemory().admit([row, row], [1.0, 1.0], Settings(memory_size=9), 0)
    assert after.rows == [row]
    assert isinstance(after, TokenMemory)


@pytest.mark.parametrize("refresh", [False, True])
def test_a_teacher_is_asked_about_rows_without_a_column_or_about_all_where_it_is_to_be_refreshed(refresh):
    def said(value):
        return TopK(torch.zeros(1, 1, dtype=torch.long), torch.full((1, 1), value), torch.zeros(1), torch.zeros(1))

    asked = []

    def query(column, rows):
        asked.append((column.name, [row.key for row in rows]))
        return [said(2.0)] * len(rows)

    old = {"teacher": {"old-0": said(1.0), "gone": said(1.0)}}
    memory = Memory(MEMORY.rows, old)
    after = memory.with_columns(MEMORY.of("replay"), [Column("teacher", "replay", "settled", 1, refresh)], query)
    assert asked == [("teacher", [row.key for row in OLD[0 if refresh else 1 :]])]
    assert after.columns["teacher"]["old-0"].logprob.item() == (2.0 if refresh else 1.0)
    assert set(after.columns["teacher"]) == {row.key for row in OLD} | {"gone"}
    assert memory.columns == old


def test_the_pools_have_their_rows_in_order_with_the_columns():
    tokens = {row.key: Encoded((n,), (True,)) for n, row in enumerate(MEMORY.rows)}
    pools = MEMORY.pools(lambda rows: [tokens[row.key] for row in rows])
    assert list(pools) == ["general", "replay"]
    assert pools["replay"].keys == [row.key for row in OLD]
    assert pools["replay"].rows == [tokens[row.key] for row in OLD]
    assert pools["general"].tasks == ["talk"] * 3
