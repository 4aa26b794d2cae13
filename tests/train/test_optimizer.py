"""The optimizer is AdamW, its schedule is warm-up and decay in closed form, and clipping keeps the direction."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.settings import Settings
from perdure.train.optimizer import clip, learning_rate_share, make_optimizer, make_schedule


def shares(total, **fields):
    return [learning_rate_share(update, total, Settings(**fields)) for update in range(total)]


def test_linear_decay_begins_at_the_peak_and_ends_one_step_above_zero():
    assert shares(4) == [1.0, 0.75, 0.5, 0.25]


def test_cosine_and_constant():
    assert shares(4, lr_scheduler_type="cosine") == pytest.approx(
        [(1 + math.cos(math.pi * u / 4)) / 2 for u in range(4)]
    )
    assert shares(4, lr_scheduler_type="constant") == [1.0] * 4


@pytest.mark.parametrize("warmup", [2, 0.25])  # updates, or a share of all updates
def test_warm_up_climbs_in_equal_steps_to_the_peak(warmup):
    assert shares(8, warmup_steps=warmup) == pytest.approx([1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


@given(
    st.integers(1, 200),
    st.one_of(st.floats(0, 0.99), st.integers(1, 250)),
    st.sampled_from(["linear", "cosine", "constant"]),
)
def test_the_share_rises_then_falls_and_is_never_zero_while_training(total, warmup, kind):
    made = shares(total, warmup_steps=warmup, lr_scheduler_type=kind)
    assert all(0 < share <= 1 for share in made)
    peak = made.index(max(made))
    assert made[: peak + 1] == sorted(made[: peak + 1])
    assert made[peak:] == sorted(made[peak:], reverse=True)


@pytest.mark.parametrize("done", [0, 1, 5])
def test_a_resumed_schedule_goes_on_where_it_was(done):
    settings = Settings(learning_rate=0.5, warmup_steps=2)
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], settings)
    schedule = make_schedule(optimizer, settings, 8, done)
    rates = []
    for _ in range(done, 8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0.5 * share for share in shares(8, warmup_steps=2)[done:]])


def test_a_step_is_adamw_s():
    weight = torch.nn.Parameter(torch.tensor([2.0, -3.0]))
    weight.grad = torch.tensor([0.5, -4.0])
    make_optimizer([weight], Settings(learning_rate=0.1, weight_decay=0.2)).step()
    # first step: both moments cancel to the sign of the gradient; decay is decoupled
    expected = torch.tensor([2.0, -3.0]) * (1 - 0.1 * 0.2) - 0.1 * torch.tensor([1.0, -1.0])
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("limit", "norm"), [(1.0, 1.0), (10.0, 5.0), (0.0, 5.0)])
def test_clipping_shortens_the_whole_gradient_to_the_norm_and_zero_does_not_clip(limit, norm):
    weights = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    weights[0].grad, weights[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    told = clip(weights, Settings(max_grad_norm=limit))
    grad = torch.cat([weight.grad for weight in weights])
    assert grad.norm().item() == pytest.approx(norm, rel=1e-4)
    assert grad[0] / grad[1] == pytest.approx(0.75)
    assert told is None if not limit else told.item() == pytest.approx(5.0)
