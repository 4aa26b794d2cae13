"""CAGrad: twice the vector of the ball around the mean that serves the worse-served gradient best."""

import pytest
import torch

from perdure.core.step import Step
from perdure.methods.gradients.cagrad import CAGrad

STEP = Step(0, 10, {})


def turned(g, r, **fields):
    made = CAGrad(**fields).gradient({"w": torch.tensor(g)}, {"memory": {"w": torch.tensor(r)}}, STEP, {})
    return made["w"].tolist()


def test_with_radius_zero_it_is_replay_with_that_strength():
    assert turned([1.0, -3.0], [0.5, 1.0], radius=0.0, strength=2.0) == pytest.approx([2.0, -1.0])


def test_gradients_of_equal_length_get_their_mean_longer_by_the_radius():
    assert turned([1.0, 0.0], [0.0, 1.0], radius=0.5) == pytest.approx([1.5, 1.5])  # w = 1/2: g_w is the mean itself


def test_a_weak_gradient_is_pulled_forward():
    # m = (2, .5);  a = (4, 0) gains most on m, and the whole radius goes to b = (0, 1): d = m + .2 |m| (0, 1)
    reach = 0.2 * (2.0**2 + 0.5**2) ** 0.5
    assert turned([4.0, 0.0], [0.0, 1.0], radius=0.2) == pytest.approx([4.0, 1.0 + 2 * reach])


def test_values_out_of_range_are_refused_and_no_strength_is_no_method():
    for fields in ({"radius": 1.0}, {"radius": -0.1}, {"mix": 1.0}):
        with pytest.raises(ValueError, match=rf"{next(iter(fields))}\n.*(less|greater) than"):
            CAGrad(**fields)
    assert not CAGrad(strength=0).active
