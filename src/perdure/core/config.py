"""The keys of `perdure.json`: what a workspace is, beside its ledger."""

from typing import NotRequired, TypedDict


class BatchingJson(TypedDict):
    """How rows run in batches; see `model.batching.Batching`."""

    prefix: bool
    decoding: str
    spans: bool
    window: int | None
    positions: bool
    packing: NotRequired[bool]


class CapabilitiesJson(TypedDict, total=False):
    """What can be done with the base model; see `bridges.capabilities.Capabilities`."""

    training: bool
    prefix: bool
    cache: bool
    editing: bool
    export: bool
    no_editing: str | None
    no_adapter: str | None
    experts: int
    notes: list[str]
    batching: BatchingJson
    transformers: str


class Config(TypedDict):
    """The content of `perdure.json`.

    The names are fixed: files of today are read by later versions. A workspace of an older perdure lacks some optional keys.
    """

    format: NotRequired[int]
    model: str
    weights: str
    dtype: str
    base: str
    seed: NotRequired[int]
    revision: NotRequired[str | None]
    quantization: NotRequired[str]
    attn_implementation: NotRequired[str]
    model_here: NotRequired[str | None]
    stamp: NotRequired[list[list[str | int]]]
    keep_rows: NotRequired[str]
    guards: NotRequired[str]
    capabilities: NotRequired[CapabilitiesJson]
    aliases: NotRequired[dict[str, str]]
