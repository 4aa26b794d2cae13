"""The edit set as named tensors, as a ledger stores it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from perdure.core.canonical import content_hash
from perdure.core.errors import BrokenStore
from perdure.editing.edit_set import EditSet
from perdure.editing.facts import Fact
from perdure.editing.spec import EditSpec
from perdure.editing.written import VECTORS, Written

FORMAT = 2
SET, CALL, FACT = "edits/set", "edits/call/{}", "edits/fact/{}/{}"  # names of the tensors that a set is stored in

Tensors = dict[str, Tensor]


def pack_set(edit_set: EditSet) -> tuple[Tensors, list[Tensors]]:
    """Return the set as named tensors: the part that concerns all facts, and the part of each fact, which never changes.

    The update is not among them: it is solved again from the vectors, which gives the same bits on the same machine.
    """
    calls = {call: n for n, call in enumerate(dict.fromkeys(w.request for w in edit_set.written if w.request))}
    header = {
        "format": FORMAT,
        "modules": {str(layer): name for layer, name in edit_set.modules.items()},
        "state": edit_set.state,
        "calls": [_name(call) for call in calls],
        "written": [
            {"fact": w.id, "shared": list(w.shared), "dropped": w.dropped, "call": calls.get(w.request)}
            for w in edit_set.written
        ],
    }
    requests = [{CALL.format(_name(call)): _bytes_of([fact.to_json() for fact in call])} for call in calls]
    return {SET: _bytes_of(header)}, [*requests, *(_packed(w) for w in edit_set.written)]


def set_to_tensors(edit_set: EditSet) -> Tensors:
    """Return the set as one dict of named tensors."""
    head, parts = pack_set(edit_set)
    return {name: tensor for part in (head, *parts) for name, tensor in part.items()}


def set_from_tensors(tensors: Mapping[str, Tensor]) -> EditSet:
    """Return the set that `set_to_tensors` wrote.

    Raises:
        BrokenStore: The tensors are no edit set, or of another format.
    """
    try:
        header = _json_of(tensors[SET])
        if header["format"] != FORMAT:
            raise BrokenStore(
                f"the edit set has format {header['format']}, this perdure knows {FORMAT}; use the perdure that wrote it, or "
                "roll back to before it and edit again"
            )
        calls = [tuple(map(Fact.from_json, _json_of(tensors[CALL.format(name)]))) for name in header["calls"]]
        written = [_restored(line, tensors, calls) for line in header["written"]]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BrokenStore(f"the slot 'edits' does not hold an edit set ({error}); restore it from a backup") from error
    return EditSet({int(layer): name for layer, name in header["modules"].items()}, header["state"], tuple(written))


def _packed(w: Written) -> Tensors:
    """Return one fact's own tensors: its vectors, and its other fields as JSON."""
    fields = {
        "fact": w.fact.to_json(),
        "layers": list(w.layers),
        "spec": w.spec.to_json(),
        "told": dict(w.optimised),
        "batch": w.batch,
    }
    vectors = {FACT.format(w.id, name): getattr(w, name).float() for name in VECTORS}
    return {FACT.format(w.id, "told"): _bytes_of(fields), **vectors}


def _restored(line: Mapping[str, Any], tensors: Mapping[str, Tensor], calls: Sequence[tuple[Fact, ...]]) -> Written:
    fields = _json_of(tensors[FACT.format(line["fact"], "told")])
    return Written(
        fact=Fact.from_json(fields["fact"]),
        layers=tuple(fields["layers"]),
        spec=EditSpec.from_json(fields["spec"]),
        optimised=fields["told"],
        shared=tuple(line["shared"]),
        dropped=line["dropped"],
        request=() if line["call"] is None else calls[line["call"]],
        batch=fields["batch"],
        **{name: tensors[FACT.format(line["fact"], name)] for name in VECTORS},
    )


def _name(call: Sequence[Fact]) -> str:
    return content_hash([fact.id for fact in call])


def _bytes_of(value: Any) -> Tensor:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


def _json_of(text: Tensor) -> Any:
    return json.loads(bytes(text.tolist()))
