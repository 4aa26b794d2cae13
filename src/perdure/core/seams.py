"""The seams: the moments of a task at which a method may act, and `Method`, the base class of every method.

    task opens:   adapter -> prepare
    each update:  draw -> per micro-batch: (one forward) -> weight, loss, reference -> (backward) ->
                  mask -> gradient -> (clip) -> (optimizer) -> hold -> watch
    task closes:  settle -> measure -> admit

`SEAMS` is the one table of them. To add a seam, add an entry there and a default that does nothing to `Method`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from perdure.core.errors import BadSpec
from perdure.core.plan import AdapterPlan, Bare, SecondMoment, shared_plan
from perdure.core.slots import MEASURED

if TYPE_CHECKING:
    from torch import Tensor

    from perdure.core.rows import Row
    from perdure.core.step import Slice, Step, TopK

State = dict[str, "Tensor"]
"""A key "<what>.<parameter>" belongs to that parameter, and its tensor ends in the parameter's shape. A key "<what>/<module>"
belongs to that module, and its tensor has any shape. No other key has a dot."""

Grads = dict[str, "Tensor"]
Moment = Literal["task opens", "each update", "task closes"]
Support = Literal["accumulation", "processes", "sharding"]


@dataclass(frozen=True)
class SeamSpec:
    """One seam.

    Args:
        name: Name of the seam, and of the function that fills it.
        moment: The moment of a task at which a host calls it.
        signature: Signature of the function, without `self`.
        purpose: Its purpose.
        exclusive: Whether only one method of a recipe may fill it.
    """

    name: str
    moment: Moment
    signature: str
    purpose: str
    exclusive: bool = False


SEAMS: dict[str, SeamSpec] = {
    seam.name: seam
    for seam in (
        SeamSpec(
            "adapter",
            "task opens",
            "(bare, state) -> AdapterPlan",
            "which parameters exist and train in this task, what is frozen under them, and the slot they end in",
            exclusive=True,
        ),
        SeamSpec("prepare", "task opens", "(model, state) -> state", "the state before the first update"),
        SeamSpec(
            "draw",
            "each update",
            "(context, state) -> Draw, {suffix: Draw} or None",
            "rows wanted for this update, or None for none",
        ),
        SeamSpec(
            "weight",
            "each update",
            "(step, state) -> Tensor or None",
            "a factor for each label token of the new rows in the task loss",
            exclusive=True,
        ),
        SeamSpec("loss", "each update", "(step, state) -> Tensor or None", "a scalar added to the task loss"),
        SeamSpec(
            "reference",
            "each update",
            "(step, state) -> {name: Tensor}",
            "losses whose gradients, masked and accumulated over the update, are given to `gradient`",
            exclusive=True,
        ),
        SeamSpec(
            "mask",
            "each update",
            "(grads, state) -> grads",
            "linear, idempotent removal of gradient entries or directions",
        ),
        SeamSpec(
            "gradient",
            "each update",
            "(grads, refs, step, state) -> grads",
            "another gradient for the optimizer, inside the free subspace that the masks leave",
            exclusive=True,
        ),
        SeamSpec(
            "hold",
            "each update",
            "(step, state) -> values",
            "parameter values written after the optimizer step, before `watch`; no two methods hold one parameter",
        ),
        SeamSpec(
            "watch", "each update", "(step, state) -> state", "new state from the weights after the optimizer step"
        ),
        SeamSpec(
            "settle", "task closes", "(model, state) -> values, state", "the final weights of the task", exclusive=True
        ),
        SeamSpec("measure", "task closes", "(model, state) -> state", "reads the settled model for the next task"),
        SeamSpec(
            "admit",
            "task closes",
            "(rows, context, state) -> [float]",
            "rank the task's rows for memory, best first by the highest score",
            exclusive=True,
        ),
    )
}
"""Every seam by name, in the order in which a host calls them."""

EXCLUSIVE = tuple(name for name, seam in SEAMS.items() if seam.exclusive)

NEEDS = {
    "nll_before": "losses of the task's rows under the model before the task, for `admit`",
    "nll_after": "losses of the task's rows under the settled model, for `admit`",
    "before": "`step.before` in `watch`: a copy of the parameters before the optimizer step",
    "task_grad": "`step.task_grad` in `watch`: the gradient of the task loss alone; one more backward where other terms use the "
    "forward",
    "refs": "`step.refs` in `hold` and `watch`: the masked gradients of the reference losses; free",
    "row_losses": "`step.row_losses` in `watch`: the loss of each row drawn into the shared forward; free",
    "validation": "rows that are not trained on, as `keep: best` has",
}
"""What a method may need from its host (`Method.needs`)."""

SUPPORTS: dict[Support, str] = {
    "accumulation": "an update in several micro-batches, by `gradient_accumulation_steps` or to save memory",
    "processes": "an update that is spread over several processes",
    "sharding": "parameters of which each process has a part",
}
"""What a method may support (`Method.supports`)."""


@dataclass(frozen=True)
class Column:
    """A teacher's distribution for rows, at label positions: its `top_k` log-probabilities and the mass of the rest.

    Args:
        name: Key in `Slice.columns`; methods that name the same column share it, stored with the largest `top_k`.
        of: The rows that have it: the "new" rows of this task, or the rows of a memory pool ("replay", "general").
        teacher: The model that computes it: "start" (the model before the task; none in the first), "settled" (the model that
            learned the row's task, when the row enters memory), "base" (the adapter off), or the folder or hub id of another
            model with the same tokenizer.
        top_k: Log-probabilities stored for each label token.
        refresh: Write the column of all rows again after each task, not only of rows without it.
        labels: The label itself is the first of the `top_k`, however unlikely it is; the others are the largest of the rest.

    Cost: one forward per row when it is written; 6 x top_k bytes per label token.
    """

    name: str
    of: Literal["new", "replay", "general"]
    teacher: str
    top_k: int = 32
    refresh: bool = False
    labels: bool = False


@dataclass(frozen=True)
class Draw:
    """A request for rows from memory for one update.

    Args:
        size: Number of rows; fewer if the pool has fewer. Methods that draw from one pool share the same rows; the largest
            request decides their number and balance.
        balance: What is drawn evenly: "label", "task" or "row".
        own: Draw rows independently of the other methods' draws from the pool.
        weights: Inclusion weights of the pool's rows, in its order, instead of balanced draws; implies `own`.
        shared: They run in the shared forward and arrive in `step.drawn`; else they wait for `step.run`. Rows that one method
            requests in the shared forward are in it for every method that draws them.
    """

    size: int
    balance: str = "label"
    own: bool = False
    weights: Sequence[float] | None = None
    shared: bool = True


@dataclass(frozen=True)
class DrawContext:
    """The input of `draw`: the update, the number of updates, the number of new rows, and the number of rows of each pool."""

    update: int
    total: int
    new_rows: int
    pools: Mapping[str, int]

    def rows_for(self, mix: float) -> int:
        """Return the number of rows that makes the share `mix` of the final mix; a fraction of a row waits for a later update."""
        wanted = mix / (1 - mix) * self.new_rows
        return math.floor(wanted * (self.update + 1) + 1e-9) - math.floor(wanted * self.update + 1e-9)


@dataclass(frozen=True)
class AdmitContext:
    """The input of `admit`, which ranks rows for memory.

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
    """The input of `prepare`, `settle` and `measure`: the model between tasks, in eval mode. Read only.

    `rows` below names rows: "new" (the task's train rows), "unmeasured" (those of them that earlier learns of the task did not
    measure), "validation", or a memory pool; `size` of them, keyed (all if None).
    """

    @property
    def params(self) -> Mapping[str, "Tensor"]:
        """Trainable parameters by name."""
        ...

    @property
    def task(self) -> str:
        """Name of the task that is learned."""
        ...

    @property
    def first(self) -> bool:
        """Whether the trained parameters start directly on the base model, so that they have nothing to forget."""
        ...

    @property
    def slots(self) -> "Mapping[str, Mapping[str, Tensor]]":
        """Tensors of each slot that is frozen under the parameters, by slot."""
        ...

    @property
    def own(self) -> "Mapping[str, Tensor]":
        """Tensors of the slot that is trained, as head has it; none where the slot is new."""
        ...

    @property
    def scale(self) -> float:
        """Factor of the product B A of the trained adapter: lora_alpha / lora_r, or lora_alpha / sqrt(lora_r)."""
        ...

    @property
    def columns(self) -> "Mapping[str, Sequence[TopK]]":
        """Teachers' distributions for the task's rows, by the name of the column, in the order of the rows."""
        ...

    def nll(self, rows: str, weights: Mapping[str, "Tensor"] | None = None, size: int | None = None) -> float | None:
        """Return the mean negative log-likelihood per row in nats, under other `weights` if given; None without rows."""
        ...

    def weight(self, module: str) -> "Tensor":
        """Return the base weight of a module; see `plan.LoadedModel.weight`."""
        ...

    def moments(
        self, rows: str, modules: Sequence[str], tokens: Literal["own", "all"] = "own", size: int | None = None
    ) -> Mapping[str, SecondMoment]:
        """Return second moments of the inputs of modules, with the trained parameters; see `plan.LoadedModel.moments`."""
        ...

    def slices(self, rows: str, size: int | None = None) -> "Iterator[Slice]":
        """Yield the outputs at label positions, a batch of rows at a time, without gradients."""
        ...

    def features(
        self, rows: str, layer: int | None = None, size: int | None = None
    ) -> "tuple[Tensor, list[str | None]]":
        """Return a feature vector of each row under the bare base (rows, d), float32, on the CPU, and the rows' labels.

        It is the mean over the tokens of the row's own text, without its template, of the states behind `layer` blocks (a third
        of all unless given). No adapter changes it. Cost: the forward of these blocks alone.
        """
        ...

    def gradients(
        self, rows: str, size: int | None = None, of: Literal["data", "sampled", "outputs"] = "data"
    ) -> Iterator[Mapping[str, "Tensor"]]:
        """Yield per-row gradients (rows, *shape) by parameter name, a batch of rows at a time, in float32.

        Each is computed when it is read, so read it once, and release it before the next.

        of "data": of the row's summed log-likelihood; "sampled": the same for labels sampled from the model, keyed;
        "outputs": of the summed squared L2 norm of its logits, centred over the vocabulary.
        Cost: one forward and backward a row; one backward serves the whole batch where the parameters are linear layers.
        """
        ...

    def product_squares(
        self, rows: str, size: int | None = None, of: Literal["data", "sampled"] = "data"
    ) -> "Mapping[str, tuple[Tensor, Tensor]]":
        """Return sums of the mean over rows of g^2, g (out, in) the per-row gradient of the product B A of each LoRA pair.

        By the name of A: the row sums (out,) and the column sums (in,) of that matrix, which is not formed; without the pairs
        whose layers do not process rows separately (experts). The scale lora_alpha / r is left out.

        Cost: as `gradients`, and positions^2 x (in + out) multiplications a row and pair instead of positions x in x out.
        """
        ...


@dataclass(frozen=True)
class Method:
    """Base of every method: one idea against forgetting, as a frozen dataclass.

    Its fields are its configuration, as the ledger records it. It fills the seams that it names in `seams`; each is a function
    that returns values. It never mutates the model and stores nothing in attributes: its state is a flat dict of named tensors
    that the host stores, saves and restores. What `measure` returns is stored with the ledger entry, and is the state that the
    next task begins with.

    `supports` and the properties below may be overridden by a class variable, or by a property that reads the fields.
    """

    name: ClassVar[str] = ""
    """Its name in recipes."""

    family: ClassVar[str] = ""
    """Group of methods in the lists."""

    seams: ClassVar[tuple[str, ...]] = ()
    """Names of the seams that it fills."""

    source: ClassVar[str] = ""
    """Paper, year and number."""

    slot: ClassVar[str] = ""
    """One of `core.slots.MEASURED`, of a method that fills `measure`. What it measures belongs to the task alone, and depends on
    no trained weight: it is stored in the slot `<slot>:<task>` of the entry, not with the states of the methods. So a later learn
    adds no byte to it, and a revert of the task removes it. It is the method's state when the same task is learned again."""

    answers: ClassVar[bool] = False
    """Whether the task is answered with what `measure` returns, and not by generation; such a recipe has `train: none`."""

    supports: ClassVar[frozenset[Support]] = frozenset({"accumulation"})
    """The kinds of training that it supports (see `SUPPORTS`). No host has several processes yet, so that is not listed."""

    @property
    def active(self) -> bool:
        """False where the configuration makes the method do nothing; it is then left out of the recipe."""
        return True

    @property
    def needs(self) -> tuple[str, ...]:
        """The values that the host must provide (see `NEEDS`)."""
        return ()

    @property
    def columns(self) -> tuple[Column, ...]:
        """Teachers' distributions that the rows must have."""
        return ()

    @property
    def pool(self) -> str | None:
        """Memory pool that it draws from, "replay" or "general"; None where it draws no row."""
        return "replay" if "draw" in self.seams else None

    @property
    def mix(self) -> float:
        """Share of rows from memory in the final mix that it requests; 0 where it shares the rows that others draw."""
        return 0.0

    @property
    def memory_only(self) -> bool:
        """Whether it acts only on rows from memory, so that it does nothing while memory is empty."""
        return False

    @property
    def general_rows(self) -> int:
        """Largest number of rows of the pool "general", where it draws from that pool."""
        return 200

    later: ClassVar[tuple[str, ...]] = ()
    """Fields that the method got after entries named it; the JSON leaves them out at their defaults, since ids contain it."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON, from which the class makes an equal method."""
        usual = type(self)() if self.later else self
        return {k: v for k, v in asdict(self).items() if k not in self.later or v != getattr(usual, k)}

    @property
    def anchors(self) -> bool:
        """Whether it protects the parameters of earlier tasks, which do not exist where each task trains fresh ones."""
        return False

    @property
    def carries(self) -> bool:
        """For an owner of `adapter`: whether a task continues to train the parameters of the last task."""
        return True

    def adapter(self, bare: Bare, state: State) -> AdapterPlan:
        """Return the plan of this task's adapter."""
        return shared_plan(bare)

    def prepare(self, model: Model, state: State) -> State:
        """Return the state with which the task begins; `state` is what `measure` returned after the last task."""
        return state

    def draw(self, context: DrawContext, state: State) -> Draw | Mapping[str, Draw] | None:
        """Return the rows wanted for this update.

        A mapping of suffix to `Draw` draws several sets; they arrive as `step.drawn["name.suffix"]`.
        """
        return None

    def weight(self, step: "Step", state: State) -> "Tensor | None":
        """Return a factor (tokens,) for the loss of each label token of `step.new`, without gradient; None for 1 each."""
        return None

    def loss(self, step: "Step", state: State) -> "Tensor | None":
        """Return this micro-batch's share of the term; None adds nothing. A term of weights alone goes through `step.once`."""
        return None

    def reference(self, step: "Step", state: State) -> "dict[str, Tensor]":
        """Return this micro-batch's share of each reference loss, by name."""
        return {}

    def mask(self, grads: Grads, state: State) -> Grads:
        """Return the gradients without what is removed; the gradients of references are masked too."""
        return grads

    def gradient(self, grads: Grads, refs: Mapping[str, Grads], step: "Step", state: State) -> Grads:
        """Return the gradients for the optimizer, by name; `refs` are those of the reference losses."""
        return grads

    def hold(self, step: "Step", state: State) -> "dict[str, Tensor]":
        """Return values to write after the optimizer step, by parameter name; the others stay as the step left them."""
        return {}

    def watch(self, step: "Step", state: State) -> State:
        """Return the state after this update."""
        return state

    def settle(self, model: Model, state: State) -> "tuple[dict[str, Tensor], State]":
        """Return the values to write, by parameter name, and the state."""
        return {}, state

    def measure(self, model: Model, state: State) -> State:
        """Return the state to store for the next task."""
        return {}

    def admit(self, rows: "Sequence[Row]", context: AdmitContext, state: State) -> list[float]:
        """Return one score for each row."""
        return [0.0] * len(rows)


def checked_method(method: object) -> type[Method]:
    """Return `method`, checked: it is a method class, describes itself, and fills exactly the seams that it declares.

    Raises:
        BadSpec: It does not; the message has the names, since a misspelt seam must not pass silently.
    """
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise BadSpec(f"{method!r} is no class that derives from perdure.core.seams.Method")
    described = {"name": method.name, "family": method.family, "source": method.source}
    if missing := [what for what, text in described.items() if not text]:
        raise BadSpec(f"method {method.__name__} has no {missing[0]}; set it as a class variable")
    if method.slot and (method.slot not in MEASURED or "measure" not in method.seams):
        raise BadSpec(
            f"method {method.__name__} has slot {method.slot!r}, which is for a method that fills measure and is one of "
            f"{', '.join(MEASURED)}"
        )
    filled = {seam for seam in SEAMS if getattr(method, seam) is not getattr(Method, seam)}
    declared = set(method.seams)
    if declared != filled or not filled:
        raise BadSpec(
            f"method {method.__name__} declares seams {sorted(declared)} but fills {sorted(filled)}; "
            f"make them agree (seams are {', '.join(SEAMS)})"
        )
    return method
