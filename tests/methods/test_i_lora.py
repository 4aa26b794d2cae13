"""I-LoRA: the closed form of the slow weights, what they teach, what is stored, and what it costs."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from goldens import GOLDEN, flat, golden, rows_of, weights
from perdure.core.step import Slice, Step
from perdure.methods.weights_over_time.i_lora import ILora
from streams import apart


def model(value, first=False):
    return SimpleNamespace(params={"w": torch.nn.Parameter(torch.as_tensor(value, dtype=torch.float64))}, first=first)


def watched(method, state, *path):
    for index, value in enumerate(path):
        fast = torch.nn.Parameter(torch.as_tensor(value, dtype=torch.float64))
        state = method.watch(Step(index, len(path), {"w": fast}), state)
    return state


def test_over_three_steps_of_one_gradient_the_slow_weights_have_their_closed_form():
    """w_n = w_0 - n g: slow_3 = w_0 - g ((1 - d) (3 + 2 d + d^2))."""
    start, gradient, decay = torch.tensor([2.0, -1.0]).double(), torch.tensor([0.5, 3.0]).double(), 0.8
    method = ILora(decay=decay)
    state = watched(method, method.prepare(model(start), {}), *(start - n * gradient for n in (1, 2, 3)))
    expected = start - gradient * (1 - decay) * (3 + 2 * decay + decay**2)
    torch.testing.assert_close(state["slow.w"], expected)


def test_after_the_first_step_the_slow_weights_are_not_the_fast_ones():
    """The authors' code averages the fast adapter with itself."""
    method = ILora(decay=0.9)
    state = watched(method, method.prepare(model([0.0, 0.0]), {}), [1.0, -1.0])
    torch.testing.assert_close(state["slow.w"], torch.tensor([0.1, -0.1]).double())


def test_what_is_settled_on_is_slow_in_the_weights_own_dtype():
    params = {"w": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))}
    values, state = ILora().settle(SimpleNamespace(params=params), {"slow.w": torch.tensor([0.25, 3.0])})
    assert values["w"].tolist() == [0.25, 3.0]
    assert values["w"].dtype == torch.bfloat16
    assert state == {}


H = torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=torch.float64)
LOGITS = torch.tensor([[1.0, 0.0], [2.0, -1.0]], dtype=torch.float64)


def step(runs=None):
    """Two replayed tokens whose hidden states are H + w, w being 1 now and the slow 0."""
    w = torch.ones(2, dtype=torch.float64, requires_grad=True)
    rows = Slice(LOGITS + w, torch.tensor([0, 1]), torch.tensor([0.5, 0.5]).double(), H + w)

    def run(part, *, weights, embeddings, grad):
        if runs is not None:
            runs.append((part, grad))
        return replace(rows, hidden=(H + weights["w"]).requires_grad_())

    return Step(0, 10, {"w": w}, drawn={"i_lora": rows}, runner=run), w, rows


def test_the_term_is_cross_entropy_and_the_mean_squared_error_of_hidden_states():
    made, w, rows = step()
    state = {"slow.w": torch.zeros(2, dtype=torch.float64)}
    found = ILora(strength=0.5, consistency=3.0).loss(made, state)
    torch.testing.assert_close(found, 0.5 * rows.cross_entropy().mean() + 3.0 * torch.ones(()).double())
    (pull,) = torch.autograd.grad(found - 0.5 * rows.cross_entropy().mean(), w)
    torch.testing.assert_close(pull, torch.full((2,), 3.0).double())  # d/dw of 3 (w_1^2 + w_2^2) / 2 at 1


def test_the_target_is_the_slow_state_and_not_the_larger_of_both():
    """The authors' code takes the elementwise maximum, so that a state above the slow one would feel nothing."""
    made, w, _ = step()  # every fast state is above the slow one
    (pull,) = torch.autograd.grad(ILora(strength=0.0).loss(made, {"slow.w": torch.zeros(2).double()}), w)
    assert (pull > 0.5).all()


def test_it_runs_one_forward_over_the_drawn_rows_and_none_without_consistency_or_rows():
    state = {"slow.w": torch.zeros(2, dtype=torch.float64)}
    for method, expected in ((ILora(), [("i_lora", False)]), (ILora(consistency=0.0), [])):
        runs = []
        method.loss(step(runs)[0], state)
        assert runs == expected
    assert ILora().loss(Step(0, 1, {}), state) is None


def test_golden_numbers_of_the_papers_algorithm():
    part = GOLDEN["i_lora"]
    method = ILora(decay=part["decay"], strength=1.0, consistency=part["consistency"])
    slow = {f"slow.{name}": value for name, value in weights("settled").items()}
    made = Step(
        0, 1, weights("now"), drawn={"i_lora": rows_of("old")}, runner=lambda *_, **__: rows_of("old", "settled")
    )
    torch.testing.assert_close(method.loss(made, slow), golden("i_lora", "paper", "loss"), rtol=1e-10, atol=1e-11)
    after = method.watch(Step(0, 1, weights("now")), slow)
    found = flat({name.removeprefix("slow."): value for name, value in after.items()})
    torch.testing.assert_close(found, golden("i_lora", "paper", "slow"), rtol=1e-10, atol=1e-11)


def test_on_a_host_the_stored_weights_are_the_slow_ones(points):
    made = points.learner({"i_lora": {"decay": 0.5}}, pools=("replay",))
    learned = points.train(made)
    slow = {name.removeprefix("slow."): value for name, value in learned.open_state["i_lora"].items()}
    assert apart(learned.weights, slow) == 0
    assert learned.record.heartbeats["i_lora"][-1][1].moved > 0


def test_no_rows_is_no_method_no_decay_is_plain_replay_and_a_decay_of_one_is_refused(points):
    assert not ILora(mix=0).active
    fields = {"mix": 0.5, "strength": 2.0}
    found = points.train(points.learner({"i_lora": {**fields, "decay": 0, "consistency": 0}}, pools=("replay",)))
    plain = points.train(points.learner({"replay": fields}, pools=("replay",)))
    assert apart(found.weights, plain.weights) == 0
    with pytest.raises(ValueError, match="less than 1"):
        ILora(decay=1.0)
