"""Base models: found, loaded, identified. Any causal language model; nothing depends on a model's name."""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from perdure.bridges.embedded import NAME, embedded_model
from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput, BrokenStore
from perdure.core.files import file_hash

KERNELS = "128"  # shapes whose kernels a processor keeps; one update has about a hundred
IDENTITY = (  # files of a model folder that decide what it says, weights apart
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "additional_chat_templates/*",
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass
class Base:
    """A base model in memory.

    Args:
        model: The causal language model, in eval mode, nothing trainable.
        tokenizer: Its tokenizer.
        dtype: Dtype of the frozen weights.
        device: Where it lives.
    """

    model: Any
    tokenizer: Any
    dtype: torch.dtype
    device: torch.device

    def precision(self) -> AbstractContextManager:
        """Return the context of a forward: bfloat16 autocast over a bfloat16 base, nothing over float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    @property
    def pad(self) -> int:
        """Token id used for padding; it is masked, so any will do."""
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    @property
    def stops(self) -> list[int]:
        """Token ids that end an answer: the tokenizer's and the model's own."""
        own = getattr(self.model.generation_config, "eos_token_id", None)
        ids = own if isinstance(own, list) else [own]
        return sorted({i for i in [*ids, self.tokenizer.eos_token_id] if i is not None})

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
        if not (Path(name) / "config.json").is_file():
            raise BadInput(f"{name} is no model folder: it has no config.json")
        return Path(name).resolve()
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadInput(f"no model folder at {name}")
    return _from_hub(name, revision)


def _from_hub(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]  # never code, never pickles
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (LocalEntryNotFoundError, ConnectionError, TimeoutError) as error:
        raise BadInput(
            f"model {name!r} is neither a folder nor in the local hub cache, and the hub cannot be reached; "
            f"go online, give a folder, or use the embedded --model {NAME}"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        at = f" at revision {revision}" if revision else ""
        raise BadInput(f"the hub has no model {name!r}{at} that you can read: {error}") from error


def fingerprint(folder: Path) -> str:
    """Return the hash of each file that makes the model, a line each: weights, configuration, tokenizer, chat template.

    What says only who wrote the configuration is left out of its hash. Cost: reads every weight.
    """
    if not any(folder.glob("*.safetensors")):
        raise BadInput(f"{folder} has no .safetensors weights; perdure loads no pickles, convert the model first")
    config = _config(folder)
    for key in ("_name_or_path", "transformers_version"):
        config.pop(key, None)
    hashes = {_within(folder, path): file_hash(path) for path in _identity(folder)}
    hashes["config.json"] = content_hash(config)
    return "\n".join(f"{found} {name}" for name, found in hashes.items())


def stamp(folder: Path) -> list[list[Any]]:
    """Return what changes when a file of `fingerprint` is touched, at no cost: names, sizes and times."""
    return [[_within(folder, p), p.stat().st_size, p.stat().st_mtime_ns] for p in _identity(folder)]


def check_unchanged(folder: Path, expected: str) -> None:
    """Refuse a base model that is not the one the workspace was made with.

    Raises:
        BrokenStore: Weights, configuration, tokenizer or chat template changed; the message names the files.
    """
    changed = set(fingerprint(folder).splitlines()) ^ set(expected.splitlines())
    if names := sorted({line.partition(" ")[2] for line in changed}):
        raise BrokenStore(
            f"the base model at {folder} changed on disk since the workspace was made: {', '.join(names)}; "
            "put the original back, or make a new workspace for the new model"
        )


def positions(folder: Path) -> int | None:
    """Return the most tokens a text may have for the model in a local folder; None where it sets no limit.

    Raises:
        BadInput: Its configuration cannot be read.
    """
    from transformers import AutoConfig

    try:
        return positions_of(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"cannot read the configuration of the model in {folder}: {error}") from error


def choose_device(wanted: str = "auto") -> torch.device:
    """Return the accelerator if there is one, else the CPU, unless told otherwise."""
    if wanted != "auto":
        return torch.device(wanted)
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")  # type: ignore[return-value]


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """Return bfloat16 where the processor computes it fast, else float32, unless told otherwise."""
    if wanted != "auto":
        if wanted not in DTYPES:
            raise BadInput(f"unknown dtype {wanted!r}; choose auto, {' or '.join(DTYPES)}")
        return DTYPES[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu":
        flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        return torch.bfloat16 if flags.get("avx512_bf16") or flags.get("amx_bf16") else torch.float32
    return torch.float32


def load_base(folder: Path, dtype: str = "auto", device: str = "auto") -> Base:
    """Load model and tokenizer from a local folder; safetensors only, and no code from the folder is ever run.

    Raises:
        BadInput: The folder needs code of its own, or cannot be loaded.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    refuse_own_code(folder)
    # oneDNN keeps what it compiled for every shape it met, up to half a megabyte each; it reads this before its first product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)
    place = choose_device(device)
    kind = choose_dtype(dtype, place)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        with _no_bar():
            model: Any = AutoModelForCausalLM.from_pretrained(
                folder, dtype=kind, use_safetensors=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise BadInput(f"cannot load a causal language model from {folder}: {error}") from error
    model.requires_grad_(False)
    return Base(model.to(place).eval(), tokenizer, kind, place)


@contextmanager
def _no_bar() -> Iterator[None]:
    """Keep transformers' progress bar out of what the program itself tells."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a local model folder, without its weights.

    Raises:
        BadInput: It cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"cannot load a tokenizer from {folder}: {error}") from error


def refuse_own_code(folder: Path) -> None:
    """Refuse a model folder whose model type needs Python code that transformers does not have.

    Raises:
        BadInput: It does.
    """
    from transformers import CONFIG_MAPPING

    config = _config(folder)
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise BadInput(
            f"the model in {folder} needs Python code of its own (auto_map, trust_remote_code); perdure never runs code "
            f"from a model folder. Use a model type that transformers knows"
        )


def positions_of(config: Any) -> int | None:
    """Return the most tokens a text may have for a model of this configuration; None where it sets no limit."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def _identity(folder: Path) -> list[Path]:
    return sorted({path for pattern in (*IDENTITY, "*.safetensors") for path in folder.glob(pattern) if path.is_file()})


def _within(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {folder / 'config.json'}: {error}") from error
    if not isinstance(config, dict):
        raise BadInput(f"{folder / 'config.json'} holds a {type(config).__name__}, not a model's configuration")
    return config
