"""What a learn would do: data read and checked, before a model is loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.core.errors import BadInput, BadSpec
from perdure.core.recipe import Recipe
from perdure.core.rows import Row
from perdure.core.values import shown
from perdure.core.words import counted
from perdure.data.encode import Encoded
from perdure.data.leaks import refuse_leaks
from perdure.data.read import Record
from perdure.data.spec import read_settings
from perdure.data.task import TaskData, load_task, read_rows, update_task
from perdure.evaluate.scorers import read_scorer
from perdure.ledger import Entry
from perdure.workflows.edit.state import refuse_busy
from perdure.workflows.learn.ahead import check_recipe, check_sizes, encode_all
from perdure.workflows.learn.kept_rows import keeps_all, old_rows

if TYPE_CHECKING:
    from perdure.workflows.workspace import Workspace


@dataclass(frozen=True)
class Plan:
    """A learn that was checked and not begun.

    Args:
        task: The new task version.
        recipe: How it is learned; its max_length is at most what the model has positions for.
        parent: The entry it starts from.
        known: The task's version at the parent, if this is an update.
        general: General instruction rows, if the task names a file.
        old: Train rows of older tasks, if the recipe trains on them again.
        notices: What the user should know: of the data (see `TaskData`), rows dropped, methods without work.
        encoded: The task's train rows as tokens.
    """

    task: TaskData
    recipe: Recipe
    parent: Entry
    known: TaskData | None
    general: tuple[Row, ...]
    old: tuple[Row, ...]
    notices: tuple[str, ...]
    encoded: tuple[Encoded, ...] = field(default=(), repr=False)


def plan(
    ws: "Workspace",
    name: str,
    data: Path,
    *,
    test: Path | None = None,
    recipe: Recipe,
    settings: dict[str, Any] | None = None,
    allow_leaks: bool = False,
    records: Sequence[Record] | None = None,
    rows: Mapping[str, Path | str | Sequence[Path | str]] | None = None,
) -> Plan:
    """Read and check everything that can be checked before a model is loaded.

    Args:
        ws: The workspace.
        name: Name of the task.
        data: Data file, or task file (YAML).
        test: Data file with the test rows.
        recipe: How it is learned.
        settings: Settings that stand above those of a task file.
        allow_leaks: Let test rows stand in train parts.
        records: The rows of the file to learn; None takes all.
        rows: Files with the rows of older tasks whose text is not kept, by task, for a recipe that trains on them again.

    Raises:
        BadInput: The data cannot be used, a test row leaks, rows that the recipe trains on are neither kept nor given, or a
            candidate is waiting.
        BadSpec: A setting is not valid, or more than model and machine have.
    """
    parent = ws.ledger.resolve("head")
    refuse_busy(ws)
    check_recipe(ws, parent, recipe)
    known = ws.task(name, parent) if name in parent.tasks else None
    history = ws.history(parent)
    versions = [task for task in history if task.name == name]
    replaced = _replaced(name, Path(data), test, settings or {})
    task = load_task(name, Path(data), test=test, overrides=settings, known=known, records=records)
    read_scorer(task.scorer)
    if known is not None:
        task = update_task(known, task, versions)
    unknown = [guarded for guarded in task.spec.guard or [] if guarded not in parent.tasks]
    if unknown:
        raise BadInput(f"guard names tasks that head does not know: {unknown}; it knows {sorted(parent.tasks)}")
    if not allow_leaks:
        refuse_leaks(task, history)
    task, dropped = _without_deleted(ws, task)
    notices = [*task.notices, *replaced]
    notices += _leaks_elsewhere(ws, parent, task)
    taught = {row.hash for version in versions for row in version.taught} if known else set()
    notices += (
        [f"every train row of {name} was learned before"] if all(row.hash in taught for row in task.train) else []
    )
    notices += [f"deleted from this workspace before, and left out: {counted(dropped, 'row')}"] if dropped else []
    notices += [
        f"method {method} acts on rows of memory, and nothing draws any: add replay, or set methods.{method}.mix"
        for method in recipe.starved
    ]
    if not task.test:
        raise BadInput(f"every test row of task {name!r} was deleted from this workspace; give others with --test FILE")
    general, told = _general(ws, task, history, recipe)
    notices += [*told, *_rehearsed_before(ws, parent, task)]
    files = {name: [given] if isinstance(given, str | Path) else given for name, given in (rows or {}).items()}
    old = old_rows(ws, parent, task, recipe, {name: [Path(file) for file in given] for name, given in files.items()})
    if recipe.settings.data == "all" and not keeps_all(ws.ledger, task):
        notices.append(
            f"recipe {recipe.name} trains on the rows of every task, and those of {name} are not kept: its next learn needs "
            f"--rows {name}=FILE ('keep_rows: all' in a task file keeps them)"
        )
    if recipe.settings.train == "lora" and (untrained := ws.capabilities.get("no_adapter")):
        notices.append(untrained)
    _check_teachers(ws, recipe)
    recipe = _for_model(ws, recipe)
    encoded, told = encode_all(ws, task, general, recipe.settings.max_length)
    notices += told
    check_sizes(ws, recipe, encoded)
    return Plan(task, recipe, parent, known, general, old, tuple(notices), encoded)


def _replaced(name: str, data: Path, test: Path | None, settings: Mapping[str, Any]) -> list[str]:
    """Say which settings of a task file give way to those given beside it.

    Raises:
        BadSpec: The name of the task, or its data file, is given twice.
    """
    given = {**settings, **({"test": test} if test else {})}
    if given.get("name", name) != name:
        raise BadSpec(
            f"the settings name the task {given['name']!r}, and {name!r} is to be learned; leave the name out"
        )
    if test and settings.get("test"):
        raise BadSpec(f"test rows are given twice, as {test} and in the settings; leave one out")
    if data.suffix.lower() not in (".yaml", ".yml"):
        if "train" in given:
            raise BadSpec(
                f"the settings name the train file {given['train']}, and the data file is {data}; leave one out"
            )
        return []
    told = {key: value for key, value in read_settings(data).items() if key in given or key == "name"}
    return [
        f"{data} says {key}: {shown(_plain(value))}, which gives way to what is given beside it"
        for key, value in told.items()
        if _plain(value) != _plain(given.get(key, name))
    ]


def _plain(value: Any) -> Any:
    """Return a setting as it is compared: a path by where it leads."""
    return str(value.resolve()) if isinstance(value, Path) else value


def _leaks_elsewhere(ws: "Workspace", parent: Entry, task: TaskData) -> list[str]:
    """Say which entries outside the history of `parent` have rows of this task on the other side of a test."""
    told = []
    for entry, other in ws.elsewhere(parent):
        try:
            refuse_leaks(task, [other], itself=False)
        except BadInput as error:
            leak = str(error).partition(";")[0]
            told.append(
                f"{leak}; entry {entry.id[:12]}, which knows that, is outside head's history, so this learn goes on: do not "
                f"compare its scores with those of {entry.id[:12]}"
            )
    return told


def _general(
    ws: "Workspace", task: TaskData, history: Sequence[TaskData], recipe: Recipe
) -> tuple[tuple[Row, ...], list[str]]:
    """Return the general rows that may be rehearsed, none of them a test row or deleted before, and what is to be told."""
    if task.spec.general is None:
        return (), []
    rows, read = read_rows(task.spec.general)
    if not recipe.drawing_from("general"):
        return rows, [
            *read,
            "no method rehearses the general rows; add instruction_replay (--set methods.instruction_replay.mix=0.1)",
        ]
    tests = {row.question for version in [task, *history] for row in version.held_out}
    gone = ws.ledger.deleted({row.hash for row in rows})
    kept = tuple(row for row in rows if row.question not in tests and row.hash not in gone)
    tested = sum(row.question in tests for row in rows)
    notices = [*read]
    notices += (
        [f"not rehearsed, as a test or validation row asks the same: {counted(tested, 'general row')}"]
        if tested
        else []
    )
    if deleted := len(rows) - len(kept) - tested:
        notices.append(f"deleted from this workspace before, and left out: {counted(deleted, 'general row')}")
    return kept, notices


def _rehearsed_before(ws: "Workspace", parent: Entry, task: TaskData) -> list[str]:
    """Say how many test rows ask what a general row in memory asks: the model was held to what the base says of it."""
    items = ws.ledger.manifest_rows(parent.memory) if parent.memory else []
    rehearsed = {row.question for item, row in items if item["pool"] == "general"}
    asked = sum(row.question in rehearsed for row in task.test)
    return (
        [f"rehearsed no longer, as test rows ask the same: the general rows of {counted(asked, 'question')}"]
        if asked
        else []
    )


def _check_teachers(ws: "Workspace", recipe: Recipe) -> None:
    """Refuse a recipe whose methods ask a model that cannot be had, before anything is trained.

    Raises:
        BadInput: No such model, or one with another tokenizer.
        BadSpec: The base is to teach while every weight of it is trained.
    """
    from perdure.bridges.models import find_model, load_tokenizer
    from perdure.bridges.teacher import refuse_other_tokenizer

    columns = [column for of in ("new", "replay", "general") for column in recipe.columns(of)]
    if recipe.settings.train == "full" and any(c.teacher == "base" and c.of != "general" for c in columns):
        raise BadSpec(
            "a method asks the base model, but this recipe trains its weights; use a LoRA recipe or another teacher"
        )
    for teacher in sorted({column.teacher for column in columns} - {"start", "settled", "base"}):
        refuse_other_tokenizer(teacher, load_tokenizer(find_model(teacher)), load_tokenizer(ws.base_folder))


def _for_model(ws: "Workspace", recipe: Recipe) -> Recipe:
    """Return the recipe with rows no longer than the model has positions for."""
    from perdure.bridges.models import positions

    limit = positions(ws.base_folder)
    if limit is None or recipe.settings.max_length <= limit:
        return recipe
    return replace(recipe, settings=recipe.settings.model_copy(update={"max_length": limit}))


def _without_deleted(ws: "Workspace", task: TaskData) -> tuple[TaskData, int]:
    gone = ws.ledger.deleted({row.hash for row in (*task.train, *task.validation, *task.test)})
    if not gone:
        return task, 0
    names = ("train", "validation", "test")
    parts: dict[str, Any] = {p: tuple(r for r in getattr(task, p) if r.hash not in gone) for p in names}
    lost = sum(len(getattr(task, part)) - len(rows) for part, rows in parts.items())
    return replace(task, **parts, fingerprint="", version="", default="", choices=()), lost
