"""How facts are written: the method, where, and how strongly. Every strength is relative to something measured."""

from dataclasses import dataclass
from typing import Literal, get_args

from perdure.core.errors import BadSpec
from perdure.core.recipe import nearest
from perdure.core.records import Record

Method = Literal["emmet", "rome", "memit", "alphaedit", "lora"]
METHODS: tuple[str, ...] = get_args(Method)
COUNTS = {"spread": 10_000, "steps": 100_000, "contexts": 1_000, "seed": 2**63 - 1, "batch": 10**6}
FACTORS = ("depth", "lr", "clamp", "kl", "decay", "until", "gain", "ridge", "energy")
LARGEST = 10**9
SPREAD = ("memit", "alphaedit")  # write the change of a block's output over several layers


@dataclass(frozen=True)
class EditSpec(Record):
    """Settings of an edit. The defaults were chosen on a gated model of 135 million parameters and 30 layers.

    Args:
        method: "emmet" meets all facts at once exactly; "rome" writes one after the other; "memit" and "alphaedit" spread each
            over several layers; "lora" names the trained baseline, which has no edit set (editing.lora).
        layers: Blocks to write into, from 0; empty means at `depth` of the model.
        depth: Place of the (last) layer as a share of the number of blocks, used where `layers` is empty.
        spread: Number of layers that memit and alphaedit write into, used where `layers` is empty.
        steps: Most steps of the value's optimisation.
        lr: Length of its first steps, as a share of the norm of the answer at the start; None takes 0.5, and 0.1 for methods that
            spread, since a block's whole answer is several times as long as what its MLP adds.
        clamp: Largest norm of the change, as a multiple of the norm of the answer at the start; None takes 4, and 0.75.
        kl: Factor of the divergence that keeps what "SUBJECT is a" goes on with.
        decay: Factor of the squared norm of the change over that of the value at the start.
        until: Mean loss of the target, in nats a token, below which the optimisation stops.
        contexts: Number of texts, made up by the model, that the prompt is put behind; the bare prompt comes on top.
        chat: Put the prompt into the tokenizer's chat template too, where it has one.
        seed: Of the contexts and of the text that the keys' statistics are taken from.
        gain: memit and alphaedit: how strongly a typical fact is written against the statistics; g / (1 + g) of it arrives.
        ridge: Added to the diagonal of the keys' second moment, as a share of its mean.
        energy: alphaedit: share of the keys' energy that the projector may leave open to change.
        batch: Facts optimised together, about; with 1, a fact's vectors are to the bit what they are whatever is edited with it.
    """

    method: Method = "emmet"
    layers: tuple[int, ...] = ()
    depth: float = 0.18
    spread: int = 3
    steps: int = 20
    lr: float | None = None
    clamp: float | None = None
    kl: float = 0.0625
    decay: float = 0.02
    until: float = 0.4
    contexts: int = 3
    chat: bool = True
    seed: int = 0
    gain: float = 100.0
    ridge: float = 0.01
    energy: float = 0.3
    batch: int = 8

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.method not in METHODS:
            raise BadSpec(f"unknown editing method {self.method!r}{nearest(self.method, list(METHODS))}")
        for name, most in COUNTS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value > most:
                raise BadSpec(f"{name} is {value!r}; it is a whole number, {most:,} at most")
        for name in FACTORS:
            value = getattr(self, name)
            if value is None and name in ("lr", "clamp"):
                continue
            if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= LARGEST:
                raise BadSpec(f"{name} is {value!r}; it is a number, {LARGEST:,} at most")
        if not isinstance(self.chat, bool):
            raise BadSpec(f"chat is {self.chat!r}; write true or false")
        if isinstance(self.layers, str | int) or any(
            isinstance(one, bool) or not isinstance(one, int) for one in self.layers
        ):
            raise BadSpec(f"layers are {self.layers!r}; give a list of whole numbers")
        positive = ("steps", "lr", "clamp", "gain", "ridge", "energy", "until", "batch", "spread")
        for name in positive:
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise BadSpec(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("kl", "decay", "contexts", "seed"):
            if not getattr(self, name) >= 0:
                raise BadSpec(f"{name} is {getattr(self, name)}; it must be at least 0")
        if not 0 <= self.depth < 1 or self.energy >= 1:
            raise BadSpec("depth and energy are shares, below 1")
        if len(set(self.layers)) != len(self.layers) or any(layer < 0 for layer in self.layers):
            raise BadSpec(f"layers are {list(self.layers)}; give different numbers from 0")

    @property
    def pace(self) -> float:
        """The learning rate in force."""
        return self.lr or (0.1 if self.method in SPREAD else 0.5)

    @property
    def limit(self) -> float:
        """The clamp in force."""
        return self.clamp or (0.75 if self.method in SPREAD else 4.0)

    def at(self, blocks: int) -> tuple[int, ...]:
        """Return the layers to write into, ascending, in a model of `blocks` blocks.

        Raises:
            BadSpec: A layer is beyond the model or its last, or a method that writes into one layer got several.
        """
        last = min(int(self.depth * blocks), blocks - 2)
        first = max(0, last - self.spread + 1) if self.method in SPREAD else last
        chosen = tuple(sorted(self.layers)) or tuple(range(first, last + 1))
        if not 0 <= chosen[-1] < blocks - 1:
            raise BadSpec(
                f"layer {chosen[-1]} cannot be edited: of this model's {blocks} layers the last has no attention above it that "
                f"would read what is written; choose from 0 to {blocks - 2}"
            )
        if len(chosen) > 1 and self.method in ("emmet", "rome"):
            raise BadSpec(f"{self.method} writes into one layer, got {list(chosen)}; choose one, or method memit")
        return chosen
