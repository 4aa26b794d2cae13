"""How the next token of a prompt is chosen: the most likely one, or one that is drawn with a key."""

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
    """Return what chooses the next tokens of prompts: the most likely ones at temperature 0, else drawn ones.

    What is drawn for a prompt depends on its own tokens and the seed, never on the prompts around it.

    Args:
        temperature: What logits are divided by, at least 0.
        seed: Another seed gives other draws.
        prompts: Token ids of each prompt.
    """
    if temperature == 0:
        return greedy
    draws = [keyed(seed, "answer", tuple(prompt)) for prompt in prompts]

    def choose(logits: Tensor, rows: Sequence[int]) -> Tensor:
        noise = np.stack([draws[row].standard_exponential(logits.shape[-1]) for row in rows])
        highest = logits.max(-1, keepdim=True).values  # so that no small temperature makes two of them infinite
        return raced((logits - highest).double() / temperature, torch.from_numpy(noise))

    return choose
