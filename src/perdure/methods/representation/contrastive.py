"""Contrastive separation: a task's representations stay distant from stored prototypes of the tasks before it.

Source: Cha et al., "Co2L: Contrastive Continual Learning", ICCV 2021, for contrasting the current task's rows with older
ones; Khosla et al., "Supervised Contrastive Learning", 2020; Li et al., "Prototypical Contrastive Learning", 2021, for
prototypes in the place of rows.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import Positive, Strength, Temperature
from perdure.core.seams import Draw, DrawContext, Method, Model, State
from perdure.core.step import Slice, Step
from perdure.maths.clusters import spherical_means
from perdure.maths.precision import wide
from perdure.methods.registry import register

ROWS = 512  # of a task that are looked at for its prototypes
KEY = "prototypes/"  # no dot: what follows a dot is a parameter


@register
@dataclass(frozen=True)
class Contrastive(Method):
    """Add strength x mean of -log( sum e^(z.o / T) / (sum e^(z.o / T) + sum e^(z.c / T)) ) over rows.

    A new row counts by its label tokens, as it does in the task loss; replayed rows count alike.

    z is a row's representation: the hidden state that predicts its first label token, scaled to length 1. For a new row the o are
    its own task's prototypes, as the model saw the task when it began, and the c those of all older tasks; for a replayed row
    the older ones are its own. So a row is drawn to its own side, near any prototype of it, and pushed from the other; labels are
    not needed. The term is in nats and goes to 0 as the two sides part.

    Prototypes are `size` spherical k-means centres a task, taken when it has settled. Learning a known task again replaces
    them. With nothing stored it does nothing.

    Seams: prepare, draw (shares the rows that others draw, none of its own), loss, measure.
    State: `prototypes/<task>` (size, hidden) float32, stored with the entry: 4 x size x hidden bytes a task; `own` while a task
    is learned.
    Cost: no forward in an update (1.00 x replay on SmolLM2-135M); up to 512 rows of the task forward before it and after it.
    With replay 1.5 x naive's time (clinc5).
    When to use: together with replay, or where rows may not be stored, and tasks differ in their questions.
    Source: Cha et al. 2021, arXiv 2106.14413; Khosla et al. 2020, arXiv 2004.11362; Li et al. 2021, arXiv 2005.04966.
    Deviation: prototypes instead of rows as positives and negatives, so that the term does not depend on how a batch is cut;
    tasks instead of classes; the model's own hidden state, without a projection head and without views of a row; older
    prototypes are not moved as the model moves.
    """

    name: ClassVar[str] = "contrastive"
    family: ClassVar[str] = "representation"
    seams: ClassVar[tuple[str, ...]] = ("prepare", "draw", "loss", "measure")
    source: ClassVar[str] = "Cha et al. 2021, arXiv 2106.14413; Khosla et al. 2020, arXiv 2004.11362"

    strength: Strength = Field(default=1.0, description="factor of the term")
    temperature: Temperature = Field(default=0.1, description="of the similarities")
    size: Positive = Field(default=8, description="prototypes a task")

    @property
    def active(self) -> bool:
        """No strength, no method."""
        return self.strength > 0

    def prepare(self, model: Model, state: State) -> State:
        """Compute the prototypes of the new task as it begins, if there are older ones to separate it from."""
        if not _older(state, model.task):
            return state
        return {key: value for key, value in state.items() if key != KEY + model.task} | {"own": self._centres(model)}

    def draw(self, context: DrawContext, state: State) -> Draw | None:
        """Share the rows that others draw; by itself it draws none."""
        return Draw(0)

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the mean of new rows, plus that of replayed ones if there are."""
        if "own" not in state:
            return None
        own, older = state["own"], torch.cat([state[key] for key in sorted(state) if key.startswith(KEY)])
        term = None
        for rows, mine, others in ((step.new, own, older), (step.drawn.get(self.name), older, own)):
            if rows is not None:
                share = self.strength * rows.mean(self._separation(rows, mine, others))
                term = share if term is None else term + share
        return term

    def measure(self, model: Model, state: State) -> State:
        """Add the settled task's prototypes to those of the others."""
        return {**_older(state, model.task), KEY + model.task: self._centres(model)}

    def _separation(self, rows: Slice, mine: Tensor, others: Tensor) -> Tensor:
        """Return the loss of each token's row (tokens,): the same at every token of a row."""
        at, row_of = first_tokens(rows)
        z = torch.nn.functional.normalize(wide(rows.hidden[at]), dim=-1)  # type: ignore[index]
        to_mine = (z @ mine.to(z.device).T / self.temperature).logsumexp(-1)
        to_others = (z @ others.to(z.device).T / self.temperature).logsumexp(-1)
        return torch.nn.functional.softplus(to_others - to_mine)[row_of]

    def _centres(self, model: Model) -> Tensor:
        return spherical_means(torch.cat(list(_representations(model))), self.size)


def first_tokens(rows: Slice) -> tuple[Tensor, Tensor]:
    """Return the place of each row's first label token (rows,), and for each token the number of its row (tokens,)."""
    row = rows.row if rows.row is not None else torch.arange(len(rows.labels), device=rows.labels.device)
    begins = torch.ones_like(row, dtype=torch.bool)
    begins[1:] = row[1:] != row[:-1]
    return begins.nonzero()[:, 0], begins.cumsum(0) - 1


def _representations(model: Model) -> Iterator[Tensor]:
    for rows in model.slices("new", ROWS):
        at, _ = first_tokens(rows)
        yield torch.nn.functional.normalize(wide(rows.hidden[at]).detach(), dim=-1)  # type: ignore[index]


def _older(state: State, task: str) -> State:
    return {key: value for key, value in state.items() if key.startswith(KEY) and key != KEY + task}
