"""Adversarial replay: each row is moved by epsilon mean embedding lengths up its own gradient, then learned there."""

import pytest
import torch
import torch.nn.functional as F

from perdure.core.seams import DrawContext
from perdure.core.step import Slice, Step, row_weights
from perdure.methods.replay.adversarial_replay import AdversarialReplay

LABELS = torch.tensor([0, 2])


@pytest.fixture
def weight():
    torch.manual_seed(0)
    return torch.randn(5, 3, dtype=torch.float64, requires_grad=True)


@pytest.fixture
def embeddings():
    torch.manual_seed(1)
    return torch.randn(2, 1, 5, dtype=torch.float64)


def step(weight, embeddings):
    """Two rows of one position each through a linear head."""

    def run(part, *, embeddings, grad, weights=None):
        assert grad
        return Slice(embeddings[:, 0] @ weight, LABELS, row_weights(torch.arange(2), 2).double())

    parts = {"adversarial_replay"}
    return Step(0, 10, {"w": weight}, parts=parts, runner=run, embedder=lambda part: embeddings.clone())


def by_hand(weight, embeddings, epsilon):
    """e + epsilon |e| g / |g|, with g = W (softmax - one-hot): the fast gradient step of each row."""
    fixed = weight.detach()
    error = (embeddings[:, 0] @ fixed).softmax(-1) - F.one_hot(LABELS, 3)
    gradient = error @ fixed.T
    length = embeddings[:, 0].norm(dim=1, keepdim=True)
    return embeddings[:, 0] + epsilon * length * gradient / gradient.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_it_is_strength_times_the_cross_entropy_at_the_fast_gradient_step(weight, embeddings, epsilon):
    found = AdversarialReplay(epsilon=epsilon, strength=2.0).loss(step(weight, embeddings), {})
    moved = by_hand(weight, embeddings, epsilon)
    torch.testing.assert_close(found, 2 * F.cross_entropy(moved @ weight, LABELS))


def test_moved_rows_are_harder_and_their_gradient_is_at_the_moved_place(weight, embeddings):
    made = AdversarialReplay(epsilon=0.3).loss(step(weight, embeddings), {})
    assert made.item() > F.cross_entropy(embeddings[:, 0] @ weight, LABELS).item()
    made.backward()
    moved = by_hand(weight, embeddings, 0.3)
    error = (moved @ weight.detach()).softmax(-1) - F.one_hot(LABELS, 3)
    torch.testing.assert_close(weight.grad, moved.T @ error / 2)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="moved down the gradient, rows would be easier")
def test_a_perturbation_of_the_wrong_sign_is_seen(weight, embeddings):
    made = F.cross_entropy(by_hand(weight, embeddings, -0.3) @ weight, LABELS)
    assert made.item() > F.cross_entropy(embeddings[:, 0] @ weight, LABELS).item()


def test_without_drawn_rows_it_adds_nothing_and_its_rows_are_shared():
    assert AdversarialReplay().loss(Step(0, 10, {}), {}) is None
    wish = AdversarialReplay(mix=0.5).draw(DrawContext(0, 10, 8, {"replay": 9}), {})
    assert (wish.size, wish.own, wish.weights) == (8, False, None)
    assert not AdversarialReplay(mix=0).active
    assert not AdversarialReplay(strength=0).active


@pytest.mark.parametrize(("field", "value"), [("mix", 1.0), ("epsilon", -1.0)])
def test_fields_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        AdversarialReplay(**{field: value})
