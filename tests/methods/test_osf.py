"""OSF: the update has no part along the leading singular directions of the weight, under AdamW with decay."""

import pytest
import torch

from perdure.core.errors import BadSpec
from perdure.core.plan import Bare
from perdure.core.settings import Settings
from perdure.core.step import Step
from perdure.maths.low_rank import Patch, to_tensors
from perdure.methods.adapters.osf import Osf
from streams import same

A = "base_model.model.q.lora_A.default.weight"
B = "base_model.model.q.lora_B.default.weight"
OUT, IN = 20, 32


class Weights:
    """A model of one module, q."""

    def __init__(self, weight, params=None, slots=None):
        self.value, self.params, self.slots = weight, params or {}, slots or {}

    def weight(self, module):
        assert module == "q"
        return self.value


def random_weight():
    torch.manual_seed(1)
    return torch.randn(OUT, IN)


def bare(model, rank=4, slots=None, task="b"):
    return Bare(task, 0, Settings(lora_r=rank), {"q": tuple(model.value.shape)}, slots or {}, model)


def high(weight, kept):
    """Return U_h (out, k), V_h (in, k) of a full decomposition."""
    k = round(kept * min(weight.shape))
    u, _, v = torch.linalg.svd(weight.double())
    return u[:, :k], v[:k].T


def trained(method, model, target, *, mask=True, hold=True, steps=60, slots=None):
    """Return A and B after updates of AdamW with decay towards B A = target."""
    start = method.adapter(bare(model, slots=slots), {}).start()["q"]
    torch.manual_seed(2)
    a, b = start.down.clone().requires_grad_(True), start.up.clone().requires_grad_(True)
    state = method.prepare(Weights(model.value, {A: a, B: b}, slots), {})
    optimizer = torch.optim.AdamW([a, b], lr=3e-2, weight_decay=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        ((b @ a - target) ** 2).sum().backward()
        if mask:
            masked = method.mask({A: a.grad, B: b.grad}, state)
            a.grad, b.grad = masked[A], masked[B]
        optimizer.step()
        with torch.no_grad():
            for name, value in method.hold(Step(0, 1, {A: a, B: b}), state).items() if hold else ():
                (a if name == A else b).copy_(value)
    return a.detach().double(), b.detach().double()


def leaks(a, b, weight, kept):
    """Return ||U_h^T dW|| / ||dW|| and ||dW V_h|| / ||dW||."""
    u, v = high(weight, kept)
    update = b @ a
    return [(part.norm() / update.norm()).item() for part in (u.T @ update, update @ v)]


@pytest.mark.parametrize("shape", [(OUT, IN), (IN, OUT)])
@pytest.mark.parametrize("kept", [0.3, 0.5])
def test_the_update_has_no_part_in_what_is_kept_on_either_side(shape, kept):
    torch.manual_seed(1)
    weight = torch.randn(shape)
    a, b = trained(Osf(kept=kept), Weights(weight), torch.randn(shape))
    assert max(leaks(a, b, weight, kept)) <= 1e-5
    assert (b @ a).norm() > 0.5
    assert torch.linalg.matrix_rank(b @ a) <= 4


@pytest.mark.parametrize("mask", [True, False])
def test_without_hold_it_leaks_and_without_mask_it_does_not(mask):
    weight = random_weight()
    target = torch.randn(OUT, IN)
    a, b = trained(Osf(), Weights(weight), target, mask=mask, hold=False)
    assert max(leaks(a, b, weight, 0.5)) > 1e-2
    a, b = trained(Osf(), Weights(weight), target, mask=mask)
    assert max(leaks(a, b, weight, 0.5)) <= 1e-5


def test_a_target_in_the_free_spaces_is_fitted_as_well_as_without_it():
    weight = random_weight()
    u, v = high(weight, 0.5)
    torch.manual_seed(3)
    target = torch.randn(OUT, 4) @ torch.randn(4, IN) / 4
    target = (target.double() - u @ (u.T @ target.double())).float()
    target = (target.double() - (target.double() @ v) @ v.T).float()
    gaps = []
    for kept in (0.5, 0.0):
        a, b = trained(Osf(kept=kept), Weights(weight), target, steps=400)
        gaps.append(((b @ a - target).norm() / target.norm()).item())
    assert gaps[0] < 1.2 * gaps[1] + 0.02
    assert gaps[0] < 0.5


def test_golden_two_singular_values_of_which_the_larger_stays():
    """W = diag(3, 1): U_h = V_h = e1, so A has no first column and B no first row."""
    weight = torch.diag(torch.tensor([3.0, 1.0]))
    params = {A: torch.tensor([[0.0, 2.0]]), B: torch.tensor([[0.0], [5.0]])}
    state = Osf().prepare(Weights(weight, params), {})
    moved = {A: torch.tensor([[7.0, 2.0]]), B: torch.tensor([[4.0], [5.0]])}
    for found in (Osf().mask(moved, state), Osf().hold(Step(0, 1, moved), state)):
        torch.testing.assert_close(found, params)
    assert same(Osf().mask({"other": torch.ones(2)}, state), {"other": torch.ones(2)})


def test_kept_at_zero_protects_nothing():
    params = {A: torch.randn(4, IN), B: torch.randn(OUT, 4)}
    model = Weights(random_weight(), params)
    state = Osf(kept=0.0).prepare(model, {})
    torch.testing.assert_close(Osf(kept=0.0).hold(Step(0, 1, params), state), params)


def test_the_rows_of_adapters_underneath_are_protected_too():
    torch.manual_seed(4)
    old = Patch(torch.randn(3, IN), torch.randn(OUT, 3), 2.0)
    slots = {"sum:a": to_tensors({"q": old})}
    weight, method = random_weight(), Osf(on="sum")
    a, b = trained(method, Weights(weight), torch.randn(OUT, IN), slots=slots)
    assert max(leaks(a, b, weight, 0.5)) <= 1e-5
    assert ((a @ old.down.double().T).norm() / (a.norm() * old.down.norm())).item() <= 1e-5


def test_each_place_of_the_adapter_has_its_slot():
    model = Weights(random_weight())
    before = {"skill": to_tensors({"q": Patch(torch.ones(1, IN), torch.ones(OUT, 1), 1.0)})}
    for on, slot, beneath in (("shared", "skill", ()), ("sum", "sum:b", ("skill",)), ("task", "task:b", ("skill",))):
        plan = Osf(on=on).adapter(bare(model, slots=before), {})
        assert (plan.slot, plan.beneath, plan.start is None) == (slot, beneath, on == "shared")
        assert Osf(on=on).carries == (on == "shared")


def test_a_rank_for_which_too_few_directions_are_free_is_refused_with_the_count():
    with pytest.raises(
        BadSpec, match=r"q \(20 x 32\) has 2 free directions, as 18 singular ones stay and earlier adapters take 0"
    ):
        Osf(kept=0.9).adapter(bare(Weights(random_weight())), {}).start()


def test_an_adapter_that_was_learned_without_it_is_refused_and_not_cut_silently():
    params = {A: torch.randn(4, IN), B: torch.ones(OUT, 4)}
    with pytest.raises(
        BadSpec, match=r"of base_model.*lora_A.* lies in the space that osf protects.*on: sum, or start: base"
    ):
        Osf().prepare(Weights(random_weight(), params), {})


def test_the_start_is_keyed_by_task_and_module():
    model = Weights(random_weight())
    one, again, other = (Osf().adapter(bare(model, task=task), {}).start()["q"] for task in ("b", "b", "c"))
    assert torch.equal(one.down, again.down)
    assert not torch.equal(one.down, other.down)
    assert (one.up == 0).all()
    assert one.trains == "both"


def test_one_that_has_learned_nothing_may_lie_anywhere_and_is_held_from_the_first_update():
    params = {A: torch.randn(4, IN), B: torch.zeros(OUT, 4)}
    weight = random_weight()
    state = Osf().prepare(Weights(weight, params), {})
    held = Osf().hold(Step(0, 1, params), state)[A].double()
    assert (held @ high(weight, 0.5)[1]).norm() <= 1e-5 * held.norm()
