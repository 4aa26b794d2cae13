"""Read a guard: its file, and the rows that the file names, in their one order."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.core.errors import BadInput
from perdure.core.plain_text import quoted
from perdure.core.rows import Message, Row
from perdure.data.drawn_choices import with_drawn_choices
from perdure.data.guard_order import in_order
from perdure.data.guard_spec import GuardSpec, guard_file, load_guard_spec, make_guard_spec
from perdure.data.load import load_probe
from perdure.data.made import made_rows, plain_text
from perdure.data.sources import Data
from perdure.data.spec import check_task_name, make_spec
from perdure.data.task import TaskData
from perdure.evaluate.choosing import chance_level
from perdure.evaluate.scorers import HARNESS as HARNESS_SCORER
from perdure.evaluate.scorers import read_scorer
from perdure.ledger.records import GuardBudget
from perdure.workflows.trust import trust_tasks, with_hash

if TYPE_CHECKING:
    from perdure.bridges.harness import HarnessTask

OWN = "python:"  # before the file and the name of a function that scores
HARNESS = "harness:"  # before the name of a task of lm-evaluation-harness
VARIABLE = "PERDURE_DATA"  # environment variable with the folder of data files


@dataclass(frozen=True)
class ReadGuard:
    """A guard that was read, and is not added yet.

    Args:
        spec: Its settings.
        task: Its rows as test rows of a task, in their one order, as many as the largest budget has; all of them where some are
            to be selected.
        items: Number of items by budget.
        chance: Expected score by chance; None where it has no part.
        source: Origin of its rows, for people.
    """

    spec: GuardSpec
    task: TaskData
    items: GuardBudget
    chance: float | None
    source: str


def data_folder(data: Path | None) -> Path | None:
    """Return the folder of data files: the given one, else the one that PERDURE_DATA names, else None."""
    return data or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)


def read_guard(
    what: str,
    root: Path,
    data: Path | None = None,
    *,
    name: str | None = None,
    has_template: Callable[[], bool] = lambda: True,
) -> ReadGuard:
    """Return a guard by the name of a shipped one, the path of its file, or `harness:NAME`.

    Args:
        what: The name or path.
        root: Folder of the workspace.
        data: Folder of data files; None takes the one that PERDURE_DATA names.
        name: Name of the guard; None takes the one in the file.
        has_template: Returns whether the model has a chat template; without one, conversations become plain text. It is called
            only where there are conversations.

    Raises:
        BadInput: There is no such guard, or its data are missing or broken.
        BadSpec: A setting is not valid.
    """
    if what.startswith(HARNESS):
        task_name = what.removeprefix(HARNESS)
        values = {"ability_guard": name or task_name.rpartition("/")[2], "harness": task_name, "ability": "other"}
        spec, folder = make_guard_spec(values, f"guard {what}"), Path()
    else:
        file = guard_file(what)
        spec, folder = load_guard_spec(file), file.parent
    spec = _with_scorer(_named(spec, name) if name else spec, folder, root)
    named = data_folder(data)
    places = [folder, root, *([named] if named else [])]
    rows, whole, chance = _rows(spec, places, root, has_template)
    most = len(rows) if spec.items.full == "all" or spec.informative else min(spec.items.full, len(rows))
    task = replace(
        whole,
        spec=whole.spec.model_copy(update={"test_rows": most}),
        test=rows[:most],
        fingerprint="",
        version="",
        default="",
        choices=(),
    )
    counts = spec.items
    wanted = (counts.quick if counts.learn is None else counts.learn, counts.quick, counts.standard, most)
    items = GuardBudget(*(min(count, most) for count in wanted))
    return ReadGuard(spec, task, items, chance_of(spec, task) if chance is None else chance, _source(spec))


def _with_scorer(spec: GuardSpec, folder: Path, root: Path) -> GuardSpec:
    """Return a guard whose scorer is known; one in a file, relative to the guard file, has the hash of the trusted file.

    Raises:
        BadInput: The file of the scorer cannot be read, or is not trusted.
        BadSpec: The scorer is not known.
    """
    scorer = spec.task.get("scorer")
    if not isinstance(scorer, str | dict):
        return spec
    given = {"name": scorer} if isinstance(scorer, str) else scorer
    name = str(given.get("name"))
    if name.startswith(OWN):
        given = {**given, "name": f"{OWN}{folder / name.removeprefix(OWN)}"}
    chosen = with_hash(root, given)
    read_scorer(chosen)
    return spec.model_copy(update={"task": {**spec.task, "scorer": chosen if name.startswith(OWN) else scorer}})


def _named(spec: GuardSpec, name: str) -> GuardSpec:
    try:
        return spec.model_copy(update={"ability_guard": check_task_name(name)})
    except ValueError as error:
        raise BadInput(f"no guard can be called {quoted(name)}: a name {error}") from error


def _rows(
    spec: GuardSpec, places: Sequence[Path], root: Path, has_template: Callable[[], bool]
) -> tuple[tuple[Row, ...], TaskData, float | None]:
    """Return every row of a guard in order, the task that was read of them, and the score by chance that a harness task has."""
    chance = None
    if spec.made is not None:
        whole = _made(spec)
    elif spec.harness is not None:
        whole, chance = _of_harness(spec, places, root)
    else:
        data = _found(spec, places)
        whole = load_probe(spec.name, data, dict(spec.task), where=spec.where, group=spec.group)
    rows = whole.test
    if spec.choices_by_label is not None:
        rows = with_drawn_choices(rows, spec.choices_by_label)
    if spec.chat:
        rows = tuple(as_conversation(row) for row in rows)
    if any(row.messages for row in rows) and not has_template():
        rows, whole = tuple(map(plain_text, rows)), replace(whole, format="prompt_completion")
    return in_order(rows, whole.spec.seed), whole, chance


def _made(spec: GuardSpec) -> TaskData:
    """Return the rows that perdure makes itself."""
    return _of_rows(spec, made_rows(str(spec.made)), Path(f"made:{spec.made}"))


def _of_harness(spec: GuardSpec, places: Sequence[Path], root: Path) -> tuple[TaskData, float | None]:
    """Return the rows of a task of lm-evaluation-harness, its folder at the first place that has it, and the score by chance."""
    from perdure.bridges.harness import HarnessTask, harness_rows

    found = [HarnessTask.of(str(spec.harness), place) for place in places]
    task = next((one for one in found if one.folder is None or one.folder.is_dir()), found[0])
    name, options = read_scorer(spec.task.get("scorer", HARNESS_SCORER))
    read = harness_rows(task, options.get("metric"), options.get("filter"))
    if name == HARNESS_SCORER:
        scorer: Any = read.scorer
    elif name == "choice" and read.scorer["name"] != name:
        raise BadInput(
            f"task {task.name} of lm-evaluation-harness has no plain choices; leave scorer out of {spec.name}"
        )
    else:
        scorer = spec.task["scorer"]
    if read.scorer["name"] == HARNESS_SCORER == name:
        scorer = {**scorer, **_placed(task, root)}
        of_us = ("max_new_tokens", "system", "template", "chat")
        if given := [key for key in of_us if key in spec.task or (key == "chat" and spec.chat)]:
            raise BadInput(
                f"guard {spec.name}: {given[0]} has no effect, since the task of lm-evaluation-harness writes its prompts and "
                "ends its answers; leave it out"
            )
    chosen = spec.model_copy(update={"task": {**spec.task, "scorer": scorer}})
    return _of_rows(chosen, read.rows, Path(f"{HARNESS}{spec.harness}")), read.chance


def _placed(task: "HarnessTask", root: Path) -> dict[str, str]:
    """Return the options of a scorer that name a task; its folder, which the user named, is trusted as it is now."""
    if task.folder is None:
        return {"task": task.name}
    folder, home = task.folder.resolve(), root.resolve()
    shown = folder.relative_to(home) if folder.is_relative_to(home) else folder
    return {"task": task.name, "folder": shown.as_posix(), "sha256": trust_tasks(root, folder)}


def _of_rows(spec: GuardSpec, rows: Sequence[Row], origin: Path) -> TaskData:
    """Return a task of rows that no file has."""
    own = tuple(replace(row, task=spec.name) for row in rows)
    settings = make_spec({"name": spec.name, "train": origin, **spec.task}, f"guard {spec.name}")
    format = settings.known_format or ("messages" if own[0].messages else "prompt_completion")
    return TaskData(settings, (), (), own, format)


def _found(spec: GuardSpec, places: Sequence[Path]) -> Data:
    """Return the data files of a guard, each at the first place that has it.

    Raises:
        BadInput: A file is at none of the places; the message has the origin of the file and the places.
    """
    found = []
    for file in spec.files:
        at = next((place / file for place in places if (place / file).exists()), None)
        if at is None:
            origin = spec.sources.get(file.as_posix())
            raise BadInput(
                f"guard {spec.name} needs {file}, which is in none of {', '.join(str(place.resolve()) for place in places)}\n"
                + (f"What it is and where to get it: {origin.strip()}\n" if origin else "")
                + f"Name the folder that holds it with --data DIR or {VARIABLE}"
            )
        found.append(at)
    return found[0] if len(found) == 1 else tuple(found)


def as_conversation(row: Row) -> Row:
    """Return a row of plain text as a conversation: the prompt is the user's turn, the completion the assistant's."""
    if row.messages:
        return row
    turns = (Message("user", row.prompt), Message("assistant", row.completion))
    return replace(row, prompt="", completion="", messages=turns)


def chance_of(spec: GuardSpec, task: TaskData) -> float | None:
    """Return the expected score by chance: as the file says, else by the number of choices."""
    return chance_level(task) if spec.chance is None else spec.chance


def _source(spec: GuardSpec) -> str:
    if spec.made is not None:
        return f"made by perdure: {spec.made}"
    if spec.harness is not None:
        return f"{HARNESS}{spec.harness}"
    texts: dict[str, Any] = {file.as_posix(): spec.sources.get(file.as_posix()) for file in spec.files}
    return "; ".join(f"{file} ({text.strip()})" if text else file for file, text in texts.items())
