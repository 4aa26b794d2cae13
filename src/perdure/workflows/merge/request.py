"""The request of a merge, and what is wrong with one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

from perdure.core.errors import BadInput
from perdure.core.plain_json import is_number
from perdure.data.sources import Data

if TYPE_CHECKING:
    from perdure.ledger import Ledger

How = Literal["svd", "average", "ties", "dare", "slerp", "knots"]
DENSITIES = {"ties": 0.2, "knots": 0.2, "dare": 0.5}  # the first is the paper's; of the others the papers sweep it


@dataclass(frozen=True)
class MergeRequest:
    """A merge as the user requests it.

    Args:
        rank: Most rank of the merged adapter.
        how: How the adapters are merged; see `maths.merge.merge`.
        tasks: Tasks whose adapters are merged; empty for all.
        weights: Weight of each task, 1 where it is left out.
        density: Share of the entries that `ties`, `knots` and `dare` keep; None for the usual one.
        distill_epochs: Passes over the rows at hand that train the merged adapter towards the answers of the adapters before; 0
            for none.
        rows: Files with the rows of tasks whose text is not stored, by task, to distill on.
        drop: Take the merged tasks' own adapters away, so that requests for them go through the merged one.

    Raises:
        BadInput: A value is out of its range, or has no effect.
    """

    rank: int
    how: How = "svd"
    tasks: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    density: float | None = None
    distill_epochs: int = 0
    drop: bool = False
    rows: Mapping[str, Sequence[Data]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise BadInput(f"how is {self.how!r}; it is {', '.join(get_args(How))}")
        if self.rank < 1 or self.distill_epochs < 0:
            raise BadInput(
                f"rank is {self.rank} and distill_epochs {self.distill_epochs}; give a rank of at least 1, and 0 epochs or more"
            )
        if self.density is not None and self.how not in DENSITIES:
            raise BadInput(f"{self.how} keeps every entry, so that density has no effect; leave it out")
        if self.density is not None and not (is_number(self.density) and 0 < self.density <= 1):
            raise BadInput(f"density is {self.density}; give a share above 0 and at most 1")
        if self.rows and not self.distill_epochs:
            raise BadInput("rows are read to distill on; give distill_epochs (--distill-epochs), or leave them out")
        wrong = {name: value for name, value in self.weights.items() if not is_number(value) or not 0 <= value < 1e6}
        if wrong:
            name, value = next(iter(wrong.items()))
            raise BadInput(f"the weight of {name} is {value!r}; give a number of at least 0")

    @property
    def kept_share(self) -> float:
        """The share of the entries that is kept; 1 where all are."""
        return self.density or DENSITIES.get(self.how, 1.0)

    def named(self, ledger: "Ledger") -> "MergeRequest":
        """Return the request with the names under which its tasks were learned, in the place of aliases."""
        weights = {ledger.task_name(name): value for name, value in self.weights.items()}
        rows = {ledger.task_name(name): files for name, files in self.rows.items()}
        return replace(self, tasks=tuple(dict.fromkeys(map(ledger.task_name, self.tasks))), weights=weights, rows=rows)


def refuse_without_rank(drop: bool, **ways: object) -> None:
    """Refuse a request without a rank that does more than drop adapters.

    Args:
        drop: Whether own adapters are dropped that an earlier merge has.
        **ways: What else is given, by name of the argument: how to merge.

    Raises:
        BadInput: There is nothing to drop, or something of `ways` has no effect.
    """
    if not drop:
        raise BadInput(
            "no rank is given; give one (--rank R), or drop alone (--drop), which drops the own adapters of tasks that were "
            "merged before"
        )
    given = [name for name, value in ways.items() if value and (name, value) != ("how", "svd")]
    if given:
        option = given[0].replace("_", "-")
        raise BadInput(
            f"drop without a rank merges nothing, so that --{option} has no effect; leave it out, or give --rank"
        )
