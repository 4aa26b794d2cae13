"""`perdure edits`: the facts in force."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.names import fact_names
from perdure.cli.options import Above, App, AsJson, At, Device, DeviceAbove, Folder, open_ledger, open_workspace
from perdure.cli.output import NOTHING, clip, counted, emit, facts, print_message, print_text, short, table, warn
from perdure.cli.progress import progress

if TYPE_CHECKING:
    from perdure.ledger.records import FactLine, ListedFact
    from perdure.workflows.inspect.view_records import EntryView

edits = App(no_args_is_help=True, help="List, show and verify the edited facts.\n\nExample: perdure edits list")
MEASURES = ("efficacy", "generation", "paraphrase", "neighbourhood")


@edits.callback()
def above(folder: Above = None, device: DeviceAbove = None) -> None:
    """Take the workspace, and the device, before the command's name too."""


@edits.command("list")
def list_facts(at: At = "head", folder: Folder = None, as_json: AsJson = False) -> None:
    """List the facts in force, oldest first, as they were last verified.

    Example: perdure edits list --at head~1
    """
    from perdure.workflows.edit.records import listed

    in_force = listed(open_ledger(folder), at)
    if as_json:
        return emit([fact.to_json() for fact in in_force])
    if not in_force:
        return print_message(f"no fact is in force at {at}" + ("; 'perdure edit' writes one" if at == "head" else ""))
    print_text(fact_table(in_force))
    warn_lost_in(in_force)


@edits.command()
def show(
    fact: Annotated[
        str,
        typer.Argument(
            metavar="FACT", autocompletion=fact_names, help="Id of the fact or its beginning; see 'edits list'."
        ),
    ],
    at: At = "head",
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show a fact: its prompt and target, how it was written, and how it was last verified.

    Example: perdure edits show 3f2a91c0
    """
    from perdure.core.records import in_stored_order
    from perdure.ledger.records import FactLine
    from perdure.workflows.edit.records import shown

    line = shown(open_ledger(folder), fact, at)
    if as_json:
        return emit(in_stored_order(line.to_json()))
    in_force = line if isinstance(line, FactLine) else None
    pairs = {
        "fact": line.fact,
        "entry": short(line.entry),
        "subject": line.subject,
        "prompt": line.prompt,
        "target": line.target,
        "ground truth": line.ground_truth,
        "relation": line.relation,
        "reason": line.reason,
        "written": f"{line.method}, layer {', '.join(map(str, line.layers))}",
        "not said with the adapter of": in_force and ", ".join(in_force.lost_in),
        "state": "in force" if in_force else "dropped; no update changes its key",
    }
    measures = zip(MEASURES, _marks(in_force), strict=True) if in_force else ()
    print_text(facts({**pairs, **dict(measures), "it says": in_force and in_force.generated}))


@edits.command()
def verify(folder: Folder = None, device: Device = None, as_json: AsJson = False) -> None:
    """Verify every fact in force on the model. Exits with 3 if the model no longer gives one.

    Example: perdure edits verify
    """
    from perdure.workflows.edit.carry import verify_edits

    ws = open_workspace(folder, device)
    with progress("loading the model") as tick:
        verified = verify_edits(ws.session, tick)
    if as_json:
        emit(verified.to_json())
    elif verified.facts:
        print_text(fact_table(verified.facts))
        warn_lost_in(verified.facts)
    facts_in_force = counted(len(verified.facts), "fact")
    print_message(f"{verified.held} of {facts_in_force} said" if verified.facts else "no fact is in force at head")
    if verified.lost:
        raise typer.Exit(3)


def fact_table(lines: "Sequence[FactLine | ListedFact]") -> str:
    """Return a table of facts with the results of their last verification."""
    rows = [[short(f.fact), clip(f.subject, 24), clip(f"{f.prompt} {f.target}", 60), *_marks(f)] for f in lines]
    return table(["fact", "subject", "statement", "said", "generated", "paraphrases", "neighbours"], rows, right=(5, 6))


def _marks(fact: "FactLine | ListedFact") -> list[str]:
    return [mark(value) for value in (fact.efficacy, fact.generation, fact.paraphrase, fact.neighbourhood)]


def warn_lost_in(lines: "Sequence[FactLine | ListedFact]") -> None:
    """Warn of the facts that are not said with the adapter of a task."""
    from perdure.workflows.edit.records import lost_by_task

    for task, subjects in lost_by_task(lines).items():
        warn(f"not said with the adapter of {task}: {', '.join(subjects)}")


def mark(value: bool | float | None) -> str:
    """Return a verdict or a share in words."""
    if value is None:
        return NOTHING
    return ("yes" if value else "NO") if isinstance(value, bool) else f"{value:.0%}"


def fact_pairs(view: "EntryView") -> dict[str, object]:
    """Return the lines that `perdure show` adds for an entry with edits."""
    if view.edits is None:
        return {}
    pairs: dict[str, object] = {}
    if edited := view.edit:
        pairs["applied"] = ", ".join(map(short, edited.applied))
        pairs["refused"] = ", ".join(f"{f.subject} ({f.reason})" for f in edited.refused)
    if reverted := view.revert:
        how = "resolved" if reverted.resolve else "dropped"
        pairs["reverted"] = ", ".join(f"{short(f.fact)} ({f.subject}, {how})" for f in reverted.reverted)
    summary = f"{len(view.edits.facts)} in force, {len(view.edits.said)} said when last verified"
    return {**pairs, "facts": summary if view.edits.facts else "none in force"}
