"""The temperature of a softmax: by hand where two scores are a fixed distance apart, and its ends."""

import math

import pytest
import torch

from perdure.maths.calibration import temperature


def two_classes(distance, right, wrong):
    """Return rows whose first class leads by `distance`, and their right classes: so many the first, so many the second."""
    return torch.tensor([[distance, 0.0]]).double().repeat(right + wrong, 1), torch.tensor([0] * right + [1] * wrong)


@pytest.mark.parametrize(("right", "wrong"), [(9, 1), (3, 1), (19, 1)])
def test_the_probability_of_the_leading_class_is_the_share_in_which_it_is_right(right, wrong):
    scores, own = two_classes(10.0, right, wrong)
    fitted = temperature(scores, own)
    assert math.isclose(fitted, 10 / math.log(right / wrong), rel_tol=1e-9)  # sigmoid(10 / T) = right / (right + wrong)
    assert math.isclose((scores / fitted).softmax(-1)[0, 0].item(), right / (right + wrong), rel_tol=1e-9)


def test_it_is_1_without_rows_where_all_are_right_and_where_scores_are_too_unsure():
    assert temperature(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long)) == 1
    assert temperature(*two_classes(10.0, 5, 0)) == 1
    assert temperature(*two_classes(0.1, 9, 1)) == 1


def test_scores_that_are_worse_than_none_become_nearly_even():
    scores, own = two_classes(10.0, 1, 9)
    assert math.isclose(temperature(scores, own), 1000, rel_tol=1e-9)
