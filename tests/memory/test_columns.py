"""Stored distributions: packed into one block and back, row by row, whatever rows lack them or hold fewer tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.step import TopK
from perdure.maths.divergence import kl_to_teacher, top_k
from perdure.memory.columns import pack, unpack


def told(seed, tokens, k=3, vocab=50):
    torch.manual_seed(seed)
    return TopK(*top_k(torch.randn(tokens, vocab), k))


def assert_near(found, stored):
    assert torch.equal(found.index.long(), stored.index)
    torch.testing.assert_close(found.logprob.float(), stored.logprob, rtol=1e-3, atol=1e-3)  # float16
    torch.testing.assert_close(found.tail.float(), stored.tail, rtol=1e-3, atol=1e-3)


@settings(max_examples=40)
@given(st.lists(st.one_of(st.none(), st.integers(1, 6)), max_size=8))
def test_what_was_packed_comes_back_for_the_rows_that_had_it(tokens):
    keys = [f"row {i}" for i in range(len(tokens))]
    columns = {"teacher": {key: told(i, n) for i, (key, n) in enumerate(zip(keys, tokens, strict=True)) if n}}
    found = unpack(pack(columns, keys), keys)
    assert found.get("teacher", {}).keys() == columns["teacher"].keys()
    for key, stored in columns["teacher"].items():
        assert_near(found["teacher"][key], stored)


def test_columns_stay_apart_and_rows_not_asked_for_stay_out():
    columns = {"teacher": {"a": told(1, 2), "gone": told(2, 3)}, "base.model": {"b": told(3, 1, k=5)}}
    tensors = pack(columns, ["a", "b"])
    found = unpack(tensors, ["a", "b"])
    assert {name: set(rows) for name, rows in found.items()} == {"teacher": {"a"}, "base.model": {"b"}}
    assert tensors["teacher.index"].dtype == torch.int32
    assert tensors["teacher.logprob"].dtype == tensors["teacher.tail"].dtype == torch.float16
    assert tensors["teacher.length"].tolist() == [2, 0]


def test_packing_again_what_came_back_changes_no_bit():
    keys = ["a", "b"]
    once = pack({"teacher": {"a": told(1, 2), "b": told(2, 4)}}, keys)
    again = pack(unpack(once, keys), keys)
    assert once.keys() == again.keys()
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_rows_told_with_different_k_are_kept_at_the_smaller_one():
    found = unpack(pack({"teacher": {"a": told(1, 2, k=8), "b": told(2, 3, k=4)}}, ["a", "b"]), ["a", "b"])["teacher"]
    assert_near(found["a"], told(1, 2, k=4))
    assert_near(found["b"], told(2, 3, k=4))


def test_narrowing_is_the_distribution_with_more_of_it_in_the_tail():
    narrow, expected = told(1, 4, k=9).narrowed(2), told(1, 4, k=2)
    assert torch.equal(narrow.index, expected.index)
    torch.testing.assert_close(narrow.tail, expected.tail)
    assert told(1, 4, k=2).narrowed(5).index.shape == (4, 2)


def test_float16_costs_less_than_a_thousandth_nat():
    torch.manual_seed(0)
    teacher, student = 3 * torch.randn(64, 50), 3 * torch.randn(64, 50)
    stored = TopK(*top_k(teacher, 8))
    back = unpack(pack({"t": {"a": stored}}, ["a"]), ["a"])["t"]["a"]
    exact = kl_to_teacher(student, stored.index, stored.logprob, stored.tail).mean().item()
    assert kl_to_teacher(student, back.index, back.logprob, back.tail).mean().item() == pytest.approx(exact, abs=1e-3)
