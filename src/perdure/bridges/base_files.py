"""The files of a model's folder: configuration and weights, read without loading the model, and refused with a clear error."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from perdure.core.errors import BadInput
from perdure.core.plain_json import BadJson, read_json_file
from perdure.core.words import some

ADAPTER, CONFIG, GENERATION = "adapter_config.json", "config.json", "generation_config.json"
VOCABULARIES = ("tokenizer.json", "vocab*", "*.model", "*.model.v*", "tekken.json", "*.tiktoken", "*.spm", "bpe.codes")
SMALL = (CONFIG, GENERATION, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
LARGE = ("tokenizer.json", "vocab.json")  # reading one takes nearly as long as loading the tokenizer does
JSON_BYTES = 2**27  # the tokenizer.json of large vocabularies have 2**25
WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
FLOATS = (
    "F64",
    "F32",
    "F16",
    "BF16",
)  # what a weight is stored in; bytes, integers and 8-bit floats are quantised ones
PATTERNS = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")  # what is downloaded: never code, never pickles
QUANTISED = "quantised weights cannot be used as a base: perdure trains, edits and exports over the plain weights"
REMEDY = (
    "Use the model it was made from, in bfloat16, float16 or float32; or write it out in plain weights where its library is "
    "installed (transformers: model.dequantize(), then save_pretrained)"
)


def check_folder(folder: Path) -> None:
    """Refuse a model folder that holds no plain causal language model. Cost: reads the headers of the weights, not the weights.

    Raises:
        BadInput: It holds an adapter, quantised weights, code of its own, no weights, or damaged ones.
    """
    refuse_adapter(folder)
    config = read_config(folder)
    refuse_damaged(folder)
    refuse_own_code(folder, config)
    refuse_no_tokenizer(folder)
    _refuse_quantised(folder, config)
    stored = stored_weights(folder, config)
    _refuse_too_many_layers(folder, config, len(stored))
    odd = sorted(name for name, kind in stored.items() if name.endswith("weight") and kind not in FLOATS)
    if odd:
        raise BadInput(f"{folder} stores {odd[0]} as {stored[odd[0]]}: {QUANTISED}. {REMEDY}")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of a model folder, as it is written.

    Raises:
        BadInput: It cannot be read, or is no JSON object.
    """
    return read_object(folder / CONFIG)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a model folder.

    A name that is written twice is refused: transformers would take the last of its values silently, and no model that a library
    saved has one.

    Raises:
        BadInput: The file cannot be read, or holds something else; see `core.plain_json`.
    """
    try:
        value = read_json_file(path, JSON_BYTES)
    except (OSError, BadJson) as error:
        line = f", line {error.line}" if isinstance(error, BadJson) and error.line else ""
        raise BadInput(f"cannot read {path}{line}: {error}; download or copy the model again") from error
    if not isinstance(value, dict):
        raise BadInput(f"{path} holds a {type(value).__name__}, no JSON object; download or copy the model again")
    return value


def refuse_damaged(folder: Path, names: Sequence[str] = SMALL) -> None:
    """Refuse JSON files of a model folder that transformers would ignore, or report unclearly.

    Raises:
        BadInput: One of `names` is in the folder, and is no JSON object.
    """
    for name in names:
        if (folder / name).is_file():
            read_object(folder / name)


def end_of_text(folder: Path) -> int | None:
    """Return the token id that ends a text by a folder's generation settings, else by its configuration; None without one."""
    config = read_config(folder)
    generation = read_object(folder / GENERATION) if (folder / GENERATION).is_file() else {}
    for part in (generation, config, config.get("text_config") or {}):
        ids = part.get("eos_token_id")
        for token in ids if isinstance(ids, list) else [ids]:
            if isinstance(token, int):
                return token
    return None


def refuse_generation(folder: Path) -> None:
    """Refuse damaged generation settings, which transformers would ignore silently.

    Raises:
        BadInput: They are no JSON object, or the tokens that end an answer are no token ids.
    """
    if not (folder / GENERATION).is_file():
        return
    ids = read_object(folder / GENERATION).get("eos_token_id")
    if any(not isinstance(token, int) for token in (ids if isinstance(ids, list) else [ids]) if token is not None):
        raise BadInput(f"{folder / GENERATION}: eos_token_id is no token id or list of them, got {ids!r}")


def refuse_no_tokenizer(folder: Path) -> None:
    """Refuse a folder without any file that holds a vocabulary.

    Raises:
        BadInput: There is none.
    """
    if not any(any(folder.glob(pattern)) for pattern in VOCABULARIES):
        raise BadInput(
            f"{folder} has no tokenizer (tokenizer.json, or the vocabulary that it is made from); copy the tokenizer's files of "
            "this model into the folder"
        )


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder with an adapter, which transformers would load silently and join to the model.

    Raises:
        BadInput: There is one.
    """
    if not (folder / ADAPTER).is_file():
        return
    if (folder / CONFIG).is_file():
        raise BadInput(
            f"{folder} holds an adapter ({ADAPTER}) next to the model, and it would silently become part of the base; move "
            "the adapter to a folder of its own, or merge it (PeftModel.merge_and_unload, then save_pretrained) first"
        )
    raise BadInput(
        f"{folder} holds an adapter ({ADAPTER}), not a model; give the folder or hub id of its base model, and this folder with "
        "--adapter ('perdure init'), or merge the adapter into it first (PeftModel.merge_and_unload, then save_pretrained)"
    )


def refuse_own_code(folder: Path, config: Mapping[str, Any] | None = None) -> None:
    """Refuse a model folder whose model type needs Python code that transformers does not have.

    Raises:
        BadInput: It does.
    """
    from transformers import CONFIG_MAPPING

    config = read_config(folder) if config is None else config
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise BadInput(
            f"the model in {folder} needs Python code of its own (auto_map, trust_remote_code); perdure never runs code "
            f"from a model folder. Use a model type that transformers knows"
        )


def stored_weights(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Return the name and the dtype of every tensor that belongs to the model, from the headers of its files.

    Raises:
        BadInput: A file is missing, cut off, or no safetensors file.
    """
    dtypes = {}
    for path in weight_files(folder, config):
        dtypes.update(_header(path))
    return dtypes


def weight_files(folder: Path, config: Mapping[str, Any]) -> list[Path]:
    """Return the files that the model's weights are loaded from.

    Raises:
        BadInput: There are none, the index names files that are not there, or files that are elsewhere.
    """
    named = config.get("transformers_weights")
    if named is None and not (folder / WEIGHTS).is_file() and not (folder / INDEX).is_file():
        raise BadInput(
            f"{folder} has no .safetensors weights ({WEIGHTS}, or {INDEX} and what it names){_instead(folder)}"
        )
    if named is None:
        named = WEIGHTS if (folder / WEIGHTS).is_file() else INDEX
    if not isinstance(named, str):
        raise BadInput(f"{folder / CONFIG}: transformers_weights is no file name, got {named!r}")
    names = _indexed(folder / named) if named.endswith(".index.json") else [named]
    if away := [name for name in names if PurePosixPath(name).name != name]:
        raise BadInput(f"the weights of {folder} are in {away[0]}; put all of them into the model's own folder")
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise BadInput(
            f"{folder} lacks {len(absent)} of its {len(names)} weight files: {some(absent)}; download or copy the model again"
        )
    return [folder / name for name in names]


def refuse_doubles(folder: Path) -> None:
    """Refuse an index if another file has weights of the same names: which of them is used would not be recorded.

    Raises:
        BadInput: There is such a file.
    """
    config = read_config(folder)
    files = weight_files(folder, config)
    if (folder / WEIGHTS) in files or not (folder / INDEX).is_file():
        return
    owner: dict[str, Path] = {}
    for path in [*files, *sorted(set(folder.glob("*.safetensors")) - set(files))]:
        for name in _header(path):
            if name in owner:
                raise BadInput(
                    f"{owner[name].name} and {path.name} in {folder} both hold {name}; remove the file that is not the model's"
                )
            owner[name] = path


def _indexed(path: Path) -> list[str]:
    names = read_object(path).get("weight_map")
    if isinstance(names, dict) and names and all(isinstance(name, str) for name in names.values()):
        return sorted(set(names.values()))
    raise BadInput(f"{path} is no index of weight files; download or copy the model again")


def _header(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"{path} is damaged or cut off ({error}); download or copy the model again. For a file of git-lfs, run git lfs pull"
        ) from error


def _instead(folder: Path) -> str:
    """Return what a folder without safetensors holds instead, and what to do about it."""
    for patterns, kind in (
        (("*.bin", "*.pt", "*.pth", "*.ckpt"), "pickles"),
        (("*.gguf",), "GGUF"),
        (("*.h5", "*.msgpack", "*.onnx"), "weights of another framework"),
    ):
        if any(any(folder.glob(pattern)) for pattern in patterns):
            return (
                f" but {kind}: perdure loads no pickles and no other formats; convert the model first (load it with "
                "transformers, then save_pretrained)"
            )
    if others := sorted(path.name for path in folder.glob("*.safetensors")):
        return f", only {some(others)}; rename the file, or make an index, if it holds the model"
    return "; download or copy the model again"


def _refuse_quantised(folder: Path, config: Mapping[str, Any]) -> None:
    parts = [
        config,
        *(value for value in config.values() if isinstance(value, dict)),
    ]  # of text and vision in one model
    for part in parts:
        for key in ("quantization_config", "compression_config"):
            if settings := part.get(key):
                method = settings.get("quant_method") if isinstance(settings, dict) else None
                raise BadInput(f"the model in {folder} is quantised ({method or key}): {QUANTISED}. {REMEDY}")


def _refuse_too_many_layers(folder: Path, config: Mapping[str, Any], tensors: int) -> None:
    """Refuse a configuration of more layers than there are tensors, before a damaged number makes a model for ever."""
    layers = config.get("num_hidden_layers")
    if isinstance(layers, int) and layers > tensors:
        raise BadInput(
            f"{folder / CONFIG} has {layers:,} layers, but the weights have {tensors:,} tensors; weights are missing, or the "
            "configuration is another model's"
        )
