"""Write the parts of the docs that come from code, or with --check say which of them are stale and which links are broken.

docs/methods/<name>.md      one card a method: its docstring, fields with their comments, seams, source
docs/reference/recipes.md   every setting with default and meaning, and the recipes that are shipped
docs/reference/cli.md       every command with its help
"""

import ast
import inspect
import os
import re
import sys
from dataclasses import fields
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent


def method_card(method: type) -> str:
    source = inspect.getsource(sys.modules[method.__module__])
    paper = ast.get_docstring(ast.parse(source)) or ""
    text = inspect.cleandoc(method.__doc__ or "")
    lines = [f"# {method.name}", "", paper, "", text, "", "| field | default | meaning |", "|---|---|---|"]
    for field in fields(method):
        comment = re.search(rf"^    {field.name}: .*?#\s*(.*)$", source, re.MULTILINE)
        lines.append(f"| `{field.name}` | `{field.default!r}` | {comment.group(1) if comment else ''} |")
    lines += ["", f"Family: {method.family}. Seams: {', '.join(method.seams)}. Source: {method.source}.", ""]
    return "\n".join(lines)


def recipes_page() -> str:
    from perdure.core.recipe import Settings
    from perdure.methods.registry import RECIPES, recipe_names

    lines = ["# Recipes", "", "A recipe is a YAML file: training settings, and `methods:` with the fields of each.", ""]
    lines += ["## Settings", "", "| key | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        lines.append(f"| `{name}` | `{field.default!r}` | {field.description} |")
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
    lines = ["# Command line", "", "Every command takes `-w/--workspace DIR`; `--json` prints data for programs.", ""]

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
            default = "" if parameter.default is None or callable(parameter.default) else f"`{parameter.default}`"
            lines.append(f"| {names} | {default} | {(getattr(parameter, 'help', None) or '').replace('|', '/')} |")
        lines.append("")

    walk(group, ["perdure"])
    return "\n".join(lines)


def pages() -> dict[Path, str]:
    from perdure.methods.registry import all_methods

    made = {DOCS / "methods" / f"{name}.md": method_card(method) for name, method in all_methods().items()}
    made[DOCS / "reference" / "recipes.md"] = recipes_page()
    made[DOCS / "reference" / "cli.md"] = cli_page()
    return {path: text.rstrip() + "\n" for path, text in made.items()}


def broken_links() -> list[str]:
    broken = []
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target} is not there")
    return broken


def main() -> int:
    check = "--check" in sys.argv
    problems = []
    for path, text in pages().items():
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            problems.append(f"{path.relative_to(ROOT)} is stale; run `make format`")
        elif not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    problems += broken_links()
    print("\n".join(problems) or "docs are current")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
