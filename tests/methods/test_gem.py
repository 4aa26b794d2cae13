"""GEM: the nearest vector against no past task's gradient, with a floor under the memory's weight where tasks conflict."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from perdure.core.step import Step
from perdure.maths.projection import project_conflict
from perdure.methods.gradients.gem import Gem

STEP = Step(0, 10, {})


def turned(g, refs, margin):
    return Gem(margin=margin).gradient({"w": g}, {f"task {k}": {"w": r} for k, r in enumerate(refs)}, STEP, {})["w"]


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_it_solves_the_primal_problem_of_the_paper(seed, n):
    rng = np.random.default_rng(seed)
    g, refs = rng.normal(size=4), rng.normal(size=(n, 4))
    found = turned(torch.tensor(g), torch.tensor(refs), 0.0).numpy()
    limits = [{"type": "ineq", "fun": lambda z, r=r: z @ r} for r in refs]
    best = minimize(lambda z: 0.5 * ((z - g) ** 2).sum(), np.zeros(4), constraints=limits, method="SLSQP")
    assert 0.5 * ((found - g) ** 2).sum() == pytest.approx(best.fun, rel=1e-4, abs=1e-5)
    assert (refs @ found >= -1e-7).all()


def test_two_tasks_that_one_average_would_betray():
    """The averaged reference is satisfied while one task loses: what the paper's successor trades for speed."""
    g = torch.tensor([-1.0, 3.0])
    refs = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    averaged = project_conflict({"w": g}, {"w": refs.mean(0)})["w"]
    assert averaged.tolist() == g.tolist()
    assert averaged @ refs[0] < 0
    assert turned(g, refs, 0.0).tolist() == [0.0, 3.0]


def test_the_margin_is_the_least_weight_of_plain_replay_where_tasks_conflict():
    refs = torch.tensor([[1.0, 0.0], [0.0, 1.0]]) / 2  # parts of a mean over two tasks
    assert turned(torch.tensor([-0.1, 3.0]), refs, 0.5).tolist() == pytest.approx([0.15, 3.25])
    assert turned(torch.tensor([0.1, 3.0]), refs, 0.5).tolist() == pytest.approx([0.1, 3.0])


def test_a_negative_margin_is_refused():
    with pytest.raises(ValueError, match=r"margin\n.*greater than or equal to 0"):
        Gem(margin=-1)
