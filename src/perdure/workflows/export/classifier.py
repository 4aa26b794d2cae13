"""Export of tasks that are answered with labels: means and covariance, with a program that needs no perdure."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput, NotFound
from perdure.core.files import save_tensors
from perdure.core.plain_text import visible
from perdure.core.records import Record
from perdure.core.slots import ROUTE, measured_slot
from perdure.ledger import Entry, Ledger
from perdure.workflows.export.card_words import percent
from perdure.workflows.export.export import named_base, new_folder
from perdure.workflows.inspect.score_views import task_order
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from torch import Tensor

TENSORS, ABOUT, PROGRAM = "classifier.safetensors", "classifier.json", "classify.py"
SOURCE = Path(__file__).parent / f"{PROGRAM}.txt"  # of the program, which is no module of this package


@dataclass(frozen=True)
class ClassifierExport(Record):
    """A classifier that was written.

    Args:
        folder: Where.
        entry: The entry whose it is.
        tasks: Its tasks, in the order of learning.
        kind: "classifier".
        files: Names of the files.
        labels: Number of labels of all tasks together.
    """

    folder: str
    entry: str
    tasks: tuple[str, ...]
    labels: int
    kind: str = "classifier"
    files: tuple[str, ...] = ()


def export_classifier(
    session: Session, folder: str | os.PathLike[str], at: str = "head", task: str | None = None
) -> ClassifierExport:
    """Write what answers tasks with labels: for each the means of its labels and their covariance; a README and a program.

    Args:
        session: Of the workspace; it is only read.
        folder: Folder to make; it may exist if it is empty.
        at: Ref or entry.
        task: The only task; None for all that are answered with labels.

    Raises:
        BadInput: The folder is not empty, or no such task is answered with labels.
        NotFound: No such ref or task.
    """
    ledger = session.ledger
    entry = ledger.resolve(at)
    names = _tasks(ledger, entry, task)
    with new_folder(Path(folder)) as aside:
        labels = write_classifier(session, entry, names, aside)
        files = tuple(sorted(path.name for path in aside.iterdir()))
    return ClassifierExport(str(Path(folder)), entry.id, tuple(names), labels, files=files)


def write_classifier(session: Session, entry: Entry, names: list[str], folder: Path) -> int:
    """Write the files of a classifier to a folder, and return how many labels its tasks have together.

    Args:
        session: Of the workspace.
        entry: An entry that answers the tasks with labels.
        names: The tasks.
        folder: Folder that is there.
    """
    from perdure.model.text_features import LONGEST

    ledger = session.ledger
    tensors: dict[str, Tensor] = {}
    about: dict[str, list[str]] = {}
    for name in names:
        about[name], own = _tensors(ledger, entry, name)
        tensors |= {f"{what}/{name}": value for what, value in own.items()}
    model, revision = named_base(session)
    said = {
        "model": model,
        "revision": revision,
        "layer": session.runtime.layer,
        "opening": session.runtime.base.opening,
        "longest": LONGEST,
        "tasks": about,
    }
    save_tensors(tensors, folder / TENSORS)
    (folder / ABOUT).write_text(json.dumps(said, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(SOURCE, folder / PROGRAM)
    (folder / "README.md").write_text(_readme(ledger, entry, names, model), encoding="utf-8")
    return sum(map(len, about.values()))


def _tasks(ledger: Ledger, entry: Entry, task: str | None) -> list[str]:
    """Return the tasks to write.

    Raises:
        BadInput: There is none, or the named one is answered by generation.
        NotFound: No such task.
    """
    labelled = set(ledger.labelled_by(entry))
    if task is None:
        if not labelled:
            raise BadInput(
                f"no task of entry {entry.id[:12]} is answered with labels (recipe slda); leave --classifier out"
            )
        return [name for name in task_order(ledger, entry) if name in labelled]
    if (name := ledger.task_name(task)) not in entry.tasks:
        known = ", ".join(sorted(map(ledger.shown_name, entry.tasks))) or "none yet"
        raise NotFound(f"no task {name!r} is known at entry {entry.id[:12]}; known are {known}")
    if name not in labelled:
        raise BadInput(f"task {name} is answered by generation, not with labels; leave --classifier out")
    return [name]


def _tensors(ledger: Ledger, entry: Entry, task: str) -> "tuple[list[str], dict[str, Tensor]]":
    """Return the labels of a task, and by name: means (labels, d), rows of each label (labels,), shrunk covariance (d, d)."""
    from perdure.maths.routing import Moments, shrunk

    tensors = ledger.objects.get(ledger.slots(entry)[measured_slot(ROUTE, task)])
    moments = Moments.from_tensors(tensors)
    covariance = shrunk(moments.scatter.double() / moments.counts.double().sum(), float(tensors["shrinkage"])).float()
    return [str(name) for name in moments.labels], {
        "means": moments.means.contiguous(),
        "counts": moments.counts.contiguous(),
        "covariance": covariance.contiguous(),
    }


def _readme(ledger: Ledger, entry: Entry, tasks: list[str], model: str) -> str:
    """Return the README: what the files are, how to use them, and what was measured."""
    lines = []
    for name in tasks:
        score = ledger.score(ledger.seen(entry, name), entry.tasks[name])
        shown = visible(ledger.shown_name(name))
        measured = (
            f"{percent(score.score)} ({percent(score.low)} to {percent(score.high)}, n = {score.n})"
            if score
            else "not measured"
        )
        lines.append(f"| {shown} | {measured} |")
    table = "\n".join(["| Task | Score on its test rows (95%) |", "|---|---|", *lines])
    return f"""# Label classifier

Closed-form classifiers on features of the untrained model `{visible(model)}`, made with perdure from entry `{entry.id[:12]}`.
Nothing of the model was trained, so there is no adapter.

{table}

`{TENSORS}` has for each task `means/TASK` (labels, d), `counts/TASK` (labels,) and `covariance/TASK` (d, d), the shrunk
covariance of the rows around the mean of their label. `{ABOUT}` has the labels in the order of the means, and how a text is read.
`{PROGRAM}` needs torch and transformers alone:

    python {PROGRAM} {tasks[0]} "a text"

A text is read alone, without the task's template, behind the token `opening`; its feature is the mean of the hidden states behind
block `layer` over its own tokens. The label with the largest m C^-1 f - m C^-1 m / 2 is the answer.
"""
