"""The loaded model before a task has parameters, as the start of an adapter reads it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from perdure.core.plan import SecondMoment
from perdure.train.model_view import sample_of
from perdure.train.task import Trainable


class ModelBefore:
    """`core.plan.LoadedModel` for the start of one task.

    Args:
        loaded: Returns the model as it is loaded when the start is computed.
        sets: Rows by name: "new", "validation", and the memory pools.
        seed: Seed of the learn.
        task: Name of the task.
        on_rows: Called with the number of rows that are done, and of all rows.
    """

    def __init__(
        self,
        loaded: Callable[[], Trainable],
        sets: Mapping[str, Sequence[Any]],
        seed: int,
        task: str,
        on_rows: Callable[[int, int], None] | None = None,
    ):
        self.loaded, self.sets, self.seed, self.task, self.on_rows = loaded, sets, seed, task, on_rows

    def weight(self, module: str) -> Tensor:
        """Return the weight of the base model in a module, (out, in), or (experts, out, in), in float32, on the CPU."""
        return self.loaded().base_weight(module)

    def moments(
        self, rows: str, modules: Sequence[str], tokens: Literal["own", "all"] = "own", size: int | None = None
    ) -> dict[str, SecondMoment]:
        """Return the second moment of the inputs of each module, by name; nothing where there are no rows."""
        chosen = sample_of(self.sets, rows, size, self.seed, self.task)
        return self.loaded().inference(self.on_rows).moments(chosen, modules, own=tokens == "own")

    def features(self, rows: str, layer: int | None = None, size: int | None = None) -> tuple[Tensor, list[str | None]]:
        """Return the features of the rows' own texts under the bare base (rows, d), float32, on the CPU, and the rows' labels."""
        return self.loaded().features(sample_of(self.sets, rows, size, self.seed, self.task), layer, self.on_rows)
