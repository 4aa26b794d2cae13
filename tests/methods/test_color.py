"""The router's moments: of the rows that are fitted, by label, and clusters where there are no labels."""

import pytest
import torch

from perdure.maths.routing import Moments, fit, task_moments
from perdure.methods.routing.color import Color


class View:
    """A model whose rows have given features."""

    def __init__(self, features, labels, task="t"):
        self.given, self.labels, self.task = features, labels, task

    def features(self, rows, layer=None, size=None):
        assert rows == "new"
        return self.given[:size], self.labels[:size]


def rows(n=20, dims=3, seed=0):
    return torch.randn(n, dims, generator=torch.Generator().manual_seed(seed))


def measured(features, labels, task="t", **fields):
    return Moments.from_tensors(Color(**fields).measure(View(features, labels, task), {}))


def test_golden_moments_of_three_rows_of_one_label_and_three_of_another():
    features = torch.tensor([[0.0, 0], [2, 0], [4, 6], [1, 1], [1, 3], [1, 5]])
    made = measured(features, ["a"] * 3 + ["b"] * 3, held=0.0)
    assert made.labels == ("a", "b")
    assert made.means.tolist() == [[2, 2], [1, 3]]
    assert made.scatter.tolist() == [[8, 12], [12, 24 + 8]]  # a: (-2, -2), (0, -2), (2, 4); b: (0, -2), (0, 0), (0, 2)
    assert made.held.numel() == 0


def test_a_fifth_of_each_label_is_held_out_and_no_label_loses_its_last_row():
    labels = ["many"] * 10 + ["some"] * 5 + ["few"] * 4 + ["one"]
    made = measured(rows(), labels)
    assert dict(zip(made.labels, made.counts.tolist(), strict=True)) == {"few": 4, "many": 8, "one": 1, "some": 4}
    assert len(made.held) == 3


def test_rows_that_are_held_out_are_never_fitted():
    features, labels, order = rows(40), ["a", "b"] * 20, torch.randperm(40).tolist()
    made = task_moments(features, labels, order)
    out = [n for n, row in enumerate(features) if any(torch.equal(row, held) for held in made.held)]
    assert len(out) == 8
    changed = features.clone()
    changed[out] = 1e3
    again = task_moments(changed, labels, order)
    for name in ("counts", "means", "scatter"):
        assert torch.equal(getattr(made, name), getattr(again, name))
    kept = [n for n in range(40) if n not in out]
    assert torch.equal(made.means, fit(features[kept], [labels[n] for n in kept]).means)


@pytest.mark.parametrize("labels", [[None] * 20, [f"answer {n}" for n in range(20)], ["a"] * 19 + [None]])
def test_without_labels_that_group_the_rows_clusters_are_classes(labels):
    made = measured(rows(), labels)
    assert made.labels == (None,) * 5
    assert made.counts.sum() == 16
    assert len(measured(rows(), labels, clusters=2).labels) == 2
    assert len(measured(rows(3), [None] * 3).labels) == 3


def test_the_rows_that_are_held_out_depend_on_the_task_alone():
    labels = ["a", "b"] * 10
    assert torch.equal(measured(rows(), labels).held, measured(rows(), labels).held)
    assert not torch.equal(measured(rows(), labels).held, measured(rows(), labels, task="other").held)


def test_at_most_size_rows_are_measured():
    assert measured(rows(), ["a", "b"] * 10, size=6, held=0.0).counts.tolist() == [3, 3]
