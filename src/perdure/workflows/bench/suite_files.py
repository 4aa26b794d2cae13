"""Suites as YAML files, shipped or given, and what would end a benchmark after hours and can be known before."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perdure.core.errors import BadInput, BadSpec
from perdure.core.plain_text import quoted
from perdure.core.plain_yaml import read_yaml_file
from perdure.core.recipe import first_problem, nearest
from perdure.data.spec import make_spec
from perdure.evaluate.scorers import read_scorer
from perdure.workflows.bench.rows import DIGITS
from perdure.workflows.bench.suite import Suite, SuiteTask, Watched

SUITES = Path(__file__).parent / "suites"
_KINDS: dict[str, tuple[type, str]] = {
    "extends": (str, "the name of a suite"),
    "sources": (dict, "a mapping of files to words"),
    "defaults": (dict, "a mapping"),
    "tasks": (list, "a list of mappings"),
}


def suite_names() -> list[str]:
    """Return the names of the suites that are shipped."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def load_suite(name_or_path: str) -> Suite:
    """Return a shipped suite by name, or one from a YAML file.

    `defaults` in it holds for every task that does not differ. `extends` names a suite that gives it what it does not
    say itself.

    Raises:
        BadInput: No such suite or file.
        BadSpec: It is no valid YAML, or no valid suite.
    """
    path = _find(name_or_path, Path())
    written = _read(path)
    try:
        return Suite.model_validate({**written, "name": written.get("name", path.stem)})
    except ValidationError as error:
        raise BadSpec(f"suite {path}: {first_problem(error)}") from None


def _find(name_or_path: str, folder: Path) -> Path:
    """Return the file of a shipped suite by its name, or of another by its path, relative to `folder`."""
    if Path(name_or_path).suffix in (".yaml", ".yml"):
        return folder / name_or_path
    path = SUITES / f"{name_or_path}.yaml"
    if not path.is_file():
        raise BadInput(f"no suite {name_or_path!r} and no .yaml file{nearest(name_or_path, suite_names())}")
    return path


def _read(path: Path, below: Sequence[Path] = ()) -> dict[str, Any]:
    """Return what a suite's file says, on top of what it extends, its defaults written into its tasks."""
    written = read_yaml_file(path, "suite")
    if not isinstance(written, dict):
        raise BadSpec(f"suite {path} must be a mapping with `tasks:`, a list of mappings")
    for key, (kind, words) in _KINDS.items():
        if key in written and not isinstance(written[key], kind):
            raise BadSpec(f"suite {path}: `{key}` must be {words}, got {quoted(written[key])}")
    known: dict[str, Any] = {}
    if "extends" in written:
        if path.resolve() in below:
            raise BadSpec(f"suite {path} extends itself")
        known = _read(_find(written.pop("extends"), path.parent), [*below, path.resolve()])
    tasks, shared = written.get("tasks", known.get("tasks", [])), written.pop("defaults", {})
    if not tasks or not all(isinstance(task, dict) for task in tasks):
        raise BadSpec(f"suite {path} must be a mapping with `tasks:`, a list of mappings")
    if shared and "tasks" not in written:
        raise BadSpec(f"suite {path}: `defaults` hold for the tasks beside them; write `tasks` too")
    if "tasks" in written:
        written["tasks"] = [{**shared, **task} for task in tasks]
    written["sources"] = {**known.get("sources", {}), **written.get("sources", {})}
    return {**{key: value for key, value in known.items() if key != "name"}, **written}


def check_tasks(suite: Suite) -> None:
    """Refuse to begin with settings of a task that its learn would refuse, maybe after others were learned.

    Raises:
        BadSpec: With the task and the setting.
    """
    every: list[SuiteTask | Watched] = [*suite.tasks, *suite.watch]
    for task in every if suite.kind == "text" else ():
        own = [key for key in ("name", "train", "test", "general") if key in task.task]
        if own:
            raise BadSpec(
                f"suite {suite.name}: task {task.name}: `{own[0]}` is the suite's to say; leave it out of `task`"
            )
        spec = make_spec({"name": task.name, "train": task.file, **task.task}, f"suite {suite.name}: task {task.name}")
        if spec.scorer is not None:
            read_scorer({"name": spec.scorer} if isinstance(spec.scorer, str) else spec.scorer)


def check_files(suite: Suite, folder: Path) -> None:
    """Refuse to begin while a data file is missing.

    Raises:
        BadInput: With what to get, where from, and where to put it.
    """
    for file in suite.files:
        if file == DIGITS:
            if find_spec("sklearn") is None:
                raise BadInput(f"suite {suite.name} needs the digits of scikit-learn; 'pip install scikit-learn'")
        elif not (folder / file).is_file():
            told = suite.sources.get(file.as_posix())
            raise BadInput(
                f"suite {suite.name} needs {file}, which is not in {folder.resolve()}\n"
                + (f"What it is and where to get it: {told.strip()}\n" if told else "")
                + f"Put it at {folder / file}, or name the folder that holds it with --data DIR or PERDURE_DATA"
            )
