"""Rows of a suite's tasks that training would cut, left out before rows are drawn."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.settings import Settings
from perdure.data.encode import encode
from perdure.data.load import load_probe, read_again
from perdure.workflows.bench.records import LeftOut
from perdure.workflows.bench.rows import RowFields, rows_of
from perdure.workflows.bench.suite import Suite, SuiteTask


def max_length_of(suite: Suite) -> int:
    """Return the most tokens of a row of a suite: those of its settings, or of a recipe that names none.

    An arm may set another `max_length`; the rows stay those of the suite.
    """
    return int(suite.settings.get("max_length", Settings.model_fields["max_length"].default))


@dataclass(frozen=True)
class WholeRows:
    """Draws the rows of tasks from those that training need not cut.

    Args:
        tokenizer: The model's tokenizer.
        max_length: Most tokens of a row, the end of its answer included.
        scratch: Folder for the rows that are read with the settings of a task.
    """

    tokenizer: Any
    max_length: int
    scratch: Path

    def rows_of(self, task: SuiteTask, folder: Path, seed: int) -> tuple[list[RowFields], LeftOut]:
        """Return the rows of a task as `rows.rows_of` does, and how many were left out before the draw.

        Raises:
            BadInput: The file is missing or broken, or no row is left for a part.

        Cost: every row of both parts is made into tokens once.
        """
        counts: dict[str, int] = {}

        def narrow(rows: Sequence[RowFields], part: str) -> list[RowFields]:
            left = [row for row, whole in zip(rows, self._whole(rows, task), strict=True) if whole]
            if rows and not left:
                raise BadInput(
                    f"{task.name}: each of the {len(rows)} {part} rows of {task.file} is longer than max_length, "
                    f"{self.max_length} tokens; raise it in the settings of the suite"
                )
            counts.update({part: len(rows) - len(left), f"{part}_of": len(rows)})
            return left

        return rows_of(task, folder, seed, narrow), LeftOut(**counts)

    def _whole(self, rows: Sequence[RowFields], task: SuiteTask) -> list[bool]:
        """Return of each row whether it fits, read as the task reads it."""
        if not rows:
            return []
        file = self.scratch / f"{task.name} candidates.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        read = read_again(load_probe(task.name, file, task.task), file)
        file.unlink()
        return [not encode(row, self.tokenizer, self.max_length).cut for row in read]
