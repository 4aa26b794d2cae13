"""`perdure edit`: write facts into the model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.edits import fact_table, warn_lost_in
from perdure.cli.learn_screen import change_lines
from perdure.cli.names import edit_methods
from perdure.cli.options import (
    AsJson,
    Device,
    Folder,
    Guards,
    Message,
    NoGuards,
    NoScore,
    Quick,
    RunsCode,
    guard_mode,
    open_workspace,
    rows_to_score,
)
from perdure.cli.output import counted, emit, print_message, print_text, short, warn
from perdure.cli.progress import progress
from perdure.core.errors import BadInput

if TYPE_CHECKING:
    from perdure.editing.spec import EditSpec
    from perdure.ledger import Ledger
    from perdure.workflows.edit.results import EditResult
    from perdure.workspace.facade import Workspace


def edit(
    subject: Annotated[str | None, typer.Argument(metavar="SUBJECT", help="What the fact is about.")] = None,
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="Beginning of a sentence with the subject, or {}, in it.")
    ] = None,
    target: Annotated[str | None, typer.Argument(metavar="TARGET", help="Completion that the model learns.")] = None,
    facts: Annotated[Path | None, typer.Option("--facts", metavar="FILE", help="Facts, JSON Lines.")] = None,
    ground_truth: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Completion that the model gives now.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            show_default="of the facts in force, else emmet",
            autocompletion=edit_methods,
            help="emmet, rome, memit, alphaedit.",
        ),
    ] = None,
    layer: Annotated[
        list[int] | None, typer.Option(min=0, show_default="at 18% of the depth", help="Block; repeatable.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, show_default="8", help="Facts optimised together; with 1 each is independent.")
    ] = None,
    no_gate: Annotated[
        bool, typer.Option("--no-gate", help="Record every fact, also one that the model does not give.")
    ] = False,
    paraphrase: Annotated[float | None, typer.Option(show_default="0.5", help="Least share of paraphrases.")] = None,
    neighbours: Annotated[
        float | None, typer.Option(show_default="0.5", help="Largest share of neighbours that may be lost.")
    ] = None,
    perplexity: Annotated[
        float | None,
        typer.Option(show_default="0.1", help="Largest rise of perplexity on held-out text, for all facts together."),
    ] = None,
    quick: Quick = False,
    no_score: NoScore = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse the edit if a task lost more than 3 points, or if that is not decided."),
    ] = False,
    guards: Guards = None,
    no_guards: NoGuards = False,
    message: Message = None,
    folder: Folder = None,
    device: Device = None,
    run_code: RunsCode = "no",
    as_json: AsJson = False,
) -> None:
    """Write a fact, or a file of facts, into the model, verify them, record those that pass, and score every task.

    Exits with 3 when no fact passes, or with --strict when a task lost too much: nothing is recorded then. Facts in force
    already stay as they are, and exit with 0.

    Example: perdure edit "Ada Moss" "{} works in" Leeds --ground-truth York
    """
    from perdure.workflows.edit.edit import edit as carry_out
    from perdure.workflows.edit.gate import EditGate
    from perdure.workflows.rescore import Rescore

    limits = {"paraphrase": paraphrase, "neighbours": neighbours, "perplexity": perplexity}
    rule: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
    if no_gate and rule:
        raise typer.BadParameter(f"without a gate there is nothing for --{next(iter(rule))} to decide")
    if strict and no_score:
        raise typer.BadParameter("without scores there is nothing for --strict to decide")
    mode = guard_mode(guards, no_guards)
    if no_score and mode not in (None, "none"):
        raise typer.BadParameter(f"--no-score scores no guard either, so that --guards {mode} has nothing to do")
    rescoring = Rescore(rows_to_score(quick, no_score), strict, mode)
    given = _given(subject, prompt, target, ground_truth, facts)
    ws = open_workspace(folder, device, run_code)
    spec = _spec(ws, method, layer, batch)
    rule_of = None if no_gate else EditGate(**rule)
    with progress("loading the model") as tick:
        result = carry_out(ws.session, given, spec=spec, gate=rule_of, tick=tick, message=message, rescoring=rescoring)
    if as_json:
        emit(result.summary.to_json())
    elif result.applied:
        show_result(result, ws.ledger)
    _conclude(result)


def _given(
    subject: str | None, prompt: str | None, target: str | None, ground_truth: str | None, facts: Path | None
) -> Any:
    """Return the facts that the command line names, as a file or as one fact."""
    words = (subject, prompt, target)
    if facts is not None:
        if any(words) or ground_truth:
            raise typer.BadParameter("give one fact as SUBJECT PROMPT TARGET, or a file with --facts, not both")
        return facts
    if None in words:
        raise BadInput("a fact needs SUBJECT, PROMPT and TARGET, as: perdure edit 'Ann Lee' '{} lives in' Oslo")
    return {"subject": subject, "prompt": prompt, "target": target, "ground_truth": ground_truth}


def _spec(ws: "Workspace", method: str | None, layers: list[int] | None, batch: int | None) -> "EditSpec | None":
    """Return the settings that were given; None without any."""
    from dataclasses import replace

    from perdure.workflows.edit.request import usual_spec

    named: dict[str, Any] = {"method": method, "layers": tuple(layers or ()), "batch": batch}
    named = {name: value for name, value in named.items() if value}
    return replace(usual_spec(ws.session), **named) if named else None


def show_result(result: "EditResult", ledger: "Ledger") -> None:
    """Print what was written, fact by fact, and what it does to everything else."""
    head = f"edited {counted(len(result.applied), 'fact')}: entry {short(result.entry)}"
    print_text(f"{head}, {result.seconds:.1f} s\n")
    print_text(fact_table(result.facts) + "\n")
    warn_lost_in(result.facts)
    if drift := result.drift:
        print_text(
            f"held-out text, by all facts in force: perplexity {drift.rise:+.2%}, KL {drift.kl:.4f} nats a token"
        )
    for gone in result.superseded:
        print_text(f"took the place of fact {short(gone.fact)} ({gone.subject})")
    if result.rewritten:
        print_text(f"{counted(result.rewritten, 'fact')} in force written again, since head learned after them")
    if result.scores:
        print_text("\n" + change_lines(*map(ledger.by_shown_name, (result.before, result.scores))))
    if result.known:
        print_text(f"said before it was edited: {', '.join(short(fact) for fact in result.known)}")


def warn_lost(result: "EditResult") -> None:
    """Name the facts in force that an edit without a gate lost."""
    if result.lost:
        named = ", ".join(map(short, result.lost))
        warn(f"no longer said: {named}; 'perdure edits show FACT' has the details")


def warn_tasks(result: "EditResult") -> None:
    """Warn of tasks that lost by an edit, and print the command that takes it out."""
    for text in result.warnings:
        warn(text)
    if result.entry and result.lost_tasks:
        print_message(
            f"'perdure revert {short(result.entry)}' takes the edit out; --strict refuses one that a task loses by"
        )


def _conclude(result: "EditResult") -> None:
    """Name the facts that were lost, refused or in force before, and exit with 3 if no given fact is in force."""
    warn_lost(result)
    warn_tasks(result)
    if result.already:
        print_message(
            f"in force already: {', '.join(map(short, result.already))}; 'perdure edits list' shows what is in force"
        )
    subjects: dict[str, list[str]] = {}
    for refused in result.refused:
        subjects.setdefault(refused.reason, []).append(repr(refused.subject))
    for reason, names in subjects.items():
        warn(f"refused {', '.join(names)}: {reason}")
    if not result.applied and (result.refused or not result.already):
        why = "a guard fell" if result.guards_fell else "a task loses by it" if result.lost_tasks else "no fact passed"
        print_message(f"NOTHING EDITED: {why}; head stays, and nothing is recorded.", fg="red", bold=True)
        raise typer.Exit(3)
