"""A benchmark run with a language model: a suite's tasks learned one after the other in a workspace."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from perdure.core.device import ANY
from perdure.core.errors import BadInput, BrokenStore
from perdure.core.recipe import Recipe
from perdure.core.rows import Row
from perdure.data.load import load_probe, load_rows, load_task
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import LearnRecord
from perdure.workflows.bench.guards import add_guards, check_guards, guard_items
from perdure.workflows.bench.kept import WORKSPACE, KeptPlace
from perdure.workflows.bench.measures import Told, cpu_seconds, machine, mean_beats, peak_mib, short_items
from perdure.workflows.bench.records import (
    LeftOut,
    RoutedItems,
    RunMeasures,
    StoredBytes,
    TaskCost,
    TaskItems,
    WatchedItems,
)
from perdure.workflows.bench.rows import rows_of
from perdure.workflows.bench.suite import Source, Suite, SuiteTask
from perdure.workflows.bench.whole_rows import WholeRows, max_length_of
from perdure.workflows.init import init
from perdure.workflows.inspect.matrix import matrix
from perdure.workflows.inspect.memory_views import memory_stats
from perdure.workflows.learn.learn import learn
from perdure.workflows.learn.plan import plan
from perdure.workflows.learn.record import LearnResult
from perdure.workflows.learn.request import Request
from perdure.workflows.routed_scores import score_routed, sent_to
from perdure.workflows.routing import routes
from perdure.workflows.session import Session


def run_text(
    suite: Suite,
    recipe: Recipe,
    seed: int,
    data: Path,
    scratch: Path,
    told: Told,
    device: str = ANY,
    keep: KeptPlace | None = None,
) -> RunMeasures:
    """Learn a suite's tasks one after the other in a new workspace, exactly as `perdure learn --no-gate` does.

    The guards of the suite are scored afterwards, so that what is learned, its time and its memory do not depend on them.

    Args:
        suite: Tasks, model and guards.
        recipe: How to learn.
        seed: Chooses the rows, and is the workspace's seed.
        data: Folder of the data files.
        scratch: Empty folder for the workspace and what it reads.
        told: Called as each task is learned.
        device: Where the model is loaded.
        keep: Where the workspace is kept. If it is there already, nothing is learned, and only the guards are scored.

    Raises:
        BadInput: A guard or a kept run cannot be read, or a watched row is trained on.
    """
    check_guards(suite, data)
    measures = keep.read() if keep else None
    if measures is None:
        measures = learn_tasks(suite, recipe, seed, data, scratch, told, device)
        if keep:
            keep.write(scratch / WORKSPACE, measures)
    else:
        measures = replace(measures, watched=_kept_watched(suite, measures))
        for task in suite.tasks:
            told(task.name)
    if not suite.guards:
        return measures
    session = Session(Ledger.open(keep.workspace if keep else scratch / WORKSPACE), device)
    names = add_guards(session, suite, data)
    return replace(measures, guards=guard_items(session, suite, names))


def learn_tasks(
    suite: Suite, recipe: Recipe, seed: int, data: Path, scratch: Path, told: Told, device: str
) -> RunMeasures:
    """Learn a suite's tasks in a new workspace, and return what was measured; for the arguments see `run_text`."""
    left_out: dict[str, LeftOut] = {}

    def file_of(source: Source, name: str, seed: int) -> Path:
        if whole and isinstance(source, SuiteTask):
            rows, left_out[name] = whole.rows_of(source, data, seed)
        else:
            rows = rows_of(source, data, seed)
        file = scratch / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return file

    keep: Literal["all", "needed"] = "all" if recipe.settings.data == "all" else "needed"
    place = scratch / WORKSPACE
    session = Session(init(place, suite.model, dtype=suite.dtype, device=device, seed=seed, keep_rows=keep), device)
    ledger = session.ledger
    whole = _whole_rows(session, suite, scratch)
    general: dict[str, Path | str] = {}
    if isinstance(suite.general, Source):
        general["general"] = file_of(suite.general, "general instructions", seed)
    elif suite.general:
        general["general"] = suite.general
    files = {task.name: file_of(task, task.name, seed) for task in suite.tasks}
    watched = {one.name: load_probe(one.name, file_of(one, one.name, 0), one.task) for one in suite.watch}
    if watched:
        taught = [load_task(task.name, files[task.name], overrides=task.task).train for task in suite.tasks]
        taught += [load_rows(file) for file in general.values() if isinstance(file, Path)]
        refuse_taught(watched.values(), {row.question: row for rows in taught for row in rows})
    for probe in watched.values():  # now, so that what cannot be scored fails before anything is trained
        session.score(ledger.resolve("base"), probe)
    learned = []
    for count, task in enumerate(suite.tasks, 1):
        own, scored = stage_of(suite, recipe, count)
        request = Request(task.name, files[task.name], own, settings={**general, **task.task})
        learned.append(learn(session, plan(session, request), gate=None, scored=scored))
        told(task.name)
    return RunMeasures(
        matrix=matrix(ledger),
        items=all_items(ledger),
        watched={name: before_and_after(session, task) for name, task in watched.items()} or None,
        tasks=tuple(_cost(ledger, done) for done in learned),
        stored=stored(ledger, ledger.resolve("head")),
        machine=machine(session.runtime.base.device, ledger.config["dtype"]),
        software=ledger.notes(learned[-1].entry)["software"],
        peak_mib=peak_mib(),
        cpu_seconds=cpu_seconds(),
        left_out=left_out or None,
        routed=routed_items(session),
    )


def stage_of(suite: Suite, recipe: Recipe, count: int) -> tuple[Recipe, tuple[str, ...] | None]:
    """Return how a task of a suite is learned, and which tasks are scored afterwards; None for every task so far.

    A recipe that begins anew, from the base model on all rows so far (`joint`), builds on no stage before it. Where a stage is
    not scored, it makes a single update there and nothing is scored, as such a stage costs as much as the last.

    Args:
        suite: The suite.
        recipe: How its tasks are learned.
        count: The task's number, from 1.
    """
    if suite.scores_all_after(count):
        return recipe, None
    if recipe.settings.data == "all" and recipe.settings.start == "base":
        return replace(recipe, settings=recipe.settings.model_copy(update={"max_steps": 1})), ()
    return recipe, (suite.tasks[count - 1].name,)


def _whole_rows(session: Session, suite: Suite, scratch: Path) -> WholeRows | None:
    """Return what draws the rows of a suite that leaves out those that are too long; None for one that does not."""
    from perdure.bridges.models import load_tokenizer

    if suite.too_long != "leave_out":
        return None
    return WholeRows(load_tokenizer(session.base_folder), max_length_of(suite), scratch)


def _kept_watched(suite: Suite, measures: RunMeasures) -> dict[str, WatchedItems] | None:
    """Return the scores of what a suite watches from a run that was kept.

    Raises:
        BadInput: The run did not watch it.
    """
    known = measures.watched or {}
    if missing := [one.name for one in suite.watch if one.name not in known]:
        raise BadInput(
            f"the kept run has no scores of the watched {missing[0]!r}, which is scored before training; remove the folder, or "
            "name another with --keep"
        )
    return {one.name: known[one.name] for one in suite.watch} or None


def refuse_taught(watched: Iterable[TaskData], taught: Mapping[str, Row]) -> None:
    """Raise if a watched row is trained on or rehearsed: its score would say nothing of what the model keeps by itself.

    Raises:
        BadInput: Such rows exist; the message counts them and names the first on both sides.
    """
    for probe in watched:
        if found := [row for row in probe.test if row.question in taught]:
            raise BadInput(
                f"{len(found)} of {len(probe.test)} rows of the watched {probe.name!r} are trained on or rehearsed too, the "
                f"first {found[0].source} as {taught[found[0].question].source}; take them from another file, or by `where`"
            )


def before_and_after(session: Session, task: TaskData) -> WatchedItems:
    """Return what the base model and the last state score on each row of a watched task."""
    before, after = (session.score(session.ledger.resolve(ref), task).score for ref in ("base", "head"))
    return WatchedItems(tuple(row[:16] for row in before.rows), tuple(before.items), tuple(after.items))


def all_items(ledger: Ledger) -> dict[str, TaskItems]:
    """Return by task the scores of its test rows after each stage."""
    head = ledger.resolve("head")
    seen = [ledger.seen_by(entry, head.tasks) for entry in reversed(ledger.ancestors(head))]
    found = ledger.scores({state for line in seen for state in line.values()}, head.tasks.values())
    items = {}
    for name, version in head.tasks.items():
        records = [found.get((line[name], version)) for line in seen]
        rows = next(record.rows for record in records if record)
        scores = tuple(short_items(record.items) if record else None for record in records)
        items[name] = TaskItems(tuple(row[:16] for row in rows), scores)
    return items


def routed_items(session: Session) -> RoutedItems | None:
    """Return what head scores where no request names its task; None where no task was learned with a router."""
    ledger = session.ledger
    head = ledger.resolve("head")
    if not routes(ledger, head):
        return None
    scores = {name: score_routed(session, head, session.task(name, head)) for name in head.tasks}
    sent = sent_to(ledger, head, scores)
    found = {name: tuple(float(target == name) for target in rows) for name, rows in sent.items()}
    return RoutedItems({name: short_items(score.items) for name, score in scores.items()}, found)


def stored(ledger: Ledger, entry: Entry) -> StoredBytes:
    """Return the bytes that a state needs in addition to the base model."""
    slots = set(ledger.slots(entry).values())
    memory = memory_stats(ledger, entry.id)
    rest = entry.objects - slots - {entry.columns}
    return StoredBytes(
        weights=sum(map(ledger.objects.size, slots)),
        memory_rows=memory.text_bytes,
        memory_columns=memory.column_bytes,
        method_state=sum(ledger.objects.size(name) for name in rest if name),
    )


def _cost(ledger: Ledger, done: LearnResult) -> TaskCost:
    """Return what a learn cost."""
    record = ledger.note(done.entry, "record", LearnRecord)
    if record is None:
        raise BrokenStore(f"entry {done.entry[:12]} has no learn record; run the benchmark again")
    return TaskCost(
        task=done.task,
        train_seconds=done.train_seconds,
        train_cpu_seconds=done.train_cpu_seconds,
        eval_seconds=done.eval_seconds,
        tokens=done.tokens,
        warnings=done.warnings,
        updates=record.updates,
        heartbeats=mean_beats(record.heartbeats),
        rows=record.rows,
    )
