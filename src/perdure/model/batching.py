"""The kinds of batches in which a causal language model gives every row the same logits as alone."""

import json
from dataclasses import dataclass
from typing import Literal

from pydantic import TypeAdapter

from perdure.core.config import BatchingJson

Decoding = Literal["between", "before", "padded", "whole"]


@dataclass(frozen=True)
class Batching:
    """The kinds of batches in which every row has the logits of its own unpadded forward.

    Padding inside a row is masked. But it can still push earlier tokens out of an attention window or chunk, or shift a bias that
    counts columns. A recurrent state may read the padding, or cannot be copied for several rows.

    Args:
        prefix: Whether several rows can share the cache of a prefix, each with several tokens after it.
        decoding: How rows are read and continued. "between": the prefix that all share runs once, and padding is between it
            and the rest of each row. "before": the prefix runs once, and its keys and values are moved so that padding is
            before it. "padded": each row runs whole, with padding before it. "whole": without a cache; rows are padded on the
            right and run again for each token.
        spans: Whether several tokens can run at once after the cache of padded rows.
        window: Number of columns up to which padding "between" hides no token; None where a token sees all.
        positions: Whether the model takes the position of each token.
        packing: Whether rows may stand one behind the other in one line, each seeing itself alone. Known where it was measured.
    """

    prefix: bool = True
    decoding: Decoding = "between"
    spans: bool = True
    window: int | None = None
    positions: bool = True
    packing: bool = False

    def to_json(self) -> BatchingJson:
        """Return the fields by name."""
        return {
            "prefix": self.prefix,
            "decoding": self.decoding,
            "spans": self.spans,
            "window": self.window,
            "positions": self.positions,
            "packing": self.packing,
        }

    @classmethod
    def from_json(cls, fields: BatchingJson) -> "Batching":
        """Return what `to_json` wrote.

        Raises:
            ValueError: A field has another type or name.
        """
        return TypeAdapter(cls).validate_json(json.dumps(fields), strict=True)

    def fits(self, columns: int | None) -> bool:
        """Return whether padding may be between prefix and row if at most `columns` are read; None is an unknown number."""
        return self.decoding == "between" and (self.window is None or (columns is not None and columns <= self.window))
