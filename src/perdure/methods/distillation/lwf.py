"""Learning without forgetting: on the new rows, stay near the outputs of the model before the task.

Source: Li & Hoiem, "Learning without Forgetting", ECCV 2016, equations 2 and 3.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from perdure.core.fields import Positive, Strength, Temperature
from perdure.core.seams import Column, Method, Model, State
from perdure.core.step import Step
from perdure.maths.divergence import kl
from perdure.maths.importance import copies, to_state
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class Lwf(Method):
    """Add strength x T^2 KL(model before the task || model) on the new rows, at label positions.

    No row of an older task is stored: the new rows are the questions, and the old model's answers to them are what is preserved.
    The term carries T^2 (Hinton et al. 2015), so that strength means the same at every temperature; the paper's does not:
    its lambda_o = 1 at T = 2 is strength 0.25 here, the default.

    With `vocabulary: top_k` the old model runs once for each row, before the first update, and its `top_k` log-probabilities and
    the mass of the rest are compared. With `full` it runs in every update, and the whole vocabulary is compared.

    In the first task of a stream there is no task to forget and it does nothing. With `teacher: base` the base model is the
    teacher instead, from the first task on: an anchor of KL to the base, as trainers of one task have it (`base_kl`, `asft`).

    Seams: prepare, loss.
    State: `taught`, in a task that has a teacher; with `full` `anchor.<param>`, float32, 4 bytes per trainable parameter.
    Cost: with `top_k` one forward a new row a task and 12 x top_k bytes a label token while the task is learned, no forward in
    an update (1.03 x naive on SmolLM2-135M); with `full` one of the new rows, without gradients (1.5 x).
    1.1 x naive's time (clinc5).
    When to use: old rows may not be stored. It protects as far as the new rows resemble the old ones.
    Source: Li & Hoiem 2016, arXiv 1606.09282.
    Deviation: T^2; all outputs are matched, not those of older tasks alone: a language model has none that belong to a task, and
    a classifier learns new classes against it; no warm-up of a new head and no weight decay of its own, since there is one head
    for all tasks; KL instead of cross-entropy, which has the same gradient.
    """

    name: ClassVar[str] = "lwf"
    family: ClassVar[str] = "distillation"
    seams: ClassVar[tuple[str, ...]] = ("prepare", "loss")
    source: ClassVar[str] = "Li & Hoiem 2016, arXiv 1606.09282"
    later: ClassVar[tuple[str, ...]] = ("teacher",)

    strength: Strength = Field(default=0.25, description="factor of the divergence")
    temperature: Temperature = Field(default=2.0, description="T^2 preserves the size of the gradient")
    vocabulary: Literal["top_k", "full"] = Field(
        default="top_k", description="what is compared: the largest and the rest, computed once, or all tokens"
    )
    top_k: Positive = Field(default=32, description="log-probabilities stored for each label token")
    teacher: Literal["start", "base"] = Field(
        default="start", description="the model before the task, or the base model without what was learned"
    )

    def __post_init__(self) -> None:
        if self.teacher == "base" and self.vocabulary == "full":
            raise ValueError("the base model runs once for each row, before training; set vocabulary: top_k")

    @property
    def active(self) -> bool:
        """No strength, no method."""
        return self.strength > 0

    @property
    def columns(self) -> tuple[Column, ...]:
        """The distribution of the teacher, for the new rows."""
        return (Column(self.column, "new", self.teacher, self.top_k),) if self.vocabulary == "top_k" else ()

    @property
    def column(self) -> str:
        """Name of the column; that of the base model is shared with distill and token_weight, so that the base runs once."""
        return "start" if self.teacher == "start" else "teacher@base"

    def prepare(self, model: Model, state: State) -> State:
        """Copy the weights before the task, if the old model runs in every update; nothing without a teacher."""
        if model.first and self.teacher == "start":
            return {}
        anchors = model.params if self.vocabulary == "full" else {}
        return {"taught": torch.ones(())} | to_state("anchor", copies(anchors))

    def loss(self, step: Step, state: State) -> Tensor | None:
        """Return strength x the mean divergence of the new rows."""
        if step.new is None or "taught" not in state:
            return None
        if self.vocabulary == "top_k":
            gap = step.new.divergence(self.column, self.temperature)
        else:
            before = {name: state[f"anchor.{name}"] for name in step.params}
            gap = kl(step.new.logits, step.run("new", weights=before).logits, self.temperature)
        return None if gap is None else self.strength * step.new.mean(gap)
