"""Experience replay: a few stored rows of older tasks in every update.

Source: Chaudhry et al., "On Tiny Episodic Memories in Continual Learning", 2019; Rolnick et al., "Experience Replay for
Continual Learning", NeurIPS 2019.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import MANY, ShareBelowOne, Strength
from perdure.core.rows import Row
from perdure.core.seams import AdmitContext, Draw, DrawContext, Method, State
from perdure.core.step import Step
from perdure.memory.admission import admission_scores
from perdure.methods.registry import register

MOST = 0.5  # share of the final mix that `passes` takes
Passes = Annotated[float, Field(ge=0, le=MANY)]


@register
@dataclass(frozen=True)
class Replay(Method):
    """Add strength x CE(replayed rows) to the loss, and decide which rows of a finished task enter memory.

    The rows drawn are mix / (1 - mix) x the new rows of the update, so `mix` is their share of the final mix; they are spread
    evenly over `balance`, and matched in length to the batch. Which rows of a task enter memory is `admission`'s; how many is the
    recipe's (`memory_per_label`, `memory_per_task`, `memory_size`).

    A fixed share serves each of many tasks less and less. With `passes` it grows with the memory, so that a learn replays every
    stored row that often, until half of the final mix is replayed.

    Seams: draw, loss, admit. State: none (the memory belongs to the ledger entry).
    Cost: no extra forward; the shared forward is mix / (1 - mix) wider, with `passes` twice as wide at most. 1.8 x naive's time
    (clinc5).
    When to use: wherever raw rows of old tasks may be stored; what every other method has to beat.
    Deviation: `passes` is ours. The term is a mean over its rows and weighted, not concatenated with the batch; rows are drawn
    evenly over `balance`, those least served first, instead of at random.
    """

    name: ClassVar[str] = "replay"
    family: ClassVar[str] = "replay"
    seams: ClassVar[tuple[str, ...]] = ("draw", "loss", "admit")
    source: ClassVar[str] = "Chaudhry et al. 2019, arXiv 1902.10486"
    later: ClassVar[tuple[str, ...]] = ("passes",)

    mix: ShareBelowOne = Field(default=0.25, description="share of replayed rows in the final mix")
    strength: Strength = Field(default=1.0, description="factor of the replayed rows' cross-entropy")
    balance: Literal["label", "task", "row"] = Field(default="label", description="what gets equal service")
    admission: Literal["reservoir", "hard", "surprise"] = Field(
        default="reservoir", description="which rows enter memory"
    )
    passes: Passes = Field(
        default=0.0, description="how often a learn replays each stored row, at least: mix grows for it, up to a half"
    )

    @property
    def active(self) -> bool:
        """Replay acts as soon as rows are drawn."""
        return self.mix > 0

    @property
    def needs(self) -> tuple[str, ...]:
        """What admission needs: hard examples the settled model's losses, surprise those before the task."""
        return {"hard": ("nll_after",), "surprise": ("nll_before",)}.get(self.admission, ())

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Return a draw of the share `mix` of the final mix, or of the larger one that `passes` takes."""
        due = self.passes * context.pools.get("replay", 0) / context.total  # rows an update
        share = min(due / (due + context.new_rows), MOST)
        return Draw(context.rows_for(max(self.mix, share)), balance=self.balance)

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the mean cross-entropy of the replayed rows."""
        if self.name not in step.drawn or not self.strength:
            return None
        rows = step.drawn[self.name]
        return self.strength * rows.mean(rows.cross_entropy())

    def admit(self, rows: Sequence[Row], context: AdmitContext, state: State) -> list[float]:
        """Score the rows by the admission policy."""
        return admission_scores(self.admission, rows, context)
