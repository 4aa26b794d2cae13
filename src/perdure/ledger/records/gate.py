"""The rule of a gate: the loss that is tolerated, and the confidence."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from perdure.core.errors import BadSpec
from perdure.core.plain_json import is_number
from perdure.core.plain_text import clipped, quoted
from perdure.core.records import Record, omitted

Correction = Literal["holm", "none"]
Guarding = Literal["warn", "enforce"]


@dataclass(frozen=True)
class Gate(Record):
    """The rule of a gate: the loss that is tolerated, and the confidence.

    Args:
        tolerance: Largest drop that is accepted, as a share: 0.03 is 3 points. In [0, 1).
        confidence: One-sided, of each bound, in (0.5, 1).
        strict: Count an inconclusive verdict as fail.
        floor: Lowest accepted score of the new task, in [0, 1]; None for no floor.
        tolerances: Tolerance of single tasks by name, instead of `tolerance`.
        lost_facts: Largest share, in [0, 1], of the edited facts that the model answered with before and may lose. Every fact
            was requested by a user and is verified itself, so no sampling error excuses its loss.
        mean_drop: Largest mean drop over the abilities that passes, in [0, 1).
        worst_drop: Largest drop of a single ability that passes, in [0, 1). It is wider than `tolerance`, above which an ability
            fails, because the rows of one guard seldom prove a few points.
        drift: Largest distance from the reference that passes, in [0, 1). Half of it warns. On SmolLM2-135M (60 prompts, seed 0)
            a task of labels moved the answers by 0.08 without general rows, three by 0.12 (dual_replay) or 0.16 (naive), and by
            0.01 with them.
        correct: "holm" corrects "fail" for the number of tasks, and of guards, that are judged together; "none" does not.
        guards: "warn" reports what abilities and drift have lost, "enforce" makes it part of the verdict.

    Raises:
        BadSpec: A value is out of its range.
    """

    tolerance: float = 0.03
    confidence: float = 0.95
    strict: bool = False
    floor: float | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    lost_facts: float = 0.0
    mean_drop: float = omitted(0.03)
    worst_drop: float = omitted(0.10)
    drift: float = omitted(0.10)
    correct: Correction = omitted("holm")
    guards: Guarding = omitted("warn")

    def __post_init__(self) -> None:
        own = {f"tolerance of {clipped(task, 60)}": value for task, value in self.tolerances.items()}
        limits = {name: getattr(self, name) for name in ("tolerance", "mean_drop", "worst_drop", "drift")}
        for name, value in {**limits, **own}.items():
            if not is_number(value) or not 0 <= value < 1:
                raise BadSpec(f"gate {name} is {quoted(value)}; give a share from 0 to below 1, as 0.03 for 3 points")
        if not is_number(self.confidence) or not 0.5 < self.confidence < 1:
            raise BadSpec(f"gate confidence is {quoted(self.confidence)}; give a number between 0.5 and 1, as 0.95")
        if self.floor is not None and (not is_number(self.floor) or not 0 <= self.floor <= 1):
            raise BadSpec(f"gate floor is {quoted(self.floor)}; give a score from 0 to 1, or none")
        if not is_number(self.lost_facts) or not 0 <= self.lost_facts <= 1:
            raise BadSpec(
                f"gate lost_facts is {quoted(self.lost_facts)}; give a share of the edited facts, from 0 to 1"
            )
        if not isinstance(self.strict, bool):
            raise BadSpec(f"gate strict is {quoted(self.strict)}; write true or false")
        for name, words in {"correct": get_args(Correction), "guards": get_args(Guarding)}.items():
            if getattr(self, name) not in words:
                raise BadSpec(f"gate {name} is {quoted(getattr(self, name))}; write {' or '.join(words)}")

    @classmethod
    def from_json(cls, data: object) -> "Gate":
        """Restore a gate written by `to_json`; missing keys get their defaults.

        Raises:
            BadSpec: An unknown key or a value out of range.
        """
        if not isinstance(data, Mapping):
            raise BadSpec(f"gate is {quoted(data)}; write an object with its settings")
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise BadSpec(f"unknown gate setting {quoted(unknown[0])}; known: {', '.join(f.name for f in fields(cls))}")
        if not isinstance(data.get("tolerances", {}), Mapping):
            raise BadSpec(
                f"gate tolerances are {quoted(data['tolerances'])}; write a mapping of task name to tolerance"
            )
        return cls(**data)
