"""Service: every group the same, no row twice in a draw, and among equals the row that costs the least padding."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.memory.service import Server, by_weight, chances


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6),  # rows of each group
    st.lists(st.integers(1, 6), min_size=1, max_size=20),  # sizes of the draws
    st.integers(0, 99),
)
def test_every_group_is_served_equally_give_or_take_one(rows, sizes, seed):
    groups = [name for name, count in enumerate(rows) for _ in range(count)]
    server = Server(groups, [5 + i % 3 for i in range(len(groups))])
    served = Counter(dict.fromkeys(groups, 0))
    for update, size in enumerate(sizes):
        chosen = server.serve(min(size, len(rows)), 6, seed, update)  # no group must be asked twice for its only row
        assert len(chosen) == min(size, len(rows))
        served.update(groups[i] for i in chosen)
        assert max(served.values()) - min(served.values()) <= 1
    for name in range(len(rows)):  # and inside a group, every row
        mine = [count for count, group in zip(server.served, groups, strict=True) if group == name]
        assert max(mine) - min(mine) <= 1
    assert sum(server.served) == sum(served.values())


@given(st.integers(1, 12), st.integers(0, 20), st.integers(0, 99))
def test_no_row_is_served_twice_in_a_draw_and_no_more_than_there_are(rows, size, seed):
    chosen = Server([i % 3 for i in range(rows)], [4] * rows).serve(size, 4, seed)
    assert len(chosen) == len(set(chosen)) == min(size, rows)


def test_a_draw_depends_on_its_key_alone():
    def draw(*key):
        return Server(list("aabbccdd"), [4] * 8).serve(3, 4, *key)

    assert draw(0, "task", 1) == draw(0, "task", 1)
    assert len({tuple(draw(0, "task", update)) for update in range(20)}) > 5


@pytest.mark.parametrize(
    ("lengths", "batch", "best"),
    [([9, 5, 2], 5, 1), ([9, 6, 2], 5, 1), ([8, 3], 5, 1), ([7, 2], 5, 1), ([6, 1], 5, 0)],
)
def test_the_row_nearest_in_length_is_served_first_and_a_longer_one_counts_double(lengths, batch, best):
    for groups in (["a"] * len(lengths), list(range(len(lengths)))):  # within a group, and between groups
        assert Server(groups, lengths).serve(1, batch, 0) == [best]


def test_length_never_costs_a_row_its_turn():
    server = Server(list("ab"), [5, 500])
    assert [server.serve(1, 5, update)[0] for update in range(4)] == [0, 1, 0, 1]


def test_service_goes_on_where_a_checkpoint_left_it():
    whole = Server(list("aabbc"), [4] * 5)
    draws = [whole.serve(2, 4, update) for update in range(6)]
    first = Server(list("aabbc"), [4] * 5)
    for update in range(3):
        first.serve(2, 4, update)
    second = Server(list("aabbc"), [4] * 5, list(first.served))
    assert [second.serve(2, 4, update) for update in range(3, 6)] == draws[3:]


weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 1e3)), min_size=1, max_size=12)


@given(weights, st.integers(0, 14))
def test_chances_sum_to_the_size_and_keep_the_proportions_of_rows_that_are_not_certain(given_weights, size):
    made = chances(given_weights, size)
    drawable = np.count_nonzero(given_weights)
    assert made.sum() == pytest.approx(min(size, drawable))
    assert (made <= 1).all()
    assert all(chance == 0 for chance, weight in zip(made, given_weights, strict=True) if not weight)
    free = [i for i in range(len(made)) if 0 < made[i] < 1]
    rates = [made[i] / given_weights[i] for i in free]
    assert rates == pytest.approx([rates[0]] * len(rates)) if rates else True
    assert all(made[i] >= made[j] for i in free for j in free if given_weights[i] > given_weights[j])


@given(weights, st.integers(0, 14), st.integers(0, 99))
def test_by_weight_draws_different_rows_of_positive_weight_and_as_many_as_there_are(given_weights, size, seed):
    drawn = by_weight(given_weights, size, seed)
    assert len(drawn) == len(set(drawn)) == min(size, np.count_nonzero(given_weights))
    assert all(given_weights[i] > 0 for i in drawn)
    assert drawn == by_weight(given_weights, size, seed)


def test_every_row_is_drawn_as_often_as_its_chance_says():
    given_weights, draws = [1.0, 2.0, 3.0, 4.0, 30.0, 0.0], 6000
    made = chances(given_weights, 3)
    seen = np.bincount([i for seed in range(draws) for i in by_weight(given_weights, 3, seed)], minlength=6) / draws
    assert made[4] == 1  # 3 x 30 / 40 is more than once: it is certain
    np.testing.assert_allclose(made[:4], [0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(seen, made, atol=4 * 0.5 / draws**0.5)
