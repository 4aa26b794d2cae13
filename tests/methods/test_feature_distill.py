"""Feature distillation: the relative squared distance of hidden states from those of the weights before the task."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from perdure.core.seams import Draw, DrawContext
from perdure.core.step import Slice, Step
from perdure.methods.distillation.feature_distill import FeatureDistill, drift

H = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)  # hidden states before the task


def rows(hidden, weight=(0.5, 0.5)):
    return Slice(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), torch.tensor(weight, dtype=torch.float64), hidden)


def step(w, new=True, drawn=True):
    """Rows whose hidden states are H + w x ones; asked about with other weights they follow those."""
    parts = {"new": rows(H + w), "feature_distill": rows(2 * H + w, (0.25, 0.75))}
    before = {"new": H, "feature_distill": 2 * H}

    def run(part, *, weights, embeddings, grad):
        assert (embeddings, grad) == (None, False)
        return replace(parts[part], hidden=before[part] + weights["w"])

    given = {"feature_distill": parts["feature_distill"]} if drawn else {}
    return Step(0, 10, {"w": w}, new=parts["new"] if new else None, drawn=given, runner=run)


ANCHOR = {"anchor.w": torch.zeros((), dtype=torch.float64)}


def loss(on="both", strength=1.0, value=0.5, **parts):
    w = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    term = FeatureDistill(strength=strength, on=on).loss(step(w, **parts), ANCHOR)
    if term is not None:
        term.backward()
    return term, w


def test_it_is_the_mean_of_squared_distances_over_squared_lengths_and_pulls_back():
    term, w = loss("new", strength=3.0)
    # ||w ones||^2 = 2 w^2; ||h*||^2 = 25 and 4
    assert term.item() == pytest.approx(3.0 * 0.5 * (0.5 / 25 + 0.5 / 4), rel=1e-5)
    assert w.grad.item() == pytest.approx(3.0 * 0.5 * 4 * 0.5 * (1 / 25 + 1 / 4), rel=1e-5)


def test_both_is_the_sum_of_new_and_memory_and_without_memory_the_new_rows_alone():
    on = {on: loss(on)[0].item() for on in ("new", "memory", "both")}
    assert on["memory"] == pytest.approx(0.25 * 0.5 / 100 + 0.75 * 0.5 / 16, rel=1e-5)
    assert on["both"] == pytest.approx(on["new"] + on["memory"], rel=1e-6)
    assert loss("both", drawn=False)[0].item() == pytest.approx(on["new"], rel=1e-6)
    assert loss("memory", drawn=False)[0] is None


def test_it_does_not_depend_on_the_scale_of_the_features():
    now, then = rows(H + 1.0), rows(H)
    torch.testing.assert_close(drift(rows(7 * now.hidden), rows(7 * then.hidden)), drift(now, then))


def test_for_features_of_equal_length_it_is_twice_one_minus_the_cosine():
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    cosine = torch.nn.functional.cosine_similarity(H @ turn.T, H)
    torch.testing.assert_close(drift(rows(H @ turn.T), rows(H)).double(), 2 * (1 - cosine), rtol=1e-5, atol=1e-6)


def test_where_nothing_moved_it_does_not_pull():
    term, w = loss(value=0.0)
    assert term.item() == 0
    assert w.grad.item() == 0


def test_in_the_first_task_it_keeps_nothing_and_adds_nothing():
    w = torch.nn.Parameter(torch.ones(2))
    method = FeatureDistill()
    assert method.prepare(SimpleNamespace(params={"w": w}, first=True), {}) == {}
    assert method.loss(step(torch.ones(())), {}) is None
    kept = method.prepare(SimpleNamespace(params={"w": w}, first=False), {})
    with torch.no_grad():
        w += 1
    assert kept["anchor.w"].eq(1).all()


def test_it_draws_where_it_looks_at_memory():
    context = DrawContext(0, 10, 30, {"replay": 99})
    assert FeatureDistill().draw(context, {}) == Draw(10)
    assert FeatureDistill(mix=0).draw(context, {}) == Draw(0)
    assert FeatureDistill(on="new").draw(context, {}) is None
    with pytest.raises(ValueError, match="mix"):
        FeatureDistill(mix=1.0)
    assert not FeatureDistill(strength=0).active
