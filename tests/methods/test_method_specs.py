"""The JSON of methods is part of an entry's id. What is written here never changes for a method that exists."""

import json
from pathlib import Path

import pytest

from perdure.core.recipe import build_recipe
from perdure.ledger.entry import Entry
from perdure.methods.registry import all_methods, load_recipe

METHODS = all_methods()
SPECS = json.loads((Path(__file__).parent / "method_specs.json").read_text(encoding="utf-8"))


def entry_id(recipe: dict) -> str:
    return Entry("parent", "learn", "base", recipe=recipe, tasks={"t": "v"}, slots={"skill": "s"}, seed=1).id


@pytest.mark.parametrize("name", SPECS["methods"])
def test_the_json_of_a_method_at_its_defaults_is_what_entries_name(name: str):
    train = "none" if METHODS[name].answers else "lora"
    spec = build_recipe({"name": "mine", "train": train, "methods": {name: {}}}, METHODS).to_json()["methods"]
    assert json.dumps(spec[name]) == json.dumps(SPECS["methods"][name])  # the order of the fields too


@pytest.mark.parametrize("name", SPECS["entries"])
def test_an_entry_of_a_shipped_recipe_has_the_id_that_it_always_had(name: str):
    assert entry_id(load_recipe(name).to_json()) == SPECS["entries"][name]
