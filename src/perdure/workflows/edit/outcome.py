"""What a search for facts found: the set with those that pass, and why the others do not."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perdure.editing.facts import Fact
from perdure.ledger.records import Drift
from perdure.workflows.edit.again import Verdicts

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet


@dataclass(frozen=True)
class Outcome:
    """The set with the facts that pass.

    Args:
        edit_set: The set; the one in force before where no fact passes.
        applied: The new facts in it.
        why: Why the other new facts are not, by id.
        verdicts: How the set's facts are answered, by id.
        before: How the new facts were answered without them, by id.
        full: Ids of the facts that were verified in every form.
        drift: What the set does to held-out text.
        norms: Relative norm of the update by layer name.
        rewritten: How many facts in force were written again, because head learned since.
    """

    edit_set: "EditSet"
    applied: tuple[Fact, ...] = ()
    why: Mapping[str, str] = field(default_factory=dict)
    verdicts: Verdicts = field(default_factory=dict)
    before: Verdicts = field(default_factory=dict)
    full: Collection[str] = ()
    drift: Drift | None = None
    norms: Mapping[str, float] = field(default_factory=dict)
    rewritten: int = 0


@dataclass(frozen=True)
class Draft:
    """A set of facts, and why others are not in it.

    Args:
        edit_set: The set.
        why: The reason by fact id.
        verdicts: How the set's facts are answered, where that was verified.
    """

    edit_set: "EditSet"
    why: Mapping[str, str] = field(default_factory=dict)
    verdicts: Verdicts | None = None
