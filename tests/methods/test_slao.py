"""SLAO: the orthonormal start, the merge over time, and `keep_r`."""

from types import SimpleNamespace

import pytest
import torch

from perdure.core.plan import Bare
from perdure.core.settings import Settings
from perdure.maths.low_rank import Patch, to_tensors
from perdure.methods.adapters.slao import Slao, orthonormal
from streams import same

A = "base_model.model.q.lora_A.default.weight"
B = "base_model.model.q.lora_B.default.weight"


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slots(down, up):
    return {"skill": to_tensors({"q": Patch(down, up, 2.0)})}


def start(method, down, up, state=None, **more):
    bare = Bare("b", 0, Settings(lora_r=down.shape[-2]), {"q": (up.shape[-2], down.shape[-1])}, slots(down, up), **more)
    return method.adapter(bare, state or {}).start()["q"]


def learned(method, ups, downs):
    """Let the chain end with the given factors task by task; return what is served, and the state, after each."""
    head, state, ends = {}, {}, []
    for up, down in zip(ups, downs, strict=True):
        params = {A: down, B: up}
        values, state = method.settle(SimpleNamespace(params=params, own=head), state)
        state = method.measure(SimpleNamespace(params=params, own=head), state)
        served = {**params, **values}
        head = slots(served[A], served[B])["skill"]
        ends.append((served, state))
    return ends


@pytest.mark.parametrize("shape", [(4, 12), (4, 4), (3, 4, 12)])
def test_the_start_has_orthonormal_rows_of_the_same_space_that_have_one_sign(shape):
    down = drawn(*shape)
    rows, mixing = orthonormal(down)
    torch.testing.assert_close(rows @ rows.mT, torch.eye(4).expand(*shape[:-2], 4, 4), rtol=0, atol=1e-6)
    assert (down - down @ rows.mT @ rows).norm() / down.norm() < 1e-6
    torch.testing.assert_close(mixing @ rows, down, rtol=0, atol=1e-6)
    assert (mixing.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert same({"": rows}, {"": orthonormal(down)[0]})


def test_golden_of_a_triangle_the_start_is_the_unit_vectors():
    """A^T = Q R with R upper: A = ((3, 0), (4, -5)) gives Q = I up to signs, so rows (1, 0) and (0, -1)."""
    rows, mixing = orthonormal(torch.tensor([[3.0, 0], [4, -5]]))
    torch.testing.assert_close(rows, torch.tensor([[1.0, 0], [0, -1]]))
    torch.testing.assert_close(mixing, torch.tensor([[3.0, 0], [4, 5]]))


def test_it_starts_from_the_b_of_the_chain_and_with_keep_r_from_its_function():
    down, up = drawn(4, 12), drawn(5, 4, seed=1)
    plain, kept = start(Slao(), down, up), start(Slao(keep_r=True), down, up)
    assert torch.equal(plain.up, up)
    assert torch.equal(plain.down, kept.down)
    assert (kept.up @ kept.down - up @ down).norm() / (up @ down).norm() < 1e-6
    assert (plain.up @ plain.down - up @ down).norm() / (up @ down).norm() > 0.1


def test_golden_what_is_served_weighs_three_tasks_as_the_paper_does():
    """After t = 2: 1 - 1/sqrt 2 and 1/sqrt 2. After t = 3: the former times 1 - 1/sqrt 3, and 1/sqrt 3."""
    ups, downs = [drawn(5, 2, seed=i) for i in range(3)], [drawn(2, 3, seed=9 + i) for i in range(3)]
    ends = learned(Slao(), ups, downs)
    assert torch.equal(ends[0][0][B], ups[0])
    for (served, _), down in zip(ends, downs, strict=True):
        assert torch.equal(served[A], down)
    half = 1 - 2**-0.5
    torch.testing.assert_close(ends[1][0][B], half * ups[0] + (1 - half) * ups[1])
    weights = (0.124, 0.299, 0.577)
    expected = sum(weight * up for weight, up in zip(weights, ups, strict=True))
    torch.testing.assert_close(ends[2][0][B], expected, rtol=0, atol=5e-3)
    third = 3**-0.5
    exact = (1 - third) * half * ups[0] + (1 - third) * (1 - half) * ups[1] + third * ups[2]
    torch.testing.assert_close(ends[2][0][B], exact)
    assert [int(state["count"]) for _, state in ends] == [1, 2, 3]


def test_the_chain_goes_on_from_what_was_trained_and_not_from_what_is_served():
    ups, downs = [drawn(5, 2, seed=i) for i in range(2)], [drawn(2, 3, seed=9 + i) for i in range(2)]
    served, state = learned(Slao(), ups, downs)[-1]
    assert not torch.equal(served[B], ups[1])
    assert torch.equal(start(Slao(), served[A], served[B], state).up, ups[1])


def test_a_chain_whose_adapter_was_trained_further_without_it_starts_anew_from_what_head_has():
    ups, downs = [drawn(5, 2, seed=i) for i in range(2)], [drawn(2, 3, seed=9 + i) for i in range(2)]
    _, state = learned(Slao(), ups, downs)[-1]
    moved = drawn(2, 3, seed=20), drawn(5, 2, seed=21)
    assert torch.equal(start(Slao(), *moved, state).up, moved[1])
    up = drawn(5, 2, seed=22)
    values, after = Slao().settle(SimpleNamespace(params={A: moved[0], B: up}, own=slots(*moved)["skill"]), state)
    torch.testing.assert_close(values[B], moved[1] + (up - moved[1]) / 2**0.5)
    assert int(after["count"]) == 2


def test_with_keep_r_the_served_update_is_the_same_before_and_after_the_rows_were_made_orthonormal():
    """What a task that learns nothing leaves: B A of head, where chain and head are the same."""
    down, up = drawn(4, 12), drawn(5, 4, seed=1)
    for keep_r, apart in ((True, False), (False, True)):
        begun = start(Slao(keep_r=keep_r), down, up)
        params = {A: begun.down, B: begun.up}
        values, _ = Slao(keep_r=keep_r).settle(SimpleNamespace(params=params, own=slots(down, up)["skill"]), {})
        error = ((values[B] @ begun.down) - up @ down).norm() / (up @ down).norm()
        assert (error > 1e-6) == apart


def test_a_first_task_has_no_start_and_is_served_as_it_was_trained():
    bare = Bare("a", 0, Settings(), {"q": (5, 12)}, {})
    assert Slao().adapter(bare, {}).start is None
    values, _ = Slao().settle(SimpleNamespace(params={A: drawn(2, 3), B: drawn(5, 2)}, own={}), {})
    assert values == {}
