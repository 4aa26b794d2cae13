"""The request of a learn, before anything is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perdure.core.recipe import Recipe
from perdure.data.sources import Data, SourceRows
from perdure.ledger import Ledger
from perdure.ledger.records import Gate


@dataclass(frozen=True)
class Request:
    """A learn as the user requests it.

    Args:
        name: Name of the task.
        data: The data (see `data.sources`), or a task file (YAML).
        recipe: How it is learned.
        test: Data with the test rows.
        settings: Settings that override those of a task file.
        allow_leaks: Allow test rows in train parts.
        rows: Files with the rows of older tasks whose text is not stored, by task, for a recipe that trains on them again.
        selected: The rows of the data to learn; None reads all of them.
        gate: The rule by which it will be judged, which decides how many test rows are enough; None for none.
    """

    name: str
    data: Data
    recipe: Recipe
    test: Data | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    allow_leaks: bool = False
    rows: Mapping[str, Sequence[Data]] = field(default_factory=dict)
    selected: SourceRows | None = None
    gate: Gate | None = field(default_factory=Gate)

    def named(self, ledger: Ledger) -> "Request":
        """Return the request with the names under which its tasks were learned, in the place of aliases."""
        name_of, settings = ledger.task_name, dict(self.settings)
        if isinstance(given := settings.get("name"), str):
            settings["name"] = name_of(given)
        rows = {name_of(name): files for name, files in self.rows.items()}
        gate = self.gate and gate_of(ledger, self.gate)
        return replace(self, name=name_of(self.name), settings=settings, rows=rows, gate=gate)


def gate_of(ledger: Ledger, gate: Gate) -> Gate:
    """Return a gate whose tolerances have the names under which the tasks were learned, in the place of aliases."""
    return replace(gate, tolerances={ledger.task_name(name): value for name, value in gate.tolerances.items()})
