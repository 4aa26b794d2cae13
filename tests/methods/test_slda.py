"""The closed-form head: sums of the task's rows by answer, on which a label is chosen without training."""

import pytest
import torch

from perdure.maths.routing import Gaussian, Moments
from perdure.methods.routing.slda import Slda


class View:
    """A model whose rows have given features and answers."""

    task = "t"

    def __init__(self, features, answers):
        self.given, self.answers = torch.as_tensor(features), answers

    def features(self, rows):
        assert rows == "new"
        return self.given, self.answers


FIRST = View([[0.0, 0.0], [2.0, 0.0], [1.0, 4.0], [1.0, 6.0]], ["a", "a", "b", "b"])


def test_golden_scores_of_two_answers_with_two_rows_each():
    """Means (1, 0) and (1, 5); S = diag(2, 2), so S/n = diag(1/2, 1/2), which shrinkage towards its mean leaves as it is."""
    tensors = Slda().measure(FIRST, {})
    assert tensors["shrinkage"] == pytest.approx(0.1)
    made = Gaussian.of({"t": Moments.from_tensors(tensors)}, float(tensors["shrinkage"]))
    scores = made.scores(torch.tensor([[3.0, 1.0]]))
    assert scores[0].tolist() == pytest.approx([2 * 3 - 1, 2 * 3 + 10 * 1 - 26])
    assert made.labels[int(scores.argmax())] == "a"


def test_rows_of_a_second_learn_are_added_to_the_sums_as_if_all_had_come_at_once():
    more = View([[4.0, 2.0], [3.0, 5.0]], ["a", "b"])
    together = View([*FIRST.given.tolist(), *more.given.tolist()], [*FIRST.answers, *more.answers])
    added, once = Slda().measure(more, Slda().measure(FIRST, {})), Slda().measure(together, {})
    assert added.keys() == once.keys()
    for name, value in once.items():
        torch.testing.assert_close(added[name], value, msg=name)


def test_rows_that_are_held_out_are_not_summed_and_set_the_limit_for_requests_of_no_task():
    generator = torch.Generator().manual_seed(0)
    apart = View(torch.randn(100, 3, generator=generator), ["a", "b"] * 50)
    made = Moments.from_tensors(Slda(held=0.2).measure(apart, {}))
    assert made.counts.tolist() == [40, 40]
    assert made.held.shape == (20, 3)
    gaussian = Gaussian.of({"t": made})
    assert gaussian.limit == gaussian.distances(made.held).max()  # ceil(0.95 * 21) = 20
    assert gaussian.route(torch.full((1, 3), 1e3)) == [None]
    again = Moments.from_tensors(Slda(held=0.2).measure(apart, Slda(held=0.2).measure(apart, {})))
    assert (again.counts.tolist(), len(again.held)) == ([80, 80], 40)


def test_by_default_every_row_is_summed_and_every_request_has_a_task():
    made = Moments.from_tensors(Slda().measure(FIRST, {}))
    assert (made.counts.sum(), len(made.held)) == (4, 0)
    assert Gaussian.of({"t": made}).route(torch.full((1, 2), 1e3)) == ["t"]


def test_the_share_of_held_out_rows_is_part_of_an_id_only_where_it_is_set():
    assert Slda().to_json() == {"shrinkage": 0.1}
    assert Slda(held=0.2).to_json() == {"shrinkage": 0.1, "held": 0.2}
