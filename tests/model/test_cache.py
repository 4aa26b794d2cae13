"""The cache of a prefix: a copy grows alone, rows are chosen, and a prefix moved behind padding serves every row."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from perdure.model.batch import padded
from perdure.model.cache import cache_rows, growing_copy, spread_over_rows
from perdure.model.head import logits_at, prefix_cache

PREFIX = [7, 8, 9, 10]


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@torch.no_grad()
def after(model, past, ids):
    """The logits of the last token of one row behind a cache."""
    at = torch.tensor([[0], [len(ids) - 1]])
    columns = past.get_seq_length() + len(ids)
    return logits_at(
        model, at, columns=columns, input_ids=torch.tensor([ids]), past_key_values=past, use_cache=True
    ).logits


@torch.no_grad()
def test_a_copy_grows_and_the_cache_serves_again(model):
    past = prefix_cache(model, input_ids=torch.tensor([PREFIX]))
    first, again = (after(model, growing_copy(past), [3, 4]) for _ in range(2))
    assert past.get_seq_length() == len(PREFIX)
    assert torch.equal(first, again)
    whole = model(torch.tensor([[*PREFIX, 3, 4]])).logits[:, -1]
    torch.testing.assert_close(first, whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_some_rows_of_a_cache_go_on_as_alone(model):
    prefixes = [PREFIX, PREFIX[::-1], [5, 5, 5, 5]]
    past = prefix_cache(model, input_ids=torch.tensor(prefixes))
    (row,) = (after(model, cache_rows(past, torch.tensor([1])), [3]),)
    torch.testing.assert_close(row, model(torch.tensor([[*prefixes[1], 3]])).logits[:, -1], rtol=1e-4, atol=1e-4)
    assert past.layers[0].keys.shape[0] == 3


@torch.no_grad()
def test_a_prefix_is_moved_behind_the_padding_of_each_row(model):
    rows = [[*PREFIX, 3, 4, 5], [*PREFIX, 6]]
    ids, mask = padded(rows, 0, left=True)
    past = prefix_cache(model, input_ids=torch.tensor([PREFIX]))
    spread_over_rows(past, len(PREFIX), ids.shape[1] - mask.sum(1))
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, len(PREFIX) :]
    at = torch.tensor([[0, 1], [ids.shape[1] - len(PREFIX) - 1] * 2])
    given = {"input_ids": ids[:, len(PREFIX) :], "attention_mask": mask, "position_ids": positions}
    found = logits_at(model, at, columns=ids.shape[1], past_key_values=past, use_cache=True, **given).logits
    alone = torch.cat([model(torch.tensor([row])).logits[:, -1] for row in rows])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
