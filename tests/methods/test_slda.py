"""The closed-form head: sums of the task's rows by answer, on which a label is chosen without training."""

import pytest
import torch

from perdure.maths.routing import Gaussian, Moments
from perdure.methods.routing.slda import Slda


class View:
    """A model whose rows have given features and answers."""

    def __init__(self, features, answers):
        self.given, self.answers = torch.tensor(features), answers

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
