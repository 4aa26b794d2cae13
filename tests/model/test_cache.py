"""The cache of a prefix: a copy grows alone, rows are chosen, and a prefix moved behind padding serves every row."""

import inspect
import logging
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers.utils import logging as transformers_logging

from perdure.model.batch import Encoded, padded
from perdure.model.cache import cache_rows, growing_copy, spread_over_rows
from perdure.model.forward import Tokens
from perdure.model.head import logits_at, past_in, prefix_cache
from perdure.model.probing import batching_of
from perdure.model.prompts import CachedPrompts

PREFIX = [7, 8, 9, 10]
SPELLINGS = ("past_key_values", "cache")


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


@torch.no_grad()
def after(model, past, ids):
    """The logits of the last token of one row behind a cache."""
    at = torch.tensor([[0], [len(ids) - 1]])
    columns = past.get_seq_length() + len(ids)
    return logits_at(model, at, columns=columns, input_ids=torch.tensor([ids]), past=past, use_cache=True).logits


@torch.no_grad()
def test_a_copy_grows_and_the_cache_serves_again(model):
    past = prefix_cache(model, torch.tensor([PREFIX]))
    first, again = (after(model, growing_copy(past), [3, 4]) for _ in range(2))
    assert past.get_seq_length() == len(PREFIX)
    assert torch.equal(first, again)
    whole = model(torch.tensor([[*PREFIX, 3, 4]])).logits[:, -1]
    torch.testing.assert_close(first, whole, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_some_rows_of_a_cache_go_on_as_alone(model):
    prefixes = [PREFIX, PREFIX[::-1], [5, 5, 5, 5]]
    past = prefix_cache(model, torch.tensor(prefixes))
    (row,) = (after(model, cache_rows(past, torch.tensor([1])), [3]),)
    torch.testing.assert_close(row, model(torch.tensor([[*prefixes[1], 3]])).logits[:, -1], rtol=1e-4, atol=1e-4)
    assert past.layers[0].keys.shape[0] == 3


@torch.no_grad()
def test_a_prefix_is_moved_behind_the_padding_of_each_row(model):
    rows = [[*PREFIX, 3, 4, 5], [*PREFIX, 6]]
    ids, mask = padded(rows, 0, left=True)
    past = prefix_cache(model, torch.tensor([PREFIX]))
    spread_over_rows(past, len(PREFIX), ids.shape[1] - mask.sum(1))
    positions = (mask.cumsum(1) - 1).clamp(min=0)[:, len(PREFIX) :]
    at = torch.tensor([[0, 1], [ids.shape[1] - len(PREFIX) - 1] * 2])
    given = {"input_ids": ids[:, len(PREFIX) :], "attention_mask": mask, "position_ids": positions}
    found = logits_at(model, at, columns=ids.shape[1], past=past, use_cache=True, **given).logits
    alone = torch.cat([model(torch.tensor([row])).logits[:, -1] for row in rows])
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)


class Spelling(nn.Module):
    """A model that calls its cache by one name, in its signature and in its output, and knows no other."""

    def __init__(self, model, name):
        super().__init__()
        self.model, self.config = model, model.config

    def get_output_embeddings(self):
        return self.model.get_output_embeddings()


class NewSpelling(Spelling):
    def forward(self, input_ids, attention_mask=None, cache=None, use_cache=None, **given):
        return spelt(self.model, cache, NewOutput, input_ids, attention_mask, use_cache, given)


class OldSpelling(Spelling):
    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=None, **given):
        return spelt(self.model, past_key_values, OldOutput, input_ids, attention_mask, use_cache, given)


@dataclass
class NewOutput:
    logits: torch.Tensor
    cache: object = field(default=None)


@dataclass
class OldOutput:
    logits: torch.Tensor
    past_key_values: object = field(default=None)


def spelt(model, past, output, input_ids, attention_mask, use_cache, given):
    assert not given.keys() & {"cache", "past_key_values"}  # a name that it does not know would be lost without a word
    name = "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"
    past = {} if past is None else {name: past}
    out = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache, **past, **given)
    return output(out.logits, past_in(out))


@torch.no_grad()
@pytest.mark.parametrize("kind", [NewSpelling, OldSpelling])
def test_the_cache_is_given_and_returned_under_the_name_that_the_model_has_for_it(model, kind):
    wrapped = kind(model, kind)
    past = prefix_cache(wrapped, torch.tensor([PREFIX]))
    assert past.get_seq_length() == len(PREFIX)
    whole = model(torch.tensor([[*PREFIX, 3, 4]])).logits[:, -1]
    torch.testing.assert_close(after(wrapped, past, [3, 4]), whole, rtol=1e-4, atol=1e-4)
    assert past.get_seq_length() == len(PREFIX) + 2


@torch.no_grad()
@pytest.mark.parametrize("prefix", [[0, *range(7, 20)], [*range(7, 20), 0]])
def test_a_prefix_that_begins_or_ends_with_the_padding_token_gives_no_warning(prefix, caplog):
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40, "n_positions": 64}
    gpt2 = GPT2LMHeadModel(GPT2Config(**sizes, pad_token_id=0, bos_token_id=1, eos_token_id=1)).eval()
    prompts = [[*prefix, token, 3, 6] for token in range(20, 28)]
    logger = logging.getLogger("transformers")
    transformers_logging.warning_once.cache_clear()  # each is printed once in a process
    logger.addHandler(caplog.handler)
    try:
        found = CachedPrompts(gpt2, prompts, 0, batching_of(gpt2)).logits
        rows = [Encoded(tuple(prompt), (*[False] * (len(prompt) - 1), True)) for prompt in prompts]
        batch = Tokens().collate(rows)
        assert batch.prefix.tolist() == prefix
        Tokens().forward(gpt2, batch)
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.records
    alone = [gpt2(torch.tensor([p]), attention_mask=torch.ones(1, len(p), dtype=torch.long)) for p in prompts]
    torch.testing.assert_close(found, torch.cat([out.logits[:, -1] for out in alone]), rtol=1e-4, atol=1e-4)
