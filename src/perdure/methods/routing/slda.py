"""Streaming LDA: a closed-form classifier on features of the untrained model, for tasks of plain labels.

Source: Hayes & Kanan, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis", CVPR Workshops 2020.
"""

from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from perdure.core.fields import ShareAboveZero, ShareBelowOne
from perdure.core.keyed import keyed
from perdure.core.seams import Method, Model, State
from perdure.core.slots import ROUTE
from perdure.maths.routing import Moments, added, label_moments
from perdure.methods.registry import register

SHRINKAGE = "shrinkage"


@register
@dataclass(frozen=True)
class Slda(Method):
    """Measure the mean feature of each label, and the spread around it; the answer is the label whose Gaussian is nearest.

    With features f of the bare base (mean over a row's own tokens behind a third of the blocks), n rows, m_c the mean of label
    c, S = sum over rows of (f - m_c)(f - m_c)^T, d dimensions and shrinkage g, C = (1 - g) S/n + g tr(S/n)/d I. The score of a
    label is m_c^T C^-1 f - m_c^T C^-1 m_c / 2, without priors. Nothing is trained, no row is stored, and neither the order of
    rows nor that of tasks matters. A task that is learned again adds its new rows to these sums.

    A request without a task goes to the task of its nearest label, as with `color`. With `held` above 0, a share of each label's
    rows is not summed, and their features are stored: they set the limit above which a request belongs to no task. At 0 every row
    counts, and no request is near no task unless tasks that were learned with `color` have held-out rows.

    Seams: measure. State: the slot `route:<task>`: `count/<answer>`, `mean/<answer>` (d), the upper triangle of S, and the
    shrinkage; 2 d^2 + 4 d bytes a label and held-out row.
    Cost: a third of a forward a row, once; an answer costs the same. 0.02 x naive's time (clinc5).
    When to use: a task of plain labels that the untrained model's features tell apart, such as intents or topics. Not where a
    row must be compared with itself (entailment, yes or no), and not where text is to be generated.
    Deviation: the sums are those of the task alone, so that no later task changes its answers; the paper's covariance is one
    for all classes of the stream, updated row by row. Shrinkage is towards the mean variance.
    """

    name: ClassVar[str] = "slda"
    family: ClassVar[str] = "routing"
    seams: ClassVar[tuple[str, ...]] = ("measure",)
    source: ClassVar[str] = "Hayes & Kanan 2020, arXiv 1909.01520"
    slot: ClassVar[str] = ROUTE
    answers: ClassVar[bool] = True
    later: ClassVar[tuple[str, ...]] = ("held",)

    shrinkage: ShareAboveZero = Field(default=0.1, description="share of the mean variance in the covariance")
    held: ShareBelowOne = Field(
        default=0.0, description="share of each label's rows that only set the limit for requests of no task"
    )

    def measure(self, model: Model, state: State) -> State:
        """Return the moments of the task's rows by answer, added to those that it had."""
        features, answers = model.features("new")
        order = keyed("slda", model.task).permutation(len(answers)).tolist()
        new = label_moments(features, answers, order, held=self.held)
        moments = added(Moments.from_tensors(state), new) if state else new
        return {**moments.to_tensors(), SHRINKAGE: torch.tensor(self.shrinkage)}
