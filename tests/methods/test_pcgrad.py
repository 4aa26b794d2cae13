"""PCGrad: both gradients give up their part against the other, and are summed."""

import torch

from perdure.core.step import Step
from perdure.methods.gradients.pcgrad import PCGrad

STEP = Step(0, 10, {})


def turned(g, r, strength=1.0):
    made = PCGrad(strength=strength).gradient({"w": torch.tensor(g)}, {"memory": {"w": torch.tensor(r)}}, STEP, {})
    return made["w"].tolist()


def test_two_parameters_by_hand():
    # g' = g - (-1/1) r = (1, 0);  r' = r - (-1/2) g = (1/2, 1/2)
    assert turned([1.0, -1.0], [0.0, 1.0]) == [1.5, 0.5]


def test_without_conflict_it_is_replay_with_that_strength():
    assert turned([1.0, 1.0], [0.0, 2.0], strength=0.5) == [1.0, 2.0]


def test_strength_scales_what_the_memory_adds_and_not_what_it_takes():
    assert turned([1.0, -1.0], [0.0, 1.0], strength=4.0) == [3.0, 2.0]  # (1, 0) + 4 (1/2, 1/2)


def test_opposites_cancel():
    assert turned([2.0, 0.0], [-1.0, 0.0]) == [0.0, 0.0]


def test_no_strength_is_no_method():
    assert not PCGrad(strength=0).active
