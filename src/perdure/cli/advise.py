"""`perdure recipe advise`: a recipe for the work ahead, and the reasons."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.cli.options import AsJson, Force
from perdure.cli.output import counted, emit, facts, print_message, print_text
from perdure.cli.stdin import at_terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perdure.workflows.advise.answer import Advice, Rival

WIDTH = 100
SIMILARITY = ("alike", "mixed", "different")


def advise(
    tasks: Annotated[int | None, typer.Option(min=1, help="How many tasks, in all.")] = None,
    no_rows: Annotated[
        bool, typer.Option("--no-rows", help="Rows of older tasks may not be stored (privacy).")
    ] = False,
    memory_rows: Annotated[int | None, typer.Option(min=0, help="Most rows in memory.")] = None,
    memory_mb: Annotated[float | None, typer.Option(min=0, help="Most megabytes of rows and method state.")] = None,
    time: Annotated[float | None, typer.Option(min=1, help="Most training time, in multiples of naive's.")] = None,
    parameters: Annotated[str | None, typer.Option(metavar="N", help="Size of the model, as 135M or 7B.")] = None,
    similarity: Annotated[
        str | None, typer.Option(metavar="|".join(SIMILARITY), help="How similar the tasks are.")
    ] = None,
    instructions: Annotated[
        bool, typer.Option("--instructions", help="The model must go on following instructions.")
    ] = False,
    task_known: Annotated[bool, typer.Option("--task-known", help="The task of a question is known at use.")] = False,
    removable: Annotated[
        bool,
        typer.Option("--removable", help="A task must be removable later, with what the weights learned of it."),
    ] = False,
    one_adapter: Annotated[bool, typer.Option("--one-adapter", help="One adapter must serve all tasks.")] = False,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask the questions; the default at a terminal without flags.")
    ] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print the recipe file, its reasons as comments.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write the recipe file too.")] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Advise a recipe, with reasons: measurements of this project, and results of the literature.

    Example: perdure recipe advise --tasks 20 --memory-rows 500 --time 1.5
    """
    from perdure.core.outputs import RECIPE, check_output, write_output
    from perdure.workflows.advise.guidance import Needs
    from perdure.workflows.advise.recipes import advise_recipe

    given: dict[str, Any] = {
        "tasks": tasks,
        "keep_rows": not no_rows,
        "memory_rows": memory_rows,
        "memory_mb": memory_mb,
    }
    given |= {"time": time, "parameters": parameters, "similarity": similarity}
    given |= {"instructions": instructions, "task_known": task_known, "removable": removable}
    given |= {"one_adapter": one_adapter}
    if out:
        check_output(out, RECIPE, force=force)
    silent = all(value in (None, False) for key, value in given.items() if key != "keep_rows") and not no_rows
    if ask and not silent:
        raise typer.BadParameter("--ask asks for the values of the other options; leave them out", param_hint="--ask")
    if no_rows and memory_rows:
        raise typer.BadParameter(f"--no-rows and --memory-rows {memory_rows} contradict each other; drop one")
    if as_json and as_yaml:
        raise typer.BadParameter("--json and --yaml are two forms of one answer; give one of them", param_hint="--yaml")
    if ask or (silent and at_terminal()):
        given = questions()
    given["parameters"] = _number(given["parameters"])
    if given["similarity"] not in (None, *SIMILARITY):
        raise typer.BadParameter(
            f"{given['similarity']!r} is none of {', '.join(SIMILARITY)}", param_hint="--similarity"
        )
    advice = advise_recipe(Needs(**given))
    if out:
        write_output(out, recipe_file(advice), RECIPE, force=force)
        print_message(f"wrote {out}; use it as 'perdure learn TASK DATA --recipe {out}'")
    if as_json:
        emit(advice.to_json())
    else:
        print_text(recipe_file(advice).rstrip() if as_yaml else _screen(advice))


def questions() -> dict[str, Any]:
    """Ask the questions on stderr, since stdout is for data. An empty answer means "does not matter" or "not known"."""
    print_message("An empty answer means: does not matter, or not known.")
    tasks, rows = (
        _answer("How many tasks, in all", int),
        _answer("Most rows of older tasks in memory (0: none may be stored)", int),
    )
    return {
        "tasks": tasks,
        "keep_rows": rows != 0,
        "memory_rows": rows or None,
        "memory_mb": _answer("Most megabytes of memory", float) if rows != 0 else None,
        "time": _answer("Most training time, in multiples of naive fine-tuning's", float),
        "parameters": _answer("Size of the model, as 135M or 7B", str),
        "similarity": _answer(f"How alike are the tasks ({', '.join(SIMILARITY)})", str),
        "instructions": _confirmed("Must it still follow general instructions"),
        "task_known": _confirmed("Is it known at use which task a question belongs to"),
        "removable": _confirmed("Must a task be removable later, with what the weights learned of it"),
        "one_adapter": _confirmed("Must one adapter serve all tasks"),
    }


def recipe_file(advice: "Advice") -> str:
    """Return the advised recipe as a YAML file, with the reasons as comments."""
    from perdure.core.outputs import RECIPE_LINE

    lines = [line for text in _why(advice) for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ")]
    head = "".join(f"# {line}\n" for line in lines)
    return f"{RECIPE_LINE}\n{head}{_yaml(advice)}"


def _yaml(advice: "Advice") -> str:
    import yaml

    return yaml.safe_dump(dict(advice.recipe), sort_keys=False, allow_unicode=True)


def _screen(advice: "Advice") -> str:
    rivals = [f"{r.recipe}: ACC {r.acc.value:.3f}{_minus(r)}{_times(r)}" for r in advice.rivals]
    left_out = [r for r in advice.refused if r.recipe not in advice.commands]
    more = len(advice.refused) - len(left_out)
    variants = [f"{counted(more, 'variant')} of these and of others; --json lists all"] if more else []
    parts = {
        "advice": f"  {advice.command}",
        "recipe": textwrap.indent(_yaml(advice).rstrip(), "  "),
        "why": _list(_why(advice)),
        "as good, within the intervals": _list(rivals),
        "be warned": _list(advice.cautions),
        "advised in the literature, not built here yet": _list(
            f"{n.what} ({n.says}; {n.source})" for n in advice.not_here
        ),
        "left out": _list([*(f"{r.recipe}: {r.why}" for r in left_out), *variants]),
    }
    named = "\n".join(parts.values())
    unshipped = {name: line for name, line in advice.commands.items() if name in named}
    parts["names of the benchmark above, as commands"] = textwrap.indent(facts(unshipped), "  ")
    return "\n\n".join(f"{title.upper()}\n{body}" for title, body in parts.items() if body)


def _why(advice: "Advice") -> list[str]:
    from perdure.workflows.advise.answer import NO_SOURCE

    return [r.says + (f" [{r.source}]" if r.source != NO_SOURCE else "") for r in advice.reasons]


def _minus(rival: "Rival") -> str:
    if not (gap := rival.acc_minus):
        return ""
    over = counted(gap.seeds, "shared seed")
    return f", by test row {gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}) over {over}"


def _times(rival: "Rival") -> str:
    return f", {rival.train_ratio.value:.2f} times naive's time" if rival.train_ratio else ""


def _list(texts: "Iterable[str]") -> str:
    return "\n".join(textwrap.fill(t, WIDTH, initial_indent="- ", subsequent_indent="  ") for t in texts)


def _answer(question: str, kind: Any) -> Any:
    """Ask until the answer is empty or of this kind."""
    while True:
        answer = typer.prompt(question, default="", show_default=False, err=True).strip()
        try:
            return kind(answer) if answer else None
        except ValueError:
            print_message(f"{answer!r} is no number")


def _confirmed(question: str) -> bool:
    return typer.confirm(question, default=False, err=True)


def _number(text: str | None) -> float | None:
    """Return a number of parameters written as 135M, 7B or 1.5e9."""
    if text is None:
        return None
    digits, unit = (text[:-1], text[-1].upper()) if text[-1:].upper() in ("K", "M", "B") else (text, "")
    try:
        return float(digits) * {"": 1.0, "K": 1e3, "M": 1e6, "B": 1e9}[unit]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no size; write 135M or 7B", param_hint="--parameters") from None
