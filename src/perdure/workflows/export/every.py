"""Export of what answers all tasks of a state: a folder for each, one for what all share, and the router.

A task with an adapter of its own has a PEFT folder, a task that is answered with labels a folder with its classifier.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.bridges.card import model_card
from perdure.core.errors import BadInput
from perdure.core.files import save_tensors
from perdure.core.plain_text import visible
from perdure.core.records import Record
from perdure.core.slots import isolated_tasks
from perdure.ledger import Entry
from perdure.workflows.export.card import card
from perdure.workflows.export.card_record import origin
from perdure.workflows.export.card_words import code, percent, plain, row_of
from perdure.workflows.export.classifier import PROGRAM, write_classifier
from perdure.workflows.export.export import (
    ExportRequest,
    named_base,
    new_folder,
    rank_of,
    refuse_request,
    write_one,
)
from perdure.workflows.export.result import AdapterExport
from perdure.workflows.inspect.score_views import task_order
from perdure.workflows.routing import router_at
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.maths.routing import Gaussian

SHARED, SHARED_ELSE = "shared", "shared~"  # folder of what all tasks share; the second where a task has this name
README, ADAPTERS, ROUTER, TENSORS = "README.md", "adapters.json", "router.json", "router.safetensors"
SOURCE = Path(__file__).parent / "router.py.txt"  # of the README, which reads the router without any package


@dataclass(frozen=True)
class EveryExport(Record):
    """The adapters of a state that were written.

    Args:
        folder: Where.
        entry: The entry whose state it is.
        rank: The rank of every adapter.
        max_lora_rank: The setting with which vLLM takes them all; None where it takes none so large.
        adapters: The adapters, by the name of their folder in `folder`.
        tasks: Folder of what answers each task of the entry; None for a task that nothing here answers.
        shared: Folder of what all tasks share; None where nothing is shared.
        router: Whether the router was written.
        kind: "adapters".
        files: Names of the files and folders.
        classifiers: Folders of tasks that are answered with labels; see `export_classifier`.
    """

    folder: str
    entry: str
    rank: int
    max_lora_rank: int | None
    adapters: Mapping[str, AdapterExport]
    tasks: Mapping[str, str | None]
    shared: str | None
    router: bool
    kind: str = "adapters"
    files: tuple[str, ...] = ()
    classifiers: tuple[str, ...] = ()


def export_every(
    session: Session, folder: str | os.PathLike[str], request: ExportRequest = ExportRequest()
) -> EveryExport:
    """Write each adapter of a state as a folder that PEFT and vLLM load, all of one rank, and the router where it has one.

    A task that is answered with labels has a folder with its classifier, so that whatever task the router names has a folder.

    Args:
        session: Of the workspace; it is only read.
        folder: Folder to make; it may exist if it is empty.
        request: What is exported; `task` and `merged` do not apply.

    Raises:
        BadInput: The folder is not empty, the state has no adapter, or a rank, `dtype` or the name of a task does not fit.
        NotFound: No such ref.
        PerdureError: The disk is full.
    """
    ledger, place = session.ledger, str(Path(folder))
    entry = ledger.resolve(request.at)
    labelled = {ledger.shown_name(task): task for task in ledger.labelled_by(entry)}
    views = _views(session, entry, labelled)
    for task in views.values():
        refuse_request(session, entry, replace(request, task=task))
    least = max(rank_of(session, ledger.view(entry, task)) for task in views.values())
    router = router_at(session, entry)
    with new_folder(Path(folder)) as aside:
        made: dict[str, AdapterExport] = {}
        for name, task in views.items():
            (aside / name).mkdir()
            one = write_one(
                session, entry, replace(request, task=task), aside / name, str(Path(folder) / name), least=least
            )
            (aside / name / README).write_text(card(ledger, entry, one), encoding="utf-8")
            files = tuple(sorted(path.name for path in (aside / name).iterdir()))
            made[name] = replace(one, files=files)
        for name, task in labelled.items():
            (aside / name).mkdir()
            write_classifier(session, entry, [task], aside / name)
        first = next(iter(made.values()))
        by_task = {task: name for name, task in {**views, **labelled}.items() if task is not None}
        shared = next((name for name, task in views.items() if task is None), None)
        tasks = {task: by_task.get(task, shared) for task in task_order(ledger, entry)}
        done = EveryExport(
            place,
            entry.id,
            first.rank,
            first.max_lora_rank,
            made,
            tasks,
            shared,
            router is not None,
            classifiers=tuple(labelled),
        )
        about = {"base": named_base(session)[0], "rank": done.rank, "tasks": tasks, "shared": shared}
        about["classifiers"] = list(labelled)
        (aside / ADAPTERS).write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        if router:
            _write_router(session, router, aside)
        (aside / README).write_text(_readme(session, entry, done, router), encoding="utf-8")
        return replace(done, files=tuple(sorted(path.name for path in aside.iterdir())))


def _views(session: Session, entry: Entry, labelled: Mapping[str, str]) -> dict[str, str | None]:
    """Return by folder the task whose adapter is written, None for what all tasks share.

    Args:
        session: Of the workspace.
        entry: The entry.
        labelled: The tasks that are answered with labels, by folder.

    Raises:
        BadInput: A task has the name of a file, or there is nothing to write.
    """
    ledger = session.ledger
    own = [
        task for task in isolated_tasks(ledger.slots(entry)) if task in entry.tasks and task not in labelled.values()
    ]
    views: dict[str, str | None] = {ledger.shown_name(task): task for task in task_order(ledger, entry) if task in own}
    if taken := sorted({README, ADAPTERS, ROUTER, TENSORS} & {*views, *labelled}):
        raise BadInput(
            f"task {taken[0]} has the name of a file of the export; give it another with 'perdure task rename {taken[0]} NEW'"
        )
    if ledger.view(entry) or not views:
        views[SHARED_ELSE if SHARED in {*views, *labelled} else SHARED] = None
    return views


def _write_router(session: Session, router: "Gaussian", folder: Path) -> None:
    """Write the router as float32 tensors, and what a reader has to know beside these."""
    from perdure.model.text_features import LONGEST

    names = ("weights", "biases", "within", "overall", "centre")
    save_tensors({name: getattr(router, name).float().contiguous() for name in names}, folder / TENSORS)
    model, revision = named_base(session)
    about = {
        "model": model,
        "revision": revision,
        "layer": session.runtime.layer,
        "opening": session.runtime.base.opening,
        "longest": LONGEST,
        "limit": None if router.limit == inf else router.limit,
        "owners": list(router.owners),
        "labels": list(router.labels),
    }
    (folder / ROUTER).write_text(json.dumps(about, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _readme(session: Session, entry: Entry, made: EveryExport, router: "Gaussian | None") -> str:
    """Return the README: the folders with their tasks and scores, how to serve them, and a program that reads the router."""
    ledger, base = session.ledger, visible(origin(session.ledger))
    rows = []
    for task, folder in made.tasks.items():
        score = ledger.score(ledger.seen(entry, task), entry.tasks[task])
        shown = (
            f"{percent(score.score)} ({percent(score.low)} to {percent(score.high)}, n = {score.n})"
            if score
            else "not measured"
        )
        rows.append(row_of([plain(ledger.shown_name(task)), plain(folder or "none"), shown]))
    table = "\n".join(["| Task | Folder | Score on its test rows (95%) |", "|---|---|---|", *rows])
    parts = [
        "# Adapters of tasks",
        f"LoRA adapters of rank {made.rank} for {base}, made with perdure from entry `{entry.id[:12]}`. Each is a folder "
        f"in PEFT's format with a model card of its own. `{ADAPTERS}` has the folder of each task"
        + (f"; `{made.shared}` is what all tasks share." if made.shared else "."),
        table,
        "## Serve them",
        _served(base, made),
        *([_labelled(made)] if made.classifiers else []),
    ]
    if router:
        parts += [
            "## Find the task of a request",
            f"`{ROUTER}` and `{TENSORS}` (float32) name the task of a text by features of the base model: the mean of its hidden "
            "states behind block `layer` over the text's own tokens, behind the token `opening`. This program reads them without "
            f"any package. {_unknown(router, made)}",
            f"```python\n{SOURCE.read_text(encoding='utf-8').rstrip()}\n```",
            "```python\nrouter = load('PATH_OF_THIS_FOLDER')\n"
            "task = task_of(router, feature_of(router, text, base_model, tokenizer, torch.tensor))\n```",
        ]
    return model_card(
        "\n\n".join(parts) + "\n", library_name="peft", base_model=base, tags=["continual-learning", "lora", "perdure"]
    )


def _unknown(router: "Gaussian", made: EveryExport) -> str:
    """Return in words which texts have no task, and where they go."""
    if router.limit == inf:
        return "Every text gets a task: too few rows were held out to tell which texts are near none."
    return f"A text with no task near it gets none{f', and goes to `{made.shared}`' if made.shared else ''}."


def _served(base: str, made: EveryExport) -> str:
    if not made.max_lora_rank:
        return f"vLLM serves no adapter of rank {made.rank}."
    modules = " ".join(f"{name}=PATH_OF_THIS_FOLDER/{name}" for name in made.adapters)
    return (
        f"```bash\nvllm serve {base} --enable-lora --max-lora-rank {made.max_lora_rank} --max-loras {len(made.adapters)} "
        f"--lora-modules {modules}\n```"
    )


def _labelled(made: EveryExport) -> str:
    """Return in words how tasks are answered that have a classifier and no adapter."""
    return (
        f"No adapter, but a classifier on features of the base model, has {', '.join(map(code, made.classifiers))}: "
        f"`python FOLDER/{PROGRAM} TASK TEXT` prints the label of a text."
    )
