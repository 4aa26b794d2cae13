"""Interpolation with the previous head: a point on the line between two weights, chosen on held-out rows and memory."""

import pytest
import torch

from perdure.core.errors import BadSpec
from perdure.methods.weights_over_time.wise_ft import WiseFt


class Bowls:
    """A model of one weight whose losses are squared distances: new rows like `new`, memory likes `old`."""

    def __init__(self, w, new=1.0, old=None, first=False, validation=True):
        self.params = {"w": torch.nn.Parameter(torch.tensor([w], dtype=torch.float64))}
        self.best, self.first, self.validation = {"validation": new, "replay": old}, first, validation

    def nll(self, rows, weights=None, size=None):
        best = self.best[rows]
        return None if best is None else (weights["w"].item() - best) ** 2

    def slices(self, rows, size=None):
        return iter([None] if self.validation else [])


def settled(model, **fields):
    method = WiseFt(**fields)
    state = method.prepare(Bowls(0.0), {})  # the previous head is at 0
    values, left = method.settle(model, state)
    assert left == {}
    return values["w"].item()


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_fixed_it_is_that_share_of_the_way_back(share):
    assert settled(Bowls(2.0), choose="fixed", share=share) == pytest.approx((1 - share) * 2.0)


def test_it_takes_the_share_with_the_least_loss_on_new_rows_plus_memory():
    # (w - 1)^2 + (w - .2)^2 is least at w = .6: a share of .4 from 1 to 0
    both = {"choose": "both"}
    assert settled(Bowls(1.0, new=1.0, old=0.2), share=1.0, steps=10, **both) == pytest.approx(0.6)
    assert settled(Bowls(1.0, new=1.0, old=0.0), share=0.25, steps=5, **both) == pytest.approx(0.75)  # no further


@pytest.mark.parametrize(("old", "choose"), [(None, "both"), (None, "validation"), (0.2, "validation")])
def test_without_memory_or_if_it_is_not_asked_the_new_rows_alone_choose(old, choose):
    assert settled(Bowls(1.0, new=0.7, old=old), choose=choose, share=1.0, steps=10) == pytest.approx(0.7)


def test_where_going_back_helps_no_one_the_weights_stay_to_the_bit():
    model = Bowls(0.1 + 0.2, new=5.0, old=5.0)
    method = WiseFt()
    values, _ = method.settle(model, {"anchor.w": torch.zeros(1)})
    assert torch.equal(values["w"], model.params["w"].float().double())


def test_it_needs_validation_rows_only_to_choose_and_says_so_before_training():
    assert WiseFt().needs == WiseFt(choose="both").needs == ("validation",)
    assert WiseFt(choose="fixed").needs == ()
    with pytest.raises(BadSpec, match="choose: fixed"):
        WiseFt().prepare(Bowls(1.0, validation=False), {})
    assert "anchor.w" in WiseFt(choose="fixed").prepare(Bowls(1.0, validation=False), {})


def test_in_the_first_task_there_is_no_head_to_go_back_to():
    assert WiseFt().prepare(Bowls(1.0, first=True), {}) == {}
    assert WiseFt().settle(Bowls(1.0), {}) == ({}, {})


def test_the_previous_weights_are_copies_and_no_share_is_no_method():
    model = Bowls(1.0)
    kept = WiseFt().prepare(model, {})
    with torch.no_grad():
        model.params["w"] += 1
    assert kept["anchor.w"].item() == 1
    assert not WiseFt(share=0).active
