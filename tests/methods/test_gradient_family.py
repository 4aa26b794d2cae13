"""What the gradient methods owe an optimizer: with plain SGD the step itself has the promised sign, seen from the host."""

import pytest
import torch
import torch.nn.functional as F

from perdure.core.step import Slice, Step, row_weights
from perdure.maths.projection import dot
from perdure.methods.registry import all_methods
from perdure.train.draws import DrawName
from streams import close, finished, weights

METHODS = all_methods()
FAMILY = ["a_gem", "gem", "pcgrad", "cagrad"]


def gradient_of(stream, rows):
    """The gradient of the rows' mean cross-entropy where the stream's model stands, without the host."""
    features, labels = torch.stack([r.features for r in rows]), torch.tensor([r.label for r in rows])
    params = dict(stream.model.named_parameters())
    found = torch.autograd.grad(F.cross_entropy(stream.model(features), labels), list(params.values()))
    return dict(zip(params, found, strict=True))


def conflicting_update(points, methods, **more):
    """Run updates without steps until one has new and drawn rows in conflict; return it with both gradients."""
    made = points.learner(methods, pools=("replay",), **more)
    for n in range(made.total):
        update, _ = finished(made, n)
        new = gradient_of(points, [points.new[i] for batch in made.updates[n] for i in batch])
        old = gradient_of(points, [points.old[i] for i in update.drawn.rows[DrawName("replay")]])
        if dot(new, old) < 0:
            return update, new, old
        points.model.zero_grad()
    raise AssertionError("the stream has no conflict")


@pytest.mark.parametrize("name", FAMILY)
def test_a_plain_sgd_step_does_not_raise_the_loss_of_the_rows_drawn(name, points):
    made, new, old = conflicting_update(points, {name: {}})
    close(made.references.get("memory") or made.references["task 0"], old, atol=1e-6)  # the reference is what it says
    before = weights(made)
    optimizer = torch.optim.SGD(made.params.values(), lr=1e-3)
    optimizer.step()
    moved = {n: value - before[n] for n, value in weights(made).items()}
    assert -1e-3 * dot(new, old) > 0  # where the plain step would have raised it
    assert dot(moved, old) <= 1e-6 * dot(old, old) ** 0.5 * dot(moved, moved) ** 0.5
    assert dot(moved, new) < 0  # and the new rows still gain


@pytest.mark.parametrize(("name", "replayed"), [("a_gem", 0), ("gem", 0), ("pcgrad", 1)])
def test_where_nothing_conflicts_it_is_plain_training_or_plain_replay(name, replayed, points):
    made, plain = (points.learner(m, pools=("replay",), rows=points.old) for m in ({name: {}}, {}))
    references = {}
    for n in range(made.total):
        grads = []
        for learner in (made, plain):
            points.model.zero_grad()
            update, _ = finished(learner, n)
            references = references if learner is plain else update.references
            grads.append({name: p.grad.clone() for name, p in learner.params.items()})
        turned, own = grads
        drawn = references.get("memory") or references["task 0"]
        if dot(own, drawn) > 0:
            close(turned, {n: own[n] + replayed * drawn[n] for n in own}, atol=1e-6)
            return
    raise AssertionError("the same rows always conflict")


def rows(task=None, seed=0):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    places = torch.arange(4)
    return Slice(logits, torch.tensor([0, 1, 2, 3]), row_weights(places, 4).double(), row=places, task=task)


@pytest.mark.parametrize("name", FAMILY)
def test_the_reference_is_the_mean_cross_entropy_of_the_rows_drawn(name):
    drawn = rows(torch.tensor([0, 0, 0, 2]))
    step = Step(0, 10, {}, drawn={name: drawn})
    losses = F.cross_entropy(drawn.logits, drawn.labels, reduction="none")
    found = METHODS[name]().reference(step, {})
    expected = {"task 0": losses[:3].sum() / 4, "task 2": losses[3] / 4} if name == "gem" else {"memory": losses.mean()}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)
    assert METHODS[name]().reference(Step(0, 10, {}), {}) == {}


@pytest.mark.parametrize("name", FAMILY)
def test_without_a_reference_the_gradient_is_returned_as_it_is(name):
    grads = {"w": torch.ones(2)}
    assert METHODS[name]().gradient(grads, {}, Step(0, 10, {}), {}) == grads


@pytest.mark.parametrize("name", FAMILY)
def test_a_mix_outside_its_range_is_refused(name):
    for mix in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"mix\n.*(less than 1|greater than or equal to 0)"):
            METHODS[name](mix=mix)
    assert not METHODS[name](mix=0).active
