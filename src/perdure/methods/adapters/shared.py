"""One adapter that goes on from task to task: what a recipe does that names no method of this family.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, for the adapter.
"""

from typing import ClassVar

from pydantic.dataclasses import dataclass

from perdure.core.plan import AdapterPlan, Bare, shared_plan
from perdure.core.seams import Method, State
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class Shared(Method):
    """Go on training the adapter that all tasks share.

    Seams: adapter. State: none.
    Cost: none.
    When to use: it is what happens without a method of this family; name it to say so.
    Deviation: none.
    """

    name: ClassVar[str] = "shared"
    family: ClassVar[str] = "adapters"
    seams: ClassVar[tuple[str, ...]] = ("adapter",)
    source: ClassVar[str] = "Hu et al. 2022, arXiv 2106.09685"

    def adapter(self, bare: Bare, state: State) -> AdapterPlan:
        """Return the plan of the slot `skill`, over whatever else all tasks share."""
        return shared_plan(bare)
