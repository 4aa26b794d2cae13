"""FOREVER: reviews fall on days 1, 2, 4, 7, 15 of a time measured by the length of the updates, and hold harder in haste."""

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F

from perdure.core.seams import DrawContext
from perdure.core.step import Slice, Step, row_weights
from perdure.methods.replay.forgetting_curve import ForgettingCurve, reviews

TOTAL = 100  # updates; a day of 0.05 is 5 of them


class Fixed:
    """A model between tasks, as `prepare` sees it."""

    params: ClassVar = {"w": torch.tensor([1.0, 2.0])}


def lived(speeds, method=None, rows=()):
    """Return the state after updates of these lengths, and when each review came due."""
    method, due = method or ForgettingCurve(), []
    state = method.prepare(Fixed(), {})
    place = torch.zeros(2)
    for update, speed in enumerate(speeds):
        after = place + speed * torch.tensor([0.6, 0.8])  # of length 1
        told = {"forgetting_curve": (torch.arange(3), torch.zeros(3))} if update in rows else {}
        step = Step(update, TOTAL, {"w": after}, before={"w": place}, row_losses=told)
        known, state, place = reviews(state), method.watch(step, state), after
        due += [update + 1] * (reviews(state) - known)
    return state, due


def test_at_an_even_pace_reviews_fall_on_the_days_of_the_forgetting_curve():
    assert lived([0.125] * TOTAL)[1] == [5, 10, 20, 35, 75]


def test_the_pace_of_the_whole_task_makes_no_difference():
    assert lived([0.25] * TOTAL)[1] == lived([0.125] * TOTAL)[1] == [5, 10, 20, 35, 75]


def test_where_the_weights_move_half_as_fast_reviews_come_half_as_often():
    assert lived([0.25] * 10 + [0.125] * 90)[1] == [5, 10, 30, 60]
    assert lived([0.25] * 5 + [0.5] * 40)[1] == [5, 8, 13, 20, 40]


def test_the_age_is_the_length_of_the_way_and_not_of_the_displacement():
    state, _ = lived([0.5, -0.5] * 4)
    assert state["age"].item() == pytest.approx(4.0)
    assert state["day"].item() == pytest.approx(2.5)


def test_nothing_is_due_before_the_first_day_is_over_or_while_nothing_moves():
    assert lived([0.125] * 4)[1] == []
    assert lived([0.0] * 50)[1] == []


def test_lately_is_the_mean_of_the_first_day_and_then_a_moving_average():
    state, _ = lived([0.1, 0.2, 0.3, 0.4, 0.5, 1.0, 1.0])
    assert state["lately"].item() == pytest.approx(0.95 * (0.95 * 0.3 + 0.05) + 0.05)


def test_a_review_is_one_pass_over_the_memory_spread_over_updates():
    method = ForgettingCurve(mix=0.5)
    state, _ = lived([0.125] * 5)
    context = DrawContext(5, TOTAL, 8, {"replay": 20})
    sizes = []
    while wish := method.draw(context, state):
        sizes.append(wish.size)
        state = {**state, "rows": state["rows"] + wish.size}
    assert sizes == [8, 8, 4]
    assert method.draw(context, {}) is None
    assert ForgettingCurve(passes=2).draw(context, {**state}).size == 8


def test_the_rows_it_was_given_are_counted():
    assert lived([0.125] * 7, rows=(5, 6))[0]["rows"].item() == 6


@pytest.mark.parametrize(("lately", "pull"), [(0.2, 1.0), (0.3, 1.5), (9.0, 3.0), (0.01, 0.5)])
def test_the_loss_is_cross_entropy_plus_the_pull_to_the_start_by_the_haste(lately, pull):
    torch.manual_seed(0)
    rows = Slice(torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 0]), row_weights(torch.arange(4), 4))
    start, now = torch.randn(2, 5, dtype=torch.float64)
    now.requires_grad_()
    state = {
        "anchor.w": start,
        "day": torch.tensor(1.0),
        "lately": torch.tensor(lately),
    }  # 0.2 an update, in the first day
    method = ForgettingCurve(strength=2.0, anchor=0.1)
    made = method.loss(Step(9, TOTAL, {"w": now}, drawn={"forgetting_curve": rows}), state)
    expected = F.cross_entropy(rows.logits, rows.labels) + 0.1 * pull * (now - start).square().sum()
    torch.testing.assert_close(made, 2 * expected, rtol=1e-6, atol=0)
    made.backward()
    torch.testing.assert_close(now.grad, 2 * 0.1 * pull * 2 * (now.detach() - start), rtol=1e-6, atol=0)


def test_outside_a_review_it_adds_nothing_and_the_anchor_is_a_copy():
    state = ForgettingCurve().prepare(Fixed(), {})
    assert ForgettingCurve().loss(Step(0, TOTAL, Fixed.params), state) is None
    assert state["anchor.w"].data_ptr() != Fixed.params["w"].data_ptr()


@pytest.mark.parametrize(("field", "value"), [("mix", 1.0), ("day", 0.0)])
def test_fields_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        ForgettingCurve(**{field: value})
    assert not ForgettingCurve(mix=0).active
