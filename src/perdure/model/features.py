"""Classification of feature vectors with any `nn.Module` that returns logits, instead of a language model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from perdure.model.forward import OnRows, Output
from perdure.model.head import device_of
from perdure.model.layers import is_linear


@dataclass(frozen=True)
class Example:
    """One row: features of any shape, and the class it belongs to."""

    features: Tensor
    label: int
    targets: int = 1

    def __len__(self) -> int:
        return 1


@dataclass(frozen=True)
class FeatureBatch:
    """Stacked rows: features (rows, ...), and one label per row."""

    features: Tensor
    at: Tensor
    labels: Tensor

    @property
    def padded_tokens(self) -> int:
        """Rows the model computes."""
        return len(self.labels)


class Features:
    """Reads `Example` rows for a module that maps features (rows, ...) to logits (rows, classes)."""

    def collate(self, rows: Sequence[Example], *, share_prefix: bool = True) -> FeatureBatch:
        """Return the rows stacked."""
        at = torch.stack([torch.arange(len(rows)), torch.zeros(len(rows), dtype=torch.long)])
        return FeatureBatch(torch.stack([row.features for row in rows]), at, torch.tensor([row.label for row in rows]))

    def padded_tokens(self, rows: Sequence[Example]) -> int:
        """Return the number of rows; there is no padding."""
        return len(rows)

    def forward(
        self,
        model: nn.Module,
        batch: FeatureBatch,
        weights: Mapping[str, Tensor] | None = None,
        embeddings: Tensor | None = None,
    ) -> Output:
        """Return logits, and the input of the module's last linear layer."""
        device = device_of(model)
        seen: list[Tensor] = []

        def look(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen[:] = [args[0]]

        handle = _head(model).register_forward_pre_hook(look)
        given = batch.features.to(device) if embeddings is None else embeddings
        try:
            out = model(given) if weights is None else torch.func.functional_call(model, dict(weights), (given,))
        finally:
            handle.remove()
        return Output(out.float(), seen[0])

    def embed(self, model: Any, batch: FeatureBatch) -> Tensor:
        """Return the features themselves."""
        return batch.features.to(device_of(model)).detach()

    def template(self, rows: Sequence[Example]) -> int:
        """Return 0: features have no common start."""
        return 0

    def token_weights(self, batch: FeatureBatch, skip: int) -> list[Tensor]:
        """Return 1 for each row."""
        return [torch.ones(len(batch.labels))]

    def features(
        self, model: Any, rows: Sequence[Example], layer: int | None, on_rows: OnRows | None = None
    ) -> tuple[Tensor, list[str | None]]:
        """Return the features of the rows as they are, flattened, and their labels."""
        return torch.stack([row.features.detach().float().cpu().flatten() for row in rows]), [
            str(row.label) for row in rows
        ]


def _head(model: nn.Module) -> nn.Module:
    return [module for module in model.modules() if is_linear(module)][-1]
