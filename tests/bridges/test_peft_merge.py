"""PEFT's `add_weighted_adapter` beside our merge: what depends on the factors that an update is written with, and what does not.

An update B A is the same as (B G)(G^-1 A). A merge that acts on A and B apart gives another model for another G.
"""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from perdure.core.keyed import keyed
from perdure.maths.low_rank import Patch
from perdure.maths.merge import merge

RANK, OUT, INTO, TASKS = 4, 24, 20, ("a", "b", "c")
EVEN = dict.fromkeys(TASKS, 1.0)
OURS = {"linear": "svd", "svd": "svd", "ties": "ties", "dare_linear": "dare", "cat": "svd"}


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(INTO, OUT, bias=False)

    def forward(self, x):
        return self.linear(x)


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def plain():
    """Three adapters as (A, B), with PEFT's scale 1."""
    return {name: (drawn(RANK, INTO, seed=n), drawn(OUT, RANK, seed=10 + n)) for n, name in enumerate(TASKS)}


@pytest.fixture
def turned(plain):
    """The same updates with other factors."""
    result = {}
    for n, (name, (down, up)) in enumerate(plain.items()):
        turn = drawn(RANK, RANK, seed=20 + n) + 2 * torch.eye(RANK)
        result[name] = (torch.linalg.inv(turn) @ down, up @ turn)
        torch.testing.assert_close(result[name][1] @ result[name][0], up @ down, atol=1e-4, rtol=1e-4)
    return result


def of_peft(factors, way, density=0.5):
    """Return the update that PEFT merges adapters into."""
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["linear"])
    model = get_peft_model(Layer(), config, adapter_name=TASKS[0])
    for name in TASKS[1:]:
        model.add_adapter(name, copy.deepcopy(config))
    layer = model.base_model.model.linear
    with torch.no_grad():
        for name, (down, up) in factors.items():
            layer.lora_A[name].weight.copy_(down)
            layer.lora_B[name].weight.copy_(up)
    more = {"density": density} if way.startswith(("ties", "dare")) else {}
    if way == "svd":
        more["svd_rank"] = RANK * len(TASKS)
    torch.manual_seed(0)
    model.add_weighted_adapter(list(TASKS), [1.0] * len(TASKS), "merged", combination_type=way, **more)
    return layer.get_delta_weight("merged").double()


def of_ours(factors, way, density=0.5):
    adapters = {name: {"linear": Patch(down, up, 1.0)} for name, (down, up) in factors.items()}

    def draw(task, module, shape):
        return torch.from_numpy(keyed(0, task, module).random(shape))

    made = merge(adapters, OURS[way], RANK * len(TASKS), EVEN, density=density, draw=draw)
    return made.patches["linear"].delta.double()


def off(one, other):
    return ((one - other).norm() / one.norm()).item()


def total(factors):
    return sum((up @ down).double() for down, up in factors.values())


@pytest.mark.parametrize("way", ["linear", "ties", "dare_linear"])
def test_pefts_merge_depends_on_how_an_update_is_written_and_ours_does_not(plain, turned, way):
    assert off(of_peft(plain, way), of_peft(turned, way)) > 0.3
    assert off(of_ours(plain, way), of_ours(turned, way)) < 1e-4


def test_pefts_linear_is_no_sum_and_ours_is(plain):
    assert off(total(plain), of_peft(plain, "linear")) > 1
    assert off(total(plain), of_ours(plain, "linear")) < 1e-5


@pytest.mark.parametrize("way", ["cat", "svd"])
def test_where_pefts_merge_works_on_updates_both_agree(plain, turned, way):
    for factors in (plain, turned):
        assert off(of_peft(factors, way), of_ours(factors, way)) < 1e-4


def test_pefts_ties_trims_factors_and_ours_updates(plain):
    """With one adapter and every entry kept, TIES is the identity; of two equal ones it is their mean."""
    same = dict.fromkeys(TASKS, plain["a"])
    one = (plain["a"][1] @ plain["a"][0]).double()
    assert off(one, of_ours(same, "ties", density=1.0)) < 1e-5
    kept = of_ours(plain, "ties", density=0.5)
    assert off(kept, of_peft(plain, "ties", density=0.5)) > 0.5


def test_dare_on_updates_is_unbiased_and_on_factors_noisier(plain):
    """The mean square error of one draw: a product of two thinned factors is thinned twice."""
    whole, density, draws = total(plain), 0.5, 20
    adapters = {name: {"linear": Patch(down, up, 1.0)} for name, (down, up) in plain.items()}
    errors = []
    for seed in range(draws):
        made = merge(
            adapters,
            "dare",
            OUT,
            EVEN,
            density=density,
            draw=lambda task, module, shape, seed=seed: torch.from_numpy(keyed(seed, task, module).random(shape)),
        )
        errors.append(off(whole, made.patches["linear"].delta.double()) ** 2)
    expected = (1 / density - 1) * sum((up @ down).square().sum() for down, up in plain.values()) / whole.square().sum()
    assert sum(errors) / draws == pytest.approx(expected.item(), rel=0.15)
    assert off(whole, of_peft(plain, "dare_linear")) ** 2 > 1.5 * expected
