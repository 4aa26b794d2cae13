"""Heartbeats: what each method did to an update, measured in training, so that a method without effect is noticed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from perdure.core.seams import Grads
from perdure.ledger.records import Heartbeat, RowsRun, TrainingRecord
from perdure.maths.precision import wide


@dataclass
class TrainingLog:
    """The log of a task in training.

    Args:
        loss: Update and task loss, at each logging interval.
        heartbeats: For each method, updates and its effects in them.
        fed: Methods that got rows from memory.
        acted: Methods that changed an update at least once.
        tokens: Tokens that ran forward in training.
        memory_limits: Update at which memory ran out, and the padded tokens that one forward has had at most since.
        validation: Update and loss on the validation rows, at each validation.
        kept: The update whose weights were stored, where an earlier one than the last was the best.
        rows: The rows that ran in the updates; None where that is not known, as the learn was begun by an older perdure.
    """

    loss: list[tuple[int, float]] = field(default_factory=list)
    heartbeats: dict[str, list[tuple[int, Heartbeat]]] = field(default_factory=dict)
    fed: set[str] = field(default_factory=set)
    acted: set[str] = field(default_factory=set)
    tokens: int = 0
    memory_limits: list[tuple[int, int]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    kept: int | None = None
    rows: RowsRun | None = field(default_factory=RowsRun)

    @property
    def frozen(self) -> TrainingRecord:
        """The log as a record, for ledger and checkpoint."""
        return TrainingRecord(
            loss=tuple(self.loss),
            heartbeats={name: tuple(beats) for name, beats in self.heartbeats.items()},
            fed=tuple(sorted(self.fed)),
            acted=tuple(sorted(self.acted)),
            tokens=self.tokens,
            memory_limits=tuple(self.memory_limits),
            validation=tuple(self.validation),
            kept=self.kept,
            rows=self.rows,
        )

    @classmethod
    def of(cls, record: TrainingRecord) -> "TrainingLog":
        """Return the log that continues a record."""
        beats = {name: list(of) for name, of in record.heartbeats.items()}
        fed, acted, limits, curve = (
            set(record.fed),
            set(record.acted),
            list(record.memory_limits),
            list(record.validation),
        )
        return cls(list(record.loss), beats, fed, acted, record.tokens, limits, curve, record.kept, record.rows)

    def count(self, *, new: int = 0, drawn: int = 0, forwards: int = 0) -> None:
        """Add to the rows that ran in the updates."""
        if self.rows:
            known = self.rows
            self.rows = RowsRun(known.new + new, known.drawn + drawn, known.forwards + forwards)

    def beat(self, update: int, name: str, what: Heartbeat) -> None:
        """Add numbers to the heartbeat of a method in an update."""
        beats = self.heartbeats.setdefault(name, [])
        if beats and beats[-1][0] == update:
            beats[-1] = (update, replace(beats[-1][1], **what.values))
        else:
            beats.append((update, what))


class EffectMeter:
    """Measures one update: each loss term, and the size of its pull relative to the task's.

    The pull of a term is the norm of its gradient with respect to the shared logits, divided by that of the task loss. A term
    that does not depend on the logits (a penalty on weights, a separate forward) is measured by its gradient with respect to the
    parameters, divided by the update's.
    """

    def __init__(self) -> None:
        self.terms: dict[str, float] = {}
        self.squares: dict[str, float] = {}  # of the gradient on the logits
        self.vectors: dict[str, list[Tensor]] = {}  # the gradient on the parameters
        self.weights: dict[str, float] = {}  # mean factor of the label tokens, by the method that gives the factors

    def add(self, terms: Mapping[str, Tensor], logits: Sequence[Tensor], params: Mapping[str, Tensor]) -> None:
        """Add a micro-batch's terms. Cost: one backward through the head, and one through each separate forward of a method."""
        for name, term in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + term.item()
            if not term.requires_grad:
                continue
            grads = torch.autograd.grad(term, logits, retain_graph=True, allow_unused=True)
            if squares := [grad.square().sum().item() for grad in grads if grad is not None]:
                self.squares[name] = self.squares.get(name, 0.0) + sum(squares)
                continue
            pulls = torch.autograd.grad(term, list(params.values()), retain_graph=True, allow_unused=True)
            flat = [torch.zeros_like(p) if g is None else wide(g) for g, p in zip(pulls, params.values(), strict=True)]
            known = self.vectors.get(name)
            self.vectors[name] = flat if known is None else [a + b for a, b in zip(known, flat, strict=True)]

    def pulls(self, update_norm: float) -> dict[str, Heartbeat]:
        """Return loss and pull of each method's term."""
        task = max(self.squares.get("task", 0.0) ** 0.5, 1e-12)
        pulls = {}
        for name, value in self.terms.items():
            if name == "task":
                continue
            pull = self.squares.get(name, 0.0) ** 0.5 / task
            if name in self.vectors:
                pull = sum(v.square().sum().item() for v in self.vectors[name]) ** 0.5 / max(update_norm, 1e-12)
            pulls[name] = Heartbeat(loss=value, pull=pull, weight=self.weights.get(name))
        return pulls


def norm(grads: Mapping[str, Tensor]) -> float:
    """Return the L2 norm of all tensors together."""
    return sum(value.float().square().sum().item() for value in grads.values()) ** 0.5


def turned(before: Grads, after: Grads) -> float:
    """Return the angle between two gradients in degrees, 0 where either is zero."""
    size = norm(before) * norm(after)
    if not size:
        return 0.0
    cosine = sum((before[name].float() * after[name].float()).sum().item() for name in before) / size
    return float(torch.rad2deg(torch.acos(torch.tensor(min(max(cosine, -1.0), 1.0), dtype=torch.float64))))
