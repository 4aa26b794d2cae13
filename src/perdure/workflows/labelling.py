"""Answers of tasks that were learned without training: the label whose Gaussian is nearest to a row's features.

Which tasks these are is decided in `ledger.history.History.labelled_by`, and nowhere else.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.core.slots import ROUTE, measured_slot
from perdure.data.task import TaskData
from perdure.evaluate.scorers import get_scorer, read_scorer, score_record
from perdure.ledger import Entry, Ledger
from perdure.workflows.row_features import OnRows, features_of_tests
from perdure.workflows.scoring import Measured

if TYPE_CHECKING:
    from torch import Tensor

    from perdure.bridges.runtime import Runtime
    from perdure.maths.routing import Gaussian

SCORERS = ("exact", "choice", "f1")  # those that compare one label with another


@dataclass(frozen=True)
class Labels:
    """The labels of some rows.

    Args:
        texts: The best label of each row.
        probability: Of each label for each row, (rows, labels).
        names: The labels, in the order of the columns.
    """

    texts: list[str]
    probability: "Tensor"
    names: list[str]


def classifier(ledger: Ledger, entry: Entry, task: str) -> "Gaussian":
    """Return the Gaussians of a task's labels at an entry that answers it with labels."""
    from perdure.maths.routing import Gaussian, Moments

    tensors = ledger.objects.get(ledger.slots(entry)[measured_slot(ROUTE, task)])
    return Gaussian.of({task: Moments.from_tensors(tensors)}, float(tensors["shrinkage"]))


def labels_of(ledger: Ledger, entry: Entry, task: str, features: "Tensor") -> Labels:
    """Return the labels of rows by their features (rows, d)."""
    made = classifier(ledger, entry, task)
    scores, names = made.scores(features), [str(name) for name in made.labels]
    return Labels([names[n] for n in scores.argmax(-1).tolist()], scores.softmax(-1), names)


def _nothing(answer: str, reference: str) -> float:
    return 0.0


def measure_labels(
    runtime: "Runtime",
    ledger: Ledger,
    entry: Entry,
    task: TaskData,
    prompts: Sequence[list[int]],
    *,
    by: str | None = None,
    only: Sequence[int] | None = None,
    on_rows: OnRows | None = None,
) -> Measured:
    """Score the labels of a task's test rows.

    Rows of a task that is not scored by comparing labels, which a router sent here, score 0: a label is no answer to them.

    Args:
        runtime: Holds the model; its features are those of the base, whatever is loaded.
        ledger: Has the moments, and the features that were computed before.
        entry: An entry that answers the task with labels.
        task: The task.
        prompts: Its test rows as tokens.
        by: The task whose labels are the answers; its own by default.
        only: Indices of the test rows that are scored; None scores all.
        on_rows: Called with the number of rows that are done, and of all rows that are read.
    """
    from perdure.data.answers import Reader

    began = time.perf_counter()
    chosen = range(len(task.test)) if only is None else only
    features = features_of_tests(runtime, ledger, task, prompts, on_rows)
    found = labels_of(ledger, entry, by or task.name, features[list(chosen)])
    rows = [task.test[n] for n in chosen]
    name, options = read_scorer(task.scorer)
    score = get_scorer("exact" if name == "choice" else {"name": name, **options}) if name in SCORERS else _nothing
    reader = Reader.of(runtime.base.tokenizer, task.test)
    wanted = [reader.reference(row).strip() for row in rows]
    items = [score(text, reference) for text, reference in zip(found.texts, wanted, strict=True)]
    column = {label: n for n, label in enumerate(found.names)}
    chances = [
        float(row[column[text]]) if text in column else 0.0 for text, row in zip(wanted, found.probability, strict=True)
    ]
    seconds, hashes = time.perf_counter() - began, [row.hash for row in rows]
    return Measured(score_record(name, items, found.texts, hashes, seconds, {"p_gold": chances}))
