"""Base models: finding and loading them. Any causal language model; nothing depends on a model's name."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from perdure.bridges import attention, base_checks, quantization
from perdure.bridges.base_files import (
    LARGE,
    PATTERNS,
    check_folder,
    end_of_text,
    read_config,
    refuse_adapter,
    refuse_damaged,
    refuse_doubles,
    refuse_generation,
    stored_weights,
)
from perdure.bridges.embedded import NAME, embedded_model
from perdure.bridges.hub_files import fetched
from perdure.core.device import ANY, check_name
from perdure.core.errors import BadInput, PerdureError
from perdure.data.encode import stop_ids
from perdure.model.layers import positions_of

KERNELS = "128"  # shapes whose kernels a processor caches; one update has about a hundred
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}  # as safetensors names them


@dataclass
class Base:
    """A base model in memory.

    Args:
        model: The causal language model, in eval mode, nothing trainable.
        tokenizer: Its tokenizer.
        dtype: Dtype of the frozen weights, and of what is computed with quantised ones.
        device: Where it lives.
        quantization: "nf4" or "int8" where its linear layers are quantised; None for plain weights.
        attn_implementation: What computes attention, where it was named; None for what transformers chose.
    """

    model: Any
    tokenizer: Any
    dtype: torch.dtype
    device: torch.device
    quantization: str | None = None
    attn_implementation: str | None = None

    def precision(self) -> AbstractContextManager:
        """Return the context of a forward: autocast to the dtype of the base, nothing over float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @property
    def pad(self) -> int:
        """Token id used for padding; it is masked, so any that the model has an embedding for will do."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None or pad >= self.rows else pad

    @property
    def opening(self) -> int:
        """Token id that stands before a text that is read alone: the begin of a sequence, or the end where there is none."""
        named = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        return next((token for token in named if token is not None and token < self.rows), self.pad)

    def alone(self, ids: Sequence[int]) -> list[int]:
        """Return the tokens of the text of some tokens as it would be written alone, without white space around it."""
        text = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return self.text_ids(text)

    def text_ids(self, text: str) -> list[int]:
        """Return the tokens of a text alone, without special tokens and white space around it."""
        found: list[int] = self.tokenizer(text.strip(), add_special_tokens=False)["input_ids"]
        return found

    @property
    def rows(self) -> int:
        """How many tokens the model has an embedding for."""
        return self.model.get_input_embeddings().weight.shape[0]

    @property
    def stops(self) -> list[int]:
        """Token ids that end an answer: the tokenizer's, its chat template's end of turn, and the model's own."""
        own = getattr(self.model.generation_config, "eos_token_id", None)
        ids = own if isinstance(own, list) else [own]
        return sorted({i for i in ids if i is not None} | stop_ids(self.tokenizer))

    @property
    def positions(self) -> int | None:
        """Most tokens a text may have, prompt and answer together; None where the model sets no limit."""
        return positions_of(self.model.config)


def find_model(name: str, revision: str | None = None) -> Path:
    """Return the local folder of a model: a folder, the embedded default, or a hub id (downloaded once by the hub's client).

    Raises:
        BadInput: No such folder or hub model, or the hub cannot be reached.
    """
    if name == NAME:
        return embedded_model()
    if Path(name).is_dir():
        refuse_adapter(Path(name))
        if not (Path(name) / "config.json").is_file():
            raise BadInput(f"{name} is no model folder: it has no config.json")
        return Path(name).resolve()
    if Path(name).is_file():
        raise BadInput(f"{name} is a file; give the folder of the model (config.json, *.safetensors and its tokenizer)")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadInput(f"no model folder at {name}")
    return fetched(name, revision, PATTERNS, "model", f"give a folder, or use the embedded --model {NAME}")


def positions(folder: Path) -> int | None:
    """Return the most tokens a text may have for the model in a local folder; None where it sets no limit.

    Raises:
        BadInput: Its configuration cannot be read.
    """
    return positions_of(configuration(folder))


def configuration(folder: Path) -> Any:
    """Return the configuration in a local model folder, as transformers reads it.

    Raises:
        BadInput: It cannot be read.
    """
    from transformers import AutoConfig

    read_config(folder)  # names the line of a damaged file, and what to do
    with in_words(f"cannot read the configuration of the model in {folder}"), _quiet():
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def choose_device(wanted: str = ANY) -> torch.device:
    """Return the accelerator if there is one, else the CPU, unless given.

    Raises:
        BadInput: No device is named so, or it is not on this machine; the message lists those that are.
    """
    device = None if check_name(wanted) == ANY else torch.device(wanted)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is None:
        return accelerator or torch.device("cpu")
    many = torch.accelerator.device_count() if accelerator else 0
    kind = accelerator.type if accelerator else ""
    if device.type != "cpu" and (device.type != kind or (device.index or 0) >= many):
        here = ["cpu", *([kind] if many == 1 else [f"{kind}:{n}" for n in range(many)])]
        hint = (
            ""
            if accelerator
            else f"; torch {torch.__version__} finds no accelerator (a build for this one, and its driver?)"
        )
        raise BadInput(f"no device {wanted} here; there is {', '.join(here)}{hint}. Choose one of these, or auto")
    return device


def choose_dtype(wanted: str, folder: Path) -> torch.dtype:
    """Return the dtype that most tensors of a checkpoint have, unless given; float32 where perdure loads no model in it.

    It depends on the checkpoint alone, never on the machine.

    Raises:
        BadInput: No dtype is named so.
    """
    if wanted != "auto":
        if wanted not in DTYPES:
            raise BadInput(
                f"unknown dtype {wanted!r}; choose auto, {', '.join(list(DTYPES)[:-1])} or {list(DTYPES)[-1]}"
            )
        return DTYPES[wanted]
    count = Counter(name for name in stored_weights(folder, read_config(folder)).values() if name in STORED)
    most = max(STORED, key=lambda name: count[name])  # the first of them, where there are as many of two
    return STORED[most]


def is_fast(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether a device computes in a dtype at least as fast as in float32."""
    if dtype == torch.float32:
        return True
    if device.type == "cuda":
        return dtype == torch.float16 or torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        names = ("avx512_bf16", "amx_bf16") if dtype == torch.bfloat16 else ("avx512_fp16", "amx_fp16")
        return any(flags.get(name) for name in names)
    return dtype == torch.float16


def slow_notice(dtype: str, device: str = ANY) -> str | None:
    """Return a notice where the device computes slowly in a dtype; None where it does not."""
    place = choose_device(device)
    if is_fast(DTYPES[dtype], place):
        return None
    return (
        f"this {'processor' if place.type == 'cpu' else 'device'} computes slowly in {dtype}, the dtype of the frozen weights; "
        "a workspace made with --dtype float32 is faster here, and takes twice the memory for them"
    )


def check_base(
    folder: Path,
    dtype: str = "auto",
    device: str = "auto",
    kind: str | None = None,
    attn_implementation: str | None = None,
) -> Base:
    """Load the model in a local folder as `load_base` does, and check all that a new workspace relies on.

    Cost: reads every weight.

    Raises:
        BadInput: The model cannot be loaded, or is not sound: see `base_files` and `base_checks`.
    """
    base, info = _load(folder, dtype, device, kind, attn_implementation)
    refuse_doubles(folder)
    refuse_generation(folder)
    base_checks.refuse_left_out(folder, base.model, info["unexpected_keys"])
    base_checks.refuse_vocabulary(folder, base.rows, base.tokenizer)
    base_checks.refuse_template(folder, base.tokenizer)
    if (most := base.positions) is not None and most < 2:
        raise BadInput(f"{folder / 'config.json'} allows a text {most} tokens; it is damaged")
    return base


def load_base(
    folder: Path,
    dtype: str = "auto",
    device: str = "auto",
    kind: str | None = None,
    attn_implementation: str | None = None,
) -> Base:
    """Load model and tokenizer from a local folder; safetensors only, and no code from the folder is ever run.

    Args:
        folder: The model's folder, with plain weights.
        dtype: As `choose_dtype` takes it.
        device: As `choose_device` takes it.
        kind: "nf4" or "int8" to quantise the linear layers while they load; None leaves them as they are.
        attn_implementation: What computes attention, as transformers names it; None for its own choice.

    Raises:
        BadInput: The folder needs code of its own, holds no whole model with finite weights, or cannot be loaded.
    """
    return _load(folder, dtype, device, kind, attn_implementation)[0]


def _load(
    folder: Path, dtype: str, device: str, quantised: str | None, attn_implementation: str | None
) -> tuple[Base, dict[str, Any]]:
    """Return the base, and what transformers reports of the weights that it did not use."""
    check_folder(folder)
    _refuse_wrong_configuration(folder)
    # oneDNN caches what it compiled for every shape, up to half a megabyte each; it reads this before its first product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)
    place = choose_device(device)
    kind = choose_dtype(dtype, folder)
    tokenizer = load_tokenizer(folder)
    if quantization.check_kind(quantised):
        quantization.refuse_not_finite(folder)
    options = quantization.load_options(quantised, kind, place)
    if attention.check_name(attn_implementation):
        options["attn_implementation"] = attn_implementation
    model, info = _load_model(folder, kind, options)
    attention.refuse_other(model, attn_implementation)
    quantization.without_packing(model)
    base_checks.refuse_not_finite(folder, model)
    model.requires_grad_(False)
    base = Base(
        (model if quantised else model.to(place)).eval(), tokenizer, kind, place, quantised, attn_implementation
    )
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= base.rows:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked, but its embedding is looked up all the same
    base_checks.guard_embedding(base.model, tokenizer)
    return base, info


def _load_model(folder: Path, kind: torch.dtype, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoModelForCausalLM

    with attention.in_words_of(options), in_words(f"cannot load a causal language model from {folder}"), _quiet():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=kind,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are listed in `info`, and refused by our own error
            **options,
        )
    model, info = loaded
    base_checks.refuse_incomplete(folder, info)
    return model, info


def _refuse_wrong_configuration(folder: Path) -> None:
    """Refuse a configuration of no causal language model, and one that transformers cannot make a model of."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    config = configuration(folder)
    kind = "an encoder-decoder" if config.is_encoder_decoder else "no language model that predicts the next token"
    if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise BadInput(
            f"the model in {folder} ({config.model_type}) is {kind}; perdure needs a causal (decoder-only) language model"
        )
    inner = config.get_text_config()
    pad, rows = (getattr(inner, field, None) for field in ("pad_token_id", "vocab_size"))
    if isinstance(pad, int) and isinstance(rows, int) and pad >= rows:
        raise BadInput(
            f"{folder / 'config.json'} has pad_token_id {pad}, and the embedding has {rows:,} tokens; set it to null, or to the "
            "end of text"
        )


@contextmanager
def in_words(what: str) -> Iterator[None]:
    """Turn any error of a library over files that others made into one BadInput.

    Raises:
        BadInput: Something was raised; the message has its first line.
    """
    try:
        yield
    except (PerdureError, MemoryError):
        raise
    except (
        Exception
    ) as error:  # transformers, tokenizers and safetensors raise a dozen kinds, bare Exception among them
        first = " ".join(str(error).split("\n\n")[0].split())
        raise BadInput(f"{what}: {shorten(first, 300, placeholder='...') or type(error).__name__}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off transformers' progress bar and tables of weights inside: perdure has its own output."""
    from transformers.utils import logging

    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a local model folder, without its weights.

    Raises:
        BadInput: It cannot be loaded, or nothing in the folder names a token that ends a text.
    """
    from transformers import AutoTokenizer

    refuse_damaged(folder)
    try:
        with in_words(f"cannot load a tokenizer from {folder}"), _quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            if tokenizer.eos_token_id is None and (end := end_of_text(folder)) is not None:
                tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    except BadInput:
        refuse_damaged(folder, LARGE)
        raise
    if tokenizer.eos_token_id is None:
        raise BadInput(
            f"neither the tokenizer nor the configuration in {folder} names a token that ends a text, so that no answer could "
            'be trained to end; set "eos_token" in tokenizer_config.json'
        )
    return tokenizer
