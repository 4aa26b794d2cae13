"""The settings of a task: from a task file, or given with a plain data file."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from perdure.core.canonical import content_hash
from perdure.core.errors import BadSpec
from perdure.core.plain_text import clipped, quoted, visible
from perdure.core.plain_yaml import read_yaml_file
from perdure.core.values import as_number, shown
from perdure.data.columns import FORMATS, ROLES
from perdure.data.documents import Documents
from perdure.data.hub_names import is_hub
from perdure.data.own_formats import outside_formats
from perdure.data.sources import GENERAL_MADE, MADE, Data

_INHERITED = (
    "format",
    "documents",
    "max_rows",
    "columns",
    "template",
    "system",
    "labels",
    "scorer",
    "max_new_tokens",
    "test_rows",
    "general",
    "guard",
    "test_size",
    "seed",
    "keep_rows",
)


NUMBERS = {"max_new_tokens": int, "max_rows": int, "test_rows": int, "test_size": float, "seed": int}
STORED = "stored"  # context of the check of settings that come from the ledger
MOST = {"max_new_tokens": 100_000, "max_rows": 10**9, "test_rows": 10**9, "seed": 2**63 - 1}


class TaskSpec(BaseModel):
    """Settings of a task. A setting that is left out gets its default, which may depend on the data.

    Args:
        name: Name of the task: letters, digits, and "_", ".", "-" after the first.
        train: Data file, folder, data set on the hub (`hub:ORG/NAME[:CONFIG][@REVISION]`), or several of them.
        test: The same with test rows; without it, see `split` columns and `test_size`.
        format: A key of `formats.FORMATS` ("text+label" and "prompt/completion" are understood too), or of an installed package
            (see `own_formats`), which then makes rows of a known one; None detects it.
        documents: Whether a row of a .txt file is a "paragraph" or the "file"; None takes paragraphs of a file that is named,
            and whole files of a folder.
        max_rows: Largest number of rows that are read of each file or split, from its start; None takes all, of the hub 100,000.
        columns: Column of the data by the name it is to be read under: {"prompt": "question", "completion": "answer"}.
        template: Prompt of text_label or prompt_completion, with columns as placeholders.
        system: System prompt of the task: the first turn of conversations, or the beginning of the prompt in plain text. A row
            with a system prompt of its own keeps it.
        labels: Text of each label in the completion of text_label or text_labels.
        scorer: Name of a scorer, or {"name": ..., options}; None takes the default for the rows.
        max_new_tokens: Largest number of tokens of a generated answer; None lets the evaluation decide.
        test_rows: Most test rows that are scored at each learn, a sample with every label's share; None is 1,000. `eval --all`
            scores all of them.
        general: General instruction data (a source like `train`), for recipes that replay it; or "made", and the base model
            writes them itself.
        guard: Names of the tasks the gate guards while this one is learned; None is all of them.
        test_size: Share of the questions in the test part when it has to be made, in (0, 1).
        seed: Key of the draw that makes the test part.
        keep_rows: "all" stores the text of every row, "needed" only that of memory and test rows; None takes the workspace's
            setting.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    train: Data
    test: Data | None = None
    format: str | None = None
    documents: Documents | None = None
    max_rows: int | None = Field(default=None, gt=0)
    columns: dict[str, str] = {}
    template: str | None = None
    system: str | None = Field(default=None, min_length=1)
    labels: dict[str, str] = {}
    scorer: str | dict[str, Any] | None = None
    max_new_tokens: int | None = Field(default=None, gt=0)
    test_rows: int | None = Field(default=None, gt=0)
    general: Data | None = None
    guard: list[str] | None = None
    test_size: float = Field(default=0.2, gt=0, lt=1)
    seed: int = 0
    keep_rows: Literal["all", "needed"] | None = None

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        return check_task_name(value)

    @field_validator("train", "test", "general", mode="before")
    @classmethod
    def _path(cls, value: Any, info: ValidationInfo) -> Any:
        if info.field_name == "general" and value == MADE:
            return GENERAL_MADE
        paths = value if isinstance(value, list | tuple) else [] if value is None else [value]
        if not paths and value is not None:
            raise ValueError("names no file; name one at least")
        if any(not isinstance(p, str | Path) or len(str(p)) > 4096 or "\0" in str(p) for p in paths):
            raise ValueError("is no path of a file")
        return tuple(paths) if isinstance(value, list) else value

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        name = value.lower().replace("+", "_").replace("/", "_").replace("-", "_")
        if name in FORMATS:
            return name
        if info.context == STORED:  # a task that was learned is used without the package, too
            return value
        known = [*FORMATS, *outside_formats()]
        if value not in known:
            near = _nearest(name, dict.fromkeys(known))
            raise ValueError(f"unknown format {quoted(value)}{near}; known: {', '.join(known)}")
        return value

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        if unknown := [name for name in value if name not in ROLES]:
            near = get_close_matches(unknown[0], ROLES, n=1)
            hint = f", did you mean {near[0]}?" if near else f"; known are {', '.join(ROLES)}"
            raise ValueError(f"unknown name {quoted(unknown[0])}{hint}")
        return value

    @field_validator("labels", mode="before")
    @classmethod
    def _quoted_labels(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if any(isinstance(side, bool) for pair in value.items() for side in pair):
            raise ValueError("YAML reads a bare true or false as a truth value; put quotes around it")
        texts = {str(label): str(text) if isinstance(text, int | float) else text for label, text in value.items()}
        if len(texts) < len(value):
            raise ValueError("a label appears twice, as a number and in quotes; keep one")
        return texts

    @field_validator("scorer")
    @classmethod
    def _named_scorer(cls, value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
        if isinstance(value, dict) and not isinstance(value.get("name"), str):
            raise ValueError('a scorer with options needs its "name" among them')
        return value

    @property
    def own_format(self) -> str | None:
        """The format of another package that the rows are read by, if one is set."""
        return None if self.format in FORMATS else self.format

    @property
    def known_format(self) -> str | None:
        """The format of perdure, if one is set; the rows of another package's format have the one that their columns show."""
        return self.format if self.format in FORMATS else None

    def inherited(self) -> dict[str, Any]:
        """Return the settings set here, without the files: a later version inherits them unless it sets them."""
        return {key: getattr(self, key) for key in _INHERITED if key in self.model_fields_set}


def check_task_name(name: str) -> str:
    """Return the name of a task.

    Raises:
        ValueError: No task can be called so.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ValueError('must begin with a letter or digit and hold only letters, digits, "_", "." and "-"')
    return name


def make_spec(values: Mapping[str, Any], where: str) -> TaskSpec:
    """Return the checked settings; `where` names their origin in errors.

    Raises:
        BadSpec: A key is unknown (the nearest known one is named), missing, or its value is not valid.
    """
    numbers = {key: as_number(value, NUMBERS.get(key), f"{where}: `{key}`") for key, value in values.items()}
    for key, most in MOST.items():
        if isinstance(numbers.get(key), int | float) and abs(numbers[key]) > most:
            raise BadSpec(f"{where}: `{key}` is {shown(numbers[key])}; it is {most:,} at most")
    try:
        spec = TaskSpec.model_validate(numbers)
    except ValidationError as error:
        raise BadSpec(f"{where}: {_problems(error)}") from error
    try:  # a setting that cannot be hashed cannot be stored with the task
        content_hash(spec.model_dump(exclude={"train", "test", "general"}))
    except UnicodeEncodeError as error:
        raise BadSpec(f"{where}: a setting holds half of a surrogate pair (\\ud800 to \\udfff); remove it") from error
    except (ValueError, TypeError) as error:
        raise BadSpec(f"{where}: a setting is no text, truth value or finite number; put it in quotes") from error
    return spec


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a task file (YAML) unchecked, its relative paths taken from the folder the file is in.

    Raises:
        BadInput: The file is missing or not UTF-8.
        BadSpec: It is not valid YAML, or not a mapping.
    """
    values = read_yaml_file(path, "task file")
    if not isinstance(values, dict):
        raise BadSpec(f"{path} must be a mapping with at least `train: FILE`")
    for key in ("train", "test", "general"):
        if key == "general" and values.get(key) == MADE:
            continue
        if isinstance(given := values.get(key), str):
            values[key] = _relative_to(path, given)
        elif isinstance(given, list) and all(isinstance(item, str) for item in given):
            values[key] = tuple(_relative_to(path, item) for item in given)
    if isinstance(scorer := values.get("scorer"), str) and scorer.startswith("python:"):
        values["scorer"] = f"python:{path.parent / scorer.removeprefix('python:')}"
    return values


def _relative_to(file: Path, given: str) -> Path:
    """Return a path in a task file: relative to the file's folder, except for the hub."""
    return Path(given) if is_hub(given) else file.parent / given


def load_spec(path: Path) -> TaskSpec:
    """Return the settings of a task file (YAML): relative paths from its folder, the name from its stem if not set.

    Raises:
        BadInput: The file is missing or not UTF-8.
        BadSpec: It is not valid YAML, or a setting in it is not valid.
    """
    return make_spec({"name": path.stem, **read_settings(path)}, str(path))


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    near = get_close_matches(clipped(name, 60), known, n=1)
    return f", did you mean {near[0]}?" if near else ""


def _problems(error: ValidationError) -> str:
    problems = [_problem(problem) for problem in error.errors()[:3]]
    return "; ".join(problems) + (f"; and {error.error_count() - 3} more" if error.error_count() > 3 else "")


def _problem(problem: Any) -> str:
    key = visible(clipped(".".join(map(str, problem["loc"])), 80))
    if problem["type"] == "extra_forbidden":
        hint = _nearest(key, TaskSpec.model_fields) or f"; known keys are {', '.join(TaskSpec.model_fields)}"
        return f"unknown key `{key}`{hint}"
    if problem["type"] == "missing":
        return f"`{key}` is missing; set it"
    return f"`{key}`: {problem['msg'].removeprefix('Value error, ')}, got {quoted(problem['input'])}"
