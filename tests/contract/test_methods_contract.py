"""What every method owes, whatever its idea. A new method is covered by its registry line alone.

A method that wants no rows of its own (size 0) is tried beside the methods that draw from the same pool, its partners, and
what it does is compared with what they do without it.
"""

import dataclasses
import itertools
import json
import math

import pytest
import torch

from perdure.core.errors import Conflict, Diverged, Interrupted
from perdure.core.recipe import Recipe, build_recipe, check_seams
from perdure.core.seams import EXCLUSIVE, SEAMS, spec_of
from perdure.methods.registry import all_methods
from perdure.train.checkpoint import Keeper
from streams import SETTINGS, Learned, apart, close, same, weights, wish

METHODS = all_methods()
PAIRS = list(itertools.combinations(METHODS, 2))
CUTS = (1, 4, 7)  # of 8 updates; the last one is inside any tail
FELT = 1e-4  # relative distance of weights that is an effect and no rounding
every_method = pytest.mark.parametrize("name", METHODS)


def partners(name: str, registry=METHODS) -> list[str]:
    """Return the methods that must draw for `name` to have rows; none where it draws its own, or needs none."""
    mine = wish(registry[name]())
    if "draw" not in registry[name].seams or mine.size:
        return []
    others = {other: wish(method()) for other, method in registry.items() if other != name}
    return [other for other, theirs in others.items() if theirs.size and theirs.pool == mine.pool]


def company(name: str, registry=METHODS) -> dict[str, dict]:
    """Return the smallest set of methods in which `name` acts, itself included."""
    return {other: {} for other in [*partners(name, registry), name]}


def pools(methods) -> tuple[str, ...]:
    return tuple({wish(METHODS[name]()).pool for name in methods if "draw" in METHODS[name].seams})


def learned(stream, name: str, registry=METHODS, **more) -> Learned:
    return stream.train(stream.learning(company(name, registry), pools=pools(METHODS), registry=registry, **more))


@pytest.fixture(scope="module")
def alone(stream):
    """What each method does in its smallest company; learned once."""
    known = {}

    def learn(name: str) -> Learned:
        if name not in known:
            known[name] = learned(stream, name)
        return known[name]

    return learn


@pytest.fixture(scope="module")
def plain(stream):
    """The second task without any method."""
    return stream.train(stream.learning({}))


# --- what a method is


@every_method
def test_it_is_a_frozen_dataclass_that_says_what_it_is(name):
    method = METHODS[name]
    check_seams(method)
    assert dataclasses.fields(method)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(method(), dataclasses.fields(method)[0].name, 0.5)
    assert method.name == name
    assert method.family
    assert any(word in method.source for word in ("arXiv", "doi", "http"))
    assert {f.default for f in dataclasses.fields(method)}.isdisjoint({dataclasses.MISSING})
    assert method().active
    assert set(vars(method())) == {field.name for field in dataclasses.fields(method)}


@every_method
def test_its_spec_comes_back_from_json_as_the_same_object(name):
    recipe = build_recipe({"methods": company(name)}, METHODS)
    assert build_recipe(json.loads(json.dumps(recipe.to_json())), METHODS) == recipe
    assert METHODS[name](**json.loads(json.dumps(spec_of(METHODS[name]())))) == METHODS[name]()


# --- that it acts


@every_method
def test_it_changes_what_is_learned_when_two_tasks_conflict(name, stream, alone):
    without = stream.train(stream.learning({other: {} for other in partners(name)}, pools=pools(METHODS)))
    assert apart(alone(name).weights, without.weights) > FELT


@every_method
def test_it_leaves_a_heartbeat_that_shows_the_effect(name, alone):
    beats = alone(name).record.heartbeats[name]
    values = [value for _, beat in beats for key, value in beat.items() if key in ("pull", "moved")]
    assert all(math.isfinite(value) for value in values)
    assert max(values) > 0


def broken(method: type, **seams) -> type:
    return dataclasses.dataclass(frozen=True)(type(f"Broken{method.__name__}", (method,), seams))


BREAKS = {
    "loss": lambda m: {"loss": lambda self, step, state: _detached(m.loss(self, step, state))},
    "draw": lambda m: {"draw": lambda self, context, state: None},
    "watch": lambda m: {"watch": lambda self, step, state: state},
    "settle": lambda m: {"settle": lambda self, params, state: (dict(params), state)},
}


def _detached(term):
    return None if term is None else term.detach()


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="a broken method has no effect, and the suite sees it")
@pytest.mark.parametrize(("name", "seam"), [(n, s) for n, m in METHODS.items() for s in BREAKS if s in m.seams])
def test_a_break_in_any_seam_is_seen(name, seam, stream):
    registry = {**METHODS, name: broken(METHODS[name], **BREAKS[seam](METHODS[name]))}
    without = stream.train(stream.learning({other: {} for other in partners(name)}, pools=pools(METHODS)))
    made = stream.learning(company(name), pools=pools(METHODS), registry=registry)
    assert apart(stream.train(made).weights, without.weights) > FELT


# --- that it does nothing where it has nothing to do


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "draw" in method.seams])
def test_on_an_empty_memory_it_is_plain_training_to_the_bit(name, stream, plain):
    first = stream.train(stream.learning(company(name)))
    assert same(first.weights, plain.weights)
    assert first.record.loss == plain.record.loss


@every_method
def test_some_field_at_zero_switches_it_off_to_the_bit(name, stream, plain):
    zero = {f.name: 0 for f in dataclasses.fields(METHODS[name]) if isinstance(f.default, float)}
    off = [field for field in zero if not _try_active(METHODS[name], {field: 0})]
    assert off
    made = stream.learning({name: {off[0]: 0}}, pools=pools(METHODS))
    assert not made.recipe.methods
    assert same(stream.train(made).weights, plain.weights)


def _try_active(method: type, fields: dict) -> bool:
    try:
        return method(**fields).active
    except ValueError:  # zero is outside the field's range
        return True


# --- that it keeps to itself


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_the_order_in_which_two_methods_are_listed_carries_no_meaning(pair, stream):
    first, second = pair
    forwards = {**SETTINGS, "methods": {first: {}, second: {}}}
    if any(seam in METHODS[first].seams and seam in METHODS[second].seams for seam in EXCLUSIVE):
        with pytest.raises(Conflict, match=f"{first}.*{second}"):
            build_recipe(forwards, METHODS)
        return
    forth = build_recipe(forwards, METHODS)
    assert forth == build_recipe({**SETTINGS, "methods": {second: {}, first: {}}}, METHODS)
    back = Recipe(forth.name, forth.settings, forth.methods[::-1])
    one, other = (stream.train(stream.learning(recipe, pools=pools(METHODS))) for recipe in (forth, back))
    close(one.weights, other.weights)


@pytest.mark.parametrize(
    "pair", [pair for pair in PAIRS if len({wish(METHODS[n]()).pool for n in pair}) == 2], ids="-".join
)
def test_beside_a_method_with_another_pool_it_draws_the_rows_it_draws_alone(pair, stream):
    def served(*methods: str) -> list:
        made = stream.learning({name: {} for name in methods}, pools=pools(METHODS))
        return [micro.drawn for update in range(made.total) for micro in made.open(update)]

    together = served(*pair)
    for name in pair:
        pool = wish(METHODS[name]()).pool
        assert [rows.get(pool) for rows in together] == [rows.get(pool) for rows in served(name)]


@every_method
def test_it_writes_no_parameter_and_its_state_is_tensors(name, stream):
    made = stream.learning(company(name), pools=pools(METHODS))
    before = weights(made)
    for update in range(made.total):
        for micro in made.open(update):
            made.loss(micro)
        made.close(update)
    everything = dict(made.model.named_parameters())
    assert same(before, weights(made))
    assert all(value.grad is None for value in everything.values())
    for state in made.state.values():
        assert all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items())
        assert not any(value.requires_grad for value in state.values())
        stores = {value.untyped_storage().data_ptr() for value in everything.values()}
        assert stores.isdisjoint(value.untyped_storage().data_ptr() for value in state.values())


# --- that a host can rely on it


@every_method
@pytest.mark.parametrize("cut", CUTS)
def test_stopped_and_resumed_it_ends_in_the_same_bits(name, cut, stream, alone, tmp_path):
    seen = iter(range(1, 99))
    made = stream.learning(company(name), pools=pools(METHODS))
    keeper = Keeper(tmp_path / "run.safetensors", made, stop=lambda: "SIGTERM" if next(seen) == cut else None)
    with pytest.raises(Interrupted, match=f"after update {cut}"):
        stream.train(made, keeper)
    made = stream.learning(company(name), pools=pools(METHODS))
    resumed = stream.train(made, Keeper(tmp_path / "run.safetensors", made))
    whole = alone(name)
    assert same(resumed.weights, whole.weights)
    assert resumed.open_state.keys() == whole.open_state.keys()
    assert all(same(resumed.open_state[method], state) for method, state in whole.open_state.items())
    assert json.dumps(vars(resumed.record)) == json.dumps(vars(whole.record))


@every_method
def test_an_update_means_the_same_whatever_the_accumulation(name, stream):
    def run(parts: int) -> Learned:  # a small step, since AdamW blows up the rounding of gradients near zero
        made = stream.learning(company(name), pools=pools(METHODS), learning_rate=1e-3)
        made.updates = [[batch[i::parts] for i in range(parts)] for (batch,) in made.updates]
        return stream.train(made)

    whole, split = run(1), run(2)
    assert apart(split.weights, whole.weights) < FELT
    for (update, loss), (expected_update, expected) in zip(split.record.loss, whole.record.loss, strict=True):
        assert update == expected_update
        assert loss == pytest.approx(expected, rel=1e-4)
    theirs = whole.record.heartbeats[name]
    for (update, beat), (expected_update, expected) in zip(split.record.heartbeats[name], theirs, strict=True):
        assert update == expected_update
        assert beat == pytest.approx(expected, rel=1e-2, abs=1e-5)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "loss" in method.seams])
def test_a_term_that_is_not_finite_names_the_method_and_the_update(name, stream):
    def poisoned(self, step, state):
        term = METHODS[name].loss(self, step, state)
        return term * math.nan if step.index == 2 else term

    registry = {**METHODS, name: broken(METHODS[name], loss=poisoned)}
    made = stream.learning(company(name), pools=pools(METHODS), registry=registry)
    with pytest.raises(Diverged, match=rf"method {name} gave nan at update 2 of {made.total}"):
        stream.train(made)


@every_method
def test_it_survives_the_tail_of_a_task_of_one_update(name, stream):
    made = stream.learning(company(name), pools=pools(METHODS), rows=stream.new[:3], num_train_epochs=1)
    assert made.total == 1
    assert all(torch.isfinite(value).all() for value in stream.train(made).weights.values())


def test_every_seam_is_filled_by_a_method_or_has_no_contract_yet():
    assert {seam for method in METHODS.values() for seam in method.seams} == set(SEAMS)
