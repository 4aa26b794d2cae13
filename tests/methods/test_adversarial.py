"""Adversarial training: each row's embeddings move by epsilon mean lengths, straight up its loss."""

import pytest
import torch
import torch.nn.functional as F

from perdure.core.step import Slice, Step
from perdure.methods.robustness.adversarial import Adversarial

LABELS = torch.tensor([0, 2, 1])


class Linear:
    """Rows of two positions, of which the first decides the logits: float64, and every forward is counted."""

    def __init__(self, seed=0):
        rng = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
        self.embeddings = torch.randn(3, 2, 4, generator=rng, dtype=torch.float64)
        self.seen = []

    def step(self, pick=slice(None)):
        embeddings, labels = self.embeddings[pick], LABELS[pick]
        share = torch.full((len(labels),), 1 / len(LABELS), dtype=torch.float64)

        def run(part, *, embeddings, grad, weights):
            assert part == "new"
            assert weights is None
            assert grad
            self.seen.append(embeddings.detach().clone())
            return Slice(embeddings[:, 0] @ self.weight.T, labels, share)

        return Step(0, 10, {"weight": self.weight}, runner=run, embedder=lambda part: embeddings)


def test_it_is_the_cross_entropy_at_the_embeddings_moved_up_the_gradient():
    model = Linear()
    found = Adversarial(strength=2.0, epsilon=0.3).loss(model.step(), {})
    first = model.embeddings[:, 0]
    error = (first @ model.weight.T).softmax(-1) - F.one_hot(LABELS, 3)
    up = error @ model.weight  # of softmax cross-entropy, in closed form
    moved = first + 0.3 * first.norm(dim=1, keepdim=True) * up / up.norm(dim=1, keepdim=True)
    torch.testing.assert_close(found, 2.0 * F.cross_entropy(moved @ model.weight.T, LABELS), rtol=1e-6, atol=0)
    assert torch.equal(model.seen[1][:, 1], model.embeddings[:, 1])  # what the loss does not see stays
    assert len(model.seen) == 2


def test_its_gradient_takes_the_perturbation_as_given():
    model = Linear()
    (found,) = torch.autograd.grad(Adversarial().loss(model.step(), {}), model.weight)
    moved = model.seen[-1][:, 0]
    error = ((moved @ model.weight.T).softmax(-1) - F.one_hot(LABELS, 3)).detach()
    torch.testing.assert_close(found, error.T @ moved / 3, rtol=1e-6, atol=1e-9)


def test_a_row_is_moved_alike_alone_and_in_a_batch_whatever_the_scale_of_the_embeddings():
    model = Linear()
    whole = Adversarial().loss(model.step(), {})
    parts = [Adversarial().loss(model.step(slice(i, i + 1)), {}) for i in range(3)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-6, atol=0)
    bigger = Linear()
    with torch.no_grad():
        bigger.embeddings *= 100
        bigger.weight /= 100
    torch.testing.assert_close(Adversarial().loss(bigger.step(), {}), whole, rtol=1e-6, atol=0)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.0])
def test_the_loss_is_higher_than_at_the_rows_themselves_and_more_steps_find_no_less(epsilon):
    model = Linear()
    plain = F.cross_entropy(model.embeddings[:, 0] @ model.weight.T, LABELS)
    one, five = (Adversarial(epsilon=epsilon, steps=steps).loss(model.step(), {}) for steps in (1, 5))
    assert one > plain
    assert five >= one * (1 - 1e-3)
    assert len(model.seen) == 2 + 6
    length = (model.seen[-1] - model.embeddings).flatten(1).norm(dim=1)
    assert (length <= epsilon * model.embeddings[:, 0].norm(dim=1) * (1 + 1e-6)).all()


def test_values_out_of_range_are_refused_and_no_length_is_no_method():
    for fields in ({"steps": 0}, {"epsilon": -1.0}, {"strength": -1.0}):
        with pytest.raises(ValueError, match=next(iter(fields))):
            Adversarial(**fields)
    assert not Adversarial(epsilon=0).active
    assert not Adversarial(strength=0).active
