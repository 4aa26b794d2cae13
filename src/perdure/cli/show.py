"""`perdure show`: one entry."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.edits import fact_pairs
from perdure.cli.guard_line import guard_line
from perdure.cli.learn_screen import reason_of, score_lines
from perdure.cli.names import entry_names
from perdure.cli.options import AsJson, Folder, open_ledger
from perdure.cli.output import clock, counted, emit, facts, print_text, short, warn
from perdure.cli.resources import resource_pairs

if TYPE_CHECKING:
    from perdure.ledger.records import LearnRecord


def show(
    ref: Annotated[
        str,
        typer.Argument(
            metavar="ENTRY", autocompletion=entry_names, help="Ref, entry id or its beginning, or 'candidate'."
        ),
    ] = "head",
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Show an entry: its command, its data and its results.

    Example: perdure show head~1
    """
    from perdure.ledger.records import ADAPTER
    from perdure.workflows.inspect import views

    ledger = open_ledger(folder)
    view = views.show(ledger, ref)
    if as_json:
        return emit(view.to_json())
    entry, learned, recipe = view.entry, view.learned, view.entry.recipe
    pairs = {
        "entry": entry.id,
        "parent": entry.parent,
        "what": f"{entry.kind} {view.about or ''}".rstrip(),
        "time": f"{clock(view.time)} UTC" if view.time else None,
        "author": view.signature.author,
        "message": view.signature.message,
        "refs": ", ".join(view.refs),
        "base": f"{short(entry.base)}, linear layers in {kind}"
        if (kind := ledger.config.get("quantization"))
        else None,
        "adapter": _given(view.notes.get(ADAPTER)),
        "recipe": recipe and ", ".join([recipe["name"], *(f"with {name}" for name in recipe["methods"])]),
        "seed": entry.seed,
        "state": short(view.state),
        "slots": ", ".join(f"{name} {short(s.object)} ({s.bytes:,} bytes)" for name, s in view.slots.items()),
        "memory": counted(view.memory.rows, "row"),
        "updates": learned and learned.updates,
        "validation": learned and _validation(learned),
        "tokens": f"{learned.tokens:,}" if learned else None,
        "seconds": f"{learned.train_seconds:.1f} training, {learned.eval_seconds:.1f} scoring" if learned else None,
        **resource_pairs(learned.resources if learned else None),
        **fact_pairs(view),
        "gate": view.gate and f"{view.gate.verdict.upper()}, {reason_of(view.gate, ledger.aliases)}",
        "guards": guard_line(view.guard_scores),
        "from the base": learned and _new_task_kl(learned),
    }
    print_text(facts(pairs))
    if view.scores:
        print_text("\n" + score_lines(ledger.by_shown_name(view.scores), entry.task and ledger.shown_name(entry.task)))
    for text in learned.warnings if learned else ():
        warn(text)


def _given(note: object) -> str | None:
    """Return the adapter that the workspace was made with, in words; None of any entry but the base entry."""
    if not isinstance(note, dict):
        return None
    at = f" at {short(note['revision'])}" if "revision" in note else ""
    return f"{note['folder']}{at}, {counted(int(note['modules']), 'layer')}, rank {note['rank']}"


def _new_task_kl(learned: "LearnRecord") -> str | None:
    """Return KL from the base on the new task's own prompts, in words; None where it was not measured."""
    if (found := learned.new_task_kl) is None:
        return None
    bounds = f"{found.low:.2f} to {found.high:.2f}"
    return f"KL {found.kl:.2f} nats a token ({bounds}) on {counted(found.n, 'prompt')} of the task"


def _validation(learned: "LearnRecord") -> str | None:
    """Return the validation curve in words; None where nothing was validated."""
    curve = learned.validation
    if not curve:
        return None
    least, update = min((loss, update) for update, loss in curve)
    way = f"loss {curve[0][1]:.4g} to {curve[-1][1]:.4g} in {counted(len(curve), 'validation')}"
    return f"{way}, least {least:.4g} after update {update + 1}"
