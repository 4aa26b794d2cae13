"""How a causal language model may be run in batches: which batches give every row the logits that it has alone."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

Decoding = Literal["between", "before", "padded", "whole"]


@dataclass(frozen=True)
class Batching:
    """Which batches give every row of a model the logits of its own unpadded forward.

    Padding inside a row is masked, but it still pushes earlier tokens out of a window, a chunk or a bias that counts columns; and
    a recurrent state may read it, or cannot be copied for several rows.

    Args:
        prefix: Whether the cache of a prefix serves several rows, each with several tokens behind it.
        decoding: How rows are read and continued. "between": the prefix that all share runs once, and padding is between it
            and the rest of each row. "before": the prefix runs once, and its keys and values are moved so that padding is
            before it. "padded": each row runs whole, with padding before it. "whole": without a cache; rows are padded on the
            right and run again for each token.
        spans: Whether several tokens at once may be read behind the cache of padded rows.
        window: Columns within which padding "between" pushes nothing out of sight; None where a token sees all.
        positions: Whether the model takes the position of each token.
        packing: Whether rows may stand one behind the other in one line, each seeing itself alone. Known where it was measured.
    """

    prefix: bool = True
    decoding: Decoding = "between"
    spans: bool = True
    window: int | None = None
    positions: bool = True
    packing: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Batching":
        """Return what `to_json` wrote.

        Raises:
            ValueError: A field has another type or name.
        """
        return TypeAdapter(cls).validate_json(json.dumps(fields), strict=True)

    def fits(self, columns: int | None) -> bool:
        """Return whether padding may be between prefix and row when `columns` are read at most; None is an unknown number."""
        return self.decoding == "between" and (self.window is None or (columns is not None and columns <= self.window))
