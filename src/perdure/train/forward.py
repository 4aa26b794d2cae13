"""One forward through a causal language model, with logits at label positions only."""

from typing import Any

import torch
from torch import Tensor

from perdure.core.heads import attention_for, only_at
from perdure.train.batch import Batch


def label_logits(model: Any, batch: Batch) -> Tensor:
    """Return the logits (tokens, vocab) in float32 from which each label of `batch` is predicted.

    A prefix common to all rows runs once and its keys and values serve every row; gradients flow through it.
    """
    device = next(model.parameters()).device
    ids, mask, at = batch.ids.to(device), batch.mask.to(device), batch.at.to(device)
    past = None
    shared = batch.prefix.numel()
    with attention_for(shared + ids.shape[1], device):
        if shared:
            with only_at(model, None):
                past = model(input_ids=batch.prefix.to(device)[None], use_cache=True).past_key_values
            past.batch_repeat_interleave(len(ids))
            mask = torch.cat([mask.new_ones(len(ids), shared), mask], dim=1)
        with only_at(model, at):
            out = model(input_ids=ids, attention_mask=mask, past_key_values=past, use_cache=past is not None)
    return out.logits[0].float()
