"""Maximally interfered retrieval: rows are ranked by how much the step raised their loss, and the first are replayed."""

import pytest
import torch
import torch.nn.functional as F

from perdure.core.seams import DrawContext
from perdure.core.step import Slice, Step, row_weights
from perdure.methods.replay.mir import Mir

PLACES = torch.tensor([7, 2, 5, 11])  # of the candidates in memory


@pytest.fixture
def problem():
    """Weights (2, 3) of a linear classifier, the candidates' features and labels, and the gradient of new rows' loss."""
    torch.manual_seed(3)
    weight = torch.randn(2, 3, dtype=torch.float64)
    x, y = torch.randn(4, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    new_x, new_y = torch.randn(6, 2, dtype=torch.float64), torch.tensor([2, 2, 1, 0, 1, 1])
    probability = (new_x @ weight).softmax(-1) - F.one_hot(new_y, 3)
    return weight, x, y, new_x.T @ probability / 6


def watched(weight, after, x, y, state=None):
    def run(part, *, weights=None, **_):
        assert part == "mir.candidates"
        return Slice(x @ (weights or {"w": after})["w"], y, row_weights(torch.arange(4), 4).double(), row=PLACES)

    step = Step(0, 10, {"w": after}, parts={"mir.candidates"}, before={"w": weight}, runner=run)
    return Mir().watch(step, state or {})


@pytest.mark.parametrize("rate", [0.01, 1.0, 5.0])
def test_after_a_step_of_gradient_descent_the_ranking_is_the_papers(problem, rate):
    """Algorithm 1 of the paper: v = w - lr x gradient on the new rows; s = CE(v) - CE(w); the largest first."""
    weight, x, y, grad = problem
    virtual = weight - rate * grad
    scores = F.cross_entropy(x @ virtual, y, reduction="none") - F.cross_entropy(x @ weight, y, reduction="none")
    state = watched(weight, virtual, x, y)
    assert state["worst"].tolist() == PLACES[scores.argsort(descending=True)].tolist()


def test_for_a_small_step_the_most_interfered_row_is_the_one_whose_gradient_is_most_against(problem):
    weight, x, y, grad = problem
    own = torch.einsum("ni,nc->nic", x, (x @ weight).softmax(-1) - F.one_hot(y, 3))
    agreement = (own * grad).sum((1, 2))
    state = watched(weight, weight - 1e-5 * grad, x, y)
    assert state["worst"].tolist() == PLACES[agreement.argsort()].tolist()


def test_only_the_first_are_replayed_and_new_candidates_are_drawn_for_the_next_update():
    context = DrawContext(1, 10, 6, {"replay": 12})
    wishes = Mir(mix=0.25, candidates=4).draw(context, {"worst": torch.tensor([7, 2, 5, 11])})
    assert [i for i, chance in enumerate(wishes["worst"].weights) if chance] == [2, 7]
    assert (wishes["worst"].size, wishes["candidates"].size) == (2, 8)
    assert wishes["candidates"].own
    assert not wishes["candidates"].shared
    first = Mir().draw(DrawContext(0, 10, 6, {"replay": 12}), {})
    assert first["worst"].size == 0
    scored = [
        Mir(mix=0.25, candidates=4).draw(DrawContext(u, 10, 1, {"replay": 12}), {})["candidates"].size for u in range(4)
    ]
    assert scored == [0, 4, 0, 0]  # one row is replayed in update 2, of what was scored in update 1


def test_the_loss_is_on_the_worst_alone_and_candidates_do_not_pull():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    weight = row_weights(torch.arange(4), 4).double()
    worst, candidates = (Slice(part, torch.tensor([0, 1, 2, 0]), weight) for part in logits)
    step = Step(0, 10, {}, drawn={"mir.worst": worst, "mir.candidates": candidates})
    made = Mir(strength=2.0).loss(step, {})
    torch.testing.assert_close(made, 2 * F.cross_entropy(logits[0], worst.labels))
    made.backward()
    assert logits.grad[1].norm().item() == 0
    assert Mir().loss(Step(0, 10, {}, drawn={"mir.candidates": candidates}), {}) is None


def test_without_candidates_nothing_is_left_to_replay():
    assert Mir().watch(Step(0, 10, {}), {"worst": torch.tensor([1])}) == {}


def test_the_loss_of_a_row_is_the_mean_over_its_tokens_by_place():
    rows = Slice(torch.zeros(3, 2), torch.tensor([1, 0, 1]), torch.ones(3), row=torch.tensor([9, 9, 4]))
    places, losses = rows.by_row(torch.tensor([1.0, 3.0, 5.0]))
    assert (places.tolist(), losses.tolist()) == ([4, 9], [5.0, 2.0])


@pytest.mark.parametrize(("field", "value"), [("mix", 1.0), ("candidates", 0)])
def test_fields_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        Mir(**{field: value})
    assert not Mir(mix=0).active
    assert not Mir(strength=0).active
