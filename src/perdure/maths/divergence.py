"""Divergences between a teacher and a student: in either direction, over selected events or the whole vocabulary."""

import math
from typing import Literal

import torch
from torch import Tensor

from perdure.maths.precision import wide

Kind = Literal["forward", "reverse", "symmetric"]


def top_k(logits: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the k largest log-probabilities of `logits`, the log of the mass of the rest, and the log partition function.

    Args:
        logits: (tokens, vocab).
        k: How many to keep; at most vocab - 1.

    Returns:
        Token ids (tokens, k), log-probabilities (tokens, k) in nats, log tail mass (tokens,), logsumexp of the logits (tokens,).
    """
    logits = wide(logits)
    index = logits.topk(min(k, logits.shape[-1] - 1), dim=-1).indices
    return index, *events_of(logits, index), logits.logsumexp(-1)


def top_k_with_labels(logits: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what `top_k` returns, with the label as the first of the k tokens and the k - 1 largest others behind it.

    Args:
        logits: (tokens, vocab).
        labels: (tokens,) token ids.
        k: How many to keep, the label included; at most vocab - 1.
    """
    logits = wide(logits)
    first = labels[:, None]
    others = logits.scatter(-1, first, -torch.inf).topk(min(k, logits.shape[-1] - 1) - 1, dim=-1).indices
    index = torch.cat([first, others], dim=-1)
    return index, *events_of(logits, index), logits.logsumexp(-1)


def events_of(logits: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities of the tokens in `index` (tokens, k), and the log mass of all others (tokens,).

    The rest is summed over the others' logits, not taken as 1 - sum: near certainty that difference is all rounding.
    """
    total = logits.logsumexp(-1)
    rest = logits.scatter(-1, index, -torch.inf).logsumexp(-1)
    return logits.gather(-1, index) - total[:, None], rest - total


def kl_to_teacher(
    logits: Tensor,
    index: Tensor,
    logprob: Tensor,
    tail: Tensor,
    temperature: float = 1.0,
    kind: Kind = "forward",
) -> Tensor:
    """Return the divergence from a stored teacher per token, over its top k tokens plus one bucket for all others.

    p, q = softmax(log-probabilities of the k + 1 events / temperature);  see `kl` for the kinds.

    Args:
        logits: The student's, (tokens, vocab); the only argument that gets a gradient.
        index: Teacher's token ids (tokens, k).
        logprob: Teacher's log-probabilities (tokens, k).
        tail: Teacher's log tail mass (tokens,).
        temperature: Above 0; 1 gives the exact KL of the coarsened distributions.
        kind: Its direction.

    Returns:
        (tokens,) in nats, at least 0 up to rounding.

    Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015, section 2.
    Deviation: top-k events and one tail bucket instead of the whole vocabulary; the bucket is tempered as one event.
    """
    selected, rest = events_of(wide(logits), index.long())
    events = torch.cat([selected, rest[:, None]], dim=-1)
    target = torch.cat([wide(logprob), wide(tail)[:, None]], dim=-1)
    return kl(events, target, temperature, kind)


def kl(logits: Tensor, teacher: Tensor, temperature: float = 1.0, kind: Kind = "forward") -> Tensor:
    """Return T^2 times the divergence between teacher and student per token, in nats.

    With p = softmax(teacher / T), q = softmax(logits / T):  forward KL(p || q) = sum p (log p - log q), which covers all that
    the teacher predicts; reverse KL(q || p), which avoids what the teacher would not predict; symmetric, half the sum of both.
    T^2 preserves the size of the gradient, which falls with 1 / T^2 (Hinton et al. 2015).

    Args:
        logits: The student's, (tokens, events).
        teacher: The teacher's, in the same order; log-probabilities are logits too.
        temperature: T, above 0.
        kind: Its direction.

    Returns:
        (tokens,), at least 0 up to rounding.

    Source: Kullback & Leibler 1951; reverse as in Gu et al., "MiniLLM", 2023, arXiv 2306.08543; symmetric Jeffreys 1946.
    Deviation: Jeffreys' sum is halved, so that the three agree to second order where p and q are near.
    """
    log_q = (logits / temperature).log_softmax(-1)
    log_p = (teacher / temperature).log_softmax(-1)
    gap = log_p - log_q
    if kind == "forward":
        weight = log_p.exp()
    elif kind == "reverse":
        weight = -log_q.exp()
    else:
        weight = 0.5 * (log_p.exp() - log_q.exp())
    return temperature**2 * (weight * gap).sum(-1)


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence per token of two distributions over the same events, in nats.

    JS = (KL(p || m) + KL(q || m)) / 2  with m = (p + q) / 2,  in [0, ln 2]; it is the same when p and q change places.
    log m - log p is computed from log q - log p alone, so that equal distributions give 0 to the bit.

    Args:
        first: log p, (tokens, events), each line summing to 1 as probabilities; -inf for an impossible event.
        second: log q, in the same order.

    Returns:
        (tokens,); over the top k tokens and one bucket for the rest it is at most that over the whole vocabulary.

    Source: Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on Information Theory 1991, equation 3.2.
    """
    gap = second - first
    below, above = _to_middle(gap), _to_middle(-gap)  # log m - log p, log m - log q
    parts = [torch.where(log == -torch.inf, 0.0, log.exp() * off) for log, off in ((first, below), (second, above))]
    return (-0.5 * (parts[0] + parts[1]).sum(-1)).clamp(0.0, math.log(2))


def known_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Return KL(teacher || student) per token in nats, of log-probabilities (tokens, events) that need no normalisation.

    Over the top k tokens of the teacher and one bucket for the rest it is a lower bound of the KL over the vocabulary. Infinite
    where the student excludes an event that the teacher does not.
    """
    return torch.where(teacher == -torch.inf, 0.0, teacher.exp() * (teacher - student)).sum(-1).clamp(min=0.0)


def _to_middle(gap: Tensor) -> Tensor:
    """Return log((1 + exp(gap)) / 2), which is 0 at 0 to the bit and does not overflow."""
    return gap.clamp(min=0) + torch.log1p(torch.expm1(-gap.abs()) / 2)
