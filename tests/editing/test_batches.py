"""Batches of facts: of about the size asked for, and the same ones without a fact, but for its own."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.editing.batches import batch_name, batch_of, batches


def ids(count, salt=0):
    return [hashlib.sha256(f"{salt} {n}".encode()).hexdigest() for n in range(count)]


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 50))
def test_every_fact_is_in_one_batch_whatever_the_order(count, size, salt):
    facts = ids(count, salt)
    made = batches(facts, size)
    assert sorted(one for batch in made for one in batch) == sorted(facts)
    assert batches(facts[::-1], size) == made
    assert all(batch_of(one, facts, size) == batch for batch in made for one in batch)
    assert all(batch == sorted(batch) for batch in made)


@pytest.mark.parametrize(("count", "size"), [(100, 8), (1000, 8), (57, 16)])
def test_batches_have_about_the_size_asked_for(count, size):
    sizes = [len(batch) for batch in batches(ids(count), size)]
    assert size / 1.5 <= count / len(sizes) <= size * 1.5
    assert max(sizes) <= 3 * size


def test_few_facts_are_one_batch_and_with_one_each_is_alone():
    assert batches(ids(8), 8) == [sorted(ids(8))]
    assert batches(ids(5), 1) == [[one] for one in sorted(ids(5))]
    assert batches([], 8) == []


def test_without_a_fact_only_its_own_batch_is_another():
    facts = ids(100)
    for gone in facts:
        before, after = batches(facts, 8), batches([one for one in facts if one != gone], 8)
        expected = [[one for one in batch if one != gone] for batch in before]
        assert after == [batch for batch in expected if batch]


def test_a_batch_has_a_name_unless_it_is_one_fact():
    one, two, three = ids(3)
    assert batch_name([one]) == ""
    assert batch_name([one, two]) == batch_name([two, one]) != batch_name([one, three])
