"""Items of a guard that a task of lm-evaluation-harness computes itself, with its filters and its metric.

Import it where `harness` has checked that the package is there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from perdure.bridges.harness import HarnessTask, load_tasks
from perdure.bridges.harness_task import Loaded, written_row
from perdure.core.errors import BadInput
from perdure.core.rows import Row

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime


@dataclass(frozen=True)
class ScoredTask:
    """A task of which rows can be scored; loading it takes longer than scoring some rows.

    Args:
        metric: Metric of an item.
        filter: Filter of the answers.
        places: The task that has a row and the number of the item in it, by the hash of the row.
    """

    metric: str
    filter: str
    places: Mapping[str, tuple[Loaded, int]]

    @classmethod
    def of(cls, task: HarnessTask, metric: str, filter: str) -> "ScoredTask":
        """Load a task, or the tasks of a group.

        Raises:
            BadInput: As `harness.harness_rows`.
        """
        places: dict[str, tuple[Loaded, int]] = {}
        for part in load_tasks(task):
            part.metric(metric)
            part.filter(filter)
            for number in part.requests:
                places.setdefault(written_row(part, number).hash, (part, number))
        return cls(metric, filter, places)

    def items(
        self, runtime: "Runtime", rows: Sequence[Row], progress: Callable[[int], None] | None = None
    ) -> tuple[list[float], list[str]]:
        """Return the metric of each row, in [0, 1], and the answers after the filter.

        Args:
            runtime: Holds the model.
            rows: Rows of the task.
            progress: Called with the number of rows that are done.

        Raises:
            BadInput: The task has no such item any more, or its metric is no number from 0 to 1.
        """
        from perdure.bridges.harness_lm import RuntimeLM

        lm = RuntimeLM(runtime)
        found: dict[int, tuple[float, str]] = {}
        for part, members in self._by_task(rows):
            copies = {
                place: [replace(request, resps=[], filtered_resps={}) for request in part.requests[number]]
                for place, number in members
            }
            every = [request for own in copies.values() for request in own]
            _answer(lm, every)
            part.task._instances = every
            part.task.apply_filters()
            for place, own in copies.items():
                found[place] = self._item(part, own)
                if progress:
                    progress(len(found))
        return [found[i][0] for i in range(len(rows))], [found[i][1] for i in range(len(rows))]

    def _by_task(self, rows: Sequence[Row]) -> list[tuple[Loaded, list[tuple[int, int]]]]:
        """Return the tasks of some rows, each with (index of the row, number of the item)."""
        members: dict[str, tuple[Loaded, list[tuple[int, int]]]] = {}
        for i, row in enumerate(rows):
            if row.hash not in self.places:
                raise BadInput(
                    f"{row.source or 'a row'} is no item of its task of lm-evaluation-harness any more: the task, its data or "
                    "the package changed since the guard was added; remove the guard and add it again"
                )
            part, number = self.places[row.hash]
            members.setdefault(part.name, (part, []))[1].append((i, number))
        return list(members.values())

    def _item(self, part: Loaded, requests: Sequence[Any]) -> tuple[float, str]:
        answers = [one.filtered_resps[self.filter] for one in requests]
        values = part.task.process_results(requests[0].doc, answers)
        value = float(values[self.metric])
        if not 0 <= value <= 1:
            raise BadInput(
                f"metric {self.metric} of task {part.name} of lm-evaluation-harness is {value:g} for an item, and items of a "
                "guard are from 0 to 1; choose another metric: scorer: {name: harness, metric: ...} in a guard file"
            )
        return value, _text(part, requests, answers)


def _answer(lm: Any, requests: Sequence[Any]) -> None:
    """Give each request the model's response; greedy answers are the same however often a task repeats a request."""
    kinds: dict[str, list[Any]] = {}
    for request in requests:
        kinds.setdefault(request.request_type, []).append(request)
    for kind, own in kinds.items():
        for request, response in zip(own, getattr(lm, kind)(own), strict=True):
            request.resps.extend([response] * (request.repeats or 1))


def _text(part: Loaded, requests: Sequence[Any], answers: Sequence[Any]) -> str:
    """Return what the model answered: the text after the filter, or the most likely choice."""
    if part.task.OUTPUT_TYPE == "generate_until":
        first = answers[0][0] if isinstance(answers[0], list) and answers[0] else answers[0]
        return str(first)
    if part.task.OUTPUT_TYPE == "multiple_choice":
        likely = max(range(len(answers)), key=lambda i: answers[i][0])
        context, text = requests[likely].args[:2]
        return str(context if getattr(part.task, "multiple_input", 0) else text).strip()
    return ""
