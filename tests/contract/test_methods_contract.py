"""What every method owes, whatever its idea. A new method is covered by its registry line alone.

A method that wants no rows of its own (size 0) is tried beside the methods that draw from the same pool, its partners, and
what it does is compared with what they do without it.
"""

import dataclasses
import functools
import itertools
import json
import math

import pydantic.dataclasses
import pytest
import torch

from perdure.core.errors import BadSpec, Conflict, Diverged, Interrupted
from perdure.core.fields import described
from perdure.core.recipe import Recipe, build_recipe
from perdure.core.seams import NEEDS, SEAMS, SUPPORTS, Method, checked_method
from perdure.methods.registry import all_methods
from perdure.train.checkpoint import Keeper
from perdure.train.model_view import ModelView
from streams import SETTINGS, Learned, apart, close, run, same, weights, wish

METHODS = {  # what says which adapter a task trains, or measures the base alone, owes something else: the other files here
    name: method for name, method in all_methods().items() if "adapter" not in method.seams and not method.slot
}
CUTS = (1, 4, 7)  # of 8 updates; the last one is inside any tail
FELT = 1e-4  # relative distance of weights that is an effect and no rounding
EFFECTS = ("pull", "moved", "masked", "turned")  # of a heartbeat
every_method = pytest.mark.parametrize("name", METHODS)


def partners(name: str, registry=METHODS) -> list[str]:
    """Return the methods that must draw for `name` to have rows; none where it draws its own, or needs none."""
    mine = registry[name]()
    if mine.pool is None or wish(mine).size:
        return []
    return [o for o in ("replay", "instruction_replay") if o != name and registry[o]().pool == mine.pool]


def company(name: str, registry=METHODS) -> dict[str, dict]:
    """Return the smallest set of methods in which `name` acts, itself included."""
    return {other: {} for other in partners(name, registry)} | acting_in(name)


def clash(name: str, other: str) -> bool:
    """Say whether two methods want a seam that has room for one."""
    return any(seam in METHODS[name].seams and seam in METHODS[other].seams for seam in SEAMS if SEAMS[seam].exclusive)


def interact(name: str, other: str) -> bool:
    """Return whether an update does more with two methods than add their terms: one draw for both, or a mask on a gradient."""
    mine, theirs = METHODS[name], METHODS[other]
    masked = any("mask" in a.seams and {"mask", "gradient"} & set(b.seams) for a, b in ((mine, theirs), (theirs, mine)))
    return masked or (mine().pool is not None and mine().pool == theirs().pool)


def acting_in(name: str) -> dict[str, dict]:
    """Return `name` with the fields at which it acts in every seam.

    Held-out rows of the second task mostly choose no way back; only one scheme of token weights prepares a state.
    """
    return {name: {"wise_ft": {"choose": "fixed"}, "token_weight": {"scheme": "flow"}}.get(name, {})}


INTERACTING = [
    pair for pair in itertools.combinations(METHODS, 2) if interact(*pair) and not clash(*pair)
]  # the rules by which an update combines the others: tests/train/test_combining.py
POOLS = tuple({method().pool for method in METHODS.values()} - {None})


FIRST: dict[tuple, dict] = {}  # what methods kept of the first task, by stream, methods and fields


def first_task(stream, methods: dict[str, dict], registry) -> dict:
    """Return what the methods keep of the first task, which is learned once for the same methods and fields."""
    key = (stream, *sorted((name, json.dumps(fields), id(registry[name])) for name, fields in methods.items()))
    if key not in FIRST:
        FIRST[key] = registry, stream.kept(methods, registry=registry)  # its classes stay, so that an id is one of them
    return {name: {key: value.clone() for key, value in state.items()} for name, state in FIRST[key][1].items()}


def second(stream, methods, registry=METHODS, first=None, **more):
    """Return a learn of the second task with full memory, and with what the methods (of `first`) kept of the first."""
    spec = methods.methods if isinstance(methods, Recipe) else methods
    known = {m.name: m.to_json() for m in spec} if isinstance(methods, Recipe) else methods
    keeps = {name: fields for name, fields in known.items() if "measure" in registry[name].seams}
    state = first_task(stream, keeps, first or registry) if keeps else None
    return stream.learner(methods, pools=POOLS, registry=registry, state=state, **more)


def learned(stream, name: str, registry=METHODS, **more) -> Learned:
    return stream.train(second(stream, company(name), registry, **more))  # a broken method keeps its company


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
def without(stream):
    """What happens in a method's company without it; learned once a company."""
    known = {}

    def learn(name: str) -> Learned:
        rest = tuple(partners(name))
        if rest not in known:
            known[rest] = stream.train(stream.learner({other: {} for other in rest}, pools=POOLS))
        return known[rest]

    return learn


@pytest.fixture(scope="module")
def plain(stream):
    """The second task without any method."""
    return stream.train(stream.learner({}))


# --- what a method is


@every_method
def test_it_is_a_frozen_dataclass_that_says_what_it_is(name):
    method = METHODS[name]
    assert checked_method(method) is method
    assert dataclasses.fields(method)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(method(), dataclasses.fields(method)[0].name, 0.5)
    assert method.name == name
    assert method.family
    assert any(word in method.source for word in ("arXiv", "doi", "http"))
    for field, about in described(method).items():
        assert about.default == getattr(method(), field)
        assert about.about
    assert method().active
    assert method.supports <= SUPPORTS.keys()
    assert set(method().needs) <= NEEDS.keys()
    assert set(vars(method())) == {field.name for field in dataclasses.fields(method)}


@every_method
def test_its_spec_comes_back_from_json_as_the_same_object(name):
    recipe = build_recipe({"methods": company(name)}, METHODS)
    assert build_recipe(json.loads(json.dumps(recipe.to_json())), METHODS) == recipe
    assert METHODS[name](**json.loads(json.dumps(METHODS[name]().to_json()))) == METHODS[name]()


# --- that it acts


@every_method
def test_it_changes_what_is_learned_when_two_tasks_conflict(name, alone, without):
    assert apart(alone(name).weights, without(name).weights) > FELT


@every_method
def test_it_leaves_a_heartbeat_that_shows_the_effect(name, alone):
    if not {"weight", "loss", "mask", "gradient", "settle"} & set(METHODS[name].seams):
        pytest.skip("it acts through the rows it draws, and those are seen in the methods that learn from them")
    beats = alone(name).record.heartbeats[name]
    values = [value for _, beat in beats for key, value in beat.values.items() if key in EFFECTS]
    assert all(math.isfinite(value) for value in values)
    assert max(values) > 0


def broken(method: type, **seams) -> type:
    return pydantic.dataclasses.dataclass(frozen=True)(type(f"Broken{method.__name__}", (method,), seams))


BREAKABLE = [
    seam for seam in SEAMS if seam != "admit"
]  # it acts through the memory that a workspace holds: tests/memory


def broken_seam(method: type, seam: str):
    """Return what breaks a seam: the default of the base class, which does nothing; of a term, the gradient is taken away."""
    if seam == "loss":
        return lambda self, step, state: _detached(method.loss(self, step, state))
    return getattr(Method, seam)


def _detached(term):
    return None if term is None else term.detach()


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="a broken method has no effect, and the suite sees it")
@pytest.mark.parametrize("name", METHODS)
def test_a_broken_method_is_seen(name, stream, without):
    """Every seam of the method is broken at once, so that nothing of it is left."""
    seams = {seam: broken_seam(METHODS[name], seam) for seam in METHODS[name].seams if seam in BREAKABLE}
    registry = {**METHODS, name: broken(METHODS[name], **seams)}
    assert apart(learned(stream, name, registry).weights, without(name).weights) > FELT


ELSEWHERE = {
    ("l2", "measure")
}  # keeps the start of weights that are no LoRA pair, of which this stream has none: test_l2.py
SEAMED = [(n, s) for n, m in METHODS.items() for s in BREAKABLE if s in m.seams and (n, s) not in ELSEWHERE]


MISSING = {
    ("forgetting_curve", "prepare"): "anchor.{parameter}",
    ("hler", "prepare"): "{parameter}",
    ("mas", "prepare"): "{parameter}",
    ("si", "prepare"): "{parameter}",
    ("token_weight", "prepare"): "temperature",
}  # methods that cannot go on without what the seam puts into their state, and the key that is then missing


@pytest.mark.parametrize(("name", "seam"), SEAMED)
def test_a_break_in_any_seam_changes_what_is_learned(name, seam, stream, alone):
    """No seam is there for nothing: without it the method does something else, or misses what the table names."""
    registry = {**METHODS, name: broken(METHODS[name], **{seam: broken_seam(METHODS[name], seam)})}
    if (name, seam) in MISSING:
        with pytest.raises(KeyError) as caught:
            learned(stream, name, registry)
        parameters = stream.learner({}).params
        assert caught.value.args[0] in {MISSING[name, seam].format(parameter=parameter) for parameter in parameters}
    else:
        assert apart(learned(stream, name, registry).weights, alone(name).weights) > FELT / 10


# --- that it does nothing where it has nothing to do


REMEMBERING = [n for n, m in METHODS.items() if {"draw", "measure"} & set(m.seams) and "settle" not in m.seams]


@pytest.mark.parametrize("name", REMEMBERING)
def test_with_nothing_remembered_it_is_plain_training_to_the_bit(name, stream, plain):
    first = stream.train(stream.learner(company(name)))
    assert same(first.weights, plain.weights)
    assert first.record.loss == plain.record.loss


@every_method
def test_some_field_at_zero_switches_it_off_to_the_bit(name, stream, plain):
    zero = {field: 0 for field, about in described(METHODS[name]).items() if isinstance(about.default, float)}
    off = [field for field in zero if not _try_active(METHODS[name], {field: 0})]
    assert off
    made = stream.learner({name: {off[0]: 0}}, pools=POOLS)
    assert not made.recipe.methods
    assert same(stream.train(made).weights, plain.weights)


NAMED = ("mask", "settle", "prepare", "measure")


@pytest.mark.parametrize(("name", "seam"), [(n, s) for n, s in SEAMED if s in NAMED])
def test_nan_from_a_mask_a_settled_end_or_what_is_kept_is_a_named_error(name, seam, stream):
    def poisoned(self, *given):
        made = getattr(METHODS[name], seam)(self, *given)
        values = made[0] if seam == "settle" else made
        values = {key: value * math.nan for key, value in (values or dict(given[0].params)).items()}
        return (values, made[1]) if seam == "settle" else values

    registry = {**METHODS, name: broken(METHODS[name], **{seam: poisoned})}
    with pytest.raises(Diverged, match=rf"method {name} (settled on|gave|prepared|measured)"):
        stream.train(second(stream, company(name), registry, first=METHODS))


def test_a_term_whose_gradient_alone_is_nan_is_told_before_the_weights_are_kept(stream):
    def loss(self, step, state):
        return sum(((value * 0).sum() for value in step.params.values()), torch.zeros(())).sqrt()

    registry = {**METHODS, "l2": broken(METHODS["l2"], loss=loss)}
    made = stream.learner({"l2": {}}, registry=registry, num_train_epochs=1, per_device_train_batch_size=16)
    with pytest.raises(Diverged, match="the last update gave weights that are not finite"):
        stream.train(made)


def _try_active(method: type, fields: dict) -> bool:
    try:
        return method(**fields).active
    except ValueError:  # zero is outside the field's range
        return True


# --- that it keeps to itself


@every_method
def test_it_acts_where_the_order_of_two_is_tried(name, points):
    rest = {other: {} for other in partners(name)}
    acting = points.train(second(points, {**rest, **acting_in(name)}))
    assert apart(acting.weights, points.train(second(points, rest)).weights) > FELT


@every_method
def test_with_any_other_it_is_one_recipe_in_either_order_or_is_refused(name):
    for other in METHODS.keys() - {name}:
        methods = {other: {}} | acting_in(name)
        backwards = dict(reversed(methods.items()))
        if clash(name, other):
            for given in (methods, backwards):
                with pytest.raises(Conflict, match=rf"{min(name, other)}'.*'{max(name, other)}"):
                    build_recipe({"methods": given}, METHODS)
        else:
            assert build_recipe({"methods": methods}, METHODS) == build_recipe({"methods": backwards}, METHODS)


def in_both_orders(points, methods: dict[str, dict]) -> None:
    """Assert that the weights are the same in whichever order the methods of the recipe stand."""
    forth = build_recipe({**SETTINGS, "methods": methods}, METHODS)
    back = Recipe(forth.name, forth.settings, forth.methods[::-1])
    one, other = (points.train(second(points, recipe)) for recipe in (forth, back))
    close(one.weights, other.weights)


@pytest.mark.parametrize("pair", INTERACTING, ids="-".join)
def test_the_order_in_which_two_methods_are_listed_carries_no_meaning(pair, points):
    first, one_more = pair
    rest = [o for name in pair for o in partners(name) if not any(clash(o, other) for other in pair if other != o)]
    in_both_orders(points, {other: {} for other in rest} | acting_in(first) | acting_in(one_more))


RIVALS = {
    seam: [name for name, method in METHODS.items() if seam in method.seams] for seam in ("gradient", "settle", "admit")
}


@pytest.mark.parametrize("settler", RIVALS["settle"])
@pytest.mark.parametrize("turner", RIVALS["gradient"])
def test_the_order_of_all_methods_that_one_recipe_can_have_carries_no_meaning(turner, settler, points):
    """So each two that do not interact are trained in both orders too, among all the others."""
    admits = RIVALS["admit"][
        (RIVALS["gradient"].index(turner) + RIVALS["settle"].index(settler)) % len(RIVALS["admit"])
    ]
    out = {name for rivals in RIVALS.values() for name in rivals} - {turner, settler, admits}
    methods = {name: fields for each in METHODS.keys() - out for name, fields in acting_in(each).items()}
    in_both_orders(points, dict(sorted(methods.items())))


DRAWING = [name for name, method in METHODS.items() if "draw" in method.seams]


def served(points, *methods: str) -> list:
    """Return the rows that serve each update."""
    made = points.learner({name: {} for name in methods}, pools=POOLS)
    drawn = []
    for n in range(made.total):
        update = made.update(n)
        drawn.append(update.drawn.rows)
        update.gradients()
        update.finish()
    return drawn


@pytest.fixture(scope="module")
def alone_served(points):
    """The rows that serve one method without any other; drawn once."""
    return functools.cache(functools.partial(served, points))


@pytest.mark.parametrize("pair", list(itertools.combinations(DRAWING, 2)), ids="-".join)
def test_draws_of_its_own_are_the_same_whoever_draws_beside_it(pair, points, alone_served):
    if clash(*pair):
        pytest.skip("the two cannot be in one recipe")
    together, alone = served(points, *pair), {name: alone_served(name) for name in pair}
    pools = [METHODS[name]().pool for name in pair]
    for name in pair:
        for drawn, expected in zip(together, alone[name], strict=True):
            mine = {draw: rows for draw, rows in expected.items() if draw.part or pools[0] != pools[1]}
            assert {draw: drawn.get(draw) for draw in mine} == mine


@every_method
def test_it_writes_no_parameter_and_its_state_is_tensors(name, stream):
    made = second(stream, company(name))
    made.begin()
    before = weights(made)
    for update in range(made.total):
        run(made, update)
    for method in made.recipe.owners("measure"):
        made.state[method.name] = method.measure(ModelView(made), made.state[method.name])
    everything = dict(made.model.named_parameters())
    assert same(before, weights(made))
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
    made = second(stream, company(name))
    keeper = Keeper(tmp_path / "run.safetensors", made, stop=lambda: "SIGTERM" if next(seen) == cut else None)
    with pytest.raises(Interrupted, match=f"after update {cut}"):
        stream.train(made, keeper)
    made = second(stream, company(name))
    resumed = stream.train(made, Keeper(tmp_path / "run.safetensors", made))
    whole = alone(name)
    assert same(resumed.weights, whole.weights)
    assert resumed.open_state.keys() == whole.open_state.keys()
    assert all(same(resumed.open_state[method], state) for method, state in whole.open_state.items())
    assert json.dumps(resumed.record.frozen.to_json()) == json.dumps(whole.record.frozen.to_json())


@pytest.fixture(scope="module")
def in_parts(stream):
    """What a method does in micro-batches, by name and their number; learned once each."""

    @functools.cache
    def trained(name: str, parts: int) -> Learned:  # a small step, since AdamW blows up the rounding near zero
        made = second(stream, company(name), learning_rate=1e-3)
        made.updates = [[batch[i::parts] for i in range(parts)] for (batch,) in made.updates]
        return stream.train(made)

    return trained


@every_method
@pytest.mark.parametrize("parts", [2, 4])
def test_an_update_means_the_same_whatever_the_accumulation(name, parts, in_parts):
    whole, split = in_parts(name, 1), in_parts(name, parts)
    assert apart(split.weights, whole.weights) < FELT
    for (update, loss), (expected_update, expected) in zip(split.record.loss, whole.record.loss, strict=True):
        assert update == expected_update
        assert loss == pytest.approx(expected, rel=1e-4)
    theirs = whole.record.heartbeats.get(name, [])
    for (update, beat), (expected_update, expected) in zip(split.record.heartbeats.get(name, []), theirs, strict=True):
        assert update == expected_update
        assert beat.values == pytest.approx(expected.values, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "loss" in method.seams])
def test_a_term_that_is_not_finite_names_the_method_and_the_update(name, stream):
    def poisoned(self, step, state):
        term = METHODS[name].loss(self, step, state)
        return term if term is None or step.index < 2 else term * math.nan

    registry = {**METHODS, name: broken(METHODS[name], loss=poisoned)}
    made = second(stream, company(name), registry, METHODS)
    with pytest.raises(Diverged, match=rf"method {name} gave nan at update \d of {made.total}"):
        stream.train(made)


WEIGHING = [name for name, method in METHODS.items() if "weight" in method.seams]


@pytest.mark.parametrize("name", WEIGHING)
def test_a_factor_that_is_not_finite_names_the_method_and_the_update(name, stream):
    def poisoned(self, step, state):
        return METHODS[name].weight(self, step, state) * math.nan

    registry = {**METHODS, name: broken(METHODS[name], weight=poisoned)}
    made = second(stream, company(name), registry, METHODS)
    with pytest.raises(Diverged, match=f"method {name} gave a factor that is not finite at update 0 of {made.total}"):
        stream.train(made)


@pytest.mark.parametrize("name", WEIGHING)
def test_factors_that_are_not_one_for_each_label_token_are_refused(name, stream):
    def short(self, step, state):
        return METHODS[name].weight(self, step, state)[1:]

    registry = {**METHODS, name: broken(METHODS[name], weight=short)}
    with pytest.raises(BadSpec, match=rf"method {name} gave factors of shape \(\d+,\) for \d+ label tokens"):
        stream.train(second(stream, company(name), registry, METHODS))


@pytest.mark.parametrize("name", WEIGHING)
def test_its_mean_factor_is_shown(name, alone):
    weights_shown = [beat.weight for _, beat in alone(name).record.heartbeats[name] if beat.weight is not None]
    assert weights_shown
    assert all(0 < value < 1 for value in weights_shown)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "gradient" in method.seams])
def test_a_gradient_that_is_not_finite_names_the_method_and_the_update(name, stream):
    def poisoned(self, grads, refs, step, state):
        return {key: value * math.nan for key, value in grads.items()}

    registry = {**METHODS, name: broken(METHODS[name], gradient=poisoned)}
    made = second(stream, company(name), registry, METHODS)
    with pytest.raises(
        Diverged, match=rf"method {name} gave a gradient that is not finite at update 0 of {made.total}"
    ):
        stream.train(made)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if "mask" in method.seams])
def test_its_mask_is_linear_and_idempotent(name, stream):
    made = second(stream, company(name))
    made.begin()
    method, state = METHODS[name](), made.state[name]
    x, y = ({n: torch.randn_like(p) for n, p in made.params.items()} for _ in range(2))
    both = method.mask({n: 2 * x[n] + y[n] for n in x}, state)
    mx, my = method.mask(x, state), method.mask(y, state)
    close(both, {n: 2 * mx[n] + my[n] for n in x}, atol=1e-4)
    close(method.mask(mx, state), mx, atol=1e-4)
    assert apart(mx, x) > FELT


@every_method
def test_it_survives_the_tail_of_a_task_of_one_update(name, stream):
    made = second(stream, company(name), rows=stream.new[:3], num_train_epochs=1)
    assert made.total == 1
    assert all(torch.isfinite(value).all() for value in stream.train(made).weights.values())


def test_every_seam_is_filled_by_a_method():
    assert {seam for method in all_methods().values() for seam in method.seams} == set(SEAMS)
