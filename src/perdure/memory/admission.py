"""Admission of a finished task's rows to memory, and removal of rows when memory is full."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, TypeVar

from perdure.core.errors import BadSpec
from perdure.core.keyed import keyed
from perdure.core.rows import Row
from perdure.core.seams import AdmitContext
from perdure.core.settings import Settings

T = TypeVar("T")
Policy = Literal["reservoir", "hard", "surprise"]


def admission_scores(policy: Policy, rows: Sequence[Row], context: AdmitContext) -> list[float]:
    """Return one score per row; the rows with the highest scores enter memory.

    reservoir: a keyed random number, so that every row has the same chance (Vitter 1985, in its random-key form).
    hard: the negative log-likelihood under the settled model (lowest confidence first).
    surprise: the negative log-likelihood under the model before the task (SuRe, arXiv 2511.22367).
    """
    if policy == "reservoir":
        # keyed by the row itself, so that the order of a file does not matter
        return [float(keyed(context.seed, "admit", row.task, row.hash).random()) for row in rows]
    nll = context.nll_after if policy == "hard" else context.nll_before
    if nll is None:
        raise BadSpec(f"admission '{policy}' needs losses that the host did not measure")
    return list(nll)


def keep_best(items: Sequence[T], scores: Sequence[float], group: Callable[[T], Hashable], size: int) -> list[T]:
    """Return at most `size` items of each group, highest score first within it, in the order they were given."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        members[group(item)].append(i)
    chosen = {i for own in members.values() for i in sorted(own, key=lambda i: -scores[i])[:size]}
    return [item for i, item in enumerate(items) if i in chosen]


def admitted(
    items: Sequence[T], scores: Sequence[float], label: Callable[[T], str | None], settings: Settings
) -> list[int]:
    """Return the indices of the items that enter memory: the best `memory_per_label` of each label, or `memory_per_task`."""
    by_label = [i for i, item in enumerate(items) if label(item) is not None]
    others = [i for i, item in enumerate(items) if label(item) is None]
    best = keep_best(by_label, [scores[i] for i in by_label], lambda i: label(items[i]), settings.memory_per_label)
    return best + keep_best(others, [scores[i] for i in others], lambda i: None, settings.memory_per_task)


def shrink(items: Sequence[T], group: Callable[[T], Hashable], size: int, *key: Any) -> list[T]:
    """Return at most `size` items; while there are too many, the largest group loses a keyed random member.

    Ties between groups are broken by name, so the result depends only on the items and the key.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        members[group(item)].append(i)
    for name, own in members.items():
        own[:] = [own[j] for j in keyed(*key, "shrink", name).permutation(len(own))]
    for _ in range(len(items) - size):
        max(members.items(), key=lambda pair: (len(pair[1]), str(pair[0])))[1].pop()
    chosen = {i for own in members.values() for i in own}
    return [item for i, item in enumerate(items) if i in chosen]
