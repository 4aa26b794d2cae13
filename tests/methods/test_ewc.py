"""EWC: the pull of each weight is strength x its Fisher information x its distance, over one task and over several."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.errors import BadSpec
from perdure.core.step import Step
from perdure.maths.lora_pairs import DOWN, up_of
from perdure.methods.registry import all_methods
from perdure.methods.regularisation.ewc import Ewc
from perdure.train.model_view import ModelView
from streams import apart
from streams import weights as copies_of
from tensors import tensor


def settled(at, gradients, asked=None):
    """A model at the weights `at` whose rows have these gradients, two to a batch."""

    def batches(rows, size, of):
        if asked is not None:
            asked.append((rows, size, of))
        return ({"w": gradients[i : i + 2]} for i in range(0, len(gradients), 2))

    return SimpleNamespace(params={"w": torch.nn.Parameter(at)}, gradients=batches)


def pulled(method, state, at, share=1.0):
    """The penalty and its gradient at the weights `at`."""
    w = at.clone().requires_grad_()
    term = method.loss(Step(0, 10, {"w": w}, share=share), state)
    return term.item(), torch.autograd.grad(term, w)[0]


def fisher(gradients):
    squares = gradients.square().mean(0)
    return squares / squares.mean()


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.01, 100.0))
def test_each_weight_is_pulled_back_by_strength_times_fisher_times_distance(seed, strength):
    torch.manual_seed(seed)
    gradients, anchor, at = (torch.randn(*shape, dtype=torch.float64) for shape in ((5, 3), (3,), (3,)))
    method = Ewc(strength=strength)
    value, grad = pulled(method, method.measure(settled(anchor, gradients), {}), at)
    expected = strength * fisher(gradients) * (at - anchor)
    torch.testing.assert_close(grad, expected)
    assert value == pytest.approx(0.5 * (expected * (at - anchor)).sum().item())


def test_strength_means_the_same_whatever_the_scale_of_the_likelihood():
    gradients, anchor, at = tensor([1.0, 2.0], [3.0, 0.5]), tensor(0.0, 1.0), tensor(1.0, -1.0)
    one, other = (pulled(Ewc(), Ewc().measure(settled(anchor, k * gradients), {}), at)[1] for k in (1, 1000))
    torch.testing.assert_close(one, other)


def two_tasks(**fields):
    method = Ewc(strength=1.0, **fields)
    first, second = tensor([1.0, 2.0], [3.0, 0.0]), tensor([0.0, 1.0], [1.0, 1.0])
    a, b = tensor(1.0, -2.0), tensor(0.5, 3.0)
    state = method.measure(settled(b, second), method.measure(settled(a, first), {}))
    return method, state, (fisher(first), a), (fisher(second), b)


def test_offline_is_the_sum_of_one_penalty_a_task_each_with_its_own_anchor():
    method, state, *tasks = two_tasks(mode="offline")
    for at in (tensor(0.0, 0.0), tensor(4.0, -1.0), tasks[0][1]):
        value, grad = pulled(method, state, at)
        assert value == pytest.approx(sum(0.5 * (f * (at - anchor).square()).sum().item() for f, anchor in tasks))
        torch.testing.assert_close(grad, sum(f * (at - anchor) for f, anchor in tasks))


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
def test_online_adds_up_decayed_information_around_the_last_weights(decay):
    """Schwarz et al., eq. 9."""
    method, state, (f, _), (g, last) = two_tasks(mode="online", decay=decay)
    at = tensor(4.0, -1.0)
    torch.testing.assert_close(pulled(method, state, at)[1], (decay * f + g) * (at - last))


def test_an_update_counts_it_once_over_all_its_micro_batches():
    method, state, *_ = two_tasks()
    whole, quarter = (pulled(method, state, tensor(1.0, 1.0), share)[0] for share in (1.0, 0.25))
    assert quarter == pytest.approx(whole / 4)


@pytest.mark.parametrize("labels", ["sampled", "data"])
def test_it_asks_for_the_gradients_of_the_new_rows(labels):
    asked = []
    Ewc(labels=labels, size=7).measure(settled(tensor(0.0), tensor([1.0]), asked), {})
    assert asked == [("new", 7, labels)]


def test_the_anchor_is_no_alias_of_the_weights():
    model = settled(tensor(1.0, 2.0), tensor([1.0, 1.0]))
    state = Ewc().measure(model, {})
    with torch.no_grad():
        model.params["w"].zero_()
    assert state["anchor.w"].tolist() == [1, 2]


def test_before_a_task_is_known_it_adds_nothing():
    assert Ewc().loss(Step(0, 10, {}), {}) is None


def test_no_strength_is_no_method():
    assert not Ewc(strength=0).active


# --- on the product of a LoRA pair

A, B = "q.lora_A.weight", "q.lora_B.weight"
PRODUCT = {"on": "product", "mode": "online"}


def pair_model(up, down, *tokens):
    """A model with one LoRA pair; of each row one token, the input x of A and the gradient g of the output of B."""
    g, x = (torch.stack(column) for column in zip(*tokens, strict=True))
    squares = (g[:, :, None] * x[:, None]).square().mean(0)  # Fisher information of the entries of B A, (out, in)
    made = SimpleNamespace(
        params={B: torch.nn.Parameter(up), A: torch.nn.Parameter(down)},
        product_squares=lambda rows, size, of: {A: (squares.sum(1), squares.sum(0))},
    )
    return made, squares


def random_pair(seed):
    torch.manual_seed(seed)
    return torch.randn(4, 2, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)


def penalty(method, state, up, down):
    return method.loss(Step(0, 10, {B: up, A: down}), state)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0.01, 100.0))
def test_of_one_row_of_one_token_the_product_has_the_papers_penalty(seed, strength):
    """EWC-LoRA: lambda / 2 vec(dW)^T F vec(dW), dW what B A moved by, F the diagonal of the Fisher information of B A."""
    (up, down), (up0, down0) = random_pair(seed), random_pair(seed + 1)
    token = torch.randn(4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    made, squares = pair_model(up0, down0, token)
    method = Ewc(strength=strength, **PRODUCT)
    found = penalty(method, method.measure(made, {}), up, down)
    moved = up @ down - up0 @ down0
    torch.testing.assert_close(found, 0.5 * strength * (squares / squares.mean() * moved.square()).sum())


def test_the_information_of_tasks_adds_up_around_the_last_weights():
    method, token = Ewc(strength=1.0, decay=0.5, **PRODUCT), (torch.ones(4).double(), torch.ones(3).double())
    (first, f), (second, g) = (pair_model(*random_pair(n), (token[0] * n, token[1])) for n in (1, 2))
    state = method.measure(second, method.measure(first, {}))
    up, down = random_pair(3)
    moved = up @ down - second.params[B] @ second.params[A]
    expected = 0.5 * ((0.5 * f / f.mean() + g / g.mean()) * moved.square()).sum()
    torch.testing.assert_close(penalty(method, state, up, down), expected)


def test_weights_that_are_no_pair_are_held_one_by_one_beside_the_products():
    made, squares = pair_model(*random_pair(0), (torch.ones(4).double(), torch.ones(3).double()))
    made.params["bias"] = torch.nn.Parameter(torch.zeros(2).double())
    made.gradients = lambda rows, size, of: iter([{"bias": tensor([1.0, 2.0], [3.0, 0.0])}])
    method = Ewc(strength=1.0, **PRODUCT)
    state = method.measure(made, {})
    up, down = random_pair(1)
    mean = (squares.sum() + 5 + 2) / 14
    found = method.loss(Step(0, 10, {B: up, A: down, "bias": tensor(1.0, -1.0)}), state)
    moved = up @ down - made.params[B] @ made.params[A]
    torch.testing.assert_close(found, (0.5 * (squares * moved.square()).sum() + 0.5 * (5 + 2)) / mean)


def test_the_product_carries_one_penalty_along_and_refuses_what_held_factors():
    with pytest.raises(ValueError, match="set mode: online"):
        Ewc(on="product")
    factors = Ewc().measure(settled(tensor(0.0), tensor([1.0])), {})
    with pytest.raises(BadSpec, match=r"held the factors.*set on: factors, or start: base"):
        Ewc(**PRODUCT).loss(Step(0, 10, {"w": tensor(0.0)}), factors)
    made, _ = pair_model(*random_pair(0), (torch.ones(4).double(), torch.ones(3).double()))
    with pytest.raises(BadSpec, match=r"held the product.*set on: product"):
        penalty(Ewc(), Ewc(**PRODUCT).measure(made, {}), *random_pair(1))


def test_the_json_of_the_method_is_what_it_was_unless_the_product_is_held():
    assert "on" not in Ewc().to_json()
    assert Ewc(**Ewc(**PRODUCT).to_json()) == Ewc(**PRODUCT)


def regauged(made, turns):
    """Write (B G, G^-1 A) into every pair: the same product, and the same model."""
    with torch.no_grad():
        for name, value in made.params.items():
            up = made.params[up_of(name)] if DOWN in name else None
            if up is not None:
                up.copy_((up.double() @ turns).float())
                value.copy_(torch.linalg.solve(turns, value.double()).float())


def test_on_a_model_the_product_does_not_see_which_factors_it_has_and_the_factors_do(stream):
    rank = next(len(value) for name, value in stream.learner({}).params.items() if DOWN in name)
    turns = torch.diag(torch.linspace(0.5, 3.0, rank, dtype=torch.float64))
    turns[0, -1] = 0.7
    for method, seen in (
        (Ewc(strength=1.0, labels="data", **PRODUCT), False),
        (Ewc(strength=1.0, labels="data"), True),
    ):
        found = []
        for turned in (False, True):
            made = stream.learner({})
            if turned:
                regauged(made, turns)
            state = method.measure(ModelView(made), {})
            anchors = copies_of(made)
            with torch.no_grad():
                for name, value in made.params.items():  # B A doubles, in either gauge
                    value.mul_(2.0 if DOWN in name else 1.0)
            found.append(method.loss(Step(0, 1, made.params), state).item())
            assert apart(anchors, copies_of(made)) > 0.1
        gap = abs(found[1] / found[0] - 1)
        assert gap > 0.1 if seen else gap < 1e-3


class Detached(Ewc):
    """A deliberate break: the product's penalty without its gradient."""

    def loss(self, step, state):
        term = super().loss(step, state)
        return None if term is None else term.detach()


@pytest.mark.parametrize(
    "method",
    [
        Ewc,
        pytest.param(Detached, marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason="it has no effect")),
    ],
)
def test_on_two_tasks_that_conflict_the_product_holds_the_second_back(method, stream):
    fields, registry = {"strength": 300.0, **PRODUCT}, {**all_methods(), "ewc": method}
    state = stream.kept({"ewc": fields})
    held, free = (
        stream.train(stream.learner(methods, pools=("replay",), state=state if methods else None, registry=registry))
        for methods in ({"ewc": fields}, {})
    )
    assert apart(held.weights, free.weights) > 1e-2
    assert max(beat.pull for _, beat in held.record.heartbeats["ewc"]) > 0
