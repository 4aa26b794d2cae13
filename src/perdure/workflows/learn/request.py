"""What a learn is asked to do, before anything is read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perdure.core.recipe import Recipe
from perdure.data.read import Record


@dataclass(frozen=True)
class Request:
    """A learn as the user asks for it.

    Args:
        name: Name of the task.
        data: Data file, or task file (YAML).
        recipe: How it is learned.
        test: Data file with the test rows.
        settings: Settings that stand above those of a task file.
        allow_leaks: Let test rows stand in train parts.
        rows: Files with the rows of older tasks whose text is not kept, by task, for a recipe that trains on them again.
        records: The rows of the data file to learn; None takes all.
    """

    name: str
    data: Path
    recipe: Recipe
    test: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    allow_leaks: bool = False
    rows: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    records: Sequence[Record] | None = None
