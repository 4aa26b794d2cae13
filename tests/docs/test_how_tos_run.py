"""The how-tos for people who come with a script or a configuration of their own: their code runs, their tables are true."""

import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from perdure.cli.main import app
from perdure.core.errors import BadSpec
from perdure.workflows.recipe_import import import_recipe

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
IMPORT = (HOW_TO / "from-other-trainers.md").read_text(encoding="utf-8")
MODELS = ("model_name_or_path: m", "base_model: m")  # by which each configuration is known


def blocks(text: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def table(heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head and the marks of code."""
    part = IMPORT.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def imported(line: str, model: str, tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.write_text(model if line == model.split(":")[0] else f"{model}\n{line}\n", encoding="utf-8")
    return import_recipe(path)


def test_the_page_on_own_scripts_runs(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = blocks((HOW_TO / "own-script.md").read_text(encoding="utf-8"), "python")
    code[0], replaced = re.subn(r'^MODEL = ".*"', f"MODEL = {str(tiny_model)!r}", code[0], flags=re.MULTILINE)
    assert (replaced, len(code)) == (1, 2)
    names: dict = {}
    for number, block in enumerate(code):
        exec(compile(block, f"own-script.md, block {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert re.search(r"^topic \d", printed, re.MULTILINE)
    assert re.search(r"^urgency \d", printed, re.MULTILINE)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    assert [row.task for row in names["trainer"].memory.rows] == ["topic"] * 4
    learner = names["learner"]
    assert learner.settled
    assert len(names["losses"]) == learner.total == 5
    assert names["losses"][-1] < names["losses"][0]
    assert learner.record.heartbeats["replay"][0][1].rows > 0


def test_the_configuration_of_the_page_is_imported_as_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama_factory.yaml").write_text(blocks(IMPORT, "yaml")[0], encoding="utf-8")
    (command,) = blocks(IMPORT, "sh")
    done = CliRunner().invoke(app, command.split()[1:], catch_exceptions=False)
    assert (done.exit_code, done.stderr) == (0, blocks(IMPORT, "text")[0])
    assert CliRunner().invoke(app, ["recipe", "explain", "tickets.yaml"], catch_exceptions=False).exit_code == 0


@pytest.mark.parametrize(("theirs", "axolotl", "here"), table("The names"))
def test_the_names_are_what_the_import_makes_of_them(theirs, axolotl, here, tmp_path):
    for line, model in zip((theirs, axolotl), MODELS, strict=True):
        made = imported(line.strip("`"), model, tmp_path)
        assert not made.left
        wanted = here.strip("`")
        if wanted == "init --model":
            assert made.init == {"--model": "m"}
        elif wanted.startswith("init "):
            name, value = wanted.split()[1:]
            assert made.init[name] == value
        elif wanted.startswith("learn TASK "):
            assert made.data == (wanted.split()[-1],)
        else:
            assert made.settings.items() >= yaml.safe_load(wanted).items()


@pytest.mark.parametrize(("theirs", "axolotl"), [line[:2] for line in table("What has no counterpart")])
def test_what_the_page_says_is_not_taken_is_listed_with_a_reason(theirs, axolotl, tmp_path):
    for line, model in zip((theirs, axolotl), MODELS, strict=True):
        made = imported(line.strip("`"), model, tmp_path)
        assert made.left[line.strip("`").split(":")[0]]
        assert not made.settings


def test_preferences_are_an_error_as_the_page_says(tmp_path):
    for line, model in zip(("stage: dpo", "rl: dpo"), MODELS, strict=True):
        with pytest.raises(BadSpec, match="not from preferences"):
            imported(line, model, tmp_path)
