"""The edit set: after any sequence of adding, dropping and resolving, exactly the live facts are in force."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.errors import BadInput, BrokenStore, NotFound
from perdure.editing.edit_set import EditSet
from perdure.editing.edit_tensors import set_from_tensors, set_to_tensors
from perdure.editing.facts import Fact
from perdure.editing.spec import EditSpec
from perdure.editing.written import Written

INNER, OUTER, LAYER, MODULE = 24, 10, 1, "blocks.1.down"
MOMENT = torch.eye(INNER, dtype=torch.float64) + 0.3


def written(number, spec=None, **fields):
    """Fact `number`, whose vectors depend on the number alone."""
    random = torch.Generator().manual_seed(number)
    key = torch.randn(INNER, generator=random)
    change = torch.randn(OUTER, generator=random)
    reach = torch.linalg.solve(MOMENT, key.double()).float()
    fact = Fact(**{"subject": f"S{number}", "prompt": f"S{number} is in", "target": f"T{number}", **fields})
    return Written(fact, (LAYER,), key[None], reach[None], change[None], change, spec or EditSpec(), {"loss": 0.1})


def empty():
    return EditSet({LAYER: MODULE}, "state")


def update(edit_set):
    factors = edit_set.factors()
    return factors[MODULE].delta if factors else torch.zeros(OUTER, INNER, dtype=torch.float64)


def in_force(edit_set, w):
    got = update(edit_set) @ w.keys[0].double()
    return ((got - w.residuals[0].double()).norm() / w.residuals[0].double().norm()).item()


def left_at(edit_set, w):
    return ((update(edit_set) @ w.keys[0].double()).norm() / w.residuals[0].double().norm()).item()


def served_at(edit_set, w):
    """The same of the float32 factors that are stored and served."""
    patches = edit_set.patches()
    if not patches:
        return 0.0
    got = patches[MODULE].up.double() @ (patches[MODULE].down.double() @ w.keys[0].double())
    return (got.norm() / w.residuals[0].double().norm()).item()


steps = st.lists(st.tuples(st.sampled_from(["add", "drop", "resolve"]), st.integers(0, 9)), max_size=14)


@settings(max_examples=40)
@given(steps)
def test_any_sequence_leaves_exactly_the_live_facts_in_force(sequence):
    made, live, dropped, order = empty(), set(), set(), []
    for verb, n in sequence:
        w = written(n)
        if verb == "add" and n not in live:
            made = made.add([w])
            live.add(n)
            dropped.discard(n)
            order = [m for m in order if m != n] + [n]
        elif verb == "drop" and n in live:
            made = made.drop(w.id)
            live.discard(n)
            dropped.add(n)
        elif verb == "resolve" and n in live | dropped:
            made = made.resolve(w.id)
            live.discard(n)
            dropped.discard(n)
            order.remove(n)
        if not live:
            dropped, order = set(), []
        assert {w.fact.subject for w in made.live} == {f"S{m}" for m in live}
        assert {w.fact.subject for w in made.dropped} == {f"S{m}" for m in dropped}
        assert all(in_force(made, written(m)) < 1e-6 for m in live)
        assert all(left_at(made, written(m)) < 1e-6 for m in dropped)
        assert all(served_at(made, written(m)) < 1e-6 for m in dropped)
        if not dropped:  # as if what was resolved had never been made, to the bit
            never = empty().add([written(m) for m in order])
            assert torch.equal(update(made), update(never))


@pytest.mark.parametrize("method", ["emmet", "rome", "memit", "alphaedit"])
def test_a_dropped_fact_leaves_no_update_at_its_key_under_any_method(method):
    spec = EditSpec(method=method)
    made = empty().add([written(n, spec) for n in range(6)])
    after = made.drop(written(2).id)
    assert left_at(made, written(2)) > 0.5
    assert left_at(after, written(2)) < 1e-6
    assert len(after.live) == 5


def test_the_last_live_fact_reverted_leaves_no_update_at_all():
    one = empty().add([written(1)])
    for gone in (one.drop(written(1).id), one.resolve(written(1).id)):
        assert gone.written == ()
        assert gone.factors() == {}
        assert gone.patches() == {}
    two = one.add([written(2)]).drop(written(1).id).drop(written(2).id)
    assert two.factors() == {}


def test_a_fact_in_force_is_refused_a_second_time_and_a_dropped_one_comes_back():
    made = empty().add([written(1), written(2)])
    with pytest.raises(BadInput, match="in force already"):
        made.add([written(1)])
    again = made.drop(written(1).id).add([written(1)])
    assert in_force(again, written(1)) < 1e-6
    assert again.dropped == ()
    with pytest.raises(BadInput, match="dropped before"):
        made.drop(written(1).id).drop(written(1).id)


def test_a_newer_fact_takes_the_place_of_the_one_with_the_same_subject_and_relation():
    old = written(1, relation="place")
    new = written(11, subject="S1", prompt="One finds S1 in", relation="place")
    other = written(12, subject="S1", prompt="S1 was made by", relation="maker")
    made = empty().add([old, written(2), other]).add([new])
    assert [w.fact for w in made.live] == [written(2).fact, other.fact, new.fact]
    assert torch.equal(update(made), update(empty().add([written(2), other, new])))


def test_facts_of_one_set_share_the_settings_of_their_joint_solve():
    made = empty().add([written(1)])
    with pytest.raises(BadInput, match="method emmet, these with rome"):
        made.add([written(2, EditSpec(method="rome"))])
    made.add([written(2, EditSpec(lr=0.1, layers=(1,)))])


def test_facts_whose_keys_are_alike_share_a_column_and_wait_for_a_change_of_their_own_when_one_leaves():
    one, other = written(1), dataclasses.replace(written(2), keys=written(1).keys, reaches=written(1).reaches)
    loose = empty().add([one, written(3), other])
    assert [{w.id for w in group} for group in loose.unsettled()] == [{one.id, other.id}]
    both = tuple(sorted([one.id, other.id]))
    made = empty().add(
        [dataclasses.replace(w, shared=both, change=one.change, residuals=one.residuals) for w in (one, other)]
    )
    assert made.unsettled() == []
    assert made.factors()[MODULE].left.shape == (1, INNER)
    assert in_force(made, one) < 1e-6
    with pytest.raises(BadInput, match="--resolve"):
        made.drop(one.id)
    (waiting,) = made.resolve(one.id).unsettled()
    assert [w.id for w in waiting] == [other.id]


def test_facts_in_different_layers_are_solved_apart():
    there = dataclasses.replace(written(2), layers=(0,))
    made = EditSet({0: "a", 1: "b"}, "state").add([written(1), there])
    factors = made.factors()
    assert factors.keys() == {"a", "b"}
    assert all(f.left.shape == (1, INNER) for f in factors.values())


def test_an_unknown_or_ambiguous_id_is_refused():
    made = empty().add([written(n) for n in range(9)])
    with pytest.raises(NotFound, match="no facts have an id that begins with 'xyz'"):
        made.drop("xyz")
    with pytest.raises(NotFound, match="9 facts have an id that begins with ''"):
        made.resolve("")
    assert made.find(written(3).id[:12]).fact.subject == "S3"


def test_the_slot_is_a_patch_and_brings_the_set_back_to_the_bit():
    made = empty().add([written(n) for n in range(4)]).drop(written(1).id)
    tensors = set_to_tensors(made)
    patch = made.patches()[MODULE]
    assert patch.down.shape == (3, INNER)
    torch.testing.assert_close(patch.delta.double(), update(made), rtol=1e-4, atol=1e-6)
    found = set_from_tensors(tensors)
    assert torch.equal(update(found), update(made))
    assert [(w.fact, w.spec, w.dropped, dict(w.optimised)) for w in found.written] == [
        (w.fact, w.spec, w.dropped, dict(w.optimised)) for w in made.written
    ]
    again = set_to_tensors(found)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)
    assert served_at(made, written(1)) < 1e-7


def test_an_empty_set_survives_storage():
    assert set_from_tensors(set_to_tensors(empty())) == empty()


def test_a_damaged_slot_is_refused():
    tensors = set_to_tensors(empty().add([written(1)]))
    for spoilt in (
        {},
        {**tensors, "edits/set": tensors["edits/set"][:20]},
        {name: tensor for name, tensor in tensors.items() if not name.endswith("keys")},
    ):
        with pytest.raises(BrokenStore, match="does not hold an edit set"):
            set_from_tensors(spoilt)


def test_the_nearest_fact_in_the_set_is_told():
    made = empty().add([written(1), written(2)])
    twin = dataclasses.replace(written(3), keys=written(2).keys * 2, reaches=written(2).reaches * 2)
    ((new, near, cosine),) = made.overlap([twin])
    assert (new, near) == (twin.id, written(2).id)
    assert cosine == pytest.approx(1, abs=1e-5)


def test_facts_that_share_a_key_may_leave_together():
    first, second, third = written(0), written(1), written(2)
    shared = tuple(sorted((first.id, second.id)))
    edit_set = empty().add(
        [dataclasses.replace(first, shared=shared), dataclasses.replace(second, shared=shared), third]
    )
    with pytest.raises(BadInput, match="shares its key"):
        edit_set.drop(first.id)
    assert [w.id for w in edit_set.drop(first.id, second.id).live] == [third.id]


@pytest.mark.parametrize("near", [0.0, 1e-4, 0.2])
@pytest.mark.parametrize("method", ["emmet", "rome", "memit", "alphaedit"])
def test_facts_with_one_key_leave_no_update_there_when_they_leave_together(method, near):
    spec = EditSpec(method=method)
    first, third, fourth = (written(n, spec) for n in (0, 2, 3))
    keys = first.keys + near * written(1).keys
    reaches = torch.linalg.solve(MOMENT, keys[0].double()).float()[None]
    second = dataclasses.replace(written(1, spec), keys=keys, reaches=reaches, residuals=first.residuals)
    shared = tuple(sorted((first.id, second.id)))
    both = [dataclasses.replace(w, shared=shared) for w in (first, second)]
    made = empty().add([third, *both, fourth])
    assert left_at(made, first) > 0.1
    after = made.drop(first.id, second.id)
    for gone in (first, second):
        assert left_at(after, gone) < max(1e-6, near if near < 0.01 else 0)
        assert served_at(after, gone) < max(1e-6, near if near < 0.01 else 0)
    if method == "emmet":
        assert max(in_force(after, third), in_force(after, fourth)) < 1e-6
    last = after.resolve(first.id)  # the pin of the other one takes its place
    assert left_at(last, second) < 1e-6
    assert torch.equal(update(last), update(empty().add([third, second, fourth]).drop(second.id)))


def test_a_new_fact_frees_the_pins_of_dropped_facts_with_its_key_and_no_others():
    old, other, stays = written(1), written(2, subject="S1", prompt="One finds S1 in"), written(3)
    made = empty().add([old, other, stays]).drop(old.id, other.id)
    fresh = dataclasses.replace(written(4, subject="1", prompt="S1 is made by"), keys=old.keys, reaches=old.reaches)
    after = made.add([fresh])
    assert [w.id for w in after.dropped] == [other.id]  # the same subject, read where its key is another
    assert max(in_force(after, fresh), in_force(after, stays)) < 1e-6
    assert left_at(after, other) < 1e-6
    spread = EditSpec(method="memit")
    below, above = (
        dataclasses.replace(
            w, layers=layers, **{name: getattr(w, name).repeat(2, 1) for name in ("keys", "reaches", "residuals")}
        )
        for w, layers in ((written(1, spread), (0, 1)), (written(5, spread, subject="S1", prompt="S1 likes"), (1, 2)))
    )
    third = dataclasses.replace(written(6, spread), layers=(1,))
    made = EditSet({n: f"blocks.{n}.down" for n in range(3)}, "state").add([below, third]).drop(below.id)
    assert made.add([above]).dropped == ()  # layers in common, where its key is not known yet
