"""The guard files that are shipped: each is read, made ones have the rows that their budgets count, public ones name origins."""

from pathlib import Path

import pytest

from perdure.data.guard_spec import guard_file, guard_names, load_guard_spec
from perdure.data.made import MADE, made_rows

SPECS = {name: load_guard_spec(guard_file(name)) for name in guard_names()}
MADE_ONES = [name for name, spec in SPECS.items() if spec.made]
PUBLIC = [name for name, spec in SPECS.items() if spec.test]


def test_every_made_guard_and_every_public_set_has_a_file():
    assert {SPECS[name].made for name in MADE_ONES} == set(MADE)
    assert set(PUBLIC) == {
        "arc_easy",
        "boolq",
        "gsm8k",
        "hellaswag",
        "humaneval",
        "ifeval",
        "lambada",
        "mmlu",
        "piqa",
        "relations_facts",
        "simple_arithmetic",
        "triviaqa_sub",
        "xstest",
    }


@pytest.mark.parametrize("name", SPECS)
def test_a_file_is_named_as_its_guard(name):
    assert SPECS[name].name == name


@pytest.mark.parametrize("name", MADE_ONES)
def test_a_made_guard_has_the_rows_that_its_budgets_count(name):
    counts = SPECS[name].items
    assert counts.standard <= len(made_rows(SPECS[name].made))
    assert counts.full == "all"


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_guard_names_licence_and_origin_of_its_file_and_costs_a_learn_nothing(name):
    spec = SPECS[name]
    (file,) = spec.files
    assert "https://" in spec.sources[file.as_posix()]
    assert spec.items.learn == 0
    assert not Path(file).is_absolute()
