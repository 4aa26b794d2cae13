"""A model state as the files other tools load: a plain PEFT adapter, or a whole safetensors model."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from perdure.bridges.models import Base, load_base
from perdure.bridges.runtime import PREFIX, Runtime
from perdure.core.errors import BadInput, PerdureError
from perdure.maths.low_rank import Patches, from_tensors, relative_error, truncate, uniform

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes, from 8 up
# Largest change of a logit by merging, as a share of the largest logit. Rounding the sum to bfloat16 was measured at 0.03 on a
# model of 135 million parameters, where leaving out the adapter changes 0.6.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
PROBE_TOKENS = 256


def write_adapter(
    folder: Path, runtime: Runtime, *, base: str, revision: str | None = None, rank: int | None = None
) -> dict[str, Any]:
    """Write the adapter that lies over the base model as a plain PEFT LoRA directory, with the tokenizer.

    All modules get one rank and one scale, because vLLM reads neither `rank_pattern` nor `alpha_pattern`. The factors keep the
    dtype they were trained and scored in (float32), so that PEFT computes what the workspace computed.

    Args:
        folder: Where to write; it exists.
        runtime: Holds the state to write.
        base: What `adapter_config.json` names as the base model: a folder or hub id.
        revision: Revision of the base model.
        rank: Rank to write: modules of a higher rank are truncated, others padded with zeros. None keeps all and pads to the
            smallest rank that vLLM takes.

    Returns:
        "rank": the rank written; "max_lora_rank": the setting with which vLLM takes it; with `rank` also "relative_error",
        what truncation changed of the whole adapter.

    Raises:
        BadInput: No adapter lies over the base, or `rank` is below 1.
    """
    from peft import LoraConfig

    patches = _adapter_of(runtime)
    told: dict[str, Any] = {}
    if rank is not None:
        if rank < 1:
            raise BadInput(f"a rank is 1 or more, got {rank}")
        whole, patches = patches, {module: truncate(patch, rank) for module, patch in patches.items()}
        told["relative_error"] = relative_error(whole, patches)
    most = max(patch.down.shape[0] for patch in patches.values())
    rank = rank or _served(most)
    padded, scale = uniform(patches, rank)
    alpha = scale * rank
    LoraConfig(
        base_model_name_or_path=base,
        revision=revision,
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,  # type: ignore[arg-type]
        target_modules=_targets(runtime, patches),
        fan_in_fan_out=any(_transposed(runtime, module) for module in patches),
    ).save_pretrained(str(folder))
    tensors = {}
    for module, patch in padded.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = patch.down.cpu().contiguous()
        tensors[f"{PREFIX}{module}.lora_B.weight"] = patch.up.cpu().contiguous()
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    runtime.base.tokenizer.save_pretrained(folder)
    return {"rank": rank, "max_lora_rank": _served(rank), **told}


def write_merged(folder: Path, runtime: Runtime, patches: Patches) -> None:
    """Write the model that lies bare in `runtime`, with `patches` added to its weights, as a whole model with its tokenizer.

    Sums are made in float32 and rounded once to the dtype of the weights; the model in memory is not touched.
    """
    model = runtime.base.model
    weights: dict[str, Tensor] = model.state_dict()
    for module, patch in patches.items():
        weight = weights[f"{module}.weight"]
        delta = patch.delta.to(weight.device)
        weights[f"{module}.weight"] = (weight + (delta.T if _transposed(runtime, module) else delta)).to(weight.dtype)
    model.save_pretrained(folder, state_dict=weights)
    runtime.base.tokenizer.save_pretrained(folder)


def check_merged(folder: Path, base: Base, text: str, expected: Tensor) -> dict[str, float]:
    """Load the model in `folder` and compare its logits on `text` with those of the canonical form.

    Args:
        folder: What `write_merged` wrote.
        base: Gives dtype and device.
        text: The probe.
        expected: What `probe` returned for the canonical form.

    Returns:
        "difference": the largest change of a logit; "tolerance": what is allowed, a share of the largest logit.

    Raises:
        PerdureError: The difference is above the tolerance.

    Cost: a second copy of the model in memory, and one forward.
    """
    written = load_base(folder, str(base.dtype).removeprefix("torch."), str(base.device))
    difference = (probe(written, written.model, text) - expected).abs().max().item()
    tolerance = TOLERANCE[base.dtype] * expected.abs().max().item()
    if not difference <= tolerance:  # a NaN is no agreement
        raise PerdureError(
            f"the merged model differs from the adapter on its base by {difference:.3g} in a logit, more than the "
            f"{tolerance:.3g} that rounding explains; nothing was written. Export the adapter instead"
        )
    return {"difference": difference, "tolerance": tolerance}


@torch.no_grad()
def probe(base: Base, model: Any, text: str) -> Tensor:
    """Return the logits (tokens, vocab) in float32 of `model`, run as it is scored, on the first tokens of `text`."""
    ids = base.tokenizer(text, return_tensors="pt", truncation=True, max_length=PROBE_TOKENS)["input_ids"]
    with base.precision():
        return model(input_ids=ids.to(base.device)).logits[0].float().cpu()


def _adapter_of(runtime: Runtime) -> Patches:
    patches = from_tensors(runtime.skill())
    if not patches:
        raise BadInput("no adapter lies over the base model, so there is none to export; export it merged")
    return patches


def _served(rank: int) -> int:
    """Return the smallest rank that vLLM takes and that holds `rank`; beyond the last, `rank` itself."""
    return next((known for known in RANKS if known >= rank), rank)


def _targets(runtime: Runtime, patches: Patches) -> list[str]:
    """Return the module names' last parts if they mean exactly the patched modules, else the whole names."""
    short = {module.rsplit(".", 1)[-1] for module in patches}
    meant = {name for name, _ in runtime.base.model.named_modules() if name.rsplit(".", 1)[-1] in short}
    return sorted(short if meant == set(patches) else patches)


def _transposed(runtime: Runtime, module: str) -> bool:
    """Say whether a layer keeps its weight as (in, out), as GPT-2 does."""
    from transformers.pytorch_utils import Conv1D

    layer = runtime.base.model.get_submodule(module)
    return isinstance(getattr(layer, "base_layer", layer), Conv1D)
