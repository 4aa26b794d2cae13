"""Importance: its scale, the path integral on problems whose path is known, and the factors of layers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.maths.importance import (
    added,
    along_path,
    copies,
    from_state,
    layer_factors,
    layer_of,
    mean_size,
    mean_square,
    path_importance,
    to_state,
    unit_mean,
)


def rows(seed, n=7):
    torch.manual_seed(seed)
    lying = torch.randn(n, 5, 2, dtype=torch.float64).mT  # as a product with its wide side last leaves it
    return {"a": torch.randn(n, 2, 3, dtype=torch.float64), "b": torch.randn(n, 4, dtype=torch.float64), "lying": lying}


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_means_over_rows_do_not_depend_on_the_batches(seed, size):
    grads = rows(seed)
    batches = [{name: value[i : i + size] for name, value in grads.items()} for i in range(0, 7, size)]
    for name, value in grads.items():
        torch.testing.assert_close(mean_square(batches)[name], value.square().mean(0))
        torch.testing.assert_close(mean_size(batches)[name], value.abs().mean(0))


def test_the_square_of_a_batchs_mean_gradient_is_another_thing():
    grads = rows(0)
    squared = grads["a"].mean(0).square().mean()
    assert mean_square([grads])["a"].mean() > 3 * squared  # 7 times, on average, for independent rows


@given(st.floats(1e-12, 1e12))
def test_unit_mean_forgets_the_scale_and_keeps_the_ratios(scale):
    importance = {"a": torch.tensor([1.0, 3.0], dtype=torch.float64), "b": torch.tensor([[2.0]], dtype=torch.float64)}
    found = unit_mean({name: scale * value for name, value in importance.items()})
    torch.testing.assert_close(found["a"], importance["a"] / 2)
    torch.testing.assert_close(found["b"], importance["b"] / 2)


def test_what_matters_nowhere_stays_zero():
    assert unit_mean({"a": torch.zeros(3)})["a"].tolist() == [0, 0, 0]


def test_added_decays_the_old_and_takes_names_that_only_one_has():
    one, other = (
        {"a": torch.tensor([2.0]), "b": torch.tensor([4.0])},
        {"a": torch.tensor([1.0]), "c": torch.tensor([5.0])},
    )
    assert {n: v.item() for n, v in added(one, other, 0.5).items()} == {"a": 2.0, "b": 2.0, "c": 5.0}


def test_state_keys_come_back_as_parameter_names():
    tensors = {"layers.0.weight": torch.ones(2), "bias": torch.zeros(1)}
    state = to_state("omega", tensors) | to_state("omega2", {"bias": torch.ones(1)})
    assert from_state(state, "omega") == tensors


def test_copies_are_no_aliases_and_at_least_float32():
    params = {
        "a": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16)),
        "b": torch.nn.Parameter(torch.ones(2).double()),
    }
    found = copies(params)
    assert (found["a"].dtype, found["b"].dtype) == (torch.float32, torch.float64)
    with torch.no_grad():
        params["b"].zero_()
    assert found["b"].tolist() == [1, 1]
    assert not found["a"].requires_grad


def walked(curvature, start, rate, updates):
    """Gradient descent on 1/2 sum c w^2: the path sum of each weight and how far it went."""
    w, path = start.clone(), {"w": torch.zeros_like(start)}
    for _ in range(updates):
        grad = curvature * w
        after = w - rate * grad
        path = along_path(path, {"w": grad}, {"w": w}, {"w": after})
        w = after
    return path["w"], w - start


def test_with_small_steps_the_path_sums_to_the_loss_that_each_weight_took_off():
    """Zenke et al., eq. 3: the path integral of the gradient is the change of the loss."""
    curvature = torch.tensor([1.0, 4.0, 0.0], dtype=torch.float64)
    start = torch.tensor([2.0, -1.0, 5.0], dtype=torch.float64)
    path, moved = walked(curvature, start, 1e-3, 2000)
    drop = 0.5 * curvature * (start.square() - (start + moved).square())
    torch.testing.assert_close(path, drop, rtol=5e-3, atol=0)


def test_of_a_quadratic_that_was_followed_to_its_end_importance_is_half_the_curvature():
    """Zenke et al., section 4: for a diagonal quadratic, 2 omega / Delta^2 is the Hessian."""
    curvature = torch.tensor([1.0, 4.0], dtype=torch.float64)
    path, moved = walked(curvature, torch.tensor([2.0, -1.0], dtype=torch.float64), 1e-3, 20000)
    found = path_importance({"w": path}, {"w": moved}, damping=1e-9)["w"]
    torch.testing.assert_close(2 * found, curvature, rtol=5e-3, atol=0)


def test_damping_is_relative_so_importance_has_the_units_of_loss_per_squared_way():
    path = {"w": torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64)}
    moved = {"w": torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)}
    found = path_importance(path, moved, 0.6)["w"]
    torch.testing.assert_close(found, torch.tensor([3 / 2, 0.0, 2 / 1], dtype=torch.float64))  # xi = 0.6 x 5/3 = 1
    smaller = path_importance(path, {"w": moved["w"] / 100}, 0.6)["w"]
    torch.testing.assert_close(smaller, 1e4 * found)


def test_weights_that_went_nowhere_have_no_importance():
    nowhere = {"w": torch.zeros(2)}
    assert path_importance({"w": torch.ones(2)}, nowhere, 1.0)["w"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("base_model.model.model.layers.12.mlp.up_proj.lora_A.default.weight", "base_model.model.model.layers.12"),
        ("0.weight", "0"),
        ("head.weight", "head"),
        ("transformer.h.3.attn.c_attn.weight", "transformer.h.3"),
        ("scale", ""),
    ],
)
def test_a_layer_is_the_block_by_its_number(name, layer):
    assert layer_of(name) == layer


def test_layer_factors_are_a_softmax_of_mean_one():
    importance = {"h.0.a": torch.full((2, 2), 1.0), "h.0.b": torch.full((12,), 1.0), "h.1.a": torch.full((100,), 2.0)}
    found = layer_factors(importance)
    e = math.e
    assert found == pytest.approx({"h.0": 2 * e / (e + e**2), "h.1": 2 * e**2 / (e + e**2)})
    assert sum(found.values()) == pytest.approx(2)
    assert layer_factors({}) == {}
