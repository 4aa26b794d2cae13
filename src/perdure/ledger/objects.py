"""Objects: named tensors in safetensors files whose name is the hash of their content.

The hash covers names, dtypes, shapes and values in the order of the names, not the file, whose header is not stable.
"""

import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.core.canonical import canonical_json
from perdure.core.errors import BrokenStore, PerdureError
from perdure.core.files import save_tensors, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"


class ObjectStore:
    """The folder of object files, `ab/<hash>.safetensors` where `ab` begins the hash."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, name: str) -> Path:
        """Return where the object of this hash lies, or would lie."""
        return self.root / name[:2] / f"{name}{SUFFIX}"

    def put(self, tensors: Mapping[str, "Tensor"]) -> str:
        """Write the tensors unless an object with this content is there already, and return the object's hash.

        A damaged object of this name is written again.

        Raises:
            PerdureError: The disk is full or not writable; nothing is left behind.

        Cost: one pass over the bytes to hash and one to write, or to read what is there; tensors are copied only where
        they share memory.
        """
        ready = _separate(tensors)
        name = _digest(ready)
        if not self.verify(name):
            write_atomically(self.path(name), lambda aside: save_tensors(ready, aside))
        return name

    def get(self, name: str) -> dict[str, "Tensor"]:
        """Return the tensors of an object, on the CPU, checked against their hash.

        Raises:
            BrokenStore: The file is missing, not readable, or holds something else.
        """
        path = self.path(name)
        advice = "restore it from a backup, or roll back to an entry that does not need it ('perdure verify' lists all)"
        if not path.exists():
            raise BrokenStore(f"object {name[:12]} is missing: no file {path}; {advice}")
        tensors = _load(path)
        if tensors is None or _digest(tensors) != name:
            raise BrokenStore(f"object {name[:12]} is damaged: {path} does not hold what was recorded; {advice}")
        return tensors

    def verify(self, name: str) -> bool:
        """Say whether the object is there and its content still has its hash."""
        tensors = _load(self.path(name))
        return tensors is not None and _digest(tensors) == name

    def size(self, name: str) -> int:
        """Return the bytes the object takes on disk, 0 if it is not there."""
        path = self.path(name)
        return path.stat().st_size if path.exists() else 0

    def all(self) -> set[str]:
        """Return the hashes of all objects on disk."""
        files = self.root.glob(f"??/*{SUFFIX}")
        return {path.stem for path in files if re.fullmatch("[0-9a-f]{64}", path.stem)}

    def remove(self, name: str) -> int:
        """Delete an object and return the bytes this freed."""
        size = self.size(name)
        self.path(name).unlink(missing_ok=True)
        return size

    def sweep(self) -> int:
        """Delete what killed writers left half-written and return the bytes freed; only under the write lock."""
        freed = 0
        for path in self.root.glob("??/.*"):
            freed += path.stat().st_size
            path.unlink()
        return freed


def _separate(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Return the tensors detached, contiguous and on the CPU, no two in the same memory (safetensors refuses those)."""
    ready: dict[str, Tensor] = {}
    owners: set[int] = set()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in owners:
            tensor = tensor.clone()
        owners.add(tensor.untyped_storage().data_ptr())
        ready[name] = tensor
    return ready


def _digest(tensors: Mapping[str, "Tensor"]) -> str:
    """Return the SHA-256 over name, dtype, shape and little-endian bytes of each tensor, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        header = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(canonical_json(header).encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: "Tensor") -> memoryview:
    """Return the values of a contiguous tensor as little-endian bytes, without a copy on little-endian machines."""
    import torch

    flat = tensor.reshape(-1).view(torch.uint8)  # numpy does not know bf16
    if sys.byteorder == "big":
        flat = flat.reshape(-1, tensor.element_size()).flip(1).reshape(-1)
    return flat.numpy().data


def _load(path: Path) -> dict[str, "Tensor"] | None:
    """Read a safetensors file, None if it is missing or not one.

    Raises:
        PerdureError: It may not be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb"):  # safetensors calls a file missing that it may not read
            return load_file(path)
    except PermissionError as error:
        raise PerdureError(f"cannot read {path}: {error.strerror}; get read permission from its owner") from error
    except (SafetensorError, OSError):
        return None
