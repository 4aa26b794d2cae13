"""The settings of a guard, from its file: rows that are scored at each learn and never learned."""

from collections.abc import Mapping
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from perdure.core.errors import BadInput, BadSpec
from perdure.core.plain_text import clipped, quoted
from perdure.core.plain_yaml import read_yaml_file
from perdure.core.recipe import first_problem, nearest
from perdure.data.spec import TaskSpec, check_task_name

Ability = Literal[
    "instruction", "knowledge", "commonsense", "code", "maths", "language", "facts", "drift", "safety", "other"
]
ABILITIES = get_args(Ability)
GUARDS = Path(__file__).parent / "guards"  # the guard files that are shipped
ORIGINS = ("test", "made", "harness")
# keys of a task file that a guard file may have too
TASK_KEYS = (
    "columns",
    "documents",
    "format",
    "labels",
    "max_new_tokens",
    "max_rows",
    "scorer",
    "seed",
    "system",
    "template",
)


class ItemCounts(BaseModel):
    """Number of items that each budget scores; each budget has all items of the smaller ones.

    Args:
        learn: At each learn, edit and revert; None is as many as `quick`, and 0 scores the guard in checkups alone.
        quick: At a quick checkup.
        standard: At a standard checkup.
        full: At a full checkup; "all" is every row.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    learn: int | None = Field(default=None, ge=0)
    quick: int = Field(default=100, ge=0)
    standard: int = Field(default=400, ge=0)
    full: int | Literal["all"] = Field(default="all")


class GuardSpec(BaseModel):
    """Settings of a guard. Exactly one of `test`, `made` and `harness` says where its rows come from.

    Args:
        ability_guard: Name of the guard: letters, digits, and "_", ".", "-" after the first.
        test: Data file with its rows, or several.
        made: Name of rows that perdure makes itself; see `data.made`.
        harness: Name of a task of lm-evaluation-harness.
        ability: What it measures.
        items: Number of items by budget.
        chance: Expected score by chance, in [0, 1]; None takes it from the choices of the rows, where these have some.
        where: Only rows with one of these values in a column, by column.
        group: Column with the name of the passage, subject or template of a row; rows of one group are compared together.
        choices_by_label: Number of choices that each row gets, the right one included: its answer, and answers of other rows with
            its label. None leaves the rows as they are.
        chat: Give the prompts to the model as a user's turn in its chat template.
        informative: Keep the rows with choices that the base model is unsure of; see `workflows.guards.select`.
        sources: Origin of each file, for people: "..., licence, where to get it".
        task: Settings that it shares with task files.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ability_guard: str
    test: Path | tuple[Path, ...] | None = None
    made: str | None = None
    harness: str | None = None
    ability: Ability
    items: ItemCounts = ItemCounts()
    chance: float | None = Field(default=None, ge=0, le=1)
    where: dict[str, list[str]] = {}
    group: str | None = None
    choices_by_label: int | None = Field(default=None, ge=2)
    chat: bool = False
    informative: bool = False
    sources: dict[str, str] = {}
    task: dict[str, Any] = {}

    @field_validator("ability_guard")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        return check_task_name(value)

    @field_validator("where", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            key: [str(one) for one in (given if isinstance(given, list) else [given])] for key, given in value.items()
        }

    @property
    def name(self) -> str:
        """Name of the guard."""
        return self.ability_guard

    @property
    def files(self) -> tuple[Path, ...]:
        """The data files it names."""
        return self.test if isinstance(self.test, tuple) else () if self.test is None else (self.test,)


def guard_names() -> list[str]:
    """Return the names of the guards that are shipped."""
    return sorted(path.stem for path in GUARDS.glob("*.yaml"))


def guard_file(name_or_path: str) -> Path:
    """Return the file of a shipped guard by its name, or of another by its path.

    Raises:
        BadInput: There is no such guard and no such file.
    """
    path = Path(name_or_path)
    if path.suffix.lower() in (".yaml", ".yml"):
        return path
    shipped = GUARDS / f"{name_or_path}.yaml"
    if path.name != name_or_path or not shipped.is_file():
        raise BadInput(
            f"no guard {clipped(name_or_path, 60)!r} is shipped, and it is no .yaml file{nearest(name_or_path, guard_names())}"
        )
    return shipped


def load_guard_spec(path: Path) -> GuardSpec:
    """Return the settings in a guard file (YAML).

    Raises:
        BadInput: The file is missing or not UTF-8.
        BadSpec: It is not valid YAML, or a setting in it is not valid.
    """
    values = read_yaml_file(path, "guard file")
    if not isinstance(values, dict):
        raise BadSpec(
            f"guard file {path} must be a mapping with at least `ability_guard: NAME`, `ability` and `test: FILE`"
        )
    return make_guard_spec(values, f"guard file {path}")


def make_guard_spec(values: Mapping[Any, Any], where: str) -> GuardSpec:
    """Return the checked settings of a guard; `where` names their origin in errors.

    Raises:
        BadSpec: A key is unknown (the nearest known one is named), missing, or its value is not valid.
    """
    own = {key for key in GuardSpec.model_fields if key != "task"}
    for key in values:
        if key not in own and key not in TASK_KEYS:
            raise BadSpec(f"{where}: unknown key {quoted(key)}{_hint(str(key), [*own, *TASK_KEYS])}")
    origins = [key for key in ORIGINS if values.get(key) is not None]
    if len(origins) != 1:
        found = " and ".join(f"`{key}`" for key in origins) or "none of them"
        raise BadSpec(f"{where}: a guard has one of `test`, `made` and `harness`, and this file has {found}")
    if isinstance(given := values.get("test"), list):
        values = {**values, "test": tuple(given)}
    try:
        spec = GuardSpec.model_validate(
            {
                **{key: value for key, value in values.items() if key in own},
                "task": {key: value for key, value in values.items() if key in TASK_KEYS},
            }
        )
    except ValidationError as error:
        raise BadSpec(f"{where}: {first_problem(error)}") from None
    counts = spec.items
    line = [counts.learn if counts.learn is not None else counts.quick, counts.quick, counts.standard]
    if any(a > b for a, b in pairwise(line)) or (counts.full != "all" and counts.full < line[-1]):
        raise BadSpec(
            f"{where}: `items` must not fall from learn to quick, standard and full, as each budget has the items of the smaller "
            f"ones; it is {line[0]}, {line[1]}, {line[2]}, {counts.full}"
        )
    if counts.full == 0:
        raise BadSpec(f"{where}: `items` has full: 0, so that no item would ever be scored; give a number, or all")
    return spec


def _hint(key: str, known: list[str]) -> str:
    if key == "train":
        return "; a guard is never trained: its rows are `test`"
    if key in TaskSpec.model_fields:
        return "; that key belongs to tasks that are learned"
    near = get_close_matches(clipped(key, 60), known, n=1)
    return f", did you mean {near[0]}?" if near else f"; known keys are {', '.join(sorted(known))}"
