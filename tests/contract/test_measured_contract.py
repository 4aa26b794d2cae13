"""What every method owes that measures a task under the base, in a slot. A new one is covered by its registry line alone."""

import dataclasses
import json

import pydantic.dataclasses
import pytest
import torch

from perdure.core.errors import Conflict, Diverged
from perdure.core.fields import described
from perdure.core.recipe import build_recipe
from perdure.core.seams import checked_method
from perdure.core.slots import MEASURED, measured_slot
from perdure.methods.registry import all_methods
from streams import same, weights

METHODS = {  # what answers from its slot trains nothing: test_answering_contract.py
    name: method for name, method in all_methods().items() if method.slot and not method.answers
}
every_method = pytest.mark.parametrize("name", METHODS)


def measured(stream, methods, name, registry=METHODS, **more):
    """Return what a method stores of the task that is learned, and the trained weights."""
    made = stream.learner(methods, registry=all_methods() | registry, learning_rate=0.02, **more)
    stream.train(made)
    slot = measured_slot(registry[name].slot, more.get("task", "new"))
    return made.measured_slots[slot], weights(made)


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
    recipe = build_recipe({"methods": {name: {}}}, METHODS)
    assert build_recipe(json.loads(json.dumps(recipe.to_json())), METHODS) == recipe


@every_method
@pytest.mark.parametrize("setting", [{"train": "full"}, {"data": "all"}])
def test_it_is_refused_where_there_is_no_base_or_no_single_task_to_measure(name, setting):
    with pytest.raises(Conflict, match=name):
        build_recipe({**setting, "methods": {name: {}}}, METHODS)


def check_measured(stream, name, registry=METHODS):
    """Assert that it trains as without it, and stores the same bits whatever is trained with it, or was trained before it."""
    found, trained = measured(stream, {name: {}}, name, registry)
    assert found
    assert all(value.isfinite().all() for value in found.values())
    assert same(trained, weights_without(stream))
    slots, stream.slots = stream.slots, {}
    try:
        first, other = measured(stream, {name: {}}, name, registry)
    finally:
        stream.slots = slots
    assert not same(trained, other)
    assert same(found, first)
    beside, _ = measured(stream, {name: {}, "incremental": {}}, name, registry)
    assert same(found, beside)


def weights_without(stream):
    made = stream.learner({}, learning_rate=0.02)
    stream.train(made)
    return weights(made)


@every_method
def test_it_trains_as_without_it_and_stores_what_no_weight_changes(name, stream):
    check_measured(stream, name)


@every_method
def test_it_stores_something_else_of_other_rows(name, stream):
    one, _ = measured(stream, {name: {}}, name)
    other, _ = measured(stream, {name: {}}, name, rows=stream.new[:5])
    assert not same(one, other)


@every_method
def test_a_method_that_measures_trained_weights_is_found(name, stream):
    def measure(self, model, state):
        return {
            **METHODS[name].measure(self, model, state),
            "norm": sum(value.norm() for value in model.params.values()),
        }

    broken = pydantic.dataclasses.dataclass(frozen=True)(type("Broken", (METHODS[name],), {"measure": measure}))
    with pytest.raises(AssertionError):
        check_measured(stream, name, {name: broken})


@every_method
def test_nan_in_what_is_stored_is_a_named_error(name, stream):
    def measure(self, model, state):
        return {key: value * torch.nan for key, value in METHODS[name].measure(self, model, state).items()}

    broken = pydantic.dataclasses.dataclass(frozen=True)(type("Broken", (METHODS[name],), {"measure": measure}))
    with pytest.raises(Diverged, match=f"method {name} measured"):
        measured(stream, {name: {}}, name, {name: broken})
