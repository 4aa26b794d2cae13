"""Objects: the hash is of the content, and what is on disk is all of it or nothing."""

import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.errors import BrokenStore, PerdureError
from perdure.ledger import ObjectStore
from perdure.ledger.objects import _digest

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.int32, torch.int64]


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "objects")


def files(store: ObjectStore) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_shape_and_layout_comes_back_to_the_bit(store: ObjectStore, dtype: torch.dtype) -> None:
    tensors = {
        "scalar": torch.tensor(3).to(dtype),
        "empty": torch.zeros(0, 4, dtype=dtype),
        "transposed": torch.arange(12).reshape(3, 4).to(dtype).T,
        "slice": torch.arange(12).to(dtype)[2:5],
    }
    found = store.get(store.put(tensors))
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name], tensor)


def test_the_hash_is_the_documented_one(store: ObjectStore) -> None:
    name = store.put({"b": torch.tensor([1, 258], dtype=torch.int32), "a": torch.tensor(1.0)})
    content = b'["a","float32",[]]' + bytes([0, 0, 128, 63]) + b'["b","int32",[2]]' + bytes([1, 0, 0, 0, 2, 1, 0, 0])
    assert name == hashlib.sha256(content).hexdigest()


@settings(max_examples=25)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=6), st.sampled_from(DTYPES), st.sampled_from(DTYPES))
def test_hashes_are_equal_exactly_when_dtype_shape_and_values_are(values, first, second) -> None:
    one, other = torch.tensor(values).to(first), torch.tensor(values).to(second)
    assert (_digest({"w": one}) == _digest({"w": other})) == (first == second)
    assert _digest({"w": one}) != _digest({"v": one})
    assert _digest({"w": one}) != _digest({"w": one[None]})
    assert _digest({"w": one}) != _digest({"w": one + 1})
    assert _digest({"w": one, "v": other}) == _digest({"v": other, "w": one})


def test_tensors_that_share_memory_are_kept_apart(store: ObjectStore) -> None:
    whole = torch.arange(6.0)
    found = store.get(store.put({"tied": whole, "head": whole, "part": whole[2:4]}))
    assert torch.equal(found["head"], whole)
    assert torch.equal(found["part"], whole[2:4])


def test_changing_a_loaded_tensor_leaves_the_object_alone(store: ObjectStore) -> None:
    name = store.put({"w": torch.ones(4)})
    store.get(name)["w"].zero_()
    assert store.get(name)["w"].tolist() == [1.0] * 4


def test_an_object_that_is_there_is_not_written_again(store: ObjectStore) -> None:
    name = store.put({"w": torch.ones(4)})
    before = store.path(name).stat()
    assert store.put({"w": torch.ones(4)}) == name
    assert store.path(name).stat().st_mtime_ns == before.st_mtime_ns
    assert store.path(name).stat().st_ino == before.st_ino
    assert store.all() == {name}
    assert store.size(name) == before.st_size


@pytest.mark.parametrize("damage", ["flip a bit", "cut", "empty", "remove"])
def test_damage_is_found_and_refused(store: ObjectStore, damage: str) -> None:
    name = store.put({"w": torch.ones(4)})
    path = store.path(name)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes({"flip a bit": bytes(content), "cut": bytes(content[:-3]), "empty": b""}[damage])
    assert not store.verify(name)
    with pytest.raises(BrokenStore, match=rf"object {name[:12]} is (missing|damaged).*restore it"):
        store.get(name)


def test_a_full_disk_leaves_nothing(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, path: Path, told: object) -> None:
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(PerdureError, match=r"No space left on device; free some space"):
        store.put({"w": torch.ones(4)})
    assert files(store) == []


def test_a_write_that_the_system_refuses_leaves_nothing(tmp_path: Path) -> None:
    # A limit on file size stands in for a disk that is really full.
    program = (
        "import resource, sys, torch; from pathlib import Path; from perdure.ledger import ObjectStore;"
        "from perdure.core.errors import PerdureError;"
        "store = ObjectStore(Path(sys.argv[1])); resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "try: store.put({'w': torch.ones(1000)})\n"
        "except PerdureError as error: print('refused:', error)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.startswith("refused: cannot write"), done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_sweep_removes_what_a_killed_writer_left(store: ObjectStore) -> None:
    name = store.put({"w": torch.ones(4)})
    (store.path(name).parent / f".{name}.safetensors.x7").write_bytes(b"12345")
    assert store.sweep() == 5
    assert files(store) == [store.path(name)]


def test_remove_says_what_it_freed(store: ObjectStore) -> None:
    name = store.put({"w": torch.ones(4)})
    size = store.size(name)
    assert store.remove(name) == size > 0
    assert store.all() == set()
    assert store.remove(name) == 0


def test_a_damaged_object_is_written_again(store: ObjectStore) -> None:
    tensors = {"w": torch.arange(12.0)}
    name = store.put(tensors)
    content = bytearray(store.path(name).read_bytes())
    content[-1] ^= 1
    store.path(name).write_bytes(content)
    assert not store.verify(name)
    assert store.put(tensors) == name
    assert torch.equal(store.get(name)["w"], tensors["w"])


def test_an_object_that_may_not_be_read_is_not_called_damaged(store: ObjectStore, monkeypatch) -> None:
    name = store.put({"w": torch.zeros(2)})

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    for verb in (store.get, store.verify):
        with pytest.raises(PerdureError, match=f"cannot read .*{name}.*Permission denied; get read permission"):
            verb(name)


def test_objects_share_the_parts_that_they_have_in_common(store: ObjectStore) -> None:
    one, two, three = ({f"part {n}": torch.full((100,), float(n))} for n in range(3))
    first, second = store.put({"head": torch.ones(1)}, [one, two]), store.put({"head": torch.ones(2)}, [two, three])
    assert store.parts(first)[1] == store.parts(second)[0] == store.put(two)
    assert store.all() == {first, second, *store.parts(first), *store.parts(second)}
    assert len(store.all()) == 5
    found = store.get(second)
    assert sorted(found) == ["head", "part 1", "part 2"]
    assert torch.equal(found["part 2"], three["part 2"])
    assert store.size(first) == sum(store.path(name).stat().st_size for name in (first, *store.parts(first)))
    assert store.put({"head": torch.ones(1)}, [two, one]) != first  # the order is part of it


def test_a_damaged_part_is_found_and_written_again(store: ObjectStore) -> None:
    parts = [{"a": torch.zeros(3)}, {"b": torch.ones(3)}]
    whole = store.put({"head": torch.ones(1)}, parts)
    store.path(store.parts(whole)[1]).write_bytes(b"nothing")
    with pytest.raises(BrokenStore, match=f"object {store.parts(whole)[1][:12]} is damaged"):
        store.get(whole)
    assert store.put({"head": torch.ones(1)}, parts) == whole
    assert torch.equal(store.get(whole)["b"], torch.ones(3))


@pytest.mark.parametrize(
    "content", [b"", b"short", (10**18).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{}"]
)
def test_what_is_no_object_has_no_parts(store: ObjectStore, content: bytes) -> None:
    name = "ab" + 62 * "0"
    assert store.parts(name) == []
    store.path(name).parent.mkdir(parents=True)
    store.path(name).write_bytes(content)
    assert store.parts(name) == []
