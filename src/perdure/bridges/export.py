"""A model state as the files other tools load: a plain PEFT adapter, or a whole safetensors model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from perdure.bridges.models import Base, load_base, load_tokenizer
from perdure.bridges.runtime import PREFIX, Runtime
from perdure.core.errors import BadInput, PerdureError
from perdure.maths.low_rank import Patch, Patches, from_tensors, relative_error, to_tensors, truncate, uniform

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
# Largest change of a logit by merging, as a share of the largest logit. Rounding the sum to bfloat16 was measured at 0.03 on a
# model of 135 million parameters, where leaving out the adapter changes 0.6.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
PROBE_TOKENS = 256


def write_adapter(
    folder: Path,
    runtime: Runtime,
    *,
    base: str,
    revision: str | None = None,
    rank: int | None = None,
    max_rank: int = RANKS[-1],
) -> dict[str, Any]:
    """Write the adapter that lies over the base model as a plain PEFT LoRA directory, with the tokenizer.

    All modules get one rank and one scale, because vLLM up to 0.30 reads neither `rank_pattern` nor `alpha_pattern`. The factors
    keep the dtype they were trained and scored in (float32), so that PEFT computes what the workspace computed.

    Args:
        folder: Where to write; it exists.
        runtime: Holds the state to write.
        base: What `adapter_config.json` names as the base model: a folder or hub id.
        revision: Revision of the base model.
        rank: Rank to write: modules of a higher rank are truncated, others padded with zeros. None keeps all and pads to the
            smallest rank that vLLM takes.
        max_rank: Largest rank to write.

    Returns:
        "rank": the rank written; "max_lora_rank": the setting with which vLLM takes it, None where it takes none so large;
        with `rank` also "relative_error", what truncation changed of the whole adapter.

    Raises:
        BadInput: No adapter lies over the base, or its rank or the one asked for does not fit.
    """
    from peft import LoraConfig

    patches = _adapter_of(runtime)
    most = max(patch.down.shape[0] for patch in patches.values())
    told: dict[str, Any] = {}
    if rank is None:
        if most > max_rank:
            raise BadInput(too_large(most, max_rank))
        rank = min(_served(most) or most, max_rank)
    else:
        whole, patches = patches, {module: truncate(patch, rank) for module, patch in patches.items()}
        told["relative_error"] = relative_error(whole, patches)
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
    _sort_modules(folder / CONFIG)
    tensors = {}
    for module, patch in padded.items():
        tensors[f"{PREFIX}{module}{DOWN}"] = patch.down.cpu().contiguous()
        tensors[f"{PREFIX}{module}{UP}"] = patch.up.cpu().contiguous()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    _save_tokenizer(runtime, folder)
    return {"rank": rank, "max_lora_rank": _served(rank), **told}


def as_served(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the adapter that `write_adapter` wrote as the tensors of a slot, its factors rounded as a server rounds them.

    Over a base in float32 the slot computes with the rounded factors in float32, as vLLM does between the two factors; over one
    in bfloat16 autocast rounds what lies between them too.

    Args:
        folder: What `write_adapter` wrote.
        dtype: Dtype that the server holds factors in.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    tensors = {name: value.to(dtype).float() for name, value in load_file(folder / WEIGHTS).items()}
    modules = [name.removeprefix(PREFIX).removesuffix(DOWN) for name in tensors if name.endswith(DOWN)]
    scale = config["lora_alpha"] / config["r"]
    return to_tensors({m: Patch(tensors[f"{PREFIX}{m}{DOWN}"], tensors[f"{PREFIX}{m}{UP}"], scale) for m in modules})


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
    _restore_cache(folder / "config.json", runtime.folder)
    _save_tokenizer(runtime, folder)


def load_merged(folder: Path, base: Base) -> Base:
    """Return the model that `write_merged` wrote, in the dtype and on the device of `base`: a second copy in memory."""
    return load_base(folder, str(base.dtype).removeprefix("torch."), str(base.device))


def check_merged(written: Base, text: str, expected: Tensor) -> dict[str, float]:
    """Compare the logits of a merged model on `text` with those of the canonical form.

    Args:
        written: What `load_merged` returned.
        text: The probe.
        expected: What `probe` returned for the canonical form.

    Returns:
        "difference": the largest change of a logit; "tolerance": what is allowed, a share of the largest logit.

    Raises:
        PerdureError: The difference is above the tolerance.

    Cost: one forward.
    """
    difference = (probe(written, written.model, text) - expected).abs().max().item()
    tolerance = TOLERANCE[written.dtype] * expected.abs().max().item()
    if not difference <= tolerance:  # a NaN is no agreement
        raise PerdureError(
            f"the merged model differs from the adapter on its base by {difference:.3g} in a logit, more than the "
            f"{tolerance:.3g} that rounding explains; nothing was written. Export the adapter instead"
        )
    return {"difference": difference, "tolerance": tolerance}


@torch.no_grad()
def probe(base: Base, model: Any, text: str) -> Tensor:
    """Return the logits (tokens, vocab) in float32 of `model`, run as it is scored, on the first tokens of `text`."""
    most = min(PROBE_TOKENS, base.positions or PROBE_TOKENS)
    ids = base.tokenizer(text, return_tensors="pt", truncation=True, max_length=most)["input_ids"]
    with base.precision():
        return model(input_ids=ids.to(base.device)).logits[0].float().cpu()


@torch.no_grad()
def text_loss(base: Base, model: Any, texts: Sequence[Sequence[int]]) -> float:
    """Return the mean loss of texts in nats a token.

    Args:
        base: Gives precision and device.
        model: The base, or what lies over it.
        texts: Token ids of the texts, two tokens at least each.
    """
    total = 0.0
    for text in texts:
        ids = torch.tensor([text], device=base.device)
        with base.precision():
            logp = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        total -= logp.gather(-1, ids[0, 1:, None]).sum().item()
    return total / sum(len(text) - 1 for text in texts)


def _restore_cache(path: Path, base: Path) -> None:
    """Write `use_cache` of a merged model's configuration as the base has it; a training switches it off in memory."""
    from transformers import AutoConfig

    written, known = json.loads(path.read_text(encoding="utf-8")), AutoConfig.from_pretrained(base)
    for part, own in ((written, known), (written.get("text_config", {}), known.get_text_config())):
        if "use_cache" in part and hasattr(own, "use_cache"):
            part["use_cache"] = own.use_cache
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _save_tokenizer(runtime: Runtime, folder: Path) -> None:
    """Write the base's tokenizer as it was loaded; one in use carries along how it was last called (truncation, padding)."""
    load_tokenizer(runtime.folder).save_pretrained(folder)


def _sort_modules(path: Path) -> None:
    """Write the module names of an adapter's configuration in order; PEFT holds them in a set, whose order is chance."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for key in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(config.get(key), list):
            config[key].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _adapter_of(runtime: Runtime) -> Patches:
    patches = from_tensors(runtime.skill())
    if not patches:
        raise BadInput("no adapter lies over the base model, so there is none to export; export it merged")
    return patches


def _served(rank: int) -> int | None:
    """Return the smallest rank that vLLM takes and that holds `rank`; None beyond the last."""
    return next((known for known in RANKS if known >= rank), None)


def too_large(rank: int, cap: int) -> str:
    """Return what to say of an adapter whose rank is above the cap."""
    why = ", the largest that vLLM serves" if cap == RANKS[-1] else ""
    return (
        f"this adapter has rank {rank}, above the cap of {cap}{why}; write a whole model with --merged, compress the adapter "
        f"with --rank {cap} or less, which says what it loses, or raise the cap with --max-rank"
    )


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
