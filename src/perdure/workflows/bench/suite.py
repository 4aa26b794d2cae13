"""A suite: the tasks of a benchmark in order, the data files their rows come from, and how the rows are chosen."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput, BadSpec
from perdure.core.fields import MANY
from perdure.core.plain_text import quoted
from perdure.core.plain_yaml import read_yaml_file
from perdure.core.recipe import first_problem, nearest
from perdure.data.read import read_records
from perdure.data.spec import make_spec
from perdure.evaluate.scorers import read_scorer

SUITES = Path(__file__).parent / "suites"
DIGITS = Path("scikit-learn/digits")  # shipped with that package
RowFields = dict[str, Any]
_KINDS: dict[str, tuple[type, str]] = {
    "extends": (str, "the name of a suite"),
    "sources": (dict, "a mapping of files to words"),
    "defaults": (dict, "a mapping"),
    "tasks": (list, "a list of mappings"),
}
_NAME = r"^\w[\w.-]*$"  # of a task, as its file and its name in a workspace


class Part(BaseModel):
    """Which rows make the train or the test part of a task.

    Args:
        split: What the data's `split` column says of them.
        per_label: Rows of each label; None takes all.
        skip: Rows of each label that are left to others: the first of those drawn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str
    per_label: int | None = Field(default=None, ge=1, le=MANY, strict=True)
    skip: int = Field(default=0, ge=0, le=MANY, strict=True)


class Source(BaseModel):
    """Where rows come from.

    Args:
        file: Data file, relative to the folder of data; or `DIGITS`, which needs none.
        where: Values by column that its rows have.
        labels: How many labels, the first by name, or which; None takes all.
        chat: Whether `prompt` and `completion` are a turn of a chat each, rather than plain text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Path
    where: dict[str, Any] = {}
    labels: Annotated[int, Field(ge=1, le=MANY, strict=True)] | list[str] | None = None
    chat: bool = False


class SuiteTask(Source):
    """One task of a suite.

    Args:
        name: Its name.
        train: Rows to learn from.
        test: Rows that score.
        task: Settings of a task file: `template`, `scorer`, `max_new_tokens`, ...
    """

    name: str = Field(pattern=_NAME)
    train: Part
    test: Part
    task: dict[str, Any] = {}


class General(Source):
    """General instructions, for the methods that rehearse them.

    Args:
        train: The rows.
    """

    train: Part


class Watched(Source):
    """Something the model could do before any task: scored before the first and after the last, never learned.

    Args:
        name: Its name.
        test: Rows that score: the same for every seed.
        task: Settings of a task file, as those of a task.
    """

    name: str = Field(pattern=_NAME)
    test: Part
    task: dict[str, Any] = {}


class Suite(BaseModel):
    """A benchmark: what is learned, in order, on which model.

    Args:
        name: Its name.
        about: What it is, in a sentence or two.
        kind: What learns: "text" is a language model in a workspace, as `perdure learn` does; "features" an MLP on rows with
            a list of numbers and a label.
        model: Base model, as in `perdure init`; or the hidden widths of an MLP, as "mlp:100,100".
        dtype: Its frozen weights, as in `perdure init`.
        settings: Training settings of every arm, above its recipe's and below its own overrides.
        sources: How to get each data file, by its path.
        tasks: In the order in which they are learned.
        general: General instructions that every task names, as `general` in a task file.
        watch: What is scored before and after all tasks, to see what they cost.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: str = ""
    kind: Literal["text", "features"] = "text"
    model: str = "smollm2-135m"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    settings: dict[str, Any] = {}
    sources: dict[str, str] = {}
    tasks: list[SuiteTask] = Field(min_length=1)
    general: General | None = None
    watch: list[Watched] = []

    @model_validator(mode="after")
    def _named_once(self) -> "Suite":
        names = [*(task.name for task in self.tasks), *(one.name for one in self.watch)]
        if len(set(names)) < len(names):
            raise ValueError("a task stands twice; give each a name of its own")
        if self.kind == "features" and (self.general or self.watch):
            raise ValueError("rows with features have no instructions to rehearse and nothing to watch; leave both out")
        return self

    @field_validator("settings")
    @classmethod
    def _no_methods(cls, settings: dict[str, Any]) -> dict[str, Any]:
        if any(key.partition(".")[0] == "methods" for key in settings):
            raise ValueError("methods belong to the recipes that are compared, not to the suite")
        return settings

    @property
    def hash(self) -> str:
        """Identity of everything that decides a result; what only people read is left out."""
        return content_hash(self.model_dump(mode="json", exclude_defaults=True, exclude={"about", "sources"}))

    @property
    def files(self) -> list[Path]:
        """Every data file it reads, once."""
        sources: list[Source] = [*self.tasks, *([self.general] if self.general else []), *self.watch]
        return list(dict.fromkeys(source.file for source in sources))


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


def rows_of(source: Source, folder: Path, seed: int) -> list[RowFields]:
    """Return the rows as fields of a data file: the train rows, then the test rows, each marked so in `split`.

    Raises:
        BadInput: The file is missing or broken, or a part has no rows.
    """
    records = _digits() if source.file == DIGITS else [record.fields for record in read_records(folder / source.file)]
    rows: list[RowFields] = []
    for name in ("train", "test"):
        part: Part | None = getattr(source, name, None)
        if part is None:
            continue
        mine = [r for r in records if r.get("split") == part.split and source.where.items() <= r.items()]
        chosen = choose(mine, seed, part, _labels(mine, source.labels))
        if not chosen:
            raise BadInput(
                f"{getattr(source, 'name', 'general')}: {source.file} has no rows for its {name} part (split "
                f"{part.split!r}, {source.where}, skip {part.skip}); its splits are "
                f"{sorted({str(r.get('split')) for r in records})}"
            )
        rows += [{**(_chat(row, source.file) if source.chat else row), "split": name} for row in chosen]
    return rows


def choose(rows: Sequence[RowFields], seed: int, part: Part, labels: Iterable[str | None]) -> list[RowFields]:
    """Return the rows of `part` of each of the `labels`, drawn by the seed from the rows in their order.

    The draw is that of a plain script (`random.Random(seed).shuffle`, anew for each label), so that one can be given
    the same rows. The same seed takes the same first rows, however many are wanted.
    """
    chosen: list[RowFields] = []
    for label in labels:
        found = [row for row in rows if row.get("label") == label]
        random.Random(seed).shuffle(found)  # noqa: S311, a draw of rows, and one that others can repeat
        chosen += found[part.skip :][: part.per_label]
    return chosen


def _chat(row: RowFields, file: Path) -> RowFields:
    """Return a row of prompt and completion as a chat of two turns."""
    if not all(isinstance(row.get(key), str) for key in ("prompt", "completion")):
        raise BadInput(
            f"{file}: `chat` is for rows with a text prompt and completion; one has {', '.join(sorted(row))}"
        )
    turns = [{"role": role, "content": row[key]} for role, key in (("user", "prompt"), ("assistant", "completion"))]
    return {**{key: value for key, value in row.items() if key not in ("prompt", "completion")}, "messages": turns}


def _labels(rows: Sequence[Mapping[str, Any]], wanted: int | list[str] | None) -> list[str | None]:
    """Return the labels to take, by name; [None] where the rows have none."""
    if isinstance(wanted, list):
        return list(wanted)
    known = sorted({row["label"] for row in rows if row.get("label") is not None})
    without = wanted is None and any(row.get("label") is None for row in rows)
    return [*known[:wanted], *([None] if without else [])] or [None]


def _digits() -> list[RowFields]:
    """Return the 1,797 digits, pixels from 0 to 1; the fourth of every four of a class is test, the others train."""
    from sklearn.datasets import load_digits

    found, seen, rows = load_digits(), Counter[int](), []
    for pixels, label in zip((found.data / 16).tolist(), found.target.tolist(), strict=True):
        seen[label] += 1
        rows.append({"features": pixels, "label": str(label), "split": "train" if seen[label] % 4 else "test"})
    return rows
