"""What every method owes that says which adapter a task trains. A new one is covered by its registry line alone."""

import copy
import dataclasses

import pytest
import torch

from perdure.bridges import transformers_host
from perdure.core.errors import Interrupted
from perdure.core.plan import Bare
from perdure.core.recipe import build_recipe
from perdure.methods.registry import all_methods
from perdure.train import loop
from perdure.train.checkpoint import Keeper
from streams import close, same, weights

METHODS = all_methods()
POLICIES = (
    {"no method": {}}
    | {name: {name: {}} for name, method in METHODS.items() if "adapter" in method.seams}
    | {"o_lora, exact": {"o_lora": {"exact": True}}}
)
FRESH = {name: methods for name, methods in POLICIES.items() if name not in ("no method", "shared")}
every_policy = pytest.mark.parametrize("methods", POLICIES.values(), ids=POLICIES)
every_fresh_one = pytest.mark.parametrize("methods", FRESH.values(), ids=FRESH)
SETTINGS = {"weight_decay": 0.1, "lora_dropout": 0.1}


def bare(stream, methods):
    recipe = build_recipe({"methods": methods}, METHODS)
    return recipe, Bare("new", 0, recipe.settings, stream.runtime.shapes(recipe.settings), stream.slots)


@every_policy
def test_its_plan_depends_on_what_it_is_given_alone_and_on_names_where_slots_are_concerned(methods, stream):
    recipe, given = bare(stream, methods)
    before = copy.deepcopy(dict(given.slots))
    one, other = (recipe.adapter_plan(given, {}) for _ in range(2))
    by_names = recipe.adapter_plan(dataclasses.replace(given, shapes={}, slots={name: {} for name in given.slots}), {})
    assert (one.slot, one.beneath) == (by_names.slot, by_names.beneath)
    assert (one.start is None) == (by_names.start is None)
    if one.start:
        found, again = one.start(), other.start()
        assert found.keys() == again.keys()
        for module, factors in found.items():
            assert torch.equal(factors.down, again[module].down)
            assert torch.equal(factors.up, again[module].up)
    assert all(same(given.slots[name], before[name]) for name in before)
    assert one.slot not in one.beneath
    assert set(one.beneath) <= set(given.slots)


@every_policy
def test_a_first_task_is_learned_as_without_it_to_the_bit(methods, stream):
    slots, stream.slots = stream.slots, {}
    try:
        plain, other = (stream.train(stream.learner(m, rows=stream.old)).weights for m in ({}, methods))
    finally:
        stream.slots = slots
    assert same(plain, other)


@every_fresh_one
def test_what_lies_under_it_keeps_its_bits_and_its_own_slot_is_what_trained(methods, stream):
    made = stream.learner(methods, **SETTINGS)
    frozen = {name: value.clone() for name, value in stream.runtime.model.named_parameters() if name not in made.params}
    start = stream.runtime.trained()
    stream.train(made)
    assert same({name: value for name, value in stream.runtime.model.named_parameters() if name in frozen}, frozen)
    own = stream.runtime.trained()
    assert own.keys() == start.keys()
    assert not same(own, start)
    assert same(stream.runtime.skill(), stream.slots["skill"])


@every_policy
def test_both_hosts_learn_the_same_bits_and_so_does_a_run_that_was_stopped(methods, stream, tmp_path):
    def learned(host, **keeping):
        made = stream.learner(methods, **SETTINGS)
        host(made, Keeper(keeping.get("path"), made, stop=keeping.get("stop")))
        return weights(made)

    by_loop = learned(loop.train)
    assert same(learned(transformers_host.train), by_loop)
    seen = iter(range(99))
    with pytest.raises(Interrupted):
        learned(loop.train, path=tmp_path / "run", stop=lambda: "SIGINT" if next(seen) == 3 else None)
    assert same(learned(loop.train, path=tmp_path / "run"), by_loop)


@every_policy
def test_an_update_means_the_same_whatever_the_accumulation(methods, stream):
    def learned(parts):
        made = stream.learner(methods, learning_rate=1e-3)
        made.updates = [[batch[i::parts] for i in range(parts)] for (batch,) in made.updates]
        return stream.train(made).weights

    close(learned(2), learned(1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("exact", [True, False])
def test_o_lora_on_a_model_is_orthogonal_with_exact_and_less_parallel_with_its_penalty(stream, exact):
    def overlap(methods):
        stream.train(stream.learner(methods, num_train_epochs=4, **SETTINGS))
        own, old = stream.runtime.trained(), stream.slots["skill"]
        pairs = [(own[name], old[name]) for name in own if name.endswith(".down")]
        return max(((a @ b.T).norm() / (a.norm() * b.norm())).item() for a, b in pairs)

    found = overlap({"o_lora": {"exact": exact, "strength": 50.0}})
    assert found < (1e-5 if exact else 0.7 * overlap({"incremental": {}}))


def test_hold_is_part_of_the_heartbeat_and_is_left_out_where_it_does_nothing(stream):
    exact = stream.train(stream.learner({"o_lora": {"exact": True}}, **SETTINGS)).record
    assert any((beat.held or 0) > 0 for _, beat in exact.heartbeats["o_lora"])
    assert "o_lora" in exact.acted
    soft = stream.train(stream.learner({"o_lora": {}}, **SETTINGS)).record
    assert not any(beat.held is not None for _, beat in soft.heartbeats["o_lora"])
