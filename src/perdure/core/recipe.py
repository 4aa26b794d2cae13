"""A recipe: training settings plus a set of methods, checked when it is built."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from perdure.core.errors import BadSpec, Conflict
from perdure.core.optimizers import BY_METRIC, OPTIMIZERS, what_it_couples, why_refused
from perdure.core.plan import AdapterPlan, Bare, over_initial, shared_plan
from perdure.core.seams import EXCLUSIVE, NEEDS, Column, Method, State, Support
from perdure.core.settings import REJECTED, Settings
from perdure.core.values import as_number, shown


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
        """Return the columns that methods request for the rows `of`, one per name, with the largest top_k."""
        wanted: dict[str, Column] = {}
        for column in (c for method in self.methods for c in method.columns if c.of == of):
            known = wanted.get(column.name, column)
            if known.teacher != column.teacher:
                raise Conflict(
                    f"two methods want column {column.name!r} from {known.teacher} and from {column.teacher}; drop one"
                )
            wanted[column.name] = replace(
                column,
                top_k=max(known.top_k, column.top_k),
                refresh=known.refresh or column.refresh,
                labels=known.labels or column.labels,
            )
        return [wanted[name] for name in sorted(wanted)]

    def adapter_plan(self, bare: Bare, states: Mapping[str, State]) -> AdapterPlan:
        """Return the plan of a task's adapter: the owner of `adapter` decides; without one, the shared adapter.

        Args:
            bare: The model before the task has parameters.
            states: The result of `measure` after the last task, by method.
        """
        owner = self.owner("adapter")
        plan = shared_plan(bare) if owner is None else owner.adapter(bare, states.get(owner.name, {}))
        return over_initial(plan, bare)

    @property
    def trains(self) -> bool:
        """Whether weights are trained; else a method reads the untrained model, and answers from what it measured."""
        return self.settings.train != "none"

    @property
    def remembers(self) -> bool:
        """Whether rows of the task are stored for later ones: a method ranks them, or one draws a `mix` of replay memory."""
        return bool(self.owners("admit")) or any(method.mix > 0 for method in self.drawing_from("replay"))

    @property
    def drawing(self) -> list[Method]:
        """The methods that draw rows under their settings: all owners of `draw` except those that act only on new rows."""
        return [method for method in self.owners("draw") if method.pool is not None]

    def drawing_from(self, pool: str) -> list[Method]:
        """Return the methods that draw rows from a memory pool."""
        return [method for method in self.drawing if method.pool == pool]

    @property
    def starved(self) -> list[str]:
        """Names of methods that act only on rows from memory, but request none and share no other method's draw."""
        waiting = [m.name for m in self.methods if m.memory_only and not m.mix]
        return [] if self.remembers else waiting

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as the plain JSON from which `build_recipe` makes an equal one."""
        return {
            "name": self.name,
            **self.settings.to_json(),
            "methods": {method.name: method.to_json() for method in self.methods},
        }


def build_recipe(spec: Mapping[str, Any], registry: Mapping[str, type[Method]]) -> Recipe:
    """Return the recipe that `spec` describes: settings by name, and `methods:` as a mapping of name to fields.

    A method with the value null is left out.

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
        if key in REJECTED and spec[key]:
            raise BadSpec(f"recipe {name}: {key} is not supported: {REJECTED[key]}")
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
        Conflict: They do; the message has their names.
    """
    for seam in EXCLUSIVE:
        owners = [method.name for method in recipe.owners(seam)]
        if len(owners) > 1:
            raise Conflict(f"the seam '{seam}' has room for one method, got {owners}; drop all but one")
    _check_optimizer(recipe)
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
    _check_adapter(recipe)
    _check_untrained(recipe)
    for of in ("new", "replay", "general"):
        recipe.columns(of)
    return recipe


def _check_optimizer(recipe: Recipe) -> None:
    """Refuse an optimizer or a schedule that no recipe, or not this one, can be trained with.

    Raises:
        BadSpec: Transformers has no optimizer of this name.
        Conflict: With the reason.
    """
    optim, schedule = recipe.settings.optim, recipe.settings.lr_scheduler_type
    if optim not in OPTIMIZERS:
        raise BadSpec(f"recipe {recipe.name}: optim is {shown(optim)}{nearest(optim, list(OPTIMIZERS))}")
    if why := why_refused(optim):
        raise Conflict(f"no recipe can be trained with optim: {optim}: {why}")
    if schedule in BY_METRIC:
        raise Conflict(
            f"lr_scheduler_type: {schedule} goes by a metric that Trainer evaluates, which a recipe does not; choose another, "
            "with keep: best and early_stopping_patience if training is to end by itself"
        )
    projecting = [method.name for method in (*recipe.owners("mask"), *recipe.owners("gradient"))]
    if projecting and (what := what_it_couples(optim)):
        raise Conflict(
            f"{projecting[0]} projects the gradient, and optim: {optim} {what}, which brings back what was projected out; set "
            f"optim: adamw_torch or sgd, or drop {projecting[0]}"
        )


def _check_adapter(recipe: Recipe) -> None:
    """Refuse settings and methods that conflict with the owner of `adapter`, or need the base model as it is.

    Raises:
        Conflict: There is a conflict; the message has the names.
    """
    measuring = [method.name for method in recipe.methods if method.slot]
    if measuring and recipe.settings.train == "full":
        raise Conflict(
            f"{measuring[0]} measures the base model, and train: full trains every weight of it; use train: lora, or drop "
            f"{measuring[0]}"
        )
    if measuring and recipe.settings.data == "all":
        raise Conflict(
            f"{measuring[0]} measures the rows of one task, and data: all trains on those of every task; drop {measuring[0]}"
        )
    owner = recipe.owner("adapter")
    if owner is None:
        return
    if recipe.settings.train == "full":
        raise Conflict(
            f"train: full trains every weight, and {owner.name} plans the adapter that trains; drop one of them"
        )
    anchored = [method.name for method in recipe.methods if method.anchors]
    if anchored and not owner.carries:
        raise Conflict(
            f"{anchored[0]} protects the parameters of the tasks before, and {owner.name} does not go on with these; drop one of "
            "them"
        )


OF_UPDATES = ("max_steps", "keep", "eval_steps", "early_stopping_patience", "data", "start", "report_to")
"""Settings that decide what updates do, and that `train: none` leaves without a meaning."""


def _check_untrained(recipe: Recipe) -> None:
    """Refuse methods and settings that do not go with training nothing, or with training.

    Raises:
        Conflict: There is such a one; the message has its name.
    """
    settings = recipe.settings
    answering = [method.name for method in recipe.methods if method.answers]
    if recipe.trains:
        if answering:
            raise Conflict(
                f"{answering[0]} answers from the untrained model, and train: {settings.train} trains what no answer would use; "
                f"set train: none, or drop {answering[0]}"
            )
        return
    if not answering:
        raise Conflict(
            f"recipe {recipe.name} has train: none and no method that answers from the untrained model; add slda, or set "
            "train: lora"
        )
    if others := [method.name for method in recipe.methods if method.name not in answering[:1]]:
        raise Conflict(f"train: none trains nothing, and {answering[0]} alone answers; drop {', '.join(others)}")
    for key in OF_UPDATES:
        if (value := getattr(settings, key)) != Settings.model_fields[key].default:
            raise Conflict(f"train: none makes no update, which {key}: {value} is about; leave {key} out")


def nearest(word: str, known: list[str]) -> str:
    """Return "; did you mean 'x'?" for the known word closest to `word`, or the list of known words."""
    close = difflib.get_close_matches(str(word), known, n=1)  # a key of YAML may be a number
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(sorted(known))}"


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a pydantic error as text: the place, the problem, and the value."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    reason = problem["msg"].removeprefix("Value error, ")
    if not where:  # about the whole value, whose parts the message names
        return reason
    given = problem.get("input")
    return f"{where}: {reason}, got {'null; leave it out for its default' if given is None else shown(given)}"


def _wanted(name: Any, fields: Any, registry: Mapping[str, type[Method]]) -> bool:
    """Return whether a method is active: null removes it. A value that is neither null nor a mapping is refused.

    Raises:
        BadSpec: No method has this name, or its value is not a mapping.
    """
    if name not in registry:
        raise BadSpec(f"unknown method {name!r}{nearest(name, list(registry))}")
    if not isinstance(fields, Mapping | None):
        raise BadSpec(
            f"methods.{name} must be a mapping of its fields, got {shown(fields)}; write null to remove the method, {{}} for "
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
    """Return the values with texts that are numbers converted to numbers, since YAML 1.1 reads 1e-4 as a text.

    Raises:
        BadSpec: It is a truth value or another text.
    """
    return {key: as_number(value, kinds.get(key), f"{where}: {key}") for key, value in values.items()}
