"""Choice of a prompt's next token: the most likely one, or one that is sampled with a key."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from perdure.core.keyed import keyed
from perdure.maths.sampling import raced

Choose = Callable[[Tensor, Sequence[int]], Tensor]
"""Returns the next token (rows,) from logits (rows, vocab) and the index of the prompt that each row continues."""


def greedy(logits: Tensor, prompts: Sequence[int]) -> Tensor:
    """Return the most likely token of each row."""
    return logits.argmax(-1)


def chooser(temperature: float, seed: int, prompts: Sequence[Sequence[int]]) -> Choose:
    """Return the function that chooses the next tokens of prompts: the most likely ones at temperature 0, else sampled ones.

    The samples of a prompt depend on its own tokens and the seed, not on the other prompts of a batch.

    Args:
        temperature: Divisor of the logits, at least 0.
        seed: Seed of the samples.
        prompts: Token ids of each prompt.
    """
    if temperature == 0:
        return greedy
    return sampler(temperature, [keyed(seed, "answer", tuple(prompt)) for prompt in prompts])


def sampler(temperature: float, draws: Sequence[np.random.Generator], min_p: float = 0.0) -> Choose:
    """Return the function that samples the next tokens of prompts.

    Args:
        temperature: Divisor of the logits, above 0.
        draws: Random numbers of each prompt.
        min_p: Tokens less probable than this share of the most probable one are left out, in [0, 1].

    Source: Nguyen et al., "Turning Up the Heat: Min-p Sampling", ICLR 2025, for `min_p`.
    """

    def choose(logits: Tensor, rows: Sequence[int]) -> Tensor:
        noise = np.stack([draws[row].standard_exponential(logits.shape[-1]) for row in rows])
        highest = logits.max(-1, keepdim=True).values  # so that a small temperature makes no two of them infinite
        relative = (logits - highest).double() / temperature  # log of the share of the most probable token
        if min_p:
            relative = relative.masked_fill(relative < math.log(min_p), -torch.inf)
        return raced(relative, torch.from_numpy(noise))

    return choose
