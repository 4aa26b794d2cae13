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
from streams import Stream, close, same, weights

METHODS = all_methods()
SHAPED = ("inf_lora", "osf")  # start from inputs or weights, from the first task on
POLICIES = (
    {"no method": {}}
    | {name: {name: {}} for name, method in METHODS.items() if "adapter" in method.seams and name != "osf"}
    | {"o_lora, exact": {"o_lora": {"exact": True}}, "slao, keep_r": {"slao": {"keep_r": True}}}
    | {f"osf, {on}": {"osf": {"on": on}} for on in ("sum", "task")}  # on: shared goes on from an osf: see below
    | {"per_task, from a copy": {"per_task": {"start": "shared"}}}
)


def beneath(methods):
    """Return what lies under the adapter that a policy trains where a shared one is learned already."""
    recipe = build_recipe({"methods": methods}, METHODS)
    return recipe.adapter_plan(Bare("new", 0, recipe.settings, {}, {SKILL: {}}), {}).beneath


FRESH = {name: methods for name, methods in POLICIES.items() if SKILL in beneath(methods)}
PLAIN = {name: methods for name, methods in POLICIES.items() if methods.keys().isdisjoint(SHAPED)}
every_policy = pytest.mark.parametrize("methods", POLICIES.values(), ids=POLICIES)
every_fresh_one = pytest.mark.parametrize("methods", FRESH.values(), ids=FRESH)
SETTINGS = {"weight_decay": 0.1, "lora_dropout": 0.1}


def broken(method):
    """Return a test's variant of a method as the dataclass that a method is."""
    return pydantic.dataclasses.dataclass(frozen=True)(method)


def bare(stream, methods, registry=METHODS):
    recipe = build_recipe({"methods": methods}, registry)
    stream.runtime.load(stream.slots)
    return recipe, stream.bare(recipe)


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


@pytest.mark.parametrize("methods", PLAIN.values(), ids=PLAIN)
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
    trains = {module: factors.trains for module, factors in stream.plan.start().items()} if stream.plan.start else {}
    modules = [name.removesuffix(".down") for name in start if name.endswith(".down")]
    factors = sum(1 + (trains.get(module, "both") == "both") for module in modules)
    assert len(frozen) + factors == len(everything)  # the factors of one block train, or those that its plan names
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
HELD = {"o_lora": {"exact": True}, "osf": {"on": "sum"}}  # fields with which it holds something here


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


# --- what keeps to free directions


@pytest.fixture
def begun_anew(stream):
    """The stream with nothing learned yet; its slots come back."""
    slots, stream.slots = stream.slots, {}
    yield stream
    stream.slots = slots


def learn_tasks(stream, methods, names=("a", "b", "c"), registry=METHODS, **more):
    """Learn tasks one after the other, as a workspace does, and yield each task's plan, and the states before and after it."""
    state = {}
    for n, name in enumerate(names):
        made = stream.learner(
            methods,
            task=name,
            state=state,
            rows=stream.new[4 * n : 4 * n + 8],
            registry=registry,
            **{**SETTINGS, **more},
        )
        stream.train(made)
        before, state = state, {method: dict(kept) for method, kept in made.measured_state.items()}
        stream.slots = {**stream.slots, stream.plan.slot: stream.runtime.trained()}
        yield stream.plan, before, state


def patches(stream, slot):
    return from_tensors(stream.slots[slot])


@pytest.mark.parametrize("energy", [0.9, 0.5])
def test_inf_lora_on_a_model_keeps_each_a_off_the_inputs_of_all_tasks_before(energy, begun_anew):
    checked = 0
    for plan, before, _ in learn_tasks(begun_anew, {"inf_lora": {"energy": energy}}, lora_r=2):
        own = patches(begun_anew, plan.slot)
        for key, basis in before.get("inf_lora", {}).items():
            down = own[key.removeprefix("basis/")].down
            assert (down @ basis.T).norm() <= 1e-5 * down.norm()
            x = torch.randn(5, len(basis)) @ basis
            change = own[key.removeprefix("basis/")].delta @ x.T
            assert change.norm() <= 1e-5 * x.norm()
            checked += 1
        assert any(patch.up.abs().max() > 0 for patch in own.values())
    assert checked


def test_inf_lora_leaves_a_as_it_started_to_the_bit(begun_anew):
    made = begun_anew.learner({"inf_lora": {}}, **SETTINGS)
    start = {name: value for name, value in begun_anew.runtime.trained().items() if name.endswith(".down")}
    begun_anew.train(made)
    after = begun_anew.runtime.trained()
    assert same({name: after[name] for name in start}, start)
    assert not any(".lora_A." in name for name in made.params)


@broken
class Blind(METHODS["inf_lora"]):
    """Forgets what earlier tasks read."""

    def _before(self, model, modules, state):
        return {}


def test_an_a_that_knows_nothing_of_earlier_inputs_is_found(begun_anew):
    registry = {**METHODS, "inf_lora": Blind}
    *_, (plan, before, _) = learn_tasks(begun_anew, {"inf_lora": {}}, ("a", "b"), registry, lora_r=2)
    bases = {key.removeprefix("basis/"): basis for key, basis in before["inf_lora"].items()}
    own = patches(begun_anew, plan.slot)
    shares = [(own[module].down @ basis.T).norm() / own[module].down.norm() for module, basis in bases.items()]
    assert max(shares) > 0.5


def high(stream, module, kept=0.5):
    weight = stream.runtime.weight(module).double()
    k = round(kept * min(weight.shape))
    u, _, v = torch.linalg.svd(weight)
    return u[:, :k], v[:k].T


def leak(stream, slot):
    """Return the largest share of an adapter's updates that lies along the leading singular directions of its weight."""
    shares = []
    for module, patch in patches(stream, slot).items():
        u, v = high(stream, module)
        update = patch.delta.double()
        shares += [((u.T @ update).norm() / update.norm()).item(), ((update @ v).norm() / update.norm()).item()]
    return max(shares)


@pytest.mark.parametrize("on", ["shared", "sum", "task"])
def test_osf_on_a_model_stays_outside_the_leading_directions_of_the_weights_over_three_tasks(on, begun_anew):
    for plan, _, _ in learn_tasks(begun_anew, {"osf": {"on": on}}, lora_r=2):
        assert leak(begun_anew, plan.slot) <= 1e-5
    if on == "sum":
        a, b, c = (patches(begun_anew, f"sum:{name}") for name in "abc")
        for module, patch in c.items():
            for old in (a[module], b[module]):
                assert (patch.down @ old.down.T).norm() <= 1e-5 * patch.down.norm() * old.down.norm()


@pytest.mark.parametrize("name", SHAPED)
def test_they_hold_over_a_base_in_bfloat16_too(name, tiny_model):
    stream = Stream(tiny_model, "bfloat16")
    stream.slots = {}
    for plan, before, _ in learn_tasks(stream, {name: {}}, ("a", "b"), lora_r=2):
        if name == "osf":
            assert leak(stream, plan.slot) <= 1e-5
        own = patches(stream, plan.slot)
        for key, basis in before.get("inf_lora", {}).items():
            down = own[key.removeprefix("basis/")].down
            assert (down @ basis.T).norm() <= 1e-5 * down.norm()


@broken
class Loose(METHODS["osf"]):
    """Masks the gradients, and holds nothing."""

    def hold(self, step, state):
        return {name: value.detach() for name, value in step.params.items()}


def test_an_osf_that_does_not_hold_is_found_to_leak(begun_anew):
    for plan, _, _ in learn_tasks(begun_anew, {"osf": {}}, ("a",), {**METHODS, "osf": Loose}, lora_r=2):
        assert leak(begun_anew, plan.slot) > 1e-3
