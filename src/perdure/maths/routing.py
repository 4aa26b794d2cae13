"""Which task a feature vector belongs to: Gaussians with one covariance, and nearest centroids for comparison.

What is stored is a value of its own for each task (`Moments`). Sums over tasks are computed anew, in the order of their names, so
that the order of learning changes no bit, and a task is taken out by leaving its moments out.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from perdure.maths.calibration import temperature
from perdure.maths.clusters import k_means

SHRINKAGE = 0.1
MOST_HELD = 200  # rows of a task
UNKNOWN_SHARE = 0.05  # of rows of known tasks, the most that are taken for unknown
COUNT, MEAN, CLUSTER, SCATTER, HELD = "count/", "mean/", "cluster/", "scatter", "held"
ESCAPE = "\\"  # before a label that would be read as a cluster, or as an escaped label


@dataclass(frozen=True)
class Moments:
    """Moments of the features of one task's rows.

    Args:
        labels: Label of each class; None for each cluster of a task without labels.
        counts: Rows of each class (classes,), float32.
        means: Mean of each class (classes, d), float32.
        scatter: Sum over rows of (f - m)(f - m)^T, where m is the mean of the row's class (d, d), float32.
        held: Features of rows that were not fitted (rows, d), float32; they show how far a row of the task usually is.
    """

    labels: tuple[str | None, ...]
    counts: Tensor
    means: Tensor
    scatter: Tensor
    held: Tensor

    def to_tensors(self) -> dict[str, Tensor]:
        """Return the moments as named tensors: `count/<label>`, `mean/<label>`, the upper triangle of the scatter, `held`.

        Without labels, the name of a class is `cluster/<number>`; a label that begins so has a backslash before it. Bytes:
        2 d^2 + 4 d a class and held-out row.
        """
        names = [f"{CLUSTER}{n}" if label is None else _escaped(label) for n, label in enumerate(self.labels)]
        upper = torch.triu_indices(*self.scatter.shape)
        return {
            **{f"{COUNT}{name}": count for name, count in zip(names, self.counts, strict=True)},
            **{f"{MEAN}{name}": mean for name, mean in zip(names, self.means, strict=True)},
            SCATTER: self.scatter[upper[0], upper[1]],
            HELD: self.held,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Moments":
        """Return the moments that `to_tensors` wrote, classes in order of their names."""
        names = sorted(name.removeprefix(MEAN) for name in tensors if name.startswith(MEAN))
        means = torch.stack([tensors[f"{MEAN}{name}"] for name in names])
        scatter = means.new_zeros(means.shape[1], means.shape[1])
        upper = torch.triu_indices(*scatter.shape)
        scatter[upper[0], upper[1]] = tensors[SCATTER]
        return cls(
            tuple(None if name.startswith(CLUSTER) else name.removeprefix(ESCAPE) for name in names),
            torch.stack([tensors[f"{COUNT}{name}"] for name in names]),
            means,
            scatter + scatter.triu(1).T,
            tensors[HELD],
        )


def _escaped(label: str) -> str:
    return f"{ESCAPE}{label}" if label.startswith((CLUSTER, ESCAPE)) else label


def fit(features: Tensor, labels: Sequence[str | None], held: Tensor | None = None) -> Moments:
    """Return the moments of features, summed in float64.

    Args:
        features: (rows, d), at least one row.
        labels: Class of each row. Rows without a label are one class; `clustered` splits them.
        held: Features of rows that are not fitted (rows, d).

    Returns:
        Classes in the order of their labels.
    """
    classes = sorted(set(labels), key=lambda label: (label is None, label or ""))
    index = torch.tensor([classes.index(label) for label in labels])
    return _moments(features, index, classes, held)


def clustered(features: Tensor, first: Sequence[int], held: Tensor | None = None) -> Moments:
    """Return the moments of features without labels, with the clusters of k-means as classes.

    Args:
        features: (rows, d), at least one row.
        first: Rows that k-means begins with, one a cluster.
        held: Features of rows that are not fitted (rows, d).
    """
    index = k_means(features, first)[1]
    used = index.unique()
    return _moments(features, torch.searchsorted(used, index), [None] * len(used), held)


def task_moments(
    features: Tensor,
    labels: Sequence[str | None],
    order: Sequence[int],
    *,
    held: float = 0.2,
    most_held: int = MOST_HELD,
    clusters: int = 5,
) -> Moments:
    """Return the moments of one task, with some of its rows held out of the fit.

    The labels are the classes where every row has one and there are at most half as many labels as rows; else clusters are.

    Args:
        features: (rows, d), at least one row.
        labels: Label of each row.
        order: All rows in the order in which they are held out, or begin a cluster: a keyed permutation.
        held: Share of each label's rows that is held out, rounded down, so that no label loses its last row.
        most_held: Most rows that are held out.
        clusters: Number of clusters where the labels are no classes.
    """
    if None not in labels and len(set(labels)) <= len(labels) / 2:
        return label_moments(features, labels, order, held=held, most_held=most_held)
    out = _held_out([None] * len(labels), order, held, most_held)
    fitted = [row for row in range(len(labels)) if row not in out]
    first = [fitted.index(row) for row in order if row not in out][:clusters]
    return clustered(features[fitted], first, features[sorted(out)])


def label_moments(
    features: Tensor, labels: Sequence[str | None], order: Sequence[int], *, held: float, most_held: int = MOST_HELD
) -> Moments:
    """Return the moments of one task by its labels, with some of its rows held out of the fit; see `task_moments`."""
    out = _held_out(labels, order, held, most_held)
    fitted = [row for row in range(len(labels)) if row not in out]
    return fit(features[fitted], [labels[row] for row in fitted], features[sorted(out)])


def _held_out(classes: Sequence[str | None], order: Sequence[int], held: float, most: int) -> set[int]:
    """Return the first rows in `order` of each class, a share `held` of its rows rounded down, `most` rows in all."""
    room = {label: math.floor(held * classes.count(label)) for label in set(classes)}
    out: set[int] = set()
    for row in order:
        if room[classes[row]] and len(out) < most:
            out.add(row)
            room[classes[row]] -= 1
    return out


def _moments(features: Tensor, index: Tensor, classes: Sequence[str | None], held: Tensor | None) -> Moments:
    rows = features.double()
    counts = torch.bincount(index, minlength=len(classes))
    means = torch.zeros(len(classes), rows.shape[1], dtype=torch.float64).index_add(0, index, rows) / counts[:, None]
    apart = rows - means[index]
    none = features.new_zeros(0, features.shape[1])
    return Moments(
        tuple(classes), counts.float(), means.float(), (apart.T @ apart).float(), none if held is None else held
    )


def added(known: Moments, new: Moments, most: int | None = None) -> Moments:
    """Return the moments of the rows of both, up to rounding as `fit` has them of all these rows at once.

    With n rows and mean m of a class in the first, k and l in the second, its mean is (n m + k l) / (n + k), and the scatter
    gains n k / (n + k) (m - l)(m - l)^T. Clusters, which have no label in common, stand side by side. While there are more than
    `most`, the two whose union adds least to the trace of the scatter become one (Ward's rule).

    Args:
        known: Of rows that were fitted before.
        new: Of other rows of the same task.
        most: Most clusters; None for any number.

    Source: Chan, Golub & LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
    """
    named = sorted({label for label in (*known.labels, *new.labels) if label is not None})
    places, clusters = [], len(named)
    for moments in (known, new):
        nameless = itertools.count(clusters)
        places.append([next(nameless) if label is None else named.index(label) for label in moments.labels])
        clusters += moments.labels.count(None)
    labels, size = (*named, *[None] * (clusters - len(named))), known.means.shape[1]
    counts = torch.zeros(2, len(labels), dtype=torch.float64)
    means = torch.zeros(2, len(labels), size, dtype=torch.float64)
    for part, (moments, at) in enumerate(zip((known, new), places, strict=True)):
        counts[part, at], means[part, at] = moments.counts.double(), moments.means.double()
    total = counts.sum(0)
    apart = means[0] - means[1]
    between = apart.T * (counts[0] * counts[1] / total) @ apart
    made = Moments(
        labels,
        total.float(),
        ((counts[..., None] * means).sum(0) / total[:, None]).float(),
        (known.scatter.double() + new.scatter.double() + between).float(),
        torch.cat([known.held, new.held]),
    )
    while most is not None and made.labels.count(None) > most:
        made = _nearest_joined(made)
    return made


def _nearest_joined(moments: Moments) -> Moments:
    """Return moments with one cluster less: the two are one whose union adds least to the trace of the scatter."""
    start = len(moments.labels) - moments.labels.count(None)
    n, m = moments.counts[start:].double(), moments.means[start:].double()
    cost = n[:, None] * n / (n[:, None] + n) * torch.cdist(m, m).square()
    cost = cost.masked_fill(torch.ones_like(cost).tril().bool(), math.inf)
    i, j = divmod(int(cost.argmin()), len(n))
    counts, means, apart = moments.counts.clone(), moments.means.clone(), m[i] - m[j]
    counts[start + i] = n[i] + n[j]
    means[start + i] = (n[i] * m[i] + n[j] * m[j]) / (n[i] + n[j])
    left = [k for k in range(len(counts)) if k != start + j]
    scatter = moments.scatter.double() + n[i] * n[j] / (n[i] + n[j]) * torch.outer(apart, apart)
    return replace(moments, labels=moments.labels[:-1], counts=counts[left], means=means[left], scatter=scatter.float())


def conformal_limit(distances: Tensor, share: float = UNKNOWN_SHARE) -> float:
    """Return the limit that a new row of a known task exceeds with probability `share` at most.

    The k-th smallest of n distances, k = ceil((n + 1)(1 - share)). A new row that is drawn as the n rows were has each rank among
    the n + 1 distances with the same probability, so that it is above the limit with probability (n + 1 - k) / (n + 1) at most.

    Args:
        distances: Distances of n held-out rows (n,), in any order.
        share: In [0, 1).

    Returns:
        The limit; infinite with share 0, and where k > n, that is with fewer than 1 / share - 1 rows (19 for 5%): even their
        largest distance would be exceeded too often.

    Source: Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005 (inductive conformal prediction).
    """
    n = len(distances)
    k = math.ceil(round((n + 1) * (1 - share), 9))  # 300 * 0.99 is no whole number in floating point
    return math.inf if k > n else distances.sort().values[k - 1].item()


class Decision(NamedTuple):
    """The decisions for some rows.

    Args:
        tasks: Task of each row; None where no task is near.
        posterior: Probability of each task for each row, by task.
    """

    tasks: list[str | None]
    posterior: list[dict[str, float]]


@dataclass(frozen=True)
class Gaussian:
    """Classes of all tasks as Gaussians with one covariance: linear discriminant analysis, without priors.

    With n rows, S the sum of all scatters, d dimensions and shrinkage g, C = (1 - g) S/n + g tr(S/n)/d I, and the score of class
    c with mean m is m^T C^-1 f - m^T C^-1 m / 2. The task of a row is the owner of its best class.

    Args:
        owners: Task of each class.
        labels: Label of each class; None for clusters of a task without labels.
        weights: C^-1 m of each class (classes, d), float64.
        biases: -m^T C^-1 m / 2 of each class (classes,), float64.
        within: C^-1 (d, d), float64.
        overall: Inverse of the shrunk covariance of all rows around their one mean (d, d), float64.
        centre: The one mean of all rows (d,), float64.
        limit: Relative distance above which a row is unknown, which a row of a known task exceeds with probability 5% at most;
            infinite with fewer than 19 held-out rows. See `conformal_limit`.
        temperature: What the scores of tasks are divided by before they become probabilities, fitted on the same held-out rows;
            1 with fewer than 19. See `maths.calibration`.

    Source: Hayes & Kanan, "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis", 2020, arXiv 1909.01520;
    Ren et al., "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection", 2021, arXiv 2106.09022.
    Deviation: the covariance is a sum of moments of tasks and no running update, so that no order of rows or tasks matters; it is
    shrunk towards its mean variance.
    """

    owners: tuple[str, ...]
    labels: tuple[str | None, ...]
    weights: Tensor
    biases: Tensor
    within: Tensor
    overall: Tensor
    centre: Tensor
    limit: float
    temperature: float

    @classmethod
    def of(cls, tasks: Mapping[str, Moments], shrinkage: float = SHRINKAGE) -> "Gaussian":
        """Return the Gaussians of some tasks.

        Args:
            tasks: Moments by task, at least one task; the order does not matter.
            shrinkage: Share of the mean variance in the covariance, in (0, 1].

        Cost: two inverses of (d, d) in float64: 40 ms at d = 576 on one core.
        """
        parts = [(name, tasks[name]) for name in sorted(tasks)]
        counts = torch.cat([part.counts for _, part in parts]).double()
        means = torch.cat([part.means for _, part in parts]).double()
        scatter = torch.stack([part.scatter.double() for _, part in parts]).sum(0)
        centre = counts @ means / counts.sum()
        apart = means - centre
        within = _inverse(scatter / counts.sum(), shrinkage)
        overall = _inverse((scatter + apart.T * counts @ apart) / counts.sum(), shrinkage)
        weights = means @ within
        made = cls(
            owners=tuple(name for name, part in parts for _ in part.labels),
            labels=tuple(label for _, part in parts for label in part.labels),
            weights=weights,
            biases=-(weights * means).sum(-1) / 2,
            within=within,
            overall=overall,
            centre=centre,
            limit=math.inf,
            temperature=1.0,
        )
        held = torch.cat([part.held for _, part in parts])
        limit = conformal_limit(made.distances(held))
        if math.isinf(limit):
            return made
        own = torch.tensor([n for n, (_, part) in enumerate(parts) for _ in part.held])
        return replace(made, limit=limit, temperature=temperature(made.task_scores(held), own))

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, sorted."""
        return sorted(set(self.owners))

    def scores(self, features: Tensor) -> Tensor:
        """Return the score of each class (rows, classes) in float64; the best class has the largest."""
        return features.double() @ self.weights.T + self.biases

    def task_scores(self, features: Tensor) -> Tensor:
        """Return the score of each task (rows, tasks), in the order of `tasks`: that of its best class."""
        scores = self.scores(features)
        columns = [[n for n, owner in enumerate(self.owners) if owner == task] for task in self.tasks]
        return torch.stack([scores[:, own].amax(-1) for own in columns], -1)

    def posterior(self, features: Tensor) -> Tensor:
        """Return the probability of each task (rows, tasks), in the order of `tasks`, each task taken by its best class."""
        return (self.task_scores(features) / self.temperature).softmax(-1)

    def distances(self, features: Tensor) -> Tensor:
        """Return the relative Mahalanobis distance of each row (rows,): to the nearest class, minus to all rows as one class."""
        rows = features.double()
        nearest = ((rows @ self.within) * rows).sum(-1) - 2 * self.scores(features).amax(-1)
        apart = rows - self.centre
        return nearest - ((apart @ self.overall) * apart).sum(-1)

    def route(self, features: Tensor) -> list[str | None]:
        """Return the task of each row; None where its relative distance is above the limit."""
        best, tasks = self.task_scores(features).argmax(-1).tolist(), self.tasks
        known = (self.distances(features) <= self.limit).tolist()
        return [tasks[n] if near else None for n, near in zip(best, known, strict=True)]

    def decide(self, features: Tensor) -> Decision:
        """Return the task of each row, and the probability of each task."""
        posterior = [dict(zip(self.tasks, row, strict=True)) for row in self.posterior(features).tolist()]
        return Decision(self.route(features), posterior)


def _inverse(covariance: Tensor, shrinkage: float) -> Tensor:
    """Return the inverse of (1 - g) C + g tr(C)/d I; the identity where the rows do not vary at all."""
    return torch.cholesky_inverse(torch.linalg.cholesky(shrunk(covariance, shrinkage)))


def shrunk(covariance: Tensor, shrinkage: float) -> Tensor:
    """Return (1 - g) C + g tr(C)/d I, the covariance with its eigenvalues nearer to their mean; I where rows do not vary at all.

    Args:
        covariance: C (d, d).
        shrinkage: g, in (0, 1].
    """
    size = len(covariance)
    mean = covariance.trace() / size
    eye = torch.eye(size, dtype=covariance.dtype)
    return (1 - shrinkage) * covariance + shrinkage * mean * eye if mean > 0 else eye


def nearest_centroid(features: Tensor, centroids: Mapping[str, Tensor]) -> tuple[list[str], Tensor]:
    """Return the task whose centroid has the largest cosine with each row, and that cosine (rows,).

    Args:
        features: (rows, d).
        centroids: Centroids of each task (centroids, d), of k-means over its features.

    Source: Wistuba et al., "Continual Learning with Low Rank Adaptation", 2023, arXiv 2311.17601 (CoLoR), section 3.
    Deviation: both sides of the cosine are normalised; their code normalises the row alone.
    """
    names = [name for name in sorted(centroids) for _ in centroids[name]]
    together = torch.cat([centroids[name] for name in sorted(centroids)])
    cosine, best = (normalize(features, dim=-1) @ normalize(together, dim=-1).T).max(-1)
    return [names[n] for n in best.tolist()], cosine
