"""The runs of a benchmark: what each is of, and the file that holds its result."""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from perdure.core.canonical import canonical_json, content_hash
from perdure.core.errors import BadSpec
from perdure.core.plain_yaml import read_yaml
from perdure.workflows.bench.suite import Suite

Json = dict[str, Any]
Name = tuple[str, int]  # an arm's label and a seed


@dataclass(frozen=True)
class Arm:
    """What is compared: a recipe with settings changed, under a label.

    Args:
        label: What tables call it.
        written: The recipe as its file and the changes write it, without defaults.
        recipe: The recipe whole, as `Recipe.to_json` gives it.
    """

    label: str
    written: Json
    recipe: Json


@dataclass(frozen=True)
class Job:
    """One run that is wanted.

    Args:
        suite: What is learned.
        arm: How.
        seed: Of the rows and of everything random.
    """

    suite: Suite
    arm: Arm
    seed: int

    @cached_property
    def key(self) -> str:
        """Identity of suite, recipe as written, and seed."""
        return content_hash([self.suite.hash, self.arm.written, self.seed])

    @property
    def name(self) -> Name:
        """What tells it from the other runs of a call."""
        return self.arm.label, self.seed

    @property
    def told(self) -> Json:
        """The same for people and tools."""
        return {"arm": self.arm.label, "seed": self.seed}

    def path(self, out: Path) -> Path:
        """Return where its result is kept."""
        name = re.sub(r"[^\w.+=,-]+", "_", self.arm.label)
        return out / self.suite.name / f"{name}-{self.seed}.json"

    def finished(self, result: Json | None) -> bool:
        """Say whether `result` is one of this very run.

        What was written must be the same, and so must what came of it, but for settings that did not exist then: a
        new one is at its default here, or it would have been written.
        """
        if result is None or result.get("error") or result.get("key") != self.key:
            return False
        return _agrees(result["recipe"], self.arm.recipe)


def read_arm(text: str, settings: Json | None = None) -> Arm:
    """Return the arm that a word of the command line names: [LABEL=]RECIPE[:KEY=VALUE,KEY=VALUE...].

    Args:
        text: RECIPE is a name or a YAML file, keys are dotted as with `learn --set`, values are YAML.
        settings: Of the suite; they stand above the recipe's and below those in `text`.

    Raises:
        BadInput: No such recipe.
        BadSpec: It cannot be read, or makes no valid recipe.
    """
    from perdure.bridges.trackers import refuse_missing
    from perdure.core.recipe import build_recipe
    from perdure.methods.registry import all_methods, recipe_spec

    before, _, changes = text.partition(":")
    label, named, name = before.rpartition("=")
    pairs = [pair.partition("=") for pair in re.split(r",(?=[\w.]+=)", changes) if pair]
    if wrong := [key for key, equals, value in pairs if not (key and equals and value.strip())]:
        raise BadSpec(f"arm {text!r}: {wrong[0]!r} is no KEY=VALUE; write RECIPE:KEY=VALUE,KEY=VALUE")
    if len({key for key, _, _ in pairs}) < len(pairs):
        raise BadSpec(f"arm {text!r} sets a key twice; set it once")
    try:
        overrides = {key: read_yaml(value) for key, _, value in pairs}
    except (yaml.YAMLError, ValueError) as error:
        raise BadSpec(f"arm {text!r}: a value is no YAML: {error}") from None
    written = recipe_spec(name, {**(settings or {}), **overrides})
    built = build_recipe(written, all_methods())
    refuse_missing(built.settings.trackers)
    recipe = built.to_json()
    stem = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    return Arm(label if named else f"{stem}:{changes}" if changes else stem, _plain(written), _plain(recipe))


def read_result(path: Path) -> Json | None:
    """Return a run's result file, None where there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def results(suite: Suite, out: Path) -> tuple[list[Json], int]:
    """Return the results of a suite as it is now, failed runs among them, and how many files are of another version of it."""
    found = [read_result(path) for path in sorted((out / suite.name).glob("*.json"))]
    own = [result for result in found if result and result.get("suite_hash") == suite.hash]
    return own, len(found) - len(own)


def _agrees(then: Any, now: Any) -> bool:
    """Say whether everything in `then` stands in `now` too; what is new in `now` is not asked."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(key in now and _agrees(value, now[key]) for key, value in then.items())
    return bool(then == now)


def _plain(value: Json) -> Json:
    """Return `value` as it comes back from a JSON file."""
    plain: Json = json.loads(canonical_json(value))
    return plain
