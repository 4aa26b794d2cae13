"""The moments at which a method may act. A method returns values; it never mutates, never keeps state in attributes.

A method is a frozen dataclass whose fields are its configuration, with class variables `name`, `family`, `seams` and
`source`, and one function for each seam it declares. Its state is a flat dict of named tensors that the host owns; what
`measure` returns is kept with the ledger entry and is the state that the next task begins with.

    task opens:   prepare
    each update:  draw -> per micro-batch: (one forward) -> loss, reference -> (backward) ->
                  mask -> gradient -> (clip) -> (optimizer) -> watch
    task closes:  settle -> measure -> admit
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from perdure.core.rows import Row
    from perdure.core.step import Slice, Step

State = dict[str, "Tensor"]  # a key "<what>.<parameter>" belongs to that parameter, and no other key has a dot
Grads = dict[str, "Tensor"]

EXCLUSIVE = ("reference", "gradient", "settle", "admit")  # seams with room for one owner
SEAMS = ("prepare", "draw", "loss", "mask", "reference", "gradient", "watch", "settle", "measure", "admit")

NEEDS = ("nll_before", "nll_after", "before", "task_grad", "row_losses", "validation")
"""What a method may ask its host for, in a class variable or property `needs`:

nll_before, nll_after: losses of the task's rows before it and when it has settled, for `admit`.
before: `step.before` in `watch`, the parameters before the optimizer step; a copy of them.
task_grad: `step.task_grad` in `watch`, the gradient of the task loss alone; one more backward where other terms use the forward.
row_losses: `step.row_losses` in `watch`, the loss of each row drawn into the shared forward; free.
validation: rows held out of training, as `keep: best` does.
"""


class Method(Protocol):
    """What every method class declares; the seams are the Protocols below.

    Optional class variables or properties: `needs` (see NEEDS), `columns` (a tuple of `Column`), and `pool`, the memory
    that it draws from ("replay" unless it says otherwise).
    """

    name: ClassVar[str]
    family: ClassVar[str]
    seams: ClassVar[tuple[str, ...]]
    source: ClassVar[str]

    @property
    def active(self) -> bool:
        """False when the configuration makes the method do nothing; it is then left out of the recipe."""
        ...


@dataclass(frozen=True)
class Column:
    """A teacher's distribution beside rows, at label positions: its `top_k` log-probabilities and the mass of the rest.

    Args:
        name: Key in `Slice.columns`; methods that name the same column share it, stored with the largest `top_k`.
        of: Which rows carry it: those "new" in this task, or those of a memory pool ("replay", "general").
        teacher: Who says it: "start" (the model before the task; no one in the first), "settled" (the model that learned the
            row's task, said when the row is kept), "base" (the adapter off), or the folder or hub id of another model with the
            same tokenizer.
        top_k: Log-probabilities kept a label token.
        refresh: Write the column of all rows anew after each task, not only of rows without one.

    Cost: one forward a row when it is written; 6 x top_k bytes a label token.
    """

    name: str
    of: Literal["new", "replay", "general"]
    teacher: str
    top_k: int = 32
    refresh: bool = False


@dataclass(frozen=True)
class Draw:
    """A wish for rows from memory for one update.

    Args:
        size: Rows wanted; fewer are served when the pool holds fewer. Methods that draw from one pool share the same rows;
            the largest wish decides how many, and how they are balanced.
        balance: How service is spread: "label", "task" or "row", each with equal chances.
        own: Draw rows independent of what others draw from the pool.
        weights: Chances of the pool's rows, in its order, met exactly, instead of balanced service; implies `own`.
        shared: They run in the shared forward and arrive in `step.drawn`; else they wait for `step.run`. Rows that one method
            wants in the shared forward are there for all who draw them.
    """

    size: int
    balance: str = "label"
    own: bool = False
    weights: Sequence[float] | None = None
    shared: bool = True


@dataclass(frozen=True)
class DrawContext:
    """What is known when rows are drawn: the update, how many there are, its new rows, and the rows each pool holds."""

    update: int
    total: int
    new_rows: int
    pools: Mapping[str, int]

    def rows_for(self, mix: float) -> int:
        """Return the rows that are the share `mix` of the final mix; what is less than a row waits for a later update."""
        wanted = mix / (1 - mix) * self.new_rows
        return math.floor(wanted * (self.update + 1) + 1e-9) - math.floor(wanted * self.update + 1e-9)


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


class Model(Protocol):
    """What `prepare`, `settle` and `measure` see: the model between tasks, in eval mode. Read only.

    `rows` below names rows: "new" (the task's train rows), "validation", or a memory pool; `size` of them, keyed (all if None).
    """

    params: Mapping[str, "Tensor"]
    """Trainable parameters by name."""

    task: str
    """Name of the task that is learned."""

    first: bool
    """Whether no task was learned before, so that there is nothing to forget."""

    def nll(self, rows: str, weights: Mapping[str, "Tensor"] | None = None, size: int | None = None) -> float | None:
        """Return the mean negative log-likelihood per row in nats, under other `weights` if given; None without rows."""
        ...

    def slices(self, rows: str, size: int | None = None) -> "Iterator[Slice]":
        """Yield the outputs at label positions, a batch of rows at a time, without gradients."""
        ...

    def gradients(
        self, rows: str, size: int | None = None, of: Literal["data", "sampled", "outputs"] = "data"
    ) -> Iterator[Mapping[str, "Tensor"]]:
        """Yield per-row gradients (rows, *shape) by parameter name, a batch of rows at a time, in float32.

        Each is formed when it is asked for, so ask once, and let it go before the next.

        of "data": of the row's summed log-likelihood; "sampled": the same for labels sampled from the model, keyed;
        "outputs": of the summed squared L2 norm of its logits, centred over the vocabulary.
        Cost: one forward and backward a row; one backward serves the whole batch where the parameters are linear layers.
        """
        ...


class Preparing(Protocol):
    """Seam `prepare`: the state before the first update; it sees what `measure` left after the last task."""

    def prepare(self, model: Model, state: State) -> State:
        """Return the state with which the task begins."""
        ...


class Drawing(Protocol):
    """Seam `draw`: rows wanted for this update, or None for none.

    A mapping of suffix to `Draw` draws several sets; they arrive as `step.drawn["name.suffix"]`.
    """

    def draw(self, context: DrawContext, state: State) -> Draw | Mapping[str, Draw] | None:
        """Return the wish of this update."""
        ...


class Adding(Protocol):
    """Seam `loss`: a scalar added to the task loss; None adds nothing. A term of weights alone goes through `step.once`."""

    def loss(self, step: "Step", state: State) -> "Tensor | None":
        """Return the term for this micro-batch."""
        ...


class Masking(Protocol):
    """Seam `mask`: linear, idempotent removal of gradient entries or directions; references are masked too."""

    def mask(self, grads: Grads, state: State) -> Grads:
        """Return the gradients without what is removed."""
        ...


class Referring(Protocol):
    """Seam `reference`: losses whose gradients, masked and accumulated over the update, are given to `gradient`."""

    def reference(self, step: "Step", state: State) -> "dict[str, Tensor]":
        """Return this micro-batch's share of each reference loss, by name."""
        ...


class Turning(Protocol):
    """Seam `gradient`: another gradient for the optimizer, inside the free subspace that the masks leave."""

    def gradient(self, grads: Grads, refs: Mapping[str, Grads], step: "Step", state: State) -> Grads:
        """Return the gradients to use, by name."""
        ...


class Watching(Protocol):
    """Seam `watch`: new state from the weights after the optimizer step."""

    def watch(self, step: "Step", state: State) -> State:
        """Return the state after this update."""
        ...


class Settling(Protocol):
    """Seam `settle`: the final weights of the task."""

    def settle(self, model: Model, state: State) -> tuple[dict[str, "Tensor"], State]:
        """Return the values to write, by parameter name, and the state."""
        ...


class Measuring(Protocol):
    """Seam `measure`: reads the settled model; what it returns is kept for the next task."""

    def measure(self, model: Model, state: State) -> State:
        """Return the state to keep."""
        ...


class Admitting(Protocol):
    """Seam `admit`: rank the task's rows for memory, best first by the highest score."""

    def admit(self, rows: "Sequence[Row]", context: AdmitContext, state: State) -> list[float]:
        """Return one score a row."""
        ...


def pool_of(method: Any) -> str:
    """Return the name of the memory pool that `method` draws from."""
    return getattr(method, "pool", "replay")


def spec_of(method: Any) -> dict[str, Any]:
    """Return the configuration of `method` as plain JSON: its fields."""
    return {field.name: getattr(method, field.name) for field in fields(method)}
