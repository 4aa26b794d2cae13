"""The verbs that learn tasks and decide on a candidate."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from perdure.core.defaults import DEFAULT_RECIPE
from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.core.recipe import Recipe
from perdure.data.sources import Data
from perdure.ledger import Entry
from perdure.ledger.records import Gate
from perdure.workflows import upkeep
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.guards.attach import Mode
from perdure.workflows.learn.knowledge import Knowledge, KnowledgeResult, learn_knowledge, plan_knowledge
from perdure.workflows.learn.learn import learn
from perdure.workflows.learn.plan import Plan, plan
from perdure.workflows.learn.record import LearnResult
from perdure.workflows.learn.repair import By
from perdure.workflows.learn.repair import repair as scale_down
from perdure.workflows.learn.request import Request
from perdure.workflows.merge.drop import drop_merged
from perdure.workflows.merge.merge import merge
from perdure.workflows.merge.outcome import MergeResult
from perdure.workflows.merge.request import How, MergeRequest, refuse_without_rank
from perdure.workspace.opened import AnyPath, Opened

AnyData = AnyPath | Sequence[AnyPath]
AnyRecipe = str | os.PathLike[str] | Mapping[str, Any] | Recipe
RowFiles = Mapping[str, Path | str | Sequence[Path | str]]


class LearnVerbs(Opened):
    """Learn tasks."""

    def plan(
        self,
        task: str,
        data: AnyData,
        *,
        recipe: AnyRecipe = DEFAULT_RECIPE,
        overrides: Mapping[str, Any] | None = None,
        test: AnyData | None = None,
        settings: Mapping[str, Any] | None = None,
        allow_leaks: bool = False,
        rows: RowFiles | None = None,
        gate: Gate | None = Gate(),
        tick: Tick | None = None,
    ) -> Plan:
        """Check a learn without doing it; for the arguments see `learn`."""
        given = _request(task, data, _recipe(recipe, overrides), test, settings, allow_leaks, rows)
        return plan(self.session, replace(given, gate=gate), tick)

    def plan_knowledge(
        self,
        task: str,
        data: AnyData,
        *,
        recipe: AnyRecipe = DEFAULT_RECIPE,
        overrides: Mapping[str, Any] | None = None,
        test: AnyData | None = None,
        settings: Mapping[str, Any] | None = None,
        allow_leaks: bool = False,
        rows: RowFiles | None = None,
        gate: Gate | None = Gate(),
    ) -> Knowledge:
        """Route the rows of a file to editing and training without doing either; for the arguments see `learn`."""
        given = _request(task, data, _recipe(recipe, overrides), test, settings, allow_leaks, rows)
        return plan_knowledge(self.session, replace(given, gate=gate))

    def learn(
        self,
        task: str,
        data: AnyData,
        *,
        recipe: AnyRecipe = DEFAULT_RECIPE,
        overrides: Mapping[str, Any] | None = None,
        test: AnyData | None = None,
        settings: Mapping[str, Any] | None = None,
        allow_leaks: bool = False,
        rows: RowFiles | None = None,
        gate: Gate | None = Gate(),
        kind: Literal["task", "knowledge"] = "task",
        repair: bool | By = False,
        tick: Tick | None = None,
        message: str | None = None,
        guards: Mode | None = None,
    ) -> LearnResult | KnowledgeResult:
        """Learn a task and record an entry.

        Args:
            task: Its name; a known name is updated with more data.
            data: Data file, folder, `hub:ORG/NAME[:CONFIG][@REVISION]`, several of them, or a task file (YAML).
            recipe: Name, path, mapping or `Recipe`.
            overrides: Dotted recipe keys to values, as `--set`, in whatever `recipe` is.
            test: The same with the test rows.
            settings: Settings that override those of a task file.
            allow_leaks: Allow test rows that are also in a train part.
            rows: Files with the rows of older tasks whose text is not stored, by task, for a recipe that trains on them again.
            gate: What may not be lost; None records whatever comes, of facts too.
            kind: "knowledge" edits the rows that are facts, and trains the others; see `workflows.learn.knowledge`.
            repair: Where the gate fails, scale the update down until it does not, or its intruder directions alone with
                "intruders"; see `workflows.learn.repair`.
            tick: Called with (what, done, total) as work goes on.
            message: What to note with the entry, in addition to its author; `log` lists both.
            guards: What a guard that fell does: "warn", "enforce" to refuse the entry, or "none" to score no guard; None takes
                what the gate, else what the workspace says. Without a gate no guard is scored.

        Returns:
            What came of it: a `KnowledgeResult` for the kind "knowledge".

        Raises:
            PerdureError: See `workflows.learn.learn`; ledger and memory are then as they were.
        """
        if kind not in ("task", "knowledge"):
            raise BadInput(f"kind is {kind!r}; it is task (train all rows) or knowledge (edit those that are facts)")
        given = _request(task, data, _recipe(recipe, overrides), test, settings, allow_leaks, rows)
        given = replace(given, gate=gate)
        if kind == "task":
            result = learn(
                self.session, plan(self.session, given), gate=gate, tick=tick, message=message, guards=guards
            )
            by: By = "scale" if isinstance(repair, bool) else repair
            return self.repair(by, tick=tick, message=message) if repair and result.gate.verdict == "fail" else result
        if repair:
            raise BadInput("repair scales the update of a trained task; it does not work with the kind knowledge")
        known, edit_gate = plan_knowledge(self.session, given), EditGate() if gate else None
        return learn_knowledge(
            self.session, known, gate=gate, edit_gate=edit_gate, tick=tick, message=message, guards=guards
        )

    def repair(self, by: By = "scale", *, tick: Tick | None = None, message: str | None = None) -> LearnResult:
        """Scale the update of the waiting candidate down until its gate does not refuse it; see `workflows.learn.repair`.

        Args:
            by: "scale" scales the whole update, "intruders" the directions alone that are new among the leading ones of a weight.
            tick: Called with (what, done, total) as work goes on.
            message: Text to store with the entry.
        """
        return scale_down(self.session, by=by, tick=tick, message=message)

    def merge(
        self,
        rank: int | None = None,
        *,
        how: How = "svd",
        tasks: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        density: float | None = None,
        distill_epochs: int = 0,
        drop: bool = False,
        rows: RowFiles | None = None,
        gate: Gate | None = Gate(),
        tick: Tick | None = None,
        message: str | None = None,
        guards: Mode | None = None,
    ) -> MergeResult:
        """Merge the adapters of tasks into one of bounded rank, which all tasks share; see `workflows.merge.merge`.

        Args:
            rank: Most rank of the merged adapter. None with `drop` merges nothing, and drops the own adapters of tasks that an
                earlier merge has; see `workflows.merge.drop`.
            how: "svd" adds the adapters, "average" takes their mean; for the others see `maths.merge.merge`.
            tasks: Tasks whose adapters are merged; empty for all.
            weights: Weight of each task, 1 where it is left out.
            density: Share of the entries that "ties" (0.2), "knots" (0.2) and "dare" (0.5) keep.
            distill_epochs: Passes over stored rows that train the merged adapter towards the answers of the adapters before.
            drop: Take the merged tasks' own adapters away.
            rows: Files with the rows of tasks whose text is not stored, by task, to distill on.
            gate: What may not be lost; None records whatever comes.
            tick: Called with (what, done, total) as work goes on.
            message: What to note with the entry, in addition to its author.
            guards: What a guard that fell does; see `learn`.
        """
        if rank is None:
            refuse_without_rank(
                drop, how=how, weights=weights, density=density, distill_epochs=distill_epochs, rows=rows
            )
            return drop_merged(self.session, tasks, gate=gate, tick=tick, message=message, guards=guards)
        request = MergeRequest(
            rank, how, tuple(tasks), dict(weights or {}), density, distill_epochs, drop, _files(rows)
        )
        return merge(self.session, request, gate=gate, tick=tick, message=message, guards=guards)

    def accept(self) -> Entry:
        """Make the candidate of a failed gate the new head; if it is head already, nothing is changed."""
        return upkeep.accept(self.session)

    def discard(self) -> Entry | None:
        """Drop the candidate of a failed gate and return it; None if none waits."""
        return upkeep.discard(self.session)


def _request(
    task: str,
    data: AnyData,
    recipe: Recipe,
    test: AnyData | None,
    settings: Mapping[str, Any] | None,
    allow_leaks: bool,
    rows: RowFiles | None,
) -> Request:
    return Request(
        name=task,
        data=_data(data),
        recipe=recipe,
        test=_data(test) if test else None,
        settings=dict(settings or {}),
        allow_leaks=allow_leaks,
        rows=_files(rows),
    )


def _files(rows: RowFiles | None) -> dict[str, tuple[Path, ...]]:
    """Return the files of rows of each task."""
    files = {name: [given] if isinstance(given, str | Path) else given for name, given in (rows or {}).items()}
    return {name: tuple(Path(file) for file in given) for name, given in files.items()}


def _recipe(recipe: AnyRecipe, overrides: Mapping[str, Any] | None) -> Recipe:
    from perdure.methods.registry import load_recipe

    return load_recipe(recipe, overrides)


def _data(given: AnyData) -> Data:
    paths = (given,) if isinstance(given, str | os.PathLike) else tuple(given)
    return Path(paths[0]) if len(paths) == 1 else tuple(Path(path) for path in paths)
