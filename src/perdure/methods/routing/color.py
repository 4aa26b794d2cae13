"""A router: what the frozen base model shows of each task's rows, so that a request finds its task by itself.

Source: Wistuba et al., "Continual Learning with Low Rank Adaptation" (CoLoR), 2023; Hayes & Kanan, "Lifelong Machine Learning
with Deep Streaming Linear Discriminant Analysis", 2020.
"""

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from perdure.core.fields import Positive, ShareBelowOne
from perdure.core.keyed import keyed
from perdure.core.seams import Method, Model, State
from perdure.maths.routing import MOST_HELD, Moments, added, label_moments, task_moments
from perdure.methods.registry import register


@register
@dataclass(frozen=True)
class Color(Method):
    """Store the moments of a task's features under the base model, by which a request without a task is sent to it.

    The features of a row are the mean over its own tokens of the states behind a third of the base model's blocks. For each label
    c of each task the mean m_c is stored, and for each task the scatter S around these means. A request with features f goes to
    the task of the label with the largest m_c^T C^-1 f - m_c^T C^-1 m_c / 2, where C is the sum of all S by the number of rows,
    shrunk. It is unknown where its distance to the nearest label, less its distance to all rows as one Gaussian, is above the
    k-th smallest of the n held-out rows of all tasks, k = ceil(0.95 (n + 1)): a request that is drawn as these rows were is
    unknown with probability 5% at most. With n < 19, or with `held` 0 in every task, no request is unknown. The probability of
    each task is a softmax of these values, divided by the temperature at which the held-out rows are likeliest.

    A task that is learned again adds its new rows to what was stored: rows of a label to that label, clusters beside the older
    ones, of which the nearest two are one above twice `clusters`. A row that is given again is counted once. At most 200 rows
    of a task are held out.

    Seams: measure. State: none; a slot `route:<task>`: 2 d^2 + 4 d bytes a label and held-out row (1.1 MB at d = 576, 15 labels).
    Cost: a third of a forward per row, once; a third of a prompt's forward per request.
    When to use: with `per_task`, where requests do not name their task. The order in which tasks are learned does not matter, and
    `revert` takes a task out.
    Deviation: CoLoR sends a request to the task of the nearest k-means centroid. On the same features a Gaussian for each label,
    with one covariance for all, sends more requests to the right task (docs/benchmarks.md). k-means remains for tasks without
    labels, whose clusters are their classes.
    """

    name: ClassVar[str] = "color"
    family: ClassVar[str] = "routing"
    seams: ClassVar[tuple[str, ...]] = ("measure",)
    source: ClassVar[str] = "Wistuba et al. 2023, arXiv 2311.17601; Hayes & Kanan 2020, arXiv 1909.01520"
    slot: ClassVar[str] = "route"

    held: ShareBelowOne = Field(
        default=0.2, description="share of each label's rows that only set the limit for unknown requests"
    )
    clusters: Positive = Field(default=5, description="clusters of a task without labels")
    size: Positive = Field(default=2000, description="most train rows that are measured")

    def measure(self, model: Model, state: State) -> State:
        """Return the moments of the task's train rows, added to those that it had; see `maths.routing.Moments`."""
        features, labels = model.features("unmeasured" if state else "new", size=self.size)
        if not labels:
            return state
        order = keyed("color", model.task).permutation(len(labels)).tolist()
        if not state:
            return task_moments(features, labels, order, held=self.held, clusters=self.clusters).to_tensors()
        known = Moments.from_tensors(state)
        room = max(0, MOST_HELD - len(known.held))
        if None in (*known.labels, *labels):
            new = task_moments(features, labels, order, held=self.held, most_held=room, clusters=self.clusters)
        else:  # few rows of a label are rows of that label too, where the task has labels
            new = label_moments(features, labels, order, held=self.held, most_held=room)
        return added(known, new, most=2 * self.clusters).to_tensors()
