"""The verbs that use a model: answer, chat, export, report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from perdure.core.progress import Tick
from perdure.core.tables import Records
from perdure.workflows.export.classifier import ClassifierExport, export_classifier
from perdure.workflows.export.every import EveryExport, export_every
from perdure.workflows.export.export import MAX_RANK, ExportRequest, export
from perdure.workflows.export.result import Export
from perdure.workflows.inspect.report_data import report_data
from perdure.workflows.predict.predict import Answer, predict
from perdure.workflows.predict.prompt import Turns, prompt_of
from perdure.workflows.predict.request import Request, Route
from perdure.workspace.opened import AnyPath, Opened, warn


class UseVerbs(Opened):
    """Use the model."""

    def predict(
        self,
        prompts: str | Sequence[str | Turns | Mapping[str, Any]],
        task: str | None = None,
        at: str = "head",
        max_new_tokens: int | None = None,
        *,
        system: str | None = None,
        raw: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        batch_size: int | None = None,
        route: Route = "single",
        tick: Tick | None = None,
    ) -> Records[Answer]:
        """Return the model's answer to each prompt, in order; `str(answer)` is its text.

        What the user should know of how the model was asked, such as prompts that had to be cut, is a Python warning.

        Args:
            prompts: A text, or a list. Each is a text, a list of turns ({"role": ..., "content": ...}), or values by column for
                the template of a task.
            task: Task in whose template, and through whose adapter, the model is asked; None for the task that a router finds,
                where tasks were learned with one, else for the model's chat template and what all tasks share.
            at: Ref or entry.
            max_new_tokens: Most tokens of an answer; else as many as the task needs, or 256.
            system: System turn.
            raw: Continue the text as it is, in no template.
            temperature: 0 takes the most likely token; above it, tokens are drawn.
            seed: Key of what is drawn: the same seed gives the same answer, whatever else is asked.
            batch_size: Most prompts that are answered together; None for 64, or 1 with a temperature, see `Request`.
            route: How a router is used: "single", "soft", "vote" or "none"; see `Request`. `Answer.routed` has what it found.
            tick: Called with (what, prompts done, prompts in all).

        Raises:
            BadInput: A prompt is empty, or does not fit the template.
            NotFound: The task or ref is not known.
        """
        given = [prompts] if isinstance(prompts, str) else prompts
        asked = [prompt_of(value, f"prompt {n}") for n, value in enumerate(given, start=1)]
        request = Request(task, system, raw, max_new_tokens, temperature, seed, batch_size, route)
        found = predict(self.session, asked, request, at, tick=tick)
        warn(found.notices)
        return Records(found.answers)

    def chat(
        self,
        messages: Turns,
        at: str = "head",
        max_new_tokens: int | None = None,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        route: Route = "single",
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Return the model's answer to a conversation, in its chat template; the oldest turns are left out if it has no room.

        Args:
            messages: The turns ({"role": ..., "content": ...}), the last one the user's.
            at: Ref or entry.
            max_new_tokens: Most tokens of the answer; else 256.
            temperature: 0 takes the most likely token; above it, tokens are drawn.
            seed: Key of what is drawn.
            route: How a router is used: "single", "soft", "vote" or "none"; see `Request`.
            on_text: Called with each piece of the answer as it comes.

        Raises:
            BadInput: A turn is not valid, or the model has no chat template.
            NotFound: The ref is not known.
        """
        request = Request(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, route=route)
        pieces = (lambda _, piece: on_text(piece)) if on_text else None
        found = predict(self.session, [prompt_of(list(messages), "messages")], request, at, on_text=pieces)
        warn(found.notices)
        return found.answers[0]

    def model(self, at: str = "head", task: str | None = None) -> Any:
        """Return the model at a ref, in eval mode: the one that was scored.

        Args:
            at: Ref or entry.
            task: Task whose requests it is for, where that has an adapter of its own; None for what all tasks share.
        """
        self.session.load(self.ledger.resolve(at), task and self.ledger.task_name(task))
        return self.runtime.model

    def export(
        self,
        folder: AnyPath,
        *,
        at: str = "head",
        merged: bool = False,
        rank: int | None = None,
        max_rank: int = MAX_RANK,
        dtype: str | None = None,
        task: str | None = None,
    ) -> Export:
        """Write the state at a ref as files that other tools load; see `workflows.export.export`."""
        return export(self.session, folder, ExportRequest(at, merged, rank, max_rank, dtype, task))

    def export_classifier(self, folder: AnyPath, at: str = "head", task: str | None = None) -> ClassifierExport:
        """Write what answers tasks with labels, as tensors with a program; see `workflows.export.classifier`."""
        return export_classifier(self.session, folder, at, task)

    def export_all(
        self,
        folder: AnyPath,
        *,
        at: str = "head",
        rank: int | None = None,
        max_rank: int = MAX_RANK,
        dtype: str | None = None,
    ) -> EveryExport:
        """Write a folder for each task with an adapter of its own, one for what all share, and the router.

        See `workflows.export.every.export_every`.
        """
        return export_every(self.session, folder, ExportRequest(at, False, rank, max_rank, dtype))

    def report(self, file: AnyPath, *, compare: "Mapping[str, UseVerbs] | None" = None, force: bool = False) -> Path:
        """Write a self-contained HTML report: matrix, curves, gates, heartbeats, history.

        Args:
            file: The file; an older report there is replaced.
            compare: Workspaces to compare with this one, by the names of their columns.
            force: Replace any other file too.

        Returns:
            The file.

        Raises:
            BadInput: The file is there and no report, or belongs to a workspace.
        """
        from perdure.report import write_report

        others = {name: other.ledger for name, other in (compare or {}).items()}
        roots = [self.ledger.root, *(other.root for other in others.values())]
        write_report(report_data(self.ledger, others), Path(file), force=force, workspaces=roots)
        return Path(file)
