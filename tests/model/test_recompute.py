"""Gradient checkpointing gives the gradients of the plain forward, in every family, and stores less for the backward."""

import pytest
import torch

from architectures import make
from perdure.model.batch import collate
from perdure.model.forward import Tokens
from perdure.model.recompute import activations_stored, recompute_blocks, recomputes, store_activations
from streams import same

FAMILIES = [
    *("llama", "gemma2", "gpt2", "gpt_neo", "opt", "bloom", "falcon with alibi", "qwen3_moe", "deepseek_v3", "gpt_oss"),
    *("llama4_text", "lfm2", "jamba", "qwen3_next", "mamba", "mamba2", "recurrent_gemma", "rwkv", "bart's decoder"),
]
READER = Tokens(prefix=False)


class Ids:
    """Two rows of unlike length, of which the last five tokens are trained."""

    def __init__(self, length, start):
        self.ids = [(start + 7 * t) % 100 + 3 for t in range(length)]
        self.trained = [t >= length - 5 for t in range(length)]
        self.first, self.last = length - 5, length - 1

    def __len__(self):
        return len(self.ids)


def batch(share_prefix=False):
    return collate([Ids(24, 0), Ids(19, 5)], 0, share_prefix=share_prefix)


def gradients(model, weights=None):
    """Return the loss, every parameter's gradient, and the bytes that the forward stored for its backward."""
    stored = {}

    def store(tensor):
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    params = dict(model.named_parameters())
    with torch.autograd.graph.saved_tensors_hooks(store, lambda tensor: tensor):
        loss = READER.forward(model, batch(), weights).logits.logsumexp(-1).square().mean()
    grads = torch.autograd.grad(
        loss, list(params.values()) if weights is None else list(weights.values()), allow_unused=True
    )
    return loss.item(), {n: g for n, g in zip(params, grads, strict=False) if g is not None}, sum(stored.values())


def blocks_run(model, blocks):
    """Count the forwards of blocks from here on."""
    counts = []
    for block in blocks:
        inner = next(module for module in block.modules() if not list(module.children()))
        inner.register_forward_hook(lambda *_: counts.append(1))
    return counts


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_are_those_of_the_plain_forward_and_less_is_stored(name):
    model = make(name).train()
    loss, grads, stored = gradients(model)
    recompute_blocks(model)
    assert recomputes(model)
    again, checkpointed, less = gradients(model)
    assert again == loss
    assert checkpointed.keys() == grads.keys()
    for key, grad in grads.items():
        torch.testing.assert_close(checkpointed[key], grad, rtol=1e-5, atol=1e-6)
    assert less < stored  # both have the weights
    store_activations(model)
    assert not recomputes(model)
    assert gradients(model)[2] > less


def test_a_block_that_runs_again_has_the_dropout_and_the_precision_of_its_forward():
    model = make("gpt2", resid_pdrop=0.3, attn_pdrop=0.2).train()
    found = []
    for on in (False, True):
        (recompute_blocks if on else store_activations)(model)
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16):
            loss = READER.forward(model, batch()).logits.square().mean()
        after = torch.rand(2)
        loss.backward()
        found.append(
            (loss.item(), after, {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        )
        model.zero_grad()
    (plain, drawn, grads), (again, drawn_again, checkpointed) = found
    assert plain == again
    assert torch.equal(drawn, drawn_again)
    assert same(checkpointed, grads)


def test_a_graph_may_be_gone_back_through_several_times():
    model = make("llama").train()
    recompute_blocks(model)
    params = list(model.parameters())
    logits = READER.forward(model, batch()).logits
    first, second = logits.square().mean(), logits.logsumexp(-1).mean()
    once = torch.autograd.grad(first, params, retain_graph=True)
    torch.autograd.grad(second, params, retain_graph=True)
    twice = torch.autograd.grad(first, params)
    assert all(map(torch.equal, once, twice))


def test_a_forward_under_other_weights_has_their_gradients():
    model = make("llama").train()
    torch.manual_seed(1)
    others = {n: (p.detach() + 0.1 * torch.randn_like(p)).requires_grad_() for n, p in model.named_parameters()}
    _, plain, _ = gradients(model, others)
    recompute_blocks(model)
    _, checkpointed, _ = gradients(model, others)
    assert same(checkpointed, plain)
    assert recomputes(model)
    with activations_stored(model):
        assert not recomputes(model)
    assert recomputes(model)


def test_each_block_runs_twice_in_train_mode_and_once_in_eval_mode():
    model = make("llama")
    recompute_blocks(model)
    counts = blocks_run(model, model.model.layers)
    model.train()
    READER.forward(model, batch()).logits.mean().backward()
    assert len(counts) == 2 * len(model.model.layers)
    counts.clear()
    model.eval()
    READER.forward(model, batch()).logits.mean().backward()
    assert len(counts) == len(model.model.layers)
