"""Distances between raw logits and stored ones."""

import torch
from torch import Tensor


def logit_error(logits: Tensor, index: Tensor, logprob: Tensor, tail: Tensor, total: Tensor) -> Tensor:
    """Return the mean squared difference per token (tokens,) between logits and what was stored of earlier ones.

    1 / (k + 1) x sum over k + 1 numbers of (z - h)^2,   z = log-probability + log partition function

    The numbers are the k stored logits, and one number for all other tokens: the log-sum-exp of their logits. With
    k = vocab - 1 that is the last logit itself, and the result is the mean over the whole vocabulary. Unlike a divergence it
    depends on what all logits have in common.

    Args:
        logits: h (tokens, vocab); the only argument that gets a gradient.
        index: Stored token ids (tokens, k), k below vocab.
        logprob: Their log-probabilities (tokens, k), in nats.
        tail: Log of the mass of all others (tokens,).
        total: Log partition function (tokens,).
    """
    index = index.long()
    rest = logits.scatter(-1, index, -torch.inf).logsumexp(-1)
    stored = torch.cat([logprob, tail[:, None]], dim=-1).to(logits.dtype) + total[:, None].to(logits.dtype)
    return (torch.cat([logits.gather(-1, index), rest[:, None]], dim=-1) - stored).square().mean(-1)
