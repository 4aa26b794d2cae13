"""The moments at which a method may act. A method returns values; it never mutates, never keeps state in attributes.

A method is a frozen dataclass whose fields are its configuration, with class variables `name`, `family`, `seams` and
`source`, and one function for each seam it declares. Its state is a flat dict of named tensors that the host owns.

    task opens -> (draw -> loss -> watch) for each update -> settle -> admit -> task closes
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from perdure.core.rows import Row
    from perdure.core.step import Step

State = dict[str, "Tensor"]

EXCLUSIVE = ("settle", "admit")  # seams with room for one owner
SEAMS = ("draw", "loss", "watch", "settle", "admit")


class Method(Protocol):
    """What every method class declares; the seams are the Protocols below."""

    name: ClassVar[str]
    family: ClassVar[str]
    seams: ClassVar[tuple[str, ...]]
    source: ClassVar[str]

    @property
    def active(self) -> bool:
        """False when the configuration makes the method do nothing; it is then left out of the recipe."""
        ...


@dataclass(frozen=True)
class Draw:
    """A wish for rows from memory for one update.

    Args:
        size: Rows wanted; fewer are served when the pool holds fewer.
        pool: Name of the pool; methods that draw from one pool share the same rows.
        columns: Names of stored columns wanted beside the rows, such as "teacher".
        balance: How service is spread: "label", "task" or "row", each with equal chances.
    """

    size: int
    pool: str = "replay"
    columns: tuple[str, ...] = ()
    balance: str = "label"


@dataclass(frozen=True)
class DrawContext:
    """What is known when rows are drawn: the update, how many there are, its new rows, and the rows each pool holds."""

    update: int
    total: int
    new_rows: int
    pools: Mapping[str, int]


@dataclass(frozen=True)
class AdmitContext:
    """What is known when rows are ranked for memory.

    Args:
        seed: Seed of the learn.
        task: Name of the task.
        nll_before: Mean negative log-likelihood per label token of each row under the model before the task, in nats;
            None unless the method declares `needs = ("nll_before",)`.
        nll_after: The same under the settled model.
    """

    seed: int
    task: str
    nll_before: Sequence[float] | None = None
    nll_after: Sequence[float] | None = None


class Drawing(Protocol):
    """Seam `draw`: rows wanted for this update, or None for none."""

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Return the wish of this update."""
        ...


class Adding(Protocol):
    """Seam `loss`: a scalar added to the task loss; None adds nothing."""

    def loss(self, step: "Step", state: State) -> "Tensor | None":
        """Return the term for this micro-batch."""
        ...


class Watching(Protocol):
    """Seam `watch`: new state from the weights after the optimizer step."""

    def watch(self, step: "Step", state: State) -> State:
        """Return the state after this update."""
        ...


class Settling(Protocol):
    """Seam `settle`: the final weights of the task."""

    def settle(self, params: Mapping[str, "Tensor"], state: State) -> tuple[dict[str, "Tensor"], State]:
        """Return the values to write, by parameter name, and the state."""
        ...


class Admitting(Protocol):
    """Seam `admit`: rank the task's rows for memory, best first by the highest score."""

    def admit(self, rows: "Sequence[Row]", context: AdmitContext, state: State) -> list[float]:
        """Return one score a row."""
        ...


def spec_of(method: Any) -> dict[str, Any]:
    """Return the configuration of `method` as plain JSON: its fields."""
    return {field.name: getattr(method, field.name) for field in fields(method)}
