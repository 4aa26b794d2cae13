"""Factors of label tokens in the cross-entropy, from what a model predicts. Pure functions; none has a gradient."""

import torch
from torch import Tensor

from perdure.maths.precision import wide


@torch.no_grad()
def of_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the probability of each label (tokens,): 1 where the model is sure of it, near 0 where it rules it out.

    Args:
        logits: (tokens, vocab).
        labels: (tokens,) token ids.

    Source: Wu et al., "On the Generalization of SFT: A Reinforcement Learning Perspective with Reward Rectification" (DFT), 2025,
    arXiv 2508.05629. Deviation: none.
    """
    return wide(logits).log_softmax(-1).gather(-1, labels[:, None])[:, 0].exp()


@torch.no_grad()
def of_entropy(logits: Tensor, k: int = 20, divisor: float = 3.0) -> Tensor:
    """Return the entropy (tokens,) of the `k` largest logits' own softmax in nats, over `divisor`.

    At k = 20 the largest entropy is ln 20 = 2.996, so that the factor lies between 0 (the model is sure of one token) and 1.

    Args:
        logits: (tokens, vocab).
        k: Logits that count; all where the vocabulary has fewer.
        divisor: 3 as in LLaMA-Factory, ms-swift and Liger; 1 as in the first version in Axolotl, whose factors are three times
            as large.

    Source: Diao et al., "Entropy-Adaptive Fine-Tuning" (EAFT), 2026, arXiv 2601.02151. Deviation: over 3 instead of ln 20, as in
    the authors' code.
    """
    largest = wide(logits).topk(min(k, logits.shape[-1]), dim=-1).values
    log_p = largest.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1) / divisor
