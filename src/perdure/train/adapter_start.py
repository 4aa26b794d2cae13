"""Initial factors of an adapter that are computed from data: computed once per learn, also if it is stopped and resumed."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open

from perdure.core.errors import BrokenStore
from perdure.core.files import save_tensors, write_atomically
from perdure.core.plain_json import read_json
from perdure.core.plan import Factors, Start


def computed_once(path: Path, start: Start) -> Start:
    """Return a start that is computed the first time, and read from `path` after that.

    The factors of a decomposition have free signs and depend on the number of threads, and frozen factors are in no checkpoint. A
    resumed learn that computed them again would continue with other factors.

    Args:
        path: File in the folder of the learn.
        start: Computes the factors.
    """
    return partial(_read_or_compute, path, start)


def _read_or_compute(path: Path, start: Start) -> dict[str, Factors]:
    """Return the factors by module.

    Raises:
        BrokenStore: The file cannot be read.
        PerdureError: The disk is full.
    """
    if not path.exists():
        _write(path, dict(start()))
    return _read(path)


def _write(path: Path, made: dict[str, Factors]) -> None:
    tensors = {
        f"{end}/{module}": value.detach().cpu().contiguous().clone()
        for module, factors in made.items()
        for end, value in (("down", factors.down), ("up", factors.up))
    }
    about = {
        "trains": json.dumps({module: factors.trains for module, factors in made.items()}),
        "effects": json.dumps({module: dict(factors.effects) for module, factors in made.items()}),
        "copied": json.dumps({module: factors.copied for module, factors in made.items()}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda aside: save_tensors(tensors, aside, about))


def _read(path: Path) -> dict[str, Factors]:
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            trains, effects = read_json(about["trains"]), read_json(about.get("effects", "{}"))
            copied = read_json(about.get("copied", "{}"))
            return {
                module: Factors(
                    file.get_tensor(f"down/{module}"),
                    file.get_tensor(f"up/{module}"),
                    which,
                    effects.get(module, {}),
                    copied.get(module, ""),
                )
                for module, which in trains.items()
            }
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise BrokenStore(
            f"{path}, the initial factors of this learn's adapter, cannot be read ({error}); delete its folder to start this "
            "learn again"
        ) from error


def effects_of(start: Mapping[str, Factors]) -> dict[str, float]:
    """Return the mean over modules of each number that describes a start; nothing where it has none."""
    names = sorted({name for factors in start.values() for name in factors.effects})
    values = {name: [factors.effects[name] for factors in start.values() if name in factors.effects] for name in names}
    return {name: sum(own) / len(own) for name, own in values.items()}


def copied_by(path: Path) -> str | None:
    """Return the slot that the start in a file is a copy of; None where it is none, or nothing was computed.

    Raises:
        BrokenStore: The file cannot be read.
    """
    slots = {factors.copied for factors in _read(path).values()} if path.exists() else set()
    return next(iter(slots), "") or None
