"""The runs of a benchmark: what each is of, and the file that holds its result."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from perdure.core.canonical import canonical_json, content_hash
from perdure.core.errors import BadSpec
from perdure.core.plain_yaml import read_yaml
from perdure.core.records import BadRecord, JsonObject
from perdure.workflows.bench.kept import KeptPlace
from perdure.workflows.bench.records import FailedRun, FinishedRun, Run, RunName
from perdure.workflows.bench.suite import Suite


@dataclass(frozen=True)
class Arm:
    """What is compared: a recipe with settings changed, under a label.

    Args:
        label: What tables call it.
        written: The recipe as its file and the changes write it, without defaults.
        recipe: The recipe whole, as `Recipe.to_json` gives it.
    """

    label: str
    written: JsonObject
    recipe: JsonObject


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

    @cached_property
    def learned(self) -> str:
        """Identity of what is learned, whatever the guards."""
        return content_hash([self.suite.learned, self.arm.written, self.seed])

    @property
    def name(self) -> RunName:
        """Names the run among those of a call."""
        return RunName(self.arm.label, self.seed)

    def path(self, out: Path) -> Path:
        """Return where its result is kept."""
        return out / self.suite.name / f"{self._file}.json"

    def place(self, keep: Path) -> KeptPlace:
        """Return where its workspace is kept, in a folder that suites with the same tasks share."""
        return KeptPlace(keep / self.suite.learned[:12] / self._file, self.learned)

    @property
    def _file(self) -> str:
        label = re.sub(r"[^\w.+=,-]+", "_", self.arm.label)
        return f"{label}-{self.seed}"

    def finished(self, result: Run | None) -> bool:
        """Return whether `result` is one of this very run.

        What was written must be the same, and so must what came of it, but for settings that did not exist then: a
        new one is at its default here, or it would have been written.
        """
        return isinstance(result, FinishedRun) and result.key == self.key and _agrees(result.recipe, self.arm.recipe)


def read_arm(text: str, settings: Mapping[str, object] | None = None) -> Arm:
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


def read_result(path: Path) -> Run | None:
    """Return the result in a run's file; None if there is no file, or it is not a result."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        failed = isinstance(found, dict) and bool(found.get("error"))
        return FailedRun.from_json(found) if failed else FinishedRun.from_json(found)
    except (OSError, ValueError, BadRecord):
        return None


def results(suite: Suite, out: Path) -> tuple[list[Run], int]:
    """Return the results of a suite as it is now, failed runs among them, and the number of other files.

    The others are results of another version of the suite, or cannot be read.
    """
    found = [read_result(path) for path in sorted((out / suite.name).glob("*.json"))]
    own = [result for result in found if result is not None and result.suite_hash == suite.hash]
    return own, len(found) - len(own)


def _agrees(then: Any, now: Any) -> bool:
    """Return whether `now` has everything in `then`; it may have more."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(key in now and _agrees(value, now[key]) for key, value in then.items())
    return bool(then == now)


def _plain(value: Mapping[str, object]) -> JsonObject:
    """Return `value` as a JSON file gives it back."""
    plain: JsonObject = json.loads(canonical_json(value))
    return plain
