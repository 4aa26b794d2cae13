"""States over a base model: laid and taken off to the bit, in any order, and the base is never written."""

import pytest
import torch

from perdure.bridges.runtime import Runtime
from perdure.core.errors import BadSpec
from perdure.core.settings import Settings
from perdure.core.slots import DENSE, SKILL
from perdure.maths.low_rank import from_tensors
from runtimes import trained
from streams import same

IDS = torch.arange(2, 42).reshape(2, 20)


def logits(runtime):
    with torch.no_grad():
        return runtime.model(IDS).logits


@pytest.fixture(scope="module")
def shared(tiny_model):
    """One base; each test lays what it needs."""
    return Runtime(tiny_model, "float32", "cpu")


@pytest.fixture
def runtime(shared):
    shared.load({})
    return shared


def test_the_base_is_the_same_before_and_after_to_the_bit(runtime):
    before, weights = logits(runtime), runtime.weights()
    slots = trained(runtime, 1)
    assert not torch.equal(logits(runtime), before)
    runtime.load({})
    assert torch.equal(logits(runtime), before)
    assert same(runtime.weights(), weights)
    runtime.load(slots)
    runtime.load({})
    assert torch.equal(logits(runtime), before)


def test_states_come_back_to_the_bit_whatever_was_laid_between(runtime):
    a, b, small = trained(runtime, 1), trained(runtime, 2), trained(runtime, 3, lora_r=2, lora_target_modules="q_proj")
    told = {}
    for name in "aba" + "sab" + "0a":
        state = {"a": a, "b": b, "s": small, "0": {}}[name]
        runtime.load(state)
        assert torch.equal(told.setdefault(name, logits(runtime)), logits(runtime))
        if state:
            assert same(runtime.skill(), state[SKILL])
    assert len({value.sum().item() for value in told.values()}) == 4


def test_another_process_would_see_the_same_bits(runtime, tiny_model):
    slots = trained(runtime, 1)
    fresh = Runtime(tiny_model, "float32", "cpu")
    fresh.load(slots)
    assert torch.equal(logits(fresh), logits(runtime))


def test_without_the_adapter_it_is_the_base(runtime):
    base = logits(runtime)
    with runtime.bare():
        assert torch.equal(logits(runtime), base)
    trained(runtime, 1)
    with runtime.bare():
        assert torch.equal(logits(runtime), base)
    assert not torch.equal(logits(runtime), base)


def test_slots_add_up_in_one_adapter(runtime):
    base, skill = runtime.weights(), trained(runtime, 1, lora_r=2)
    slots = {**skill, "edits": trained(runtime, 2, lora_r=3, lora_target_modules=["down_proj"])[SKILL]}
    runtime.load(slots)
    patched = logits(runtime)
    runtime.load({})
    with torch.no_grad():
        for slot in slots.values():
            for module, patch in from_tensors(slot).items():
                runtime.model.get_submodule(module).weight += patch.delta
        torch.testing.assert_close(patched, logits(runtime), rtol=1e-4, atol=1e-5)
        for name, value in runtime.model.named_parameters():
            value.copy_(base[name])


def test_a_fresh_adapter_says_what_the_base_says_and_depends_on_seed_and_task(runtime):
    base = logits(runtime)

    def start(seed, task):
        runtime.load({})
        state = torch.get_rng_state()
        params = runtime.start_adapter(Settings(), seed, task)
        assert torch.equal(torch.get_rng_state(), state)  # the global stream is as it was
        assert torch.equal(logits(runtime), base)
        assert all(value.requires_grad and "lora_" in name for name, value in params.items())
        return {name: value.detach().clone() for name, value in params.items()}

    first = start(0, "a")
    assert same(first, start(0, "a"))
    assert not same(first, start(1, "a"))
    assert not same(first, start(0, "b"))


def test_only_the_adapter_is_trainable_and_after_freezing_nothing(runtime):
    params = runtime.start_adapter(Settings(), 0, "task")
    assert {name for name, value in runtime.model.named_parameters() if value.requires_grad} == set(params)
    assert len(params) == 2 * 7 * 2  # down and up, seven linear layers, two blocks; never the head
    runtime.freeze()
    assert not any(value.requires_grad for value in runtime.model.parameters())
    assert not runtime.model.training


def test_training_goes_on_from_the_adapter_that_is_laid(runtime):
    slots = trained(runtime, 1)
    runtime.load(slots)
    runtime.start_adapter(Settings(lora_dropout=0.5), 9, "next")
    assert same(runtime.skill(), slots[SKILL])


@pytest.mark.parametrize(
    "fields", [{"lora_r": 4, "lora_alpha": 8}, {"lora_alpha": 4}, {"lora_target_modules": "q_proj"}]
)
def test_another_rank_scale_or_set_of_modules_cannot_go_on(runtime, fields):
    runtime.load(trained(runtime, 1))
    with pytest.raises(BadSpec, match=r"differ from the adapter.*or start from the base"):
        runtime.start_adapter(Settings(**fields), 0, "next")


def test_target_modules_that_match_nothing_are_refused(runtime):
    with pytest.raises(BadSpec, match="'nowhere' matches no linear layer"):
        runtime.start_adapter(Settings(lora_target_modules="nowhere"), 0, "task")


# --- every weight


@pytest.fixture
def dense(tiny_model):
    return Runtime(tiny_model, "float32", "cpu")


def test_dense_weights_make_the_round_trip_to_the_bit_and_the_base_comes_back(dense):
    base = logits(dense)
    params = dense.start_dense()
    assert all(value.requires_grad and value.dtype == torch.float32 for value in params.values())
    assert torch.equal(logits(dense), base)
    with torch.no_grad():
        for value in params.values():
            value.add_(0.01)
    dense.freeze()
    slots, moved = {DENSE: dense.weights()}, logits(dense)
    dense.load({})
    assert torch.equal(logits(dense), base)
    dense.load(slots)
    assert torch.equal(logits(dense), moved)
    with pytest.raises(BadSpec, match="base cannot be run"), dense.bare():
        pass
    assert same(dense.start_dense(), slots[DENSE])  # training goes on from them


def test_a_learn_of_every_weight_that_stopped_half_way_leaves_the_base(dense):
    base = logits(dense)
    with torch.no_grad():
        for value in dense.start_dense().values():
            value.add_(0.01)
    dense.load({})
    assert torch.equal(logits(dense), base)


def test_every_weight_cannot_be_trained_under_an_adapter(runtime):
    runtime.load(trained(runtime, 1))
    with pytest.raises(BadSpec, match="already carries an adapter"):
        runtime.start_dense()


def test_a_bfloat16_base_carries_a_float32_adapter_and_is_trained_whole_in_float32(tiny_model):
    runtime = Runtime(tiny_model, "bfloat16", "cpu")
    slots = trained(runtime, 1)
    assert {value.dtype for name, value in runtime.model.named_parameters() if "lora_" in name} == {torch.float32}
    assert {value.dtype for name, value in runtime.model.named_parameters() if "lora_" not in name} == {torch.bfloat16}
    with runtime.base.precision():
        told = logits(runtime)
    runtime.load({})
    runtime.load(slots)
    with runtime.base.precision():
        assert torch.equal(logits(runtime), told)
    runtime.load({})
    assert {value.dtype for value in runtime.start_dense().values()} == {torch.float32}
    runtime.load({})
    assert {value.dtype for value in runtime.model.parameters()} == {torch.bfloat16}


def test_gradients_over_a_float16_base_are_those_over_a_float32_one(tiny_model):
    found = []
    for dtype in ("float32", "float16"):
        runtime = Runtime(tiny_model, dtype, "cpu")
        trained(runtime, 1)
        params = list(runtime.start_adapter(Settings(), 1, "task").values())
        with runtime.precision():
            loss = runtime.model(IDS).logits.float().log_softmax(-1)[..., 0].mean()
        found.append(torch.cat([g.float().flatten() for g in torch.autograd.grad(loss, params)]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.999


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("alpha", [8, 16, 24])  # the default rank is 8
def test_a_forward_and_backward_in_its_precision_are_pefts_own(tiny_model, dtype, alpha):
    runtime = Runtime(tiny_model, dtype, "cpu")
    trained(runtime, 1, lora_alpha=alpha)
    params = list(runtime.start_adapter(Settings(lora_alpha=alpha), 1, "task").values())
    found = []
    for precision in (runtime.base.precision, runtime.precision):
        with precision():
            told = runtime.model(IDS).logits
        grads = torch.autograd.grad(told.float().logsumexp(-1).sum(), params)
        found.append([told.detach(), *grads])
    for plain, ours in zip(*found, strict=True):
        if alpha == 24:  # three is no power of two: rounded elsewhere
            atol = plain.abs().max().item() * (1e-5 if dtype == "float32" else 0.05)
            torch.testing.assert_close(ours, plain, rtol=0, atol=atol)
        else:
            assert torch.equal(ours, plain)
