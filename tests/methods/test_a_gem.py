"""A-GEM: g - (g.r / r.r) r where g.r < 0, over the whole model, after the masks."""

import torch

from perdure.core.seams import DrawContext
from perdure.core.step import Step
from perdure.methods.gradients.a_gem import AGem

STEP = Step(0, 10, {})


def test_two_parameters_by_hand():
    turned = AGem().gradient({"w": torch.tensor([1.0, -2.0])}, {"memory": {"w": torch.tensor([1.0, 1.0])}}, STEP, {})
    assert turned["w"].tolist() == [1.5, -1.5]  # g.r = -1, r.r = 2
    kept = AGem().gradient({"w": torch.tensor([2.0, -1.0])}, {"memory": {"w": torch.tensor([1.0, 1.0])}}, STEP, {})
    assert kept["w"].tolist() == [2.0, -1.0]


def test_it_takes_no_step_of_its_own_towards_the_memory():
    g, r = {"w": torch.tensor([-3.0])}, {"w": torch.tensor([1.0])}
    assert AGem().gradient(g, {"memory": r}, STEP, {})["w"].tolist() == [0.0]  # what conflicts goes, and no more


def test_by_default_it_draws_as_many_rows_as_are_new():
    drawn = [AGem().draw(DrawContext(update, 10, 16, {"replay": 99}), {}).size for update in range(3)]
    assert drawn == [16, 16, 16]
    thirds = [AGem(mix=0.25).draw(DrawContext(update, 10, 16, {}), {}).size for update in range(3)]
    assert thirds == [5, 5, 6]  # 16 / 3 an update
