"""What `perdure recipe advise` answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from perdure.core.estimates import Estimate
from perdure.core.records import Record, written_as
from perdure.workflows.advise.table import Arm, SuiteSummary

NO_SOURCE = "none"


@dataclass(frozen=True)
class Reason(Record):
    """One sentence of the advice.

    Args:
        says: The sentence.
        source: What it rests on: our measurements, a paper, the user's answers, or `NO_SOURCE`.
    """

    says: str
    source: str


@dataclass(frozen=True)
class PairedGap(Record):
    """ACC of one recipe minus that of another, paired by test row.

    Args:
        value: The difference.
        low: Lower end of its 95% interval.
        high: Upper end.
        seeds: How many seeds both ran with.
    """

    value: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Rival(Record):
    """A recipe whose ACC does not differ significantly from that of the advised one.

    Args:
        recipe: Its name.
        acc: Its mean score.
        acc_minus: Its ACC minus the advised recipe's; None where the two share no seed.
        train_ratio: Its training time in multiples of naive's; None where not comparable.
    """

    recipe: str
    acc: Estimate
    acc_minus: PairedGap | None
    train_ratio: Estimate | None


@dataclass(frozen=True)
class RefusedRecipe(Record):
    """A recipe that cannot be advised whatever its score, and why."""

    recipe: str
    why: str


@dataclass(frozen=True)
class Missing(Record):
    """Advice of the literature that no method here covers yet.

    Args:
        what: Its name.
        says: The advice.
        source: Where it is given.
    """

    what: str
    says: str
    source: str


@dataclass(frozen=True)
class Advice(Record):
    """A recipe for a user's situation, with the reasons.

    Args:
        recipe: As a recipe's file has it.
        based_on: The recipe or arm that it rests on.
        measured: The line of the table for that; None where it was not measured.
        suite: What was measured on; None where there are no numbers.
        reasons: Why this recipe.
        rivals: Others whose ACC does not differ significantly, the best first.
        refused: What was left out, and why.
        not_here: Advice of the literature that no method here covers yet.
        cautions: What could make the advice wrong.
        command: The command that learns with the recipe.
        commands: The same of every recipe named above that is not shipped under this name, by name.
    """

    recipe: Mapping[str, JsonValue]
    based_on: str = field(metadata=written_as("from"))
    measured: Arm | None
    suite: SuiteSummary | None
    reasons: tuple[Reason, ...]
    rivals: tuple[Rival, ...]
    refused: tuple[RefusedRecipe, ...]
    not_here: tuple[Missing, ...]
    cautions: tuple[str, ...]
    command: str
    commands: Mapping[str, str]
