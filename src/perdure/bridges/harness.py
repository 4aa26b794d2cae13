"""lm-evaluation-harness: its tasks as rows of a guard, and its evaluation of the loaded model. The package is the extra `eval`.

Its caches are never used: one is a pickle whose key leaves out the model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.core.errors import BadInput
from perdure.core.rows import Row

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime


@dataclass(frozen=True)
class HarnessTask:
    """A task of lm-evaluation-harness.

    Args:
        name: Its name.
        folder: Folder of task files (YAML) that defines it; None where the harness ships it.
    """

    name: str
    folder: Path | None = None

    @classmethod
    def of(cls, written: str, place: Path = Path()) -> "HarnessTask":
        """Return the task that is written as NAME, or as FOLDER/NAME with a folder relative to `place`."""
        folder, slash, name = written.rpartition("/")
        return cls(name, place / (folder or "/") if slash else None)


def harness_rows(task: HarnessTask) -> tuple[Row, ...]:
    """Return the rows of a task with choices, as its own prompts and few-shots write them; of a group, those of its tasks.

    Raises:
        BadInput: The package or the task is missing, its data cannot be read, or its items are no choices among texts.
    """
    rows: list[Row] = []
    parts = list(_tasks(task))
    for name, own in parts:
        if own.OUTPUT_TYPE != "multiple_choice":
            raise BadInput(
                f"task {name} of lm-evaluation-harness scores by {own.OUTPUT_TYPE}, and a guard takes tasks with choices "
                "(multiple_choice)"
            )
        own.build_all_requests(rank=0, world_size=1)
        requests: dict[int, list[Any]] = {}
        for request in own.instances:
            requests.setdefault(request.doc_id, []).append(request)
        found = [_row(name, n, own.doc_to_target(some[0].doc), some) for n, some in requests.items()]
        rows += [replace(row, group=name if len(parts) > 1 else "") for row in found]
    return tuple(rows)


def evaluate_harness(
    runtime: "Runtime", tasks: Sequence[HarnessTask], *, limit: int | None = None, chat: bool = False
) -> dict[str, Any]:
    """Return what lm-evaluation-harness measures of the model that is loaded, in its own result schema, with every item.

    Args:
        runtime: Holds the model.
        tasks: Tasks, all shipped or all of one folder.
        limit: First items of each task that are scored; None scores all.
        chat: Give the prompts in the model's chat template.

    Raises:
        BadInput: The package or a task is missing, or its data cannot be read.
    """
    _check_installed()
    from lm_eval import simple_evaluate

    from perdure.bridges.harness_lm import RuntimeLM

    (folder,) = {task.folder for task in tasks}
    found: dict[str, Any] = simple_evaluate(
        model=RuntimeLM(runtime),
        tasks=[task.name for task in tasks],
        task_manager=_manager(folder),
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
        apply_chat_template=chat,
    )
    return found


def _check_installed() -> None:
    if find_spec("lm_eval") is None:
        raise BadInput("tasks of lm-evaluation-harness need the package lm-eval; pip install 'perdure[eval]'")


def _manager(folder: Path | None) -> Any:
    """Return the index of tasks: of a folder alone, else of those that are shipped, which takes ten seconds."""
    from lm_eval.tasks import TaskManager

    if folder is None:
        return TaskManager()
    if not folder.is_dir():
        raise BadInput(f"there is no folder {folder} with tasks of lm-evaluation-harness (YAML)")
    return TaskManager(include_path=str(folder), include_defaults=False)


def _tasks(task: HarnessTask) -> Iterator[tuple[str, Any]]:
    """Yield the names and objects of a task, or of the tasks of a group."""
    _check_installed()
    from lm_eval.tasks import get_task_dict

    manager = _manager(task.folder)
    if task.name not in manager.all_tasks:
        place = f"in {task.folder}" if task.folder else "of lm-evaluation-harness"
        raise BadInput(f"there is no task {task.name!r} {place}; write harness:NAME, or harness:FOLDER/NAME")
    try:
        found = get_task_dict([task.name], manager)
    except (OSError, ValueError, ImportError, ConnectionError) as error:
        first = str(error).strip().split("\n")[0]
        raise BadInput(f"task {task.name} of lm-evaluation-harness cannot be read: {first}") from error
    yield from _leaves(found)


def _leaves(found: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in found.items():
        if isinstance(value, Mapping):
            yield from _leaves(value)
        else:
            yield str(name), value


def _row(name: str, number: int, gold: Any, requests: Sequence[Any]) -> Row:
    contexts = {request.args[0] for request in requests}
    choices = tuple(request.args[1] for request in requests)
    if len(contexts) != 1 or isinstance(gold, bool) or not isinstance(gold, int) or not 0 <= gold < len(choices):
        raise BadInput(
            f"item {number} of task {name} of lm-evaluation-harness is no question with one right choice; give its rows as a file"
        )
    source = f"harness:{name}:{number}"
    return Row(prompt=contexts.pop(), completion=choices[gold], choices=choices, gold=gold, source=source)
