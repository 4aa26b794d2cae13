"""Which model a folder holds: the hashes of the files that decide its outputs, and whether they changed."""

import json
from fnmatch import fnmatchcase
from math import isfinite
from pathlib import Path
from typing import Any

from perdure.bridges.base_files import PATTERNS, read_config
from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput, BrokenStore
from perdure.core.files import file_hash
from perdure.core.progress import Tick
from perdure.core.stages import Stages

IDENTITY = (  # files of a model folder, other than weights, that decide its outputs
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
FURTHER = (  # vocabularies that count where there is no tokenizer.json; workspaces made before they were hashed go on
    "*.model.v*",
    "tekken.json",
    "*.tiktoken",
    "*.spm",
    "bpe.codes",
    "dict.txt",
    "*vocab.json",
    "vocab-*",
    "*.tokenizer",
    "normalizer.json",
    "emoji.json",
    "byte_maps.json",
    "word_*.json",
)
VERSIONED = "tokenizer.*.json"  # that of one version of transformers, named in tokenizer_config.json


def fingerprint(folder: Path, tick: Tick | None = None) -> str:
    """Return the hash of each file that makes the model, a line each: weights, configuration, tokenizer, chat template.

    Keys that only name who wrote the configuration are left out of its hash. Cost: reads every weight.

    Args:
        folder: The model's folder.
        tick: Called with (what, MiB done, MiB in all) once it takes longer than a second.
    """
    if not any(folder.glob("*.safetensors")):
        raise BadInput(f"{folder} has no .safetensors weights; perdure loads no pickles, convert the model first")
    config = read_config(folder)
    for key in ("_name_or_path", "transformers_version"):
        config.pop(key, None)
    files, done, stages = _identity(folder), 0, Stages(tick=tick)
    total = sum(path.stat().st_size for path in files)

    def show(size: int) -> None:
        nonlocal done
        done += size
        stages.show(done >> 20, total >> 20)

    with stages.stage("hashing", "hashing the base model, in MiB"):
        hashes = {_within(folder, path): file_hash(path, show) for path in files}
    try:
        hashes["config.json"] = content_hash(_plain(config))
    except UnicodeEncodeError as error:
        raise BadInput(
            f"{folder / 'config.json'} holds a character that UTF-8 has not; download or copy the model again"
        ) from error
    return "\n".join(f"{digest} {name}" for name, digest in hashes.items())


def _plain(value: Any) -> Any:
    """Return a configuration with infinity and NaN by name, as transformers writes them now; canonical JSON has neither."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not isfinite(value):
        return {"__float__": json.dumps(value)}
    return value


def stamp(folder: Path) -> list[list[Any]]:
    """Return what changes when a file of `fingerprint` is touched, at no cost: names, sizes and times."""
    return [[_within(folder, p), p.stat().st_size, p.stat().st_mtime_ns] for p in _identity(folder)]


def has_sizes(folder: Path, stamp_then: Any) -> bool:
    """Return whether the files of `fingerprint` have the names and sizes of an earlier `stamp`."""
    return isinstance(stamp_then, list) and [one[:2] for one in stamp(folder)] == [one[:2] for one in stamp_then]


def files_of(folder: Path) -> list[Path]:
    """Return the files of a model folder that loading it may read: no code, no pickles, no hidden files."""
    paths = {path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()}
    return sorted({path for path in paths if not path.name.startswith(".")} | set(_identity(folder)))


def check_unchanged(folder: Path, expected: str, tick: Tick | None = None) -> None:
    """Refuse a base model that is not the one the workspace was made with.

    Args:
        folder: The model's folder.
        expected: Its `fingerprint` then.
        tick: As for `fingerprint`.

    Raises:
        BrokenStore: Weights, configuration, tokenizer or chat template changed; the message names the files.
    """
    actual, recorded = _by_name(fingerprint(folder, tick)), _by_name(expected)
    changed = {name for name in actual | recorded if actual.get(name) != recorded.get(name)}
    if names := sorted(name for name in changed if name in recorded or not _is_further(name)):
        raise BrokenStore(
            f"the base model at {folder} changed on disk since the workspace was made: {', '.join(names)}; "
            "put the original back, or make a new workspace for the new model"
        )


def _identity(folder: Path) -> list[Path]:
    further = (VERSIONED,) if (folder / "tokenizer.json").is_file() else (VERSIONED, *FURTHER)
    patterns = (*IDENTITY, *further, "*.safetensors")
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _is_further(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in (VERSIONED, *FURTHER))


def _by_name(lines: str) -> dict[str, str]:
    """Return the hashes of a fingerprint by file."""
    return {name: digest for digest, _, name in (line.partition(" ") for line in lines.splitlines())}


def _within(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()
