"""Importance-weighted replay: whatever rows are drawn more often, the expected loss is the one under P."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.seams import DrawContext
from perdure.core.step import Slice, Step, row_weights
from perdure.memory.service import by_weight, chances
from perdure.methods.replay.importance_replay import ImportanceReplay, drawn_rows, importance, service

losses = st.lists(st.floats(0.01, 8.0), min_size=2, max_size=12).map(lambda x: torch.tensor(x, dtype=torch.float64))


def target(before, temperature=1.0):
    made = torch.exp(-before / (temperature * before.median()))
    return made / made.sum()


@settings(max_examples=60)
@given(losses, st.integers(1, 12), st.floats(0, 1), st.integers(0, 99))
def test_the_mean_over_all_draws_is_exactly_the_mean_under_p(before, size, priority, seed):
    """The sum over rows of chance x w x f / n is the expectation over draws of the estimate, and the sum of P f."""
    size = min(size, len(before))
    p, q = target(before), service(before.flip(0), priority)
    f = torch.randn(len(before), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    w = importance(p, q, size, clip=1e9)
    expected = (torch.as_tensor(chances(q.tolist(), size)) * w * f).sum() / size
    torch.testing.assert_close(expected, (p * f).sum(), rtol=1e-9, atol=1e-9)


def test_the_mean_over_many_draws_is_the_mean_under_p():
    before = torch.tensor([0.2, 0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    p, q, f = target(before), service(before, 1.0), torch.tensor([3.0, -1.0, 2.0, 0.5, 4.0], dtype=torch.float64)
    w = importance(p, q, 2, clip=1e9)
    found = np.array([float((w * f)[by_weight(q.tolist(), 2, seed)].mean()) for seed in range(4000)])
    assert abs(found.mean() - float((p * f).sum())) < 4 * found.std() / 4000**0.5


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="without the weights, the mean is the one under Q")
def test_the_weights_are_needed():
    before = torch.tensor([0.2, 0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    p, q = target(before), service(before, 1.0)
    torch.testing.assert_close((q * before).sum(), (p * before).sum())


@settings(max_examples=60)
@given(losses, st.integers(1, 6), st.floats(0.5, 5.0))
def test_clipped_weights_keep_their_proportions_and_a_mean_of_one(before, size, clip):
    size = min(size, len(before))
    q = service(before, 1.0)
    share = torch.as_tensor(chances(q.tolist(), size)) / size
    w = importance(target(before, 0.5), q, size, clip)
    clipped = (target(before, 0.5) / share).clamp_max(clip)
    assert float((share * w).sum()) == pytest.approx(1.0)
    torch.testing.assert_close(w / w.sum(), clipped / clipped.sum())


def test_service_is_a_power_of_the_loss_and_no_row_is_left_out():
    torch.testing.assert_close(service(torch.tensor([1.0, 4.0]), 0.5), torch.tensor([1 / 3, 2 / 3]))
    torch.testing.assert_close(service(torch.tensor([1.0, 4.0, 9.0]), 0.0), torch.full((3,), 1 / 3))
    assert service(torch.tensor([0.0, 1.0, 3.0]), 1.0)[0].item() == pytest.approx(0.4 / 3 / (4 + 0.4 / 3))


def test_rows_that_the_model_held_weigh_more_and_a_high_temperature_weighs_all_alike():
    before = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    w = importance(target(before), service(before, 0.0), 1, 1e9)
    torch.testing.assert_close(w, 3 * torch.exp(-before) / torch.exp(-before).sum())
    torch.testing.assert_close(importance(target(before, 1e9), service(before, 0.0), 1, 1e9), torch.ones_like(w))


def drawn(places, logits):
    row_of = torch.arange(len(places))
    return Slice(logits, torch.tensor([0, 1]), row_weights(row_of, 2).double(), row=torch.tensor(places))


def test_the_loss_is_the_mean_of_each_drawn_rows_weight_times_its_cross_entropy():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, dtype=torch.float64)
    before, now = torch.tensor([0.5, 1.0, 3.0, 0.1]), torch.tensor([1.0, 1.0, 2.0, 0.5])
    step = Step(0, 10, {}, drawn={"importance_replay": drawn([2, 0], logits)})
    w = importance(target(before), service(now, 0.5), 2, 5.0).double()
    each = F.cross_entropy(logits, torch.tensor([0, 1]), reduction="none")
    found = ImportanceReplay(strength=3.0).loss(step, {"before": before, "loss": now})
    torch.testing.assert_close(found, 3 * (w[[2, 0]] * each).mean(), rtol=1e-6, atol=0)
    torch.testing.assert_close(ImportanceReplay().loss(step, {}), each.mean())
    assert ImportanceReplay().loss(Step(0, 10, {}), {}) is None


class Fixed:
    """A model between tasks whose memory is four rows, seen in two batches."""

    def __init__(self, logits):
        self.logits = logits

    def slices(self, rows, size=None):
        assert rows == "replay"
        for places in ([3, 1], [0, 2]):
            yield drawn(places, self.logits[places])


def test_it_begins_with_the_losses_of_the_model_before_and_remembers_those_it_sees():
    torch.manual_seed(0)
    logits = torch.randn(4, 3)
    state = ImportanceReplay().prepare(Fixed(logits), {})
    labels = torch.tensor([0, 1, 1, 0])  # by place: 0 and 3 are first in their batches
    torch.testing.assert_close(state["before"], F.cross_entropy(logits, labels, reduction="none"))
    told = {"importance_replay": (torch.tensor([2, 0]), torch.tensor([9.0, 8.0]))}
    after = ImportanceReplay().watch(Step(0, 10, {}, row_losses=told), state)
    assert after["loss"][[2, 0]].tolist() == [9.0, 8.0]
    assert torch.equal(after["loss"][[1, 3]], state["before"][[1, 3]])
    assert torch.equal(after["before"], state["before"])
    assert state["loss"][2] != 9.0


def test_it_draws_by_service_and_evenly_while_no_loss_is_known():
    context = DrawContext(0, 10, 6, {"replay": 3})
    wish = ImportanceReplay(priority=1.0).draw(context, {"loss": torch.tensor([1.0, 1.0, 2.0])})
    assert wish.size == 2
    assert wish.weights == pytest.approx([0.25, 0.25, 0.5])
    assert ImportanceReplay().draw(context, {}).weights == pytest.approx([1 / 3] * 3)


def test_the_rows_of_the_update_are_read_from_what_each_weighs():
    weight = row_weights(torch.tensor([0, 0, 1]), 7)
    rows = Slice(torch.zeros(3, 2), torch.zeros(3, dtype=torch.long), weight, row=torch.tensor([5, 5, 9]))
    assert drawn_rows(rows) == 7


@pytest.mark.parametrize(("field", "value"), [("mix", 1.0), ("temperature", 0.0), ("clip", 0.0)])
def test_fields_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        ImportanceReplay(**{field: value})
    assert not ImportanceReplay(mix=0).active
    assert not ImportanceReplay(strength=0).active
