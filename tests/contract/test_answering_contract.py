"""What every method owes that answers from what it measured, without training. A new one is covered by its registry line."""

import dataclasses
import json

import pydantic.dataclasses
import pytest

from perdure.core.errors import Conflict, Diverged
from perdure.core.fields import described
from perdure.core.recipe import build_recipe
from perdure.core.seams import checked_method
from perdure.core.slots import MEASURED, measured_slot
from perdure.methods.registry import all_methods
from perdure.train.learner import Learner
from perdure.train.task import TaskInputs
from streams import same

EVERY = all_methods()
METHODS = {name: method for name, method in EVERY.items() if method.answers}
every_method = pytest.mark.parametrize("name", METHODS)


def recipe_of(name, registry=METHODS, **more):
    return build_recipe({"train": "none", "methods": {name: {}, **more}}, EVERY | registry)


def measured(stream, name, registry=METHODS, rows=None, state=None):
    """Return what a method stores of a task, over whatever adapter is loaded."""
    stream.runtime.load(stream.slots)
    inputs = TaskInputs("new", rows or stream.new, state={name: state} if state else {})
    learner = Learner(stream.runtime.trainable({}), recipe_of(name, registry), inputs)
    assert learner.total == 0
    learner.settle()
    return learner.measured_slots[measured_slot(registry[name].slot, "new")]


@every_method
def test_it_is_a_frozen_dataclass_that_says_what_it_is_and_comes_back_from_json(name):
    method = METHODS[name]
    assert checked_method(method) is method
    assert method.slot in MEASURED
    assert any(word in method.source for word in ("arXiv", "doi", "http"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(method(), dataclasses.fields(method)[0].name, 0.5)
    for field, about in described(method).items():
        assert about.default == getattr(method(), field)
        assert about.about
    recipe = recipe_of(name)
    assert build_recipe(json.loads(json.dumps(recipe.to_json())), METHODS) == recipe


@every_method
@pytest.mark.parametrize("other", [other for other in EVERY if other not in METHODS])
def test_nothing_acts_beside_it(name, other):
    with pytest.raises(Conflict):
        recipe_of(name, **{other: {}})


@every_method
@pytest.mark.parametrize("train", ["lora", "full"])
def test_nothing_is_trained_beside_it(name, train):
    with pytest.raises(Conflict, match=name):
        build_recipe({"train": train, "methods": {name: {}}}, METHODS)


def check_base_alone(stream, name, registry=METHODS):
    """Assert that it stores the same bits whatever adapter is loaded."""
    over = measured(stream, name, registry)
    slots, stream.slots = stream.slots, {}
    try:
        assert same(over, measured(stream, name, registry))
    finally:
        stream.slots = slots


@every_method
def test_it_stores_the_same_over_any_adapter_and_something_else_of_other_rows(name, stream):
    check_base_alone(stream, name)
    assert not same(measured(stream, name), measured(stream, name, rows=stream.old))


@every_method
def test_a_method_that_reads_the_adapter_is_found(name, stream):
    def measure(self, model, state):
        slice_ = next(iter(model.slices("new")))
        return {**METHODS[name].measure(self, model, state), "logits": slice_.logits.sum()}

    broken = pydantic.dataclasses.dataclass(frozen=True)(type("Broken", (METHODS[name],), {"measure": measure}))
    with pytest.raises(AssertionError):
        check_base_alone(stream, name, {name: broken})


@every_method
def test_nan_in_what_is_stored_is_a_named_error(name, stream):
    def measure(self, model, state):
        return {key: value * float("nan") for key, value in METHODS[name].measure(self, model, state).items()}

    broken = pydantic.dataclasses.dataclass(frozen=True)(type("Broken", (METHODS[name],), {"measure": measure}))
    with pytest.raises(Diverged, match=f"method {name} measured"):
        measured(stream, name, {name: broken})
