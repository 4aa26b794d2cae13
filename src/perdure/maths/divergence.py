"""Divergences between a stored teacher and a student."""

import torch
from torch import Tensor


def top_k(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the k largest log-probabilities of `logits` and the log of the mass of the rest.

    Args:
        logits: (tokens, vocab).
        k: How many to keep; at most vocab - 1.

    Returns:
        Token ids (tokens, k), log-probabilities (tokens, k) in nats, log tail mass (tokens,).
    """
    logits = logits.float()
    index = logits.topk(min(k, logits.shape[-1] - 1), dim=-1).indices
    return index, *events_of(logits, index)


def events_of(logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of the tokens in `index` (tokens, k), and the log mass of all others (tokens,).

    The rest is summed over the others' logits, not taken as 1 - sum: near certainty that difference is all rounding.
    """
    total = logits.logsumexp(-1)
    rest = logits.scatter(-1, index, -torch.inf).logsumexp(-1)
    return logits.gather(-1, index) - total[:, None], rest - total


def kl_to_teacher(logits: Tensor, index: Tensor, logprob: Tensor, tail: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(teacher || student) per token in nats, over the teacher's top k tokens plus one bucket for all others.

    p, q = softmax(log-probabilities of the k + 1 events / temperature);  KL = sum p (log p - log q), times temperature^2
    so that gradients keep their size (Hinton et al. 2015).

    Args:
        logits: The student's, (tokens, vocab); the only argument that gets a gradient.
        index: Teacher's token ids (tokens, k).
        logprob: Teacher's log-probabilities (tokens, k).
        tail: Teacher's log tail mass (tokens,).
        temperature: Above 0; 1 gives the exact KL of the coarsened distributions.

    Returns:
        (tokens,), at least 0 up to rounding.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, section 2.
    Deviation: top-k events and one tail bucket instead of the whole vocabulary; the bucket is tempered as one event.
    """
    kept, rest = events_of(logits.float(), index.long())
    events = torch.cat([kept, rest[:, None]], dim=-1)
    target = torch.cat([logprob.float(), tail.float()[:, None]], dim=-1)
    log_q = (events / temperature).log_softmax(-1)
    log_p = (target / temperature).log_softmax(-1)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)
