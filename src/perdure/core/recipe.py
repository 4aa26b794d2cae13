"""A recipe: training settings plus a set of methods, checked when it is built."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from perdure.core.errors import BadSpec, Conflict
from perdure.core.fields import LARGEST, MANY
from perdure.core.seams import EXCLUSIVE, NEEDS, Column, Method, Support
from perdure.core.values import as_number, shown


class Settings(BaseModel):
    """Training settings, under the names Hugging Face and TRL use."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    learning_rate: float = Field(1e-3, gt=0, le=100, description="peak learning rate of AdamW")
    num_train_epochs: int = Field(3, ge=1, le=100_000, description="passes over the new rows")
    per_device_train_batch_size: int = Field(
        16, ge=1, le=65_536, description="new rows a micro-batch; replayed rows come on top"
    )
    gradient_accumulation_steps: int = Field(1, ge=1, le=65_536, description="micro-batches an update")
    max_grad_norm: float = Field(1.0, ge=0, le=LARGEST, description="clip the gradient to this norm; 0 does not clip")
    weight_decay: float = Field(0.0, ge=0, le=100, description="AdamW's decoupled weight decay")
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = Field("linear", description="decay after warm-up")
    warmup_steps: float = Field(0.0, ge=0, le=MANY, description="updates of warm-up; below 1 a share of all updates")
    label_smoothing_factor: float = Field(0.0, ge=0, lt=1, description="label smoothing of the task loss")
    max_length: int = Field(
        512,
        ge=8,
        le=MANY,
        description="tokens a row; longer prompts lose their start. The default is lowered to the positions that a model has; "
        "another value beyond them is an error",
    )
    train: Literal["lora", "full"] = Field("lora", description="train a LoRA adapter, or every weight in float32")
    lora_r: int = Field(8, ge=1, le=65_536, description="LoRA rank, at most the width of the model")
    lora_alpha: float = Field(16.0, gt=0, le=1e6, description="LoRA scale is lora_alpha / lora_r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before LoRA's down-projection")
    lora_target_modules: str | list[str] = Field("all-linear", description="modules that get an adapter")
    keep: Literal["last", "best"] = Field(
        "last",
        description="weights of the last epoch, or the best on validation rows: of those after each epoch, and of what a method "
        "that settles (tail_average, ema, wise_ft) makes of the last",
    )
    validation_share: float = Field(0.1, gt=0, lt=0.5, description="share of train rows held out when keep is best")
    memory_per_label: int = Field(
        2, ge=0, le=MANY, description="rows stored of each label, for methods that draw from memory"
    )
    memory_per_task: int = Field(100, ge=0, le=MANY, description="rows stored of a task without labels")
    memory_size: int = Field(
        5000, ge=0, le=MANY, description="rows in memory, in all; the largest groups give way first"
    )
    data: Literal["task", "all"] = Field("task", description="train on the new task, or on all kept tasks together")
    start: Literal["head", "base"] = Field("head", description="go on from head, or start again from the base model")
    host: Literal["transformers", "loop"] = Field("transformers", description="what runs the training loop")
    logging_steps: int = Field(10, ge=1, le=LARGEST, description="updates between loss records and heartbeats")
    report_to: str | list[str] = Field(
        "none",
        description="experiment trackers by the names of transformers, with commas between them; none, or all that "
        "are installed",
    )

    @property
    def trackers(self) -> list[str]:
        """Names of the trackers; empty for none."""
        named = self.report_to.split(",") if isinstance(self.report_to, str) else self.report_to
        return [name for one in named if (name := one.strip()) != "none"]

    @field_validator("report_to")
    @classmethod
    def _trackers(cls, value: str | list[str]) -> str | list[str]:
        named = [one.strip() for one in (value.split(",") if isinstance(value, str) else value)]
        if not all(named):
            raise ValueError("name each tracker, or write none")
        if len(named) > 1 and (alone := {"none", "all"} & set(named)):
            raise ValueError(f"{min(alone)} stands alone, or not at all")
        return value

    @field_validator("lora_target_modules")
    @classmethod
    def _some_modules(cls, value: str | list[str]) -> str | list[str]:
        if not value or not all(name.strip() for name in ([value] if isinstance(value, str) else value)):
            raise ValueError("name each module, or write all-linear")
        return value

    @model_validator(mode="after")
    def _tracked(self) -> "Settings":
        if self.host == "loop" and self.trackers:
            raise ValueError("host: loop reports to no tracker; set report_to: none, or host: transformers")
        return self


@dataclass(frozen=True)
class Recipe:
    """Settings and active methods, sorted by name. Build one with `build_recipe`."""

    name: str
    settings: Settings
    methods: tuple[Method, ...]

    def owners(self, seam: str) -> list[Method]:
        """Return the methods that fill `seam`, in name order."""
        return [method for method in self.methods if seam in method.seams]

    def owner(self, seam: str) -> Method | None:
        """Return the one method that owns an exclusive seam, or None."""
        return next(iter(self.owners(seam)), None)

    def needs(self, what: str) -> list[str]:
        """Return the names of the methods that need `what` from the host (see `seams.NEEDS`)."""
        return [method.name for method in self.methods if what in method.needs]

    def refusing(self, what: Support) -> list[str]:
        """Return the names of the methods that do not support `what` (see `seams.SUPPORTS`)."""
        return [method.name for method in self.methods if what not in method.supports]

    def columns(self, of: str) -> list[Column]:
        """Return the columns that methods want for the rows `of`; one a name, with the largest top_k wanted."""
        wanted: dict[str, Column] = {}
        for column in (c for method in self.methods for c in method.columns if c.of == of):
            known = wanted.get(column.name, column)
            if known.teacher != column.teacher:
                raise Conflict(
                    f"two methods want column {column.name!r} from {known.teacher} and from {column.teacher}; drop one"
                )
            refresh = known.refresh or column.refresh
            wanted[column.name] = replace(column, top_k=max(known.top_k, column.top_k), refresh=refresh)
        return [wanted[name] for name in sorted(wanted)]

    @property
    def remembers(self) -> bool:
        """Whether rows of the task are stored for later ones: a method ranks them, or one draws a `mix` of replay memory."""
        return bool(self.owners("admit")) or any(method.mix > 0 for method in self.drawing_from("replay"))

    @property
    def drawing(self) -> list[Method]:
        """The methods that draw rows as they are set: all owners of `draw` but those that act on new rows alone."""
        return [method for method in self.owners("draw") if method.pool is not None]

    def drawing_from(self, pool: str) -> list[Method]:
        """Return the methods that draw rows from a memory pool."""
        return [method for method in self.drawing if method.pool == pool]

    @property
    def starved(self) -> list[str]:
        """Names of the methods that act on rows of memory alone, request none, and have no other method to share with."""
        waiting = [m.name for m in self.methods if m.memory_only and not m.mix]
        return [] if self.remembers else waiting

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as the plain JSON from which `build_recipe` makes an equal one."""
        return {
            "name": self.name,
            **self.settings.model_dump(mode="json"),
            "methods": {method.name: method.to_json() for method in self.methods},
        }


def build_recipe(spec: Mapping[str, Any], registry: Mapping[str, type[Method]]) -> Recipe:
    """Return the recipe that `spec` describes: settings by name, and `methods:` as a mapping of name to fields.

    A method that maps to null is left out.

    Raises:
        BadSpec: An unknown key or method (with the nearest known one), or a value out of range.
        Conflict: Two methods own one exclusive seam, or a method does not support a setting.
    """
    spec = dict(spec)
    name = spec.pop("name", "custom")
    if not isinstance(name, str) or not name:
        raise BadSpec(f"a recipe's name is a text, got {shown(name)}; put quotes around it")
    wanted = spec.pop("methods", None)
    if not isinstance(wanted, Mapping | None):
        raise BadSpec(f"recipe {name}: 'methods' must map each method's name to its fields, got {shown(wanted)}")
    for key in spec:
        if key not in Settings.model_fields:
            raise BadSpec(
                f"recipe {name}: unknown key {key!r}{nearest(key, [*Settings.model_fields, 'methods', 'name'])}"
            )
    kinds = {key: field.annotation for key, field in Settings.model_fields.items()}
    try:
        settings = Settings(**_with_numbers(spec, kinds, f"recipe {name}"))
    except ValidationError as error:
        raise BadSpec(f"recipe {name}: {first_problem(error)}") from None
    fields = {key: value for key, value in (wanted or {}).items() if _wanted(key, value, registry)}
    built = [_build_method(key, value, registry) for key, value in fields.items()]
    return without_conflicts(
        Recipe(name, settings, tuple(sorted((m for m in built if m.active), key=lambda m: m.name)))
    )


def without_conflicts(recipe: Recipe) -> Recipe:
    """Return the recipe, if none of its methods excludes another one or a setting.

    Raises:
        Conflict: With their names.
    """
    for seam in EXCLUSIVE:
        owners = [method.name for method in recipe.owners(seam)]
        if len(owners) > 1:
            raise Conflict(f"the seam '{seam}' has room for one method, got {owners}; drop all but one")
    following = recipe.needs("task_grad")
    if recipe.settings.keep == "best" and following:
        raise Conflict(
            f"keep: best goes back to an earlier epoch, and {following[0]} measures the whole way to the last; set keep: last, "
            f"or drop {following[0]}"
        )
    refusing = recipe.refusing("accumulation")
    if recipe.settings.gradient_accumulation_steps > 1 and refusing:
        raise Conflict(
            f"method {refusing[0]} does not support gradient accumulation; set gradient_accumulation_steps: 1, or drop "
            f"{refusing[0]}"
        )
    for of in ("new", "replay", "general"):
        recipe.columns(of)
    return recipe


def nearest(word: str, known: list[str]) -> str:
    """Return "; did you mean 'x'?" for the known word closest to `word`, or the list of known words."""
    close = difflib.get_close_matches(str(word), known, n=1)  # a key of YAML may be a number
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a pydantic error in words: where, what, and the value given."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    reason = problem["msg"].removeprefix("Value error, ")
    if not where:  # of the whole, whose parts the message names
        return reason
    given = problem.get("input")
    return f"{where}: {reason}, got {'null; leave it out for its default' if given is None else shown(given)}"


def _wanted(name: Any, fields: Any, registry: Mapping[str, type[Method]]) -> bool:
    """Return whether a method is wanted: null takes it out. What is neither null nor a mapping is refused.

    Raises:
        BadSpec: No method has this name, or its value is not a mapping.
    """
    if name not in registry:
        raise BadSpec(f"unknown method {name!r}{nearest(name, list(registry))}")
    if not isinstance(fields, Mapping | None):
        raise BadSpec(
            f"methods.{name} must be a mapping of its fields, got {shown(fields)}; write null to take the method out, {{}} for "
            f"its defaults, or set a field, as methods.{name}.{_first_field(registry[name])}"
        )
    return fields is not None


def _first_field(method: type[Method]) -> str:
    return next((field.name for field in fields_of(method)), "FIELD")


def _build_method(name: str, fields: Mapping[str, Any], registry: Mapping[str, type[Method]]) -> Method:
    known = [field.name for field in fields_of(registry[name])]
    for key in fields:
        if key not in known:
            raise BadSpec(f"method {name}: unknown field {key!r}{nearest(key, known)}")
    numbers = _with_numbers(fields, get_type_hints(registry[name]), f"method {name}")
    try:
        method = TypeAdapter(registry[name]).validate_python(numbers)  # types and choices, as in Settings
    except ValidationError as error:
        raise BadSpec(f"method {name}: {first_problem(error)}") from None
    if unknown := sorted(set(method.needs) - NEEDS.keys()):
        raise BadSpec(f"method {name} needs {unknown}; a host provides {', '.join(NEEDS)}")
    return method


def _with_numbers(values: Mapping[str, Any], kinds: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return values in which whatever stands for a number is one, and 1e-4 too, which YAML 1.1 reads as a text.

    Raises:
        BadSpec: It is a truth value or another text.
    """
    return {key: as_number(value, kinds.get(key), f"{where}: {key}") for key, value in values.items()}
