"""OGD: an update has no part along the kept gradients of past rows, so that what was said of them stays, to first order."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.errors import BadSpec
from perdure.maths.projection import dot
from perdure.methods.gradients.ogd import Ogd
from streams import FeatureStream, run


class Rows:
    """A model between tasks, of which only per-row gradients are asked."""

    def __init__(self, *batches):
        self.batches, self.asked = batches, []

    def gradients(self, rows, size=None, of="data"):
        self.asked.append((rows, size, of))
        yield from self.batches


def random(seed, rows):
    rng = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(rows, 2, 2, generator=rng), "b": torch.randn(rows, 3, generator=rng)}


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 3))
def test_a_masked_gradient_is_orthogonal_to_every_rows_gradient_of_every_task(seed, first, then):
    tasks = [[random(seed, first)], [random(seed + 1, then), random(seed + 2, 1)]]
    method, state = Ogd(keep=1.0), {}
    for batches in tasks:
        state = method.measure(Rows(*batches), state)
    grads = {"a": random(seed + 3, 1)["a"][0], "b": random(seed + 3, 1)["b"][0]}
    masked = method.mask(grads, state)
    for batch in (batch for batches in tasks for batch in batches):
        for i in range(len(batch["b"])):
            row = {name: value[i] for name, value in batch.items()}
            assert abs(dot(masked, row)) <= 5e-3 * dot(row, row) ** 0.5 * dot(grads, grads) ** 0.5
    assert dot(masked, masked) <= dot(grads, grads) * (1 + 1e-6)


def test_two_parameters_by_hand():
    state = Ogd(keep=1.0).measure(Rows({"w": torch.tensor([[3.0, 4.0]])}), {})
    assert state["basis.w"].abs().tolist() == [pytest.approx([0.6, 0.8])]
    torch.testing.assert_close(Ogd().mask({"w": torch.tensor([1.0, 0.0])}, state)["w"], torch.tensor([0.64, -0.48]))


def test_it_asks_for_gradients_of_the_data_and_keeps_nothing_else():
    model = Rows(random(0, 3))
    state = Ogd(size=7).measure(model, {})
    assert model.asked == [("new", 7, "data")]
    assert state.keys() == {"basis.a", "basis.b"}
    assert state["basis.a"].shape == (3, 2, 2)
    assert state["basis.a"].dtype == torch.float32


def test_the_directions_of_least_length_are_left_out_as_far_as_the_share_allows():
    rows = {"w": torch.diag(torch.ones(3)).repeat_interleave(torch.tensor([8, 1, 1]), 0)}  # .8, .1 and .1 of the length
    for keep, directions in ((0.8, 1), (0.9, 2), (1.0, 3)):
        assert len(Ogd(keep=keep).measure(Rows(rows), {})["basis.w"]) == directions


def test_before_anything_is_kept_it_masks_nothing():
    grads = {"w": torch.ones(2)}
    assert Ogd().mask(grads, {}) is grads


def test_small_sgd_steps_leave_the_old_rows_where_they_were_and_plain_ones_do_not():
    points = FeatureStream()
    kept = points.kept({"ogd": {"size": 8, "keep": 1.0}})

    def drift(methods, state):
        made = points.learner(methods, state=state)
        before = made.inference.nll(points.old)
        made.begin()
        run(made, 0)
        torch.optim.SGD(made.params.values(), lr=1e-2).step()
        points.model.zero_grad()
        return max(abs(a - b) for a, b in zip(made.inference.nll(points.old), before, strict=True))

    # the gradients were taken where the first task ended, and so the masked step is orthogonal to every old row's
    assert drift({"ogd": {}}, kept) < 0.05 * drift({}, None)


def test_a_basis_of_another_shape_is_refused_by_name():
    points = FeatureStream()
    state = {"ogd": {"basis.0.weight": torch.ones(2, 5, 6)}}
    with pytest.raises(BadSpec, match=r"ogd stored basis\.0\.weight of shape \(2, 5, 6\)"):
        points.learner({"ogd": {}}, state=state)


def test_values_out_of_range_are_refused_and_keeping_none_is_no_method():
    with pytest.raises(ValueError, match=r"size\n.*greater than or equal to 1"):
        Ogd(size=0)
    with pytest.raises(ValueError, match=r"keep\n.*(less|greater) than or equal to"):
        Ogd(keep=1.1)
    assert not Ogd(keep=0).active
