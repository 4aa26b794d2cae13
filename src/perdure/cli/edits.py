"""`perdure edits`: the facts in force."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.options import Above, App, AsJson, At, Device, DeviceAbove, Folder, open_ledger, open_workspace
from perdure.cli.output import NOTHING, clip, counted, emit, facts, print_message, print_text, short, table, warn
from perdure.cli.progress import progress

if TYPE_CHECKING:
    from perdure.ledger.records import FactLine, ListedFact
    from perdure.workflows.inspect.view_records import EntryView

edits = App(no_args_is_help=True, help="List, show and verify the edited facts.")
MEASURES = ("efficacy", "generation", "paraphrase", "neighbourhood")


@edits.callback()
def above(folder: Above = None, device: DeviceAbove = None) -> None:
    """Take the workspace, and the device, before the command's name too."""


@edits.command("list")
def list_facts(at: At = "head", folder: Folder = None, as_json: AsJson = False) -> None:
    """List the facts in force, oldest first, as they were last verified."""
    from perdure.workflows.edit.records import listed

    found = listed(open_ledger(folder), at)
    if as_json:
        return emit([fact.to_json() for fact in found])
    if not found:
        return print_message(f"no fact is in force at {at}" + ("; 'perdure edit' writes one" if at == "head" else ""))
    print_text(fact_table(found))
    warn_lost_in(found)


@edits.command()
def show(
    fact: Annotated[str, typer.Argument(metavar="FACT", help="Id of the fact or its beginning; see 'edits list'.")],
    at: At = "head",
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show a fact: its prompt and target, how it was written, and how it was last verified."""
    from perdure.core.records import in_stored_order
    from perdure.ledger.records import FactLine
    from perdure.workflows.edit.records import shown

    found = shown(open_ledger(folder), fact, at)
    if as_json:
        return emit(in_stored_order(found.to_json()))
    in_force = found if isinstance(found, FactLine) else None
    pairs = {
        "fact": found.fact,
        "entry": short(found.entry),
        "subject": found.subject,
        "prompt": found.prompt,
        "target": found.target,
        "ground truth": found.ground_truth,
        "relation": found.relation,
        "reason": found.reason,
        "written": f"{found.method}, layer {', '.join(map(str, found.layers))}",
        "not said with the adapter of": in_force and ", ".join(in_force.lost_in),
        "state": "in force" if in_force else "dropped; its key is kept free of any update",
    }
    measures = zip(MEASURES, _marks(in_force), strict=True) if in_force else ()
    print_text(facts({**pairs, **dict(measures), "it says": in_force and in_force.generated}))


@edits.command()
def verify(folder: Folder = None, device: Device = None, as_json: AsJson = False) -> None:
    """Verify every fact in force on the model. Exits with 3 if the model no longer gives one."""
    from perdure.workflows.edit.carry import verify_edits

    ws = open_workspace(folder, device)
    with progress("loading the model") as tick:
        found = verify_edits(ws.session, tick)
    if as_json:
        emit(found.to_json())
    elif found.facts:
        print_text(fact_table(found.facts))
        warn_lost_in(found.facts)
    facts_in_force = counted(len(found.facts), "fact")
    print_message(f"{found.held} of {facts_in_force} said" if found.facts else "no fact is in force at head")
    if found.lost:
        raise typer.Exit(3)


def fact_table(lines: "Sequence[FactLine | ListedFact]") -> str:
    """Return facts with what was last verified of them."""
    rows = [[short(f.fact), clip(f.subject, 24), clip(f"{f.prompt} {f.target}", 60), *_marks(f)] for f in lines]
    return table(["fact", "subject", "says", "said", "freely", "paraphrases", "neighbours"], rows, right=(5, 6))


def _marks(fact: "FactLine | ListedFact") -> list[str]:
    return [mark(value) for value in (fact.efficacy, fact.generation, fact.paraphrase, fact.neighbourhood)]


def warn_lost_in(lines: "Sequence[FactLine | ListedFact]") -> None:
    """Name the facts that are not said with the adapter of a task."""
    from perdure.workflows.edit.records import lost_by_task

    for task, subjects in lost_by_task(lines).items():
        warn(f"not said with the adapter of {task}: {', '.join(subjects)}")


def mark(value: bool | float | None) -> str:
    """Return a verdict or a share in words."""
    if value is None:
        return NOTHING
    return ("yes" if value else "NO") if isinstance(value, bool) else f"{value:.0%}"


def fact_pairs(found: "EntryView") -> dict[str, object]:
    """Return the lines that `perdure show` adds for an entry with edits."""
    if found.edits is None:
        return {}
    pairs: dict[str, object] = {}
    if edited := found.edit:
        pairs["applied"] = ", ".join(map(short, edited.applied))
        pairs["refused"] = ", ".join(f"{f.subject} ({f.reason})" for f in edited.refused)
    if reverted := found.revert:
        how = "resolved" if reverted.resolve else "dropped"
        pairs["reverted"] = ", ".join(f"{short(f.fact)} ({f.subject}, {how})" for f in reverted.reverted)
    said = f"{len(found.edits.facts)} in force, {len(found.edits.said)} said when last verified"
    return {**pairs, "facts": said if found.edits.facts else "none in force"}
