"""A model state as the files other tools load: a plain PEFT adapter, or a whole safetensors model."""

import json
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from perdure.bridges.experts import expert_parameters, experts_transposed
from perdure.bridges.models import Base, load_base, load_tokenizer
from perdure.bridges.runtime import PREFIX, Runtime
from perdure.bridges.sizes import shell
from perdure.bridges.targets import taken_for_experts
from perdure.core.errors import BadInput, PerdureError
from perdure.maths.low_rank import Patch, Patches, from_tensors, relative_error, to_tensors, truncate, uniform
from perdure.model.layers import is_mixture

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
# Largest change of a logit by merging, as a share of the largest logit. Rounding the sum to bfloat16 was measured at 0.03 on a
# model of 135 million parameters, where leaving out the adapter changes 0.6.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
PROBE_TOKENS = 256
AGREEING = 0.9  # share of the tokens of a mixture whose logits are compared, the rest may have gone to other experts


@dataclass(frozen=True)
class WrittenAdapter:
    """An adapter that was written.

    Args:
        rank: The rank written.
        max_lora_rank: The setting with which vLLM takes it; None where it takes none so large.
        experts: How many parameters of experts have factors.
        relative_error: What truncation changed of the whole adapter; None without a requested rank.
    """

    rank: int
    max_lora_rank: int | None
    experts: int
    relative_error: float | None


@dataclass(frozen=True)
class MergeCheck:
    """What merging changed.

    Args:
        difference: Largest change of a logit; of a mixture of experts in nine tokens of ten.
        tolerance: What is allowed, a share of the largest logit.
    """

    difference: float
    tolerance: float


def write_adapter(
    folder: Path,
    runtime: Runtime,
    *,
    base: str,
    revision: str | None = None,
    rank: int | None = None,
    least: int = 1,
    max_rank: int = RANKS[-1],
) -> WrittenAdapter:
    """Write the adapter over the base model as a plain PEFT LoRA directory, with the tokenizer.

    All modules get one rank and one scale, because vLLM up to 0.30 reads neither `rank_pattern` nor `alpha_pattern`. The factors
    retain the dtype they were trained and scored in (float32), so that PEFT computes what the workspace computed. PEFT adapts
    experts, and dense layers that have the names experts once had, as `target_parameters`: it adds their update to the weight.

    Args:
        folder: Where to write; it exists.
        runtime: Holds the state to write.
        base: What `adapter_config.json` names as the base model: a folder or hub id.
        revision: Revision of the base model.
        rank: Rank to write: modules of a higher rank are truncated, others padded with zeros. None truncates nothing and pads to
            the smallest rank that vLLM takes.
        least: Without `rank`, the adapter is padded to at least this one, as others are that are served with it.
        max_rank: Largest rank to write.

    Raises:
        BadInput: There is no adapter over the base, or its rank or `rank` does not fit.
    """
    from peft import LoraConfig

    patches = _adapter_of(runtime)
    most = max(patch.rank for patch in patches.values())
    error = None
    if rank is None:
        if most > max_rank:
            raise BadInput(too_large(most, max_rank))
        most = max(most, least)
        rank = min(_served(most) or most, max_rank)
    else:
        whole, patches = patches, {module: truncate(patch, rank) for module, patch in patches.items()}
        error = relative_error(whole, patches)
    padded, scale = uniform(patches, rank)
    added = _added(runtime, patches)
    alpha = scale * rank
    config = LoraConfig(
        base_model_name_or_path=base,
        revision=revision,
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,  # type: ignore[arg-type]
        target_modules=_targets(runtime, patches.keys() - added.keys()),
        target_parameters=sorted(added.values()) or None,
        fan_in_fan_out=any(_transposed(runtime, module) for module in patches.keys() - added.keys()),
    )
    config.save_pretrained(str(folder))
    _sort_modules(folder / CONFIG)
    places = _places(runtime, config) if added else {}
    tensors = {}
    for module, patch in padded.items():
        place = PREFIX + places.get(added.get(module, module), module)
        down, up = _flat(patch)
        tensors[place + DOWN], tensors[place + UP] = down.cpu().contiguous(), up.cpu().contiguous()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    _save_tokenizer(runtime, folder)
    experts = len(expert_parameters(runtime.base.model).keys() & patches)
    return WrittenAdapter(rank, _served(rank), experts, error)


def as_served(folder: Path, runtime: Runtime, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the adapter that `write_adapter` wrote as the tensors of a slot, its factors rounded as a server rounds them.

    Over a base in float32 the slot computes with the rounded factors in float32, as vLLM does between the two factors. Over a
    base in bfloat16 autocast rounds the values between the factors too.

    Args:
        folder: What `write_adapter` wrote.
        runtime: What it wrote from, in whatever state.
        dtype: Dtype that the server holds factors in.
    """
    from peft import LoraConfig

    config = LoraConfig.from_pretrained(str(folder))
    tensors = {name: value.to(dtype).float() for name, value in load_file(folder / WEIGHTS).items()}
    modules = [name.removeprefix(PREFIX).removesuffix(DOWN) for name in tensors if name.endswith(DOWN)]
    stacked = expert_parameters(runtime.base.model)
    names = {place: name for name, place in _places(runtime, config).items()} if config.target_parameters else {}
    patches = {}
    for module in modules:
        name = names.get(module, module)
        patch = Patch(
            tensors[f"{PREFIX}{module}{DOWN}"], tensors[f"{PREFIX}{module}{UP}"], config.lora_alpha / config.r
        )
        if name in stacked:
            patches[name] = _stacked(patch, len(stacked[name]))
        else:
            patches[name.removesuffix(".weight")] = patch
    return to_tensors(patches)


def write_merged(folder: Path, runtime: Runtime, patches: Patches) -> None:
    """Write the base model of `runtime`, with `patches` added to its weights, as a whole model with its tokenizer.

    Sums are made in float32 and rounded once to the dtype of the weights; the model in memory is not touched.
    """
    model = runtime.base.model
    weights: dict[str, Tensor] = model.state_dict()
    for module, patch in patches.items():
        stacked = module in weights  # the parameter of experts itself
        name = module if stacked else f"{module}.weight"
        turned = experts_transposed(model, module) if stacked else _transposed(runtime, module)
        delta = patch.delta.to(weights[name].device)
        weights[name] = (weights[name] + (delta.mT if turned else delta)).to(weights[name].dtype)
    model.save_pretrained(folder, state_dict=weights)
    _restore_cache(folder / "config.json", runtime.folder)
    _save_tokenizer(runtime, folder)


def load_merged(folder: Path, base: Base) -> Base:
    """Return the model that `write_merged` wrote, in the dtype and on the device of `base`: a second copy in memory."""
    kind = str(base.dtype).removeprefix("torch.")
    return load_base(folder, kind, str(base.device), attn_implementation=base.attn_implementation)


def check_merged(written: Base, text: str, expected: Tensor) -> MergeCheck:
    """Compare the logits of a merged model on `text` with those of the canonical form.

    Of a mixture of experts nine tokens in ten are to agree: where rounding turns a router to another expert, the logits jump.

    Args:
        written: What `load_merged` returned.
        text: The probe.
        expected: What `probe` returned for the canonical form.

    Raises:
        PerdureError: The difference is above the tolerance.

    Cost: one forward.
    """
    changes = (probe(written, written.model, text) - expected).abs().amax(-1)  # (tokens,)
    difference = changes.quantile(AGREEING if is_mixture(written.model) else 1.0).item()
    tolerance = TOLERANCE[written.dtype] * expected.abs().max().item()
    if not difference <= tolerance:  # a NaN is no agreement
        raise PerdureError(
            f"the merged model differs from the adapter on its base by {difference:.3g} in a logit, more than the "
            f"{tolerance:.3g} that rounding explains; nothing was written. Export the adapter instead"
        )
    return MergeCheck(difference, tolerance)


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
        model: The base, or the model with an adapter over it.
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
    for key in ("target_modules", "target_parameters", "exclude_modules", "modules_to_save"):
        if isinstance(config.get(key), list):
            config[key].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _adapter_of(runtime: Runtime) -> Patches:
    patches = from_tensors(runtime.skill())
    if not patches:
        raise BadInput("there is no adapter over the base model to export; export it merged")
    return patches


def _served(rank: int) -> int | None:
    """Return the smallest rank that vLLM takes and that is at least `rank`; None beyond the last."""
    return next((known for known in RANKS if known >= rank), None)


def too_large(rank: int, cap: int) -> str:
    """Return the error for an adapter whose rank is above the cap."""
    why = ", the largest that vLLM serves" if cap == RANKS[-1] else ""
    return (
        f"this adapter has rank {rank}, above the cap of {cap}{why}; write a whole model with --merged, compress the adapter "
        f"with --rank {cap} or less, which reports the loss, or with 'perdure merge --rank', which scores the tasks too; or "
        "raise the cap with --max-rank"
    )


def _targets(runtime: Runtime, modules: Collection[str]) -> list[str]:
    """Return the module names' last parts if they mean exactly the patched modules, else the whole names."""
    short = {module.rsplit(".", 1)[-1] for module in modules}
    meant = {name for name, _ in runtime.base.model.named_modules() if name.rsplit(".", 1)[-1] in short}
    return sorted(short if meant == set(modules) else modules)


def _added(runtime: Runtime, patches: Patches) -> dict[str, str]:
    """Return the parameter of each patch whose update PEFT adds to a parameter, since it knows no layer by the patch's name."""
    stacked = expert_parameters(runtime.base.model).keys() & patches
    alone = taken_for_experts(runtime.base.model, patches.keys() - stacked)
    return {name: name for name in stacked} | {name: f"{name}.weight" for name in alone}


def _places(runtime: Runtime, config: Any) -> dict[str, str]:
    """Return where PEFT stores the factors of each parameter that `config` names; no weight is read.

    It wraps a module once for each of its parameters, in an order of its own: that of a model without storage shows it.
    """
    from peft import get_peft_model
    from peft.tuners.lora.layer import ParamWrapper

    with torch.device("meta"):
        model = get_peft_model(shell(str(runtime.folder)), deepcopy(config))
    modules = {name.removeprefix(PREFIX): module for name, module in model.named_modules()}
    return {
        f"{name.replace('.base_layer', '')}.{module.parameter_name}": name
        for name, module in modules.items()
        if isinstance(module, ParamWrapper)
    }


def _flat(patch: Patch) -> tuple[Tensor, Tensor]:
    """Return the factors as PEFT stores them: of experts (experts x rank, in), and (out, rank x experts)."""
    if patch.down.ndim == 2:
        return patch.down, patch.up
    return patch.down.flatten(0, 1), patch.up.permute(1, 2, 0).flatten(1)


def _stacked(patch: Patch, experts: int) -> Patch:
    """Return the patch of experts whose factors PEFT stores as `_flat` does."""
    down = patch.down.unflatten(0, (experts, -1))
    return Patch(down, patch.up.unflatten(1, (-1, experts)).permute(2, 0, 1).contiguous(), patch.scale)


def _transposed(runtime: Runtime, module: str) -> bool:
    """Return whether a layer has its weight as (in, out), as in GPT-2."""
    from transformers.pytorch_utils import Conv1D

    layer = runtime.base.model.get_submodule(module)
    return isinstance(getattr(layer, "base_layer", layer), Conv1D)
