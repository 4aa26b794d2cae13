"""Write the parts of the docs that come from code, or with --check say which of them are stale and which links are broken.

docs/methods/<name>.md      one card a method: idea, formula, when to use it, cost, seams, fields with their meaning, source
docs/methods/README.md      the cards by family, with the papers, and what each shipped recipe costs
docs/reference/seams.md     every seam with its signature and the methods that fill it
docs/reference/recipes.md   every setting with default and meaning, and the recipes that are shipped
docs/reference/cli.md       every command with its help
docs/matrix.svg             the picture of the README, drawn from result files
docs/benchmarks.md          the tables between `<!-- bench SUITE: COLUMN, ... -->` and `<!-- end bench -->`, from what
                            `perdure bench` left in benchmarks/results/SUITE/table.md; all else there is written by hand
docs/how-to/adapters.md     the last column of the table between `<!-- accuracy SUITE -->` and `<!-- end accuracy -->`, likewise
"""

import inspect
import json
import os
import re
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

from picture import picture

from perdure.core.seams import NEEDS, SEAMS, SUPPORTS, Method

UNMEASURED = "\N{EN DASH}"  # in tables of `perdure bench`
DOCS = Path(__file__).parent
ROOT = DOCS.parent


def method_card(method: type[Method]) -> str:
    from perdure.workflows.advise.explain import describe

    card = describe(method)
    says = card.says
    lines = [f"# {card.name}", "", card.idea, "", card.formula, ""]
    for head in ("when to use", "cost", "state", "needs"):
        if head in says:
            lines += [f"**{head.capitalize()}.** {says[head][0].upper()}{says[head][1:]}", ""]
    lines += ["| seam | what for | room for |", "|---|---|---|"]
    for seam in (SEAMS[name] for name in card.seams):
        lines.append(f"| `{seam.name}` | {seam.purpose} | {'one method' if seam.exclusive else 'many'} |")
    lines += ["", "| field | range | default | meaning |", "|---|---|---|---|"]
    for name, field in card.fields.items():
        lines.append(f"| `{name}` | {field.range or ''} | `{field.default!r}` | {field.about} |")
    lines += ["", f"Family: {card.family}. Source: {card.source}. Module: `{card.module}`.", ""]
    if "deviation" in says:
        lines += [f"**Deviation** {says['deviation']}", ""]
    return "\n".join(lines)


def methods_index(registry: dict[str, type[Method]]) -> str:
    """The cards by family, with the papers: every method has a row."""
    from perdure.workflows.advise.explain import describe

    lines = [
        "# Methods",
        "",
        "`perdure methods NAME` shows a card in the terminal. [Add one](../how-to/add-a-method.md).",
        "",
    ]
    lines += ["| method | family | idea | source |", "|---|---|---|---|"]
    for card in sorted(map(describe, registry.values()), key=lambda card: (card.family, card.name)):
        cells = [f"[{card.name}]({card.name}.md)", card.family, card.idea, card.source]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *cost_table()])


def cost_table() -> list[str]:
    """What each shipped recipe costs, counted by a rehearsal, and what was measured of it on clinc5."""
    from perdure.methods.registry import load_recipe, recipe_names
    from perdure.workflows.advise.rehearse import rehearse

    heads = ["recipe", "forward", "backward", "before", "after", "state", "kept", "held", "time", "ACC", "same"]
    lines = ["## Cost, and what it buys", ""]
    lines += [
        "From the second task on, of each shipped recipe as it is, those with `instruction_replay` with general rows.",
        "*Forward* and *backward*:",
        "rows that an update runs, in multiples of its new rows; plain training is 1. *Before*: rows run forward before the",
        "first update, in multiples of the task's. *After*: rows run forward after the last one, of 512 new and 32 of memory.",
        "*State*: bytes a trainable parameter while a task is learned, *kept* between tasks, and *held* beside it in an update.",
        "*Time*: of training, in multiples of naive's, as measured on [clinc5](../benchmarks.md). *ACC*: over its five tasks",
        "after the last. *Same*: how far its answers to 60 prompts of other kinds stay the base model's (1 is no change). Both",
        "are of one seed; [the table](../benchmarks.md#what-tasks-cost-the-models-abilities-clinc5_guards) has the intervals.",
        "",
    ]
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    times = measured("clinc5", "train time / naive")
    scores, same = (measured("clinc5_guards", column) for column in ("ACC", "drift same"))
    for name in recipe_names():
        recipe = load_recipe(name)
        if (recipe.settings.data, recipe.settings.train) != ("task", "lora"):
            continue  # joint and full: baselines that train other rows, or other weights
        cost = rehearse(recipe)
        state, kept = (sum(getattr(told, when) for told in cost.state.values()) for when in ("learning", "kept"))
        cells = [f"{cost.forward:.2f}", f"{cost.backward:.2f}", f"{cost.before:.2g}", str(cost.after)]
        cells += [f"{number:.3g}" for number in (state, kept, cost.held)]
        cells += [times.get(name, ""), *(found.get(name, "").partition(" ")[0] for found in (scores, same))]
        lines.append("| " + " | ".join([f"`{name}`", *cells]) + " |")
    return lines


def measured(suite: str, column: str) -> dict[str, str]:
    """The column of a suite's table for each shipped recipe that ran on it as it is, whatever its arm is called."""
    from perdure.core.recipe import build_recipe
    from perdure.methods.registry import load_recipe, own_methods, recipe_names

    def nameless(recipe) -> dict:
        return {**recipe.to_json(), "name": None}

    folder = ROOT / "benchmarks" / "results" / suite
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*-0.json"))]
    ran = {run["arm"]: nameless(build_recipe(run["written"], own_methods())) for run in runs}
    head, rows = read_table(suite)
    told = {row[0]: row[head.index(column)] for row in rows}
    shipped = {name: nameless(load_recipe(name)) for name in recipe_names()}
    arms = {  # a result that came after its table was written waits for the next table
        name: [arm for arm in (name, *ran) if ran.get(arm) == recipe and arm in told]
        for name, recipe in shipped.items()
    }
    return {name: told[same[0]] for name, same in arms.items() if same}


def seams_page(registry: dict[str, type[Method]]) -> str:
    """Every seam of the table with the methods that fill it, and what a method may declare."""
    lines = [
        "# Seams",
        "",
        "A seam is a moment of a task at which a method may act. A method fills it with a function of its name, which returns",
        "values and changes nothing; see [add a method](../how-to/add-a-method.md). A host calls the seams in this order.",
        "",
        "| moment | seam | what for | room for | methods |",
        "|---|---|---|---|---|",
    ]
    for seam in SEAMS.values():
        owners = ", ".join(f"`{name}`" for name, method in registry.items() if seam.name in method.seams)
        room = "one method" if seam.exclusive else "many"
        lines.append(f"| {seam.moment} | `{seam.name}{seam.signature}` | {seam.purpose} | {room} | {owners} |")
    for head, known in (("needs", NEEDS), ("supports", SUPPORTS)):
        lines += ["", f"A method may declare in `{head}`:", "", f"| {head} | meaning |", "|---|---|"]
        lines += [f"| `{name}` | {meaning} |" for name, meaning in known.items()]
    return "\n".join(lines)


def recipes_page() -> str:
    from perdure.core.fields import described
    from perdure.core.settings import Settings
    from perdure.methods.registry import RECIPES, recipe_names

    lines = ["# Recipes", "", "A recipe is a YAML file: training settings, and `methods:` with the fields of each.", ""]
    lines += ["## Settings", "", "| key | range | default | meaning |", "|---|---|---|---|"]
    for name, field in described(Settings).items():
        lines.append(f"| `{name}` | {field.range or ''} | `{field.default!r}` | {field.about} |")
    lines += ["", "## Shipped recipes", ""]
    for name in recipe_names():
        lines += [
            f"### {name}",
            "",
            "```yaml",
            (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").strip(),
            "```",
            "",
        ]
    return "\n".join(lines)


def cli_page() -> str:
    import typer

    from perdure.cli.main import app

    # Help is laid out for a terminal of this width, without colours, wherever the docs are built.
    os.environ.update(COLUMNS="100", NO_COLOR="1", TERM="dumb")
    group = typer.main.get_command(app)
    lines = [
        "# Command line",
        "",
        "A command that works in a workspace takes it as `-w DIR`, after its name or before it; else it is `PERDURE_WORKSPACE`,",
        "else this folder. A command that loads a model takes `--device NAME` in the same way; else it is `PERDURE_DEVICE`, else",
        "`auto`: the accelerator where there is one, else the CPU. `--json` prints data for programs, where a command has it.",
        "`perdure --version` prints the version, `perdure help` lists pages on topics, `perdure help COMMAND` shows a command.",
        "",
    ]

    def walk(command, path: list[str]) -> None:
        if hasattr(command, "commands"):
            for name in sorted(command.commands):
                walk(command.commands[name], [*path, name])
            return
        lines.extend(
            [f"## {' '.join(path)}", "", inspect.cleandoc(command.help or ""), "", "| parameter | default | meaning |"]
        )
        lines.append("|---|---|---|")
        for parameter in command.params:
            names = (
                ", ".join(f"`{n}`" for n in parameter.opts)
                if parameter.param_type_name == "option"
                else f"`{parameter.name}`"
            )
            lines.append(f"| {names} | {_default(parameter)} | {_meaning(parameter).replace('|', '/')} |")
        lines.append("")

    walk(group, ["perdure"])
    return "\n".join(lines)


def _default(parameter) -> str:
    shown = getattr(parameter, "show_default", None)
    if isinstance(shown, str):
        return shown
    return "" if parameter.default is None or callable(parameter.default) else f"`{parameter.default}`"


def _meaning(parameter) -> str:
    annotation = parameter.type_descriptor.annotation
    choices = get_args(annotation) if get_origin(annotation) is Literal else ()
    one_of = f" One of {', '.join(f'`{choice}`' for choice in choices)}." if choices else ""
    said = getattr(parameter, "help", None) or ""
    return said + one_of + (" May be repeated." if parameter.multiple and "repeatable" not in said else "")


def read_table(suite: str) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of what `perdure bench` wrote of a suite."""
    lines = (ROOT / "benchmarks" / "results" / suite / "table.md").read_text(encoding="utf-8").splitlines()
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return head, rows


def with_tables(text: str) -> str:
    """Return a page with its benchmark tables as they are in the results now, cut to the columns that each names."""

    def table(found: re.Match) -> str:
        wanted = found["columns"].split(", ")
        head, rows = read_table(found["suite"])
        places = [head.index(column) for column in wanted]
        cells = [wanted, ["---"] * len(wanted), *([row[place] for place in places] for row in rows)]
        made = "\n".join("| " + " | ".join(row) + " |" for row in cells)
        return f"{found['open']}\n{made}\n<!-- end bench -->"

    marked = r"(?P<open><!-- bench (?P<suite>\w+): (?P<columns>[^\n]+) -->)\n.*?<!-- end bench -->"
    return re.sub(marked, table, text, flags=re.S)


def pages() -> dict[Path, str]:
    from perdure.methods.registry import own_methods

    registry = own_methods()
    made = {DOCS / "methods" / f"{name}.md": method_card(method) for name, method in registry.items()}
    made[DOCS / "methods" / "README.md"] = methods_index(registry)
    made[DOCS / "reference" / "seams.md"] = seams_page(registry)
    made[DOCS / "reference" / "recipes.md"] = recipes_page()
    made[DOCS / "reference" / "cli.md"] = cli_page()
    made[DOCS / "matrix.svg"] = picture()
    made[DOCS / "benchmarks.md"] = with_tables((DOCS / "benchmarks.md").read_text(encoding="utf-8"))
    guide = DOCS / "how-to" / "adapters.md"
    made[guide] = with_accuracy(guide.read_text(encoding="utf-8"))
    return {path: text.rstrip() + "\n" for path, text in made.items()}


def with_accuracy(page: str) -> str:
    """Return a page whose table of recipes ends each row with the recipe's final accuracy on a suite, where it was measured."""

    def filled(found: re.Match[str]) -> str:
        named, unnamed = (measured(found["suite"], column) for column in ("ACC", "ACC, task not named"))
        head, rule, *rows = found["table"].strip().splitlines()
        cells = [row.strip("|").split("|") for row in rows]
        lines = []
        for row in cells:
            name = row[0].strip(" `")
            cell = accuracy(named.get(name), unnamed.get(name))
            lines.append("|" + "|".join([*row[:-1], f" {cell} "]) + "|")
        return "\n".join([found["open"], head, rule, *lines, "<!-- end accuracy -->"])

    marked = r"(?P<open><!-- accuracy (?P<suite>\w+) -->)\n(?P<table>.*?)<!-- end accuracy -->"
    return re.sub(marked, filled, page, flags=re.DOTALL)


def accuracy(named: str | None, unnamed: str | None) -> str:
    """Return the accuracy of a recipe: where requests do not name their task, and beside it where they do if that differs."""
    if named is None:
        return UNMEASURED
    return named if unnamed in (None, UNMEASURED) else f"{unnamed}; {named} where requests name their task"


def stale_times() -> list[str]:
    """The methods whose docstring does not say, to a tenth, the time that was measured of the recipe of their name."""
    from perdure.methods.registry import own_methods

    stale, registry = [], own_methods()
    for name, told in measured("clinc5", "train time / naive").items():
        if name not in registry:
            continue
        said = re.search(r"([\d.]+) x naive's\s+time\s+\(clinc5\)", registry[name].__doc__ or "")
        time = float(told.split()[0])
        if said is None or abs(float(said[1]) - time) > 0.051:
            stale.append(f"{name} takes {time} x naive's time on clinc5; its docstring says {said and said[1]}")
    return stale


def broken_links() -> list[str]:
    broken = []
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target} is not there")
    return broken


def unnamed_rooms() -> list[str]:
    """Return a line for each room that docs/architecture.md does not name in its table, or names although it does not exist."""
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(\w+)/` \|", page, re.MULTILINE))
    rooms = {path.parent.name for path in (ROOT / "src" / "perdure").glob("*/__init__.py")}
    missing = [f"docs/architecture.md does not name the room {name}/" for name in sorted(rooms - named)]
    return missing + [
        f"docs/architecture.md names the room {name}/, which is not there" for name in sorted(named - rooms)
    ]


def main() -> int:
    check = "--check" in sys.argv
    problems = []
    for path, text in pages().items():
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            problems.append(f"{path.relative_to(ROOT)} is stale; run `make format`")
        elif not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    problems += stale_times() + broken_links() + unnamed_rooms()
    print("\n".join(problems) or "docs are current")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
