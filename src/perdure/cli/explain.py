"""`perdure recipe explain`: who acts when, what is remembered, and what it costs, before anything runs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.cli.names import recipes
from perdure.cli.options import NAMES, AsJson, open_ledger
from perdure.cli.output import NOTHING, counted, emit, facts, print_message, print_text, table
from perdure.core.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from perdure.ledger import Ledger
    from perdure.workflows.advise.explanation import (
        CarriedColumn,
        Cost,
        Explanation,
        MemoryPlan,
        ModelBytes,
        StateBytes,
    )

UNITS = ("bytes", "kB", "MB", "GB", "TB")


def explain(
    ctx: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="RECIPE", autocompletion=recipes, help="Name of a recipe, or a YAML file.")
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A recipe setting, as learning_rate=1e-4.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="NAME_OR_PATH", help="Show bytes for this model.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(*NAMES, metavar="DIR", help="Show bytes for the model and the memory of this workspace."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which method fills which seam, what a recipe stores, and what it costs. Nothing is trained or loaded.

    Costs are counted on a network of a few weights. Bytes are shown for the model of --model, or of the workspace.

    Example: perdure recipe explain lora_mlp --set methods.replay.mix=0.4 --model smollm2-135m
    """
    from perdure.cli.learn_options import overrides
    from perdure.workflows.advise.recipes import explain_recipe

    ledger = _workspace(folder or ctx.obj or os.environ.get("PERDURE_WORKSPACE"))
    explanation = explain_recipe(name, overrides(settings or []), model=model, ledger=ledger)
    if as_json:
        return emit(explanation.to_json())
    print_text(_screen(explanation, model or (ledger.model if ledger else None)))
    if explanation.off:
        print_message(f"switched off by their fields: {', '.join(explanation.off)}")
    for name in explanation.memory.starved:
        print_message(f"{name} gets no rows: add replay, or set methods.{name}.mix")


def _workspace(named: Path | str | None) -> "Ledger | None":
    """Return the ledger of the workspace that is named, else of the one we are in, if it is one."""
    try:
        return open_ledger(Path(named or "."))
    except NotFound:
        if named:
            raise
        return None


def _screen(explanation: "Explanation", model: str | None) -> str:
    changed = {key: explanation.settings[key] for key in explanation.changed}
    seams = [[m.moment, m.seam, ", ".join(m.owners), m.purpose] for m in explanation.moments if m.owners]
    shown = [[m if i == 0 or seams[i - 1][0] != m else "", *rest] for i, (m, *rest) in enumerate(seams)]
    owners = [f"{e.seam}: {e.owner}" + _shut_out(e.keeps_out) for e in explanation.exclusive]
    parts = {
        "recipe": facts({"methods": ", ".join(explanation.methods) or "none: plain training", **changed}),
        "who acts when": table(["", "seam", "methods", "what for"], shown) if shown else "",
        "seams with room for one": "\n".join(owners),
        "needed from the host": facts({what: ", ".join(names) for what, names in explanation.needs.items()}),
        "memory": facts(_memory(explanation.memory)),
        "columns stored with rows": _columns(explanation.columns),
        "cost from the second task on": facts(_cost(explanation.cost)),
        "on": facts(_absolute(explanation.model)) if explanation.model else "",
    }
    named = {"recipe": explanation.name, "on": model or ""}  # names keep their case: a path in capitals is another path
    titles = {title: " ".join([title.upper(), *([named[title]] if title in named else [])]) for title in parts}
    return "\n\n".join(f"{titles[title]}\n{body}" for title, body in parts.items() if body)


def _shut_out(names: "Sequence[str]") -> str:
    return f" (so none of {', '.join(names)} can be added)" if names else ""


def _memory(memory: "MemoryPlan") -> dict[str, object]:
    """Return which rows are stored and drawn, as pairs, and for a workspace the size of its memory now."""
    limits = (
        f"{counted(memory.memory_per_label, 'row')} a label, {counted(memory.memory_per_task, 'row')} of a task "
        f"without labels, {memory.memory_size:,} in all; chosen by {memory.admission}"
    )
    now = memory.now
    sizes = now and f"{size_of(now.text_bytes)} of text, {size_of(now.column_bytes)} of columns"
    return {
        "stored": limits if memory.keeps_rows else "no row of a task enters memory",
        **{f"{pool} pool": f"drawn from by {', '.join(names)}" for pool, names in memory.pools.items()},
        "in memory now": now and f"{counted(now.rows, 'row')}, {sizes}",
    }


def _columns(columns: "Sequence[CarriedColumn]") -> str:
    rows = [
        [
            c.name,
            {"new": "new, while learning"}.get(c.rows, c.rows),
            c.teacher + (", written anew each task" if c.refresh else ""),
            c.top_k or "whole vocabulary",
            c.bytes_per_label_token or NOTHING,
            ", ".join(c.methods),
        ]
        for c in columns
    ]
    return table(["column", "rows", "teacher", "top_k", "bytes a label token", "for"], rows) if rows else ""


def _cost(cost: "Cost") -> dict[str, object]:
    drawn = [f"{rows:.3g} from {pool}" for pool, rows in cost.drawn.items()]
    return {
        "rows drawn an update": ", ".join(drawn),
        "forward": f"{cost.forward:.2f} x plain training's rows",
        "backward": f"{cost.backward:.2f} x",
        "memory of an update": f"{cost.held:g} bytes a trainable parameter" if cost.held else None,
        "before the task": _passes(
            cost.before and f"{cost.before:.2g} forwards a new row",
            cost.features_before and f"{cost.features_before:.2g} readings of its features, a third of a forward each",
        ),
        "after the task": _passes(
            cost.after and f"{cost.after} rows forward, where there are 512 new ones",
            cost.features_after
            and f"features of {cost.features_after} rows read, where there are 512 new ones, a third of a forward each",
        ),
        **{f"state of {name}": _state(state) for name, state in cost.state.items()},
    }


def _passes(*parts: str | float) -> str | None:
    """Return the passes over rows that there are, in words; None without any."""
    return "; ".join(str(part) for part in parts if part) or None


def _state(state: "StateBytes") -> str:
    parts = {"while learning": state.learning, "stored after two tasks": state.kept}
    words = [f"{size:g} bytes a trainable parameter {when}" for when, size in parts.items() if size]
    return ", ".join(words) or "does not grow with the parameters"


def _absolute(model: "ModelBytes") -> dict[str, object]:
    states = {
        f"state of {name}": _sizes({"while learning": state.learning, "stored after two tasks": state.kept})
        for name, state in model.state_bytes.items()
    }
    return {
        "parameters": f"{model.parameters:,}, trained {model.trainable:,}",
        "training": _sizes(vars(model.training_bytes)),
        **states,
    }


def _sizes(sizes: "Mapping[str, float]") -> str:
    return ", ".join(f"{size_of(size)} {what}" for what, size in sizes.items() if size)


def size_of(size: float) -> str:
    """Return bytes in the unit that reads best: "3.2 MB"."""
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {UNITS[unit]}"
