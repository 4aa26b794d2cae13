"""The measured table that advice rests on: advice.json, which benchmarks/advice.py makes from the results of `perdure bench`."""

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from perdure.core.estimates import Estimate
from perdure.core.records import Record, omitted, omitted_mapping, written_as
from perdure.workflows.advise.guidance import Needs

TABLE = Path(__file__).parent / "advice.json"
WrittenRecipe = Mapping[str, JsonValue]  # a recipe as its file has it


@dataclass(frozen=True)
class Difference(Record):
    """A difference of two mean scores with its 95% interval, paired by test row."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Arm(Record):
    """A recipe that was measured on a suite.

    Args:
        arm: Its label.
        seeds: It ran with each.
        acc: Mean score over all tasks at the end.
        learning_accuracy: Mean score of each task when it was learned.
        forgetting: Mean loss of a task since it was best.
        train_ratio: Training time in multiples of naive fine-tuning's; None where that was not comparable.
        recipe: As its file has it.
        memory_rows: Rows that its last state remembers.
        memory_bytes: Bytes of these rows and their columns.
        state_bytes: Bytes that its methods keep.
        acc_minus: ACC minus that of arms below it, by label, where the two intervals alone could mislead.
        acc_routed: ACC where no request names its task; left out without a router.
        routed_minus: `acc_routed` minus that of every other arm that shares a seed, by label; left out without a router.
        suite: The suite that it was measured on, where that is another one with the same tasks; else left out.
    """

    arm: str
    seeds: tuple[int, ...]
    acc: Estimate
    learning_accuracy: Estimate | None
    forgetting: Estimate | None
    train_ratio: Estimate | None
    recipe: Mapping[str, JsonValue]
    memory_rows: int
    memory_bytes: int
    state_bytes: int
    acc_minus: Mapping[str, Difference] = field(default_factory=dict)
    acc_routed: Estimate | None = omitted(None)
    routed_minus: Mapping[str, Difference] = omitted_mapping()
    suite: str | None = omitted(None)

    def without_names(self, routed: Collection[str]) -> "Arm":
        """Return the arm as it answers requests that do not name their task.

        Args:
            routed: Labels of the arms with a router, whose differences to others are of such requests.
        """
        if self.acc_routed is None:
            return replace(self, acc_minus={name: gap for name, gap in self.acc_minus.items() if name not in routed})
        return replace(self, acc=self.acc_routed, acc_minus=self.routed_minus, learning_accuracy=None, forgetting=None)


@dataclass(frozen=True)
class SuiteSummary(Record):
    """What was measured on, for people.

    Args:
        name: Name of the suite.
        about: What it is, in a sentence.
        model: Base model.
        tasks: How many tasks.
    """

    name: str
    about: str
    model: str
    tasks: int


@dataclass(frozen=True)
class MeasuredSuite(Record):
    """A suite with its arms, the best ACC first.

    Args:
        name: Name of the suite.
        about: What it is, in a sentence.
        model: Base model.
        parameters: Size of the model.
        tasks: How many tasks.
        tasks_are: "alike" or "different".
        arms: What was measured.
    """

    name: str
    about: str
    model: str
    parameters: int
    tasks: int
    tasks_are: str
    arms: tuple[Arm, ...]

    @property
    def summary(self) -> SuiteSummary:
        """The suite without its arms."""
        return SuiteSummary(self.name, self.about, self.model, self.tasks)

    def without_names(self) -> "MeasuredSuite":
        """Return the suite as its arms answer requests that do not name their task, the best ACC first."""
        routed = [arm.arm for arm in self.arms if arm.acc_routed is not None]
        arms = (arm.without_names(routed) for arm in self.arms)
        return replace(self, arms=tuple(sorted(arms, key=lambda arm: -arm.acc.value)))


@dataclass(frozen=True)
class WatchedPair(Record):
    """What a model could do before any task, and after all of them with and without a method.

    Args:
        base: Score before any task.
        without: Score after all tasks, without the method.
        with_method: Score after all tasks, with it.
        minus: The difference between the two.
    """

    base: float
    without: float
    with_method: float = field(metadata=written_as("with"))
    minus: Estimate


@dataclass(frozen=True)
class RehearsalPair(Record):
    """Two arms that differ in the rehearsal of general instructions alone.

    Args:
        suite: Name of the suite.
        arm: The arm that rehearses.
        without: The arm that does not.
        seeds: Those that both ran with.
        acc_minus: ACC with the rehearsal minus ACC without.
        train_ratio: Training time with the rehearsal over that without.
        watched: What was watched, by name.
    """

    suite: str
    arm: str
    without: str
    seeds: tuple[int, ...]
    acc_minus: Estimate
    train_ratio: float
    watched: Mapping[str, WatchedPair]


def read_table(path: Path = TABLE) -> list[MeasuredSuite]:
    """Return the measured suites."""
    return [MeasuredSuite.from_json(suite) for suite in _read(path)["suites"]]


def read_rehearsal(path: Path = TABLE) -> list[RehearsalPair]:
    """Return what rehearsing general instructions was measured to keep, pair of arms by pair."""
    return [RehearsalPair.from_json(pair) for pair in _read(path).get("rehearsal", [])]


def nearest_suite(needs: Needs, suites: Iterable[MeasuredSuite]) -> MeasuredSuite | None:
    """Return the measured suite most like the work ahead: its kind of tasks first, then their number, then how many arms."""

    def distance(suite: MeasuredSuite) -> tuple[bool, float, int]:
        other = needs.similarity in ("alike", "different") and suite.tasks_are != needs.similarity
        return other, abs(math.log((needs.tasks or suite.tasks) / suite.tasks)), -len(suite.arms)

    return min((suite for suite in suites if suite.arms), key=distance, default=None)


def _read(path: Path) -> dict[str, list[object]]:
    content: dict[str, list[object]] = json.loads(path.read_text(encoding="utf-8"))
    return content
