"""What every method owes that says which adapter a task trains. A new one is covered by its registry line alone."""

import copy
import dataclasses
from typing import ClassVar

import pydantic.dataclasses
import pytest
import torch

from perdure.bridges import transformers_host
from perdure.core.errors import Interrupted
from perdure.core.plan import AdapterPlan, Bare
from perdure.core.recipe import build_recipe
from perdure.core.seams import Method
from perdure.core.slots import SKILL
from perdure.core.step import Step
from perdure.maths.low_rank import from_tensors
from perdure.methods.registry import all_methods
from perdure.train import loop
from perdure.train.checkpoint import Keeper
from streams import close, same, weights

METHODS = all_methods()
POLICIES = (
    {"no method": {}}
    | {name: {name: {}} for name, method in METHODS.items() if "adapter" in method.seams}
    | {"o_lora, exact": {"o_lora": {"exact": True}}, "slao, keep_r": {"slao": {"keep_r": True}}}
)


def slot_of(methods):
    """Return the slot that a policy trains where a shared adapter is learned already."""
    recipe = build_recipe({"methods": methods}, METHODS)
    return recipe.adapter_plan(Bare("new", 0, recipe.settings, {}, {SKILL: {}}), {}).slot


FRESH = {name: methods for name, methods in POLICIES.items() if slot_of(methods) != SKILL}
every_policy = pytest.mark.parametrize("methods", POLICIES.values(), ids=POLICIES)
every_fresh_one = pytest.mark.parametrize("methods", FRESH.values(), ids=FRESH)
SETTINGS = {"weight_decay": 0.1, "lora_dropout": 0.1}


def broken(method):
    """Return a test's variant of a method as the dataclass that a method is."""
    return pydantic.dataclasses.dataclass(frozen=True)(method)


def bare(stream, methods, registry=METHODS):
    recipe = build_recipe({"methods": methods}, registry)
    return recipe, Bare("new", 0, recipe.settings, stream.runtime.shapes(recipe.settings), stream.slots)


def check_plan(recipe, given):
    """Assert that a plan depends on what it is given alone, on names where slots are concerned, and changes nothing."""
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
def test_its_plan_depends_on_what_it_is_given_alone_and_on_names_where_slots_are_concerned(methods, stream):
    check_plan(*bare(stream, methods))


@broken
class Writing(METHODS["incremental"]):
    """Writes into what it was given."""

    def adapter(self, bare, state):
        for tensors in bare.slots.values():
            for value in tensors.values():
                value.add_(1)
        return super().adapter(bare, state)


@broken
class Reading(METHODS["incremental"]):
    """Has other slots where it has read what is in them."""

    def adapter(self, bare, state):
        return AdapterPlan("sum:new", tuple(name for name, tensors in bare.slots.items() if tensors))


@pytest.mark.parametrize("method", [Writing, Reading])
def test_a_plan_that_changes_what_it_is_given_or_depends_on_content_is_found(method, stream):
    recipe, given = bare(stream, {"incremental": {}}, {"incremental": method})
    copied = {name: {key: value.clone() for key, value in held.items()} for name, held in given.slots.items()}
    with pytest.raises(AssertionError):
        check_plan(recipe, dataclasses.replace(given, slots=copied))


@every_policy
def test_a_first_task_is_learned_as_without_it_to_the_bit(methods, stream):
    slots, stream.slots = stream.slots, {}
    try:
        plain, other = (stream.train(stream.learner(m, rows=stream.old)).weights for m in ({}, methods))
    finally:
        stream.slots = slots
    assert same(plain, other)


def check_frozen(stream, methods):
    """Assert that 20 updates of AdamW with decay change what trains, and neither the base nor what lies under it."""
    made = stream.learner(methods, num_train_epochs=5, **SETTINGS)
    assert made.total == 20
    own = {id(value) for value in made.params.values()}
    everything = dict(stream.runtime.model.named_parameters())
    frozen = {name: value.clone() for name, value in everything.items() if id(value) not in own}
    start = stream.runtime.trained()
    assert len(frozen) + len(start) * 2 // 3 == len(
        everything
    )  # the factors of one block train; a scale is no parameter
    stream.train(made)
    assert same({name: everything[name] for name in frozen}, frozen)
    trained = stream.runtime.trained()
    assert trained.keys() == start.keys()
    assert not same(trained, start)
    assert same(stream.runtime.skill(), stream.slots["skill"])


@every_fresh_one
def test_what_lies_under_it_keeps_its_bits_and_its_own_slot_is_what_trained(methods, stream):
    check_frozen(stream, methods)


def test_a_block_that_was_left_trainable_is_found(stream, monkeypatch):
    monkeypatch.setattr(type(stream.runtime), "freeze", lambda self: None)
    with pytest.raises(AssertionError):
        check_frozen(stream, {"incremental": {}})


HOLDING = [name for name, method in METHODS.items() if "hold" in method.seams]
HELD = {"o_lora": {"exact": True}}  # fields with which it holds something


def check_hold(stream, name, registry=METHODS):
    """Assert that what a method holds after every update it would leave as it is."""
    made = stream.learner({name: HELD.get(name, {})}, registry=registry, **SETTINGS)
    stream.train(made)
    (method,) = made.recipe.methods
    step = Step(made.total - 1, made.total, made.params)
    held = method.hold(step, made.state[name])
    assert held.keys() <= made.params.keys()
    assert held
    close(held, {key: made.params[key].detach() for key in held}, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", HOLDING)
def test_what_is_held_is_held_already_after_every_update(name, stream):
    check_hold(stream, name)


@broken
class Shrinking(METHODS["o_lora"]):
    """Does not leave alone what it has written."""

    def hold(self, step, state):
        return {name: 0.9 * value for name, value in super().hold(step, state).items()}


def test_a_hold_that_is_not_idempotent_is_found(stream):
    with pytest.raises(AssertionError):
        check_hold(stream, "o_lora", {"o_lora": Shrinking})


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


def overlap(stream, methods, registry=METHODS):
    """Return the largest cosine between the row spaces of the old and the new A, by Frobenius norms."""
    stream.train(stream.learner(methods, registry=registry, num_train_epochs=4, **SETTINGS))
    own, old = stream.runtime.trained(), stream.slots["skill"]
    pairs = [(own[name], old[name]) for name in own if name.endswith(".down")]
    return max(((a @ b.T).norm() / (a.norm() * b.norm())).item() for a, b in pairs)


@pytest.mark.parametrize("exact", [True, False])
def test_o_lora_on_a_model_is_orthogonal_with_exact_and_less_parallel_with_its_penalty(stream, exact):
    found = overlap(stream, {"o_lora": {"exact": exact, "strength": 50.0}})
    assert found < (1e-5 if exact else 0.7 * overlap(stream, {"incremental": {}}))


@broken
class Unmasked(METHODS["o_lora"]):
    """Holds the rows, and masks nothing."""

    seams: ClassVar = tuple(seam for seam in METHODS["o_lora"].seams if seam != "mask")
    mask = Method.mask


@broken
class Unheld(METHODS["o_lora"]):
    """Masks the gradients, and holds nothing."""

    def hold(self, step, state):
        return {name: value.detach() for name, value in step.params.items()}


@pytest.mark.parametrize(("method", "exact"), [(Unmasked, True), (Unheld, False)])
def test_what_is_orthogonal_is_held_so_and_the_mask_alone_would_not_do(stream, method, exact):
    found = overlap(stream, {"o_lora": {"exact": True}}, {**METHODS, "o_lora": method})
    assert (found < 1e-5) == exact
    assert exact or found > 1e-3


def test_hold_is_part_of_the_heartbeat_and_is_left_out_where_it_does_nothing(stream):
    exact = stream.train(stream.learner({"o_lora": {"exact": True}}, **SETTINGS)).record
    assert any((beat.held or 0) > 0 for _, beat in exact.heartbeats["o_lora"])
    assert "o_lora" in exact.acted
    soft = stream.train(stream.learner({"o_lora": {}}, **SETTINGS)).record
    assert not any(beat.held is not None for _, beat in soft.heartbeats["o_lora"])


@broken
class Detached(METHODS["n_lora"]):
    """Adds a term that no gradient comes from."""

    def loss(self, step, state):
        return super().loss(step, state).detach()


def test_n_lora_on_a_model_collides_less_with_what_lies_under_it(stream):
    def collision(methods, registry=METHODS):
        stream.train(stream.learner(methods, registry=registry, num_train_epochs=4, **SETTINGS))
        own, old = (from_tensors(tensors) for tensors in (stream.runtime.trained(), stream.slots["skill"]))
        found = [(own[m].delta.abs() * old[m].delta.abs()).sum() / old[m].delta.square().sum() for m in own]
        return torch.stack(found).mean().item()

    plain = collision({"incremental": {}})
    assert collision({"n_lora": {"strength": 20.0}}) < 0.7 * plain
    assert collision({"n_lora": {"strength": 20.0}}, {**METHODS, "n_lora": Detached}) > 0.9 * plain


def settled(stream, methods, **more):
    made = stream.learner(methods, **SETTINGS, **more)
    stream.train(made)
    return made


def test_what_slao_serves_and_what_it_goes_on_from_are_different_tensors_and_the_start_is_reported(stream):
    made = settled(stream, {"slao": {}})
    served, chain = weights(made), made.measured_state["slao"]
    apart = [name for name in served if not torch.equal(served[name], chain[f"chain.{name}"])]
    assert apart
    assert all(".lora_B." in name for name in apart)
    beats = dict(made.record.heartbeats["slao"])
    assert beats[0].jump > 0.1
    assert beats[made.total].moved > 0
    kept = dict(settled(stream, {"slao": {"keep_r": True}}).record.heartbeats["slao"])
    assert kept[0].jump < 1e-6


def test_the_best_weights_and_the_chain_that_slao_stores_are_of_one_update(stream, tmp_path):
    """With keep: best the chain of a later update would not belong to what is served, whose A it has."""
    more = {"keep": "best", "num_train_epochs": 6, "learning_rate": 0.2}
    made = settled(stream, {"slao": {}}, **more)
    assert made.record.kept is not None
    chain = made.measured_state["slao"]
    assert all(
        torch.equal(value, chain[f"chain.{name}"]) for name, value in weights(made).items() if ".lora_A." in name
    )
    seen = iter(range(99))
    stopped = stream.learner({"slao": {}}, **SETTINGS, **more)
    with pytest.raises(Interrupted):
        loop.train(stopped, Keeper(tmp_path / "run", stopped, stop=lambda: "SIGINT" if next(seen) == 20 else None))
    again = stream.learner({"slao": {}}, **SETTINGS, **more)
    loop.train(again, Keeper(tmp_path / "run", again))
    assert same(again.measured_state["slao"], chain)
