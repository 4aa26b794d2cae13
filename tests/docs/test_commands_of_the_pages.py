"""Every `perdure` command in README and the pages can be given: its name, its options and the types of their values are known."""

import json
import re
from pathlib import Path

import pytest
import yaml

from commands import fault

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "how-to").glob("*.md"))]


def blocks(page: Path, kind: str = r"\w*") -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def in_blocks(page: Path) -> list[str]:
    """Return the commands in the page's blocks."""
    lines = "\n".join(blocks(page)).splitlines()
    return [part.strip() for line in lines for part in re.split(r"&&|[|](?= perdure)", line) if is_command(part)]


def in_prose(page: Path) -> list[str]:
    """Return the commands that the page's sentences name, whole or in part."""
    text = re.sub(r"^```\w*\n.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))
    return [span.replace("--rank R", "--rank 8") for span in spans if is_command(span) and "|" not in span]


def is_command(text: str) -> bool:
    return bool(re.match(r"perdure [a-z]", text.strip()))


def report(faults: dict[str, Exception | None]) -> str:
    lines = (f"{command}: {getattr(error, 'message', None) or error}" for command, error in faults.items() if error)
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_the_page_can_be_given(page: Path):
    whole = report({command: fault(command) for command in in_blocks(page)})
    assert not whole, whole
    named = {command: fault(command) for command in in_prose(page)}  # "`perdure learn` trains" leaves arguments out
    part = report({command: error for command, error in named.items() if type(error).__name__ != "MissingParameter"})
    assert not part, part


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_the_page_shows_can_be_copied(page: Path):
    for block in blocks(page, "json"):
        assert all(isinstance(json.loads(line), dict) for line in block.splitlines()), (
            "JSON lines have one object a line"
        )
    for block in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(block), dict), block
    for block in blocks(page, "python"):
        compile(block, page.name, "exec")


def test_the_pages_have_commands_and_a_wrong_one_is_noticed():
    assert len({command for page in PAGES for command in in_blocks(page)}) > 60
    assert fault("perdure lern a b.jsonl")
    assert fault("perdure learn a b.jsonl --tolerence 0.1")
    assert fault("perdure export adapter/ --rank many")
    assert fault("perdure rollback")
    assert fault("perdure predict - < prompts.txt  # from stdin") is None
