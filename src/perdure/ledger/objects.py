"""Objects: named tensors in safetensors files whose name is the hash of their content.

The hash covers names, dtypes, shapes and values in the order of the names. It does not cover the file, whose header is not
stable. An object may be stored in parts, which are objects too. Objects with a common part share its file.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.core.canonical import canonical_json
from perdure.core.errors import BrokenStore, PerdureError
from perdure.core.files import save_tensors, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
PARTS = "parts"  # name of the tensor of hashes, (parts, 32), in the file of an object that is stored in parts


class ObjectStore:
    """The folder of object files, `ab/<hash>.safetensors`, where `ab` is the beginning of the hash."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, name: str) -> Path:
        """Return the path of the object of this hash, whether it exists or not."""
        return self.root / name[:2] / f"{name}{SUFFIX}"

    def put(self, tensors: Mapping[str, "Tensor"], parts: Iterable[Mapping[str, "Tensor"]] = ()) -> str:
        """Write the tensors unless an object with this content exists already, and return the object's hash.

        A damaged object of this name is written again.

        Args:
            tensors: The tensors by name.
            parts: More tensors of the same object, under other names. Each part is a file that other objects can share.

        Raises:
            PerdureError: The disk is full or not writable; nothing is left behind.

        Cost: one pass over the bytes to hash and one to write, or to read the existing file. Tensors are copied only where they
        share memory.
        """
        hashes = [self.put(part) for part in parts]
        ready = _separate({**tensors, **_listing(hashes)})
        name = _digest(ready)
        if not self.verify(name):
            write_atomically(self.path(name), lambda path: save_tensors(ready, path))
        return name

    def get(self, name: str) -> dict[str, "Tensor"]:
        """Return the tensors of an object, on the CPU, checked against their hash.

        Raises:
            BrokenStore: The file is missing, not readable, or has other content.
        """
        path = self.path(name)
        advice = "restore it from a backup, or roll back to an entry that does not need it ('perdure verify' lists all)"
        if not path.exists():
            raise BrokenStore(f"object {name[:12]} is missing: no file {path}; {advice}")
        tensors = _load(path)
        if tensors is None or _digest(tensors) != name:
            raise BrokenStore(f"object {name[:12]} is damaged: {path} does not have the recorded content; {advice}")
        tensors.pop(PARTS, None)
        for part in self.parts(name):
            tensors |= self.get(part)
        return tensors

    def verify(self, name: str) -> bool:
        """Return whether the object exists and its content has its hash. Its parts are separate objects to verify."""
        tensors = _load(self.path(name))
        return tensors is not None and _digest(tensors) == name

    def parts(self, name: str) -> list[str]:
        """Return the hashes of an object's parts, in order; none where it is not stored in parts, or cannot be read."""
        return _parts_in(self.path(name))

    def size(self, name: str) -> int:
        """Return the bytes the object takes on disk with its parts, 0 if it does not exist."""
        return sum(self._size(part) for part in {name, *self.parts(name)})

    def all(self) -> set[str]:
        """Return the hashes of all objects on disk."""
        files = self.root.glob(f"??/*{SUFFIX}")
        return {path.stem for path in files if re.fullmatch("[0-9a-f]{64}", path.stem)}

    def remove(self, name: str) -> int:
        """Delete the file of an object, not those of its parts, and return the bytes this freed."""
        size = self._size(name)
        self.path(name).unlink(missing_ok=True)
        return size

    def sweep(self) -> int:
        """Delete incomplete files of killed writers and return the bytes freed; only under the write lock."""
        freed = 0
        for path in self.root.glob("??/.*"):
            freed += path.stat().st_size
            path.unlink()
        return freed

    def _size(self, name: str) -> int:
        path = self.path(name)
        return path.stat().st_size if path.exists() else 0


def _listing(hashes: list[str]) -> dict[str, "Tensor"]:
    """Return the tensor with the hashes of an object's parts; empty without parts."""
    import torch

    if not hashes:
        return {}
    return {PARTS: torch.frombuffer(bytearray.fromhex("".join(hashes)), dtype=torch.uint8).reshape(-1, 32)}


def _parts_in(path: Path) -> list[str]:
    """Read the tensor of hashes from a safetensors file, without torch: its header is JSON, after its length in 8 bytes."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            listing = json.loads(file.read(min(length, path.stat().st_size))).get(PARTS)
            first, last = listing["data_offsets"] if listing else (0, 0)
            file.seek(8 + length + first)
            hashes = file.read(last - first)
    except (OSError, ValueError):
        return []
    return [hashes[at : at + 32].hex() for at in range(0, len(hashes), 32)]


def _separate(tensors: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Return the tensors detached, contiguous and on the CPU, no two in the same memory, which safetensors refuses."""
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
        PerdureError: There is no permission to read it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb"):  # safetensors reports a file without read permission as missing
            return load_file(path)
    except PermissionError as error:
        raise PerdureError(f"cannot read {path}: {error.strerror}; get read permission from its owner") from error
    except (SafetensorError, OSError):
        return None
