"""`perdure learn --kind knowledge`: which rows are edited, which are trained, and the results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from perdure.cli import edit, learn_screen
from perdure.cli.output import clip, counted, emit, print_message, print_text, table, warn
from perdure.cli.progress import progress

if TYPE_CHECKING:
    from perdure.editing.routing import RouteGroup
    from perdure.ledger import Ledger
    from perdure.ledger.records import Gate
    from perdure.workflows.guards.attach import Mode
    from perdure.workflows.learn.knowledge import KnowledgeResult
    from perdure.workflows.learn.preview import KnowledgePreview
    from perdure.workspace.facade import Workspace

GOES = {"fact": "editing", "skill": "training"}
WIDE = 44  # characters of an example


def learn_knowledge(
    ws: "Workspace",
    task: str,
    data: list[Path],
    options: dict[str, Any],
    *,
    gate: "Gate | None",
    dry_run: bool,
    as_json: bool,
    message: str | None = None,
    guards: "Mode | None" = None,
) -> None:
    """Route the rows of a file, train the skills, edit the facts; exits with 3 if head did not move, unless all was done."""
    from perdure.workflows.edit.gate import EditGate
    from perdure.workflows.guards.judge import mode_for
    from perdure.workflows.learn.knowledge import learn_knowledge as carry_out
    from perdure.workflows.learn.preview import preview_knowledge

    planned = ws.plan_knowledge(task, data, **options)
    if dry_run:
        with progress("loading the model") as tick:
            preview = preview_knowledge(ws.session, planned, tick, mode_for(ws.ledger, guards, gate))
        return emit(preview.to_json()) if as_json else _show_preview(preview, ws.ledger)
    before = (*planned.notices, *(planned.skill.notices if planned.skill else ()))
    for text in before:
        warn(text)
    with progress("loading the model") as tick:
        edit_gate = EditGate() if gate else None
        asked: dict[str, Any] = {"edit_gate": edit_gate, "message": message, "guards": guards}
        result = carry_out(ws.session, planned, gate=gate, tick=tick, **asked)
    learned, edited = result.learned, result.edited
    if as_json:
        emit({**result.to_json(), "edited": edited and edited.summary.to_json()})
    else:
        print_text(_table(result.routes))
        if learned:
            print_text("")
            learn_screen.show_result(learned, ws.ledger)
        if edited and edited.applied:
            print_text("")
            edit.show_result(edited, ws.ledger)
    for text in result.warnings:
        if text not in before:
            warn(text)
    _conclude(result, ws.ledger.aliases)


def _show_preview(preview: "KnowledgePreview", ledger: "Ledger") -> None:
    """Print a dry run: where each row would go, and how the skills would be learned."""
    print_text(_table(preview.routes))
    trained = sum(group.rows for group in preview.routes if group.kind == "skill")
    print_text(f"\n{counted(len(preview.facts), 'fact')} to edit, {counted(trained, 'row')} to train\n")
    for text in preview.notices:
        warn(text)
    if preview.skill:
        return learn_screen.show_preview(preview.skill, ledger)
    print_message("dry run: nothing was changed")


def _table(routes: "Sequence[RouteGroup]") -> str:
    rows = []
    for group in routes:
        example = f"{clip(group.example.prompt or group.example.answer, WIDE)!r}"
        rows.append([GOES[group.kind], f"{group.rows:,}", group.reason, f"{group.example.source} {example}"])
    return table(["goes to", "rows", "because", "for example"], rows, right=(1,))


def _conclude(result: "KnowledgeResult", aliases: "Mapping[str, str]") -> None:
    """Name the facts that are not in force, and exit with 3 if head did not move, unless all were in force before."""
    edited, left = result.edited, result.left
    refused, already = (edited.refused, edited.already) if edited else ((), ())
    done = bool(edited and already and not edited.applied and not refused)
    if edited:
        edit.warn_lost(edited)
        edit.warn_tasks(edited)
    for fact in refused:
        warn(f"refused {fact.subject!r}: {fact.reason}")
    if left:
        warn(
            f"{counted(len(left), 'fact')} not edited ({clip(', '.join(f.subject for f in left), 60)}): {left[0].reason}"
        )
    if result.learned:
        learn_screen.conclude(result.learned, aliases)
    if done:
        return print_message(f"every fact is in force already ({len(already):,}): nothing is edited")
    if edited and not edited.applied:
        what = "nothing is recorded" if result.entry is None else "what was trained stays"
        print_message(f"NOTHING EDITED: no fact passed; {what}.", fg="red", bold=True)
    if result.entry is None and edited:
        raise typer.Exit(3)
