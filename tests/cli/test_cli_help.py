"""Every help has an example that the program accepts, and the values that an option takes; `perdure help` has pages on topics."""

import re
from typing import Literal, get_args, get_origin

import pytest
from shell import run

from commands import all_commands, fault
from perdure.bridges.models import DTYPES
from perdure.cli.help import topic_text, topics
from perdure.data.columns import FORMATS
from perdure.editing.spec import METHODS
from perdure.evaluate.scorers import SCORERS
from perdure.methods.registry import load_recipe, recipe_names
from perdure.workflows.bench.suite_files import suite_names

ALL = all_commands()
WIDE = {"COLUMNS": "300", "NO_COLOR": "1", "TERM": "dumb"}


def shown_help(words: str) -> str:
    """Return the help of a command as one line without borders."""
    text = run(*words.split()[1:], "--help", env=WIDE).stdout
    return " ".join(re.sub("[│─╭╮╰╯]", " ", text).split())


def option(command: str, name: str):
    return next(p for p in ALL[command].params if p.name == name or name in p.opts)


@pytest.mark.parametrize("words", ALL)
def test_every_help_has_an_example_that_the_program_accepts(words: str):
    examples = re.findall(r"^Example: (perdure .*)$", ALL[words].help or "", re.MULTILINE)
    assert examples, f"{words} --help has no example"
    text = shown_help(words)
    for example in examples:
        assert f"Example: {' '.join(example.split())}" in text
        assert (error := fault(example)) is None, f"{example}: {getattr(error, 'message', error)}"
        alias = {"perdure workspace relocate": "perdure relocate"}.get(words, words)
        assert example.startswith(alias), "the example of another command"


def test_every_help_lists_the_values_that_an_option_takes():
    for words, command in ALL.items():
        chosen = [p for p in command.params if get_origin(p.type_descriptor.annotation) is Literal]
        text = shown_help(words) if chosen else ""
        for parameter in chosen:
            for value in get_args(parameter.type_descriptor.annotation):
                assert re.search(rf"\b{value}\b", text), f"{words} does not list {value}"
    named = {
        ("perdure learn", "--format"): FORMATS,
        ("perdure learn", "--scorer"): SCORERS,
        ("perdure init", "--dtype"): ["auto", *DTYPES],
        ("perdure export", "--dtype"): DTYPES,
        ("perdure edit", "--method"): [name for name in METHODS if name != "lora"],  # no command takes the baseline
        ("perdure bench", "suite"): suite_names(),
    }
    for (words, name), values in named.items():
        told = re.findall(r"\w+", option(words, name).help)
        assert not (missing := set(values) - set(told)), f"{words} {name} does not list {missing}"


def test_each_topic_has_a_page_whose_commands_the_program_accepts():
    assert topics() == ["edits", "formats", "gate", "memory", "recipes"]
    contents = run("help").stdout
    for name in topics():
        text = topic_text(name)
        assert run("help", name).stdout == f"{text}\n"
        assert f"perdure help {name}" in contents
        commands = re.findall(r"^  (perdure .*)$", text, re.MULTILINE)
        assert commands, name
        faults = {command: error for command in commands if (error := fault(command)) is not None}
        assert not faults, faults
        assert max(map(len, text.splitlines())) <= 126


def test_the_pages_on_topics_name_what_there_is():
    def words_of(text: str) -> set[str]:
        return set(re.findall(r"\w+", text))

    assert set(FORMATS) | set(SCORERS) <= words_of(topic_text("formats"))
    assert set(METHODS) - {"lora"} <= words_of(topic_text("edits"))
    page = topic_text("recipes")
    groups = {
        "storing": re.search(r"are stored by: (.*?)\nNo rows", page, re.DOTALL)[1],
        "none": re.search(r"No rows are stored by: (.*?)\nBaselines", page, re.DOTALL)[1],
        "baselines": re.search(r"Baselines: (.*)", page)[1],
    }
    shipped = {name: load_recipe(name) for name in recipe_names()}
    tasks = {n: r for n, r in shipped.items() if (r.settings.data, r.settings.train) == ("task", "lora")}
    assert words_of(groups["storing"]) == {name for name, recipe in tasks.items() if recipe.remembers}
    assert words_of(groups["none"]) == {name for name, recipe in tasks.items() if not recipe.remembers}
    assert words_of(groups["baselines"]) & set(shipped) == set(shipped) - set(tasks)


def test_help_of_a_command_is_what_its_own_option_shows():
    for words in ("learn", "recipe advise", "edits", "edits verify"):
        if words not in topics():
            own = run(*words.split(), "--help", env=WIDE).stdout
            assert run("help", *words.split(), env=WIDE).stdout.split() == own.split()
    assert "gate --help" in topic_text("gate")
    assert "memory --help" in topic_text("memory")
    assert "edits --help" in topic_text("edits")


def test_a_word_that_is_no_topic_lists_them():
    text = run("help", "formts", code=1).stderr
    assert all(name in text for name in topics())
    assert "did you mean 'formats'" in text
    known = run("help", "qqqqqq", code=1).stderr.partition("known are ")[2].strip().split(", ")
    assert known == sorted(set(known))  # `edits`, `gate` and others are both a topic and a command
    assert {"edits", "gate", "formats", "learn"} < set(known)
    nested = run("help", "recipe", "lst", code=1).stderr
    assert "explain, advise, list, show" in nested
    assert "did you mean 'list'" in nested
