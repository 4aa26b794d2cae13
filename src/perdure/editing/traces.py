"""The result of causal tracing, and its average over prompts by the role of a token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["block", "mlp", "attention"]
ROLES = ("first subject", "middle subject", "last subject", "first after", "further", "last")


@dataclass(frozen=True)
class Trace:
    """The probability of the answer after each restoration.

    Args:
        kind: Kind of the restored states.
        tokens: The prompt's tokens as text.
        subject: Index of the subject's first token, and of the token after its last one.
        answer: The model's answer without noise.
        clean: Probability of the answer without noise.
        corrupted: Its mean probability under noise.
        restored: (tokens, layers) its mean probability under noise with this token's state restored in this layer or window.
        window: Layers restored together.
    """

    kind: Kind
    tokens: tuple[str, ...]
    subject: tuple[int, int]
    answer: str
    clean: float
    corrupted: float
    restored: NDArray[np.float64]
    window: int

    @property
    def total_effect(self) -> float:
        """The effect of noise on the subject: clean - corrupted."""
        return self.clean - self.corrupted

    @property
    def indirect_effect(self) -> NDArray[np.float64]:
        """(tokens, layers) the effect of restoring: restored - corrupted."""
        return self.restored - self.corrupted

    def by_role(self) -> NDArray[np.float64]:
        """Return the indirect effect by role of the token (roles, layers), in the order of `ROLES`; NaN where there is none."""
        first, stop = self.subject
        last = len(self.tokens) - 1
        rows = [
            [first],
            list(range(first + 1, stop - 1)),
            [stop - 1],
            [stop] if stop < last else [],
            list(range(stop + 1, last)),
            [last],
        ]
        none = np.full(self.restored.shape[1], np.nan)
        return np.stack([self.indirect_effect[some].mean(0) if some else none for some in rows])


@dataclass(frozen=True)
class Average:
    """An effect's mean over prompts with its 95% interval.

    Args:
        mean: Of any shape; NaN where no prompt has the value.
        low: Lower end of the interval, same shape; NaN where fewer than two prompts have the value.
        high: Upper end, same shape; NaN where fewer than two prompts have the value.
        n: Number of prompts that have the value, same shape.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: NDArray[np.int64]


def average(traces: Sequence[Trace]) -> Average:
    """Return the mean indirect effect over prompts by role and layer, each array (roles, layers).

    Prompts without a token of a role do not count for it.
    """
    return mean_over(np.stack([trace.by_role() for trace in traces]))


def mean_over(values: NDArray[np.float64]) -> Average:
    """Return the mean over the first axis with Student's 95% interval; NaN counts as missing.

    mean +- t(n - 1) s / sqrt(n),      where s is the standard deviation with n - 1.
    """
    known = ~np.isnan(values)
    n = known.sum(0)
    mean = np.divide(np.where(known, values, 0.0).sum(0), n, out=np.full(n.shape, np.nan), where=n > 0)
    square = np.where(known, (values - mean) ** 2, 0.0).sum(0)
    spread = np.divide(square, n - 1.0, out=np.full(n.shape, np.nan), where=n > 1)
    half = student(n - 1) * np.sqrt(np.divide(spread, n, out=np.full(n.shape, np.nan), where=n > 1))
    return Average(mean, mean - half, mean + half, n)


def student(freedom: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the 97.5% quantile of Student's t for degrees of freedom; NaN below one."""
    from scipy.special import stdtrit  # imported here, so that commands that only show a trace do not load scipy

    return stdtrit(np.where(freedom > 0, freedom, np.nan), 0.975)
