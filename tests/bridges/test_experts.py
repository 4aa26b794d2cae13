"""Experts of a mixture learn in low-rank factors of their own: exact, kept to the bit, and exported as PEFT's adapter."""

import copy
import json
import warnings

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from architectures import make
from cautioned import without_size
from perdure import Workspace
from perdure.bridges import experts
from perdure.bridges import runtime as runtime_module
from perdure.bridges.runtime import Runtime
from perdure.bridges.sizes import sizes
from perdure.bridges.targets import chosen, linear_layers
from perdure.core.plan import AdapterPlan
from perdure.core.settings import Settings
from perdure.core.slots import SKILL
from perdure.maths.low_rank import Patch, combine, from_tensors, relative_error, truncate, uniform
from perdure.train.per_row import per_row_gradients
from runtimes import trained
from streams import same

MIXTURES = ["qwen3_moe", "mixtral", "olmoe", "gpt_oss", "deepseek_v3", "qwen3_next"]
IDS = torch.arange(2, 42).reshape(2, 20)
QUICK = {"num_train_epochs": 2, "learning_rate": 3e-3}
LABELS = {"a": "c", "b": "d"}


def with_factors(name, rank=3):
    """Return a tiny mixture whose experts have factors of random values."""
    model = make(name)
    model.requires_grad_(False)
    for parameter in experts.expert_parameters(model):
        experts.attach(model, parameter, rank).scaling["default"] = 0.5
    moved(model)
    return model


@torch.no_grad()
def moved(model):
    torch.manual_seed(1)
    for name, value in model.named_parameters():
        if ".lora_B." in name:
            value.normal_(std=0.1)


@torch.no_grad()
def logits(model, ids=IDS):
    return model(input_ids=ids).logits


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """Return a function that writes a tiny mixture with a tokenizer into a folder, once."""
    tokenizer, made = AutoTokenizer.from_pretrained(tiny_model), {}

    def write(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("mixture") / name
            ids = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 1}
            make(name, **ids, bos_token_id=None).save_pretrained(made[name])
            tokenizer.save_pretrained(made[name])
        return made[name]

    return write


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Two files of rows that differ in their labels."""
    place, files = tmp_path_factory.mktemp("tasks"), []
    for verb in ("Classify", "Sort"):
        rows = [
            {"split": split, "prompt": f"{verb} the text.\nText: {more}{text}\nLabel:", "completion": label}
            for split, more in (("train", ""), ("train", "the "), ("test", "my "))
            for text, label in (("refund", "a"), ("parcel", "b"), ("invoice", "a"))
        ]
        if verb == "Sort":
            rows = [{**row, "completion": LABELS[row["completion"]]} for row in rows]
        files.append(place / f"{verb}.jsonl")
        files[-1].write_text("\n".join(map(json.dumps, rows)))
    return files


@pytest.fixture(scope="module")
def runtime(folder):
    return Runtime(folder("deepseek_v3"), "float32", "cpu")


@pytest.mark.parametrize("name", [*MIXTURES, "granitemoe", "jamba", "minimax"])
def test_factors_are_the_sum_of_their_product_and_the_weights(name):
    base = logits(make(name))
    model = with_factors(name)
    found = logits(model)
    assert (found - base).abs().max() > 0.01
    summed = copy.deepcopy(model)
    experts.detach(summed)
    assert torch.equal(logits(summed), base)
    with torch.no_grad():
        for parameter in experts.expert_parameters(model):
            own = experts.factors(model, parameter)
            delta = 0.5 * own.lora_B["default"].weight @ own.lora_A["default"].weight
            turned = experts.experts_transposed(model, parameter)
            summed.get_parameter(parameter).add_(delta.mT if turned else delta)
    torch.testing.assert_close(found, logits(summed), rtol=0, atol=5e-6)
    with experts.disabled(model):
        assert torch.equal(logits(model), base)


def test_fresh_factors_change_no_bit_and_each_rank_works_in_each_dtype():
    for dtype in (torch.float32, torch.bfloat16):
        for rank in (1, 3, 8):
            model = make("gpt_oss").to(dtype)
            base = logits(model)
            for parameter in experts.expert_parameters(model):
                experts.attach(model, parameter, rank)
            assert torch.equal(logits(model), base)
            moved(model)
            assert not torch.equal(logits(model), base)


def test_without_grouped_products_the_same_comes_out_with_the_same_gradients(monkeypatch):
    model = with_factors("qwen3_moe")
    params = [value for value in model.parameters() if value.requires_grad]
    found = []
    for grouped in (True, False):
        monkeypatch.setattr(experts, "GROUPED", grouped)
        out = model(input_ids=IDS).logits
        found.append([out, *torch.autograd.grad(out.square().mean(), params)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_each_row_is_computed_as_if_it_were_alone():
    model = with_factors("mixtral")
    together = logits(model)
    for row in range(len(IDS)):
        torch.testing.assert_close(together[row : row + 1], logits(model, IDS[row : row + 1]), rtol=0, atol=5e-6)


def test_gradients_by_row_are_those_of_each_row_alone():
    model = with_factors("deepseek_v3")
    params = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert len(params) == 4
    found = per_row_gradients(
        model, params, lambda: model(input_ids=IDS).logits.log_softmax(-1)[:, :-1].amax(-1).sum(-1)
    )
    for row in range(len(IDS)):
        score = model(input_ids=IDS[row : row + 1]).logits.log_softmax(-1)[:, :-1].amax(-1).sum()
        for name, grad in zip(params, torch.autograd.grad(score, list(params.values())), strict=True):
            torch.testing.assert_close(found[name][row], grad, rtol=1e-3, atol=1e-6)
            assert grad.any()


def test_states_with_experts_come_back_to_the_bit_and_the_base_is_never_written(runtime):
    runtime.load({})
    base, weights = logits(runtime.model), runtime.weights()
    a, b = trained(runtime, 1), trained(runtime, 2, lora_target_modules=["experts.down_proj", "kv_b_proj"])
    c = trained(runtime, 3, lora_target_modules=["experts.gate_up_proj"])  # experts alone
    assert len(from_tensors(c[SKILL])) == 1
    seen = {}
    for name in "abcacb0a":
        state = {"a": a, "b": b, "c": c, "0": {}}[name]
        runtime.load(state)
        assert torch.equal(seen.setdefault(name, logits(runtime.model)), logits(runtime.model))
        with runtime.bare():
            assert torch.equal(logits(runtime.model), base)
        if state:
            assert same(runtime.skill(), state[SKILL])
    assert len({value.sum().item() for value in seen.values()}) == 4
    runtime.load({})
    assert same(runtime.weights(), weights)
    fresh = Runtime(runtime.folder, "float32", "cpu")
    fresh.load(a)
    assert torch.equal(logits(fresh.model), seen["a"])


def test_slots_of_experts_add_up_in_one_adapter(runtime):
    a = trained(runtime, 1, lora_r=2)[SKILL]
    b = trained(runtime, 2, lora_r=3, lora_target_modules=["experts.down_proj", "experts.gate_up_proj"])[SKILL]
    runtime.load({"one": a, "two": b})
    found = logits(runtime.model)
    runtime.load({})
    with torch.no_grad():
        for patches in map(from_tensors, (a, b)):
            for name, patch in patches.items():
                stacked = patch.delta.ndim == 3
                runtime.model.get_parameter(name if stacked else f"{name}.weight").add_(patch.delta)
    summed = logits(runtime.model)
    runtime._reload("float32")
    torch.testing.assert_close(found, summed, rtol=0, atol=1e-5)
    assert not torch.allclose(found, logits(runtime.model), atol=1e-2)


def test_what_lies_under_a_task_is_frozen_in_experts_too(runtime):
    old = trained(runtime, 1)[SKILL]
    settings = Settings(lora_r=2, lora_alpha=4)
    params = runtime.begin(AdapterPlan("sum:b", ("skill",)), {SKILL: old}, settings, 0, "b")
    assert all(".new." in name for name in params)
    frozen = {name: value.clone() for name, value in runtime.model.named_parameters() if name not in params}
    start = logits(runtime.model)
    optimizer = torch.optim.AdamW(params.values(), lr=1e-2, weight_decay=0.1)
    runtime.model.train()
    for _ in range(3):
        runtime.model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    runtime.freeze()
    found, own = logits(runtime.model), runtime.trained()
    assert (found - start).abs().max() > 1e-3
    assert same({name: value for name, value in runtime.model.named_parameters() if name not in params}, frozen)
    assert same(runtime.skill(), old)
    assert from_tensors(own).keys() == from_tensors(old).keys()
    assert all(patch.up.any() and patch.rank == 2 for patch in from_tensors(own).values())
    runtime.load({SKILL: old, "sum:b": own})
    torch.testing.assert_close(logits(runtime.model), found, rtol=0, atol=1e-5)
    runtime.load({})


def test_experts_forget_as_much_of_a_token_as_dropout_says(runtime):
    runtime.load({})
    runtime.start_adapter(Settings(lora_dropout=0.9, lora_target_modules=["experts.down_proj"]), 1, "task")
    moved(runtime.model)
    runtime.model.train()
    assert not torch.equal(logits(runtime.model), logits(runtime.model))
    runtime.model.eval()
    assert torch.equal(logits(runtime.model), logits(runtime.model))
    runtime.load({})


def test_a_patch_of_experts_is_one_patch_for_each():
    torch.manual_seed(0)
    made = {"x": Patch(torch.randn(3, 4, 6), torch.randn(3, 5, 4), 2.0)}
    other = {"x": Patch(torch.randn(3, 2, 6), torch.randn(3, 5, 2), 0.5)}

    def one(patches, expert):
        return {"x": Patch(patches["x"].down[expert], patches["x"].up[expert], patches["x"].scale)}

    summed, cut, padded = combine([made, other]), {"x": truncate(made["x"], 2)}, uniform(made, 8)[0]
    assert (made["x"].rank, summed["x"].rank, cut["x"].rank, padded["x"].rank) == (4, 6, 2, 8)
    assert torch.equal(padded["x"].delta, made["x"].delta)
    lost = 0.0
    for expert in range(3):
        torch.testing.assert_close(
            summed["x"].delta[expert], combine([one(made, expert), one(other, expert)])["x"].delta
        )
        torch.testing.assert_close(cut["x"].delta[expert], truncate(one(made, expert)["x"], 2).delta)
        lost += (cut["x"].delta[expert] - made["x"].delta[expert]).square().sum().item()
    whole = made["x"].delta.square().sum().item()
    assert relative_error(made, cut) == pytest.approx((lost / whole) ** 0.5, rel=1e-5)


def test_what_a_recipe_trains_is_counted_with_experts(folder):
    runtime = Runtime(folder("gpt_oss"), "float32", "cpu")
    params = runtime.start_adapter(Settings(lora_r=4, lora_alpha=4), 1, "t")
    found = sizes(str(folder("gpt_oss")), Settings(lora_r=4, lora_alpha=4))
    assert found.trainable == sum(value.numel() for value in params.values())
    assert sum(value.ndim == 3 for value in params.values()) == 8


def said(ws):
    return [answer.answer for answer in ws.predict(["refund"], task="t")]


def test_a_mixture_learns_twice_rolls_back_predicts_and_is_exported_for_peft(folder, tasks, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(folder("qwen3_moe")), dtype="float32")
    assert (ws.capabilities["no_adapter"], ws.capabilities["experts"]) == (None, 4)
    first = ws.learn("t", tasks[0], overrides=QUICK, gate=None)
    after = {"t": said(ws), "skill": ws.runtime.skill()}
    ws.learn("u", tasks[1], recipe="ewc", overrides=QUICK, gate=None)
    assert not without_size(ws.plan("u", tasks[1], overrides=QUICK).notices)[
        1:
    ]  # but that its rows were learned before
    skill = ws.runtime.skill()
    stacked = [name for name, patch in from_tensors(skill).items() if patch.down.ndim == 3]
    assert len(stacked) == 4
    for name in stacked:
        assert from_tensors(skill)[name].up.any()
        assert not torch.equal(from_tensors(skill)[name].up, from_tensors(after["skill"])[name].up)
    told = {kind: ws.export(tmp_path / kind, merged=kind == "merged") for kind in ("adapter", "merged")}
    ws.session.load(ws.ledger.resolve("head"))
    expected = logits(ws.runtime.model)
    assert told["adapter"].experts == 4
    assert "factors of experts" in (tmp_path / "adapter/README.md").read_text(encoding="utf-8")
    assert loaded(folder("qwen3_moe"), tmp_path / "adapter", expected) < 5e-6
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=5e-6)
    ws.rollback("head~1")
    assert ws.ledger.resolve("head").id == first.entry
    assert said(ws) == after["t"]
    assert same(ws.runtime.skill(), after["skill"])


def loaded(base, folder, expected):
    """Return the largest difference of a logit between the export that PEFT loads and `expected`, which differs from the base."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    assert (logits(model) - expected).abs().max() > 0.01
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(model, folder).eval()
    assert not [one for one in caught if "missing" in str(one.message).lower()]
    return (logits(model) - expected).abs().max().item()


@pytest.mark.parametrize("name", MIXTURES[1:])
@pytest.mark.parametrize("wanted", ["all-linear", ["experts.down_proj"]])
def test_peft_loads_the_export_of_a_mixture_with_equal_logits(name, wanted, folder, tmp_path):
    from perdure.bridges.export import as_served, write_adapter

    runtime = Runtime(folder(name), "float32", "cpu")
    slots = trained(runtime, 1, lora_r=4, lora_alpha=4, lora_target_modules=wanted)
    runtime.load(slots)
    write_adapter(tmp_path, runtime, base=str(folder(name)), rank=4)
    assert loaded(folder(name), tmp_path, logits(runtime.model)) < 1e-5
    assert same(as_served(tmp_path, runtime, torch.float32), slots[SKILL])


def test_an_adapter_begun_before_experts_got_one_goes_on_as_it_is_and_says_so(folder, tasks, tmp_path, monkeypatch):
    ws = Workspace.init(tmp_path / "ws", str(folder("deepseek_v3")), dtype="float32")
    dense = [name for name in chosen(ws.runtime.model, "all-linear") if "mlp" not in name]  # all that there were
    assert set(dense) < set(linear_layers(ws.runtime.model))
    with monkeypatch.context() as then:
        then.setattr(runtime_module, "chosen", lambda model, wanted: dense)
        ws.learn("t", tasks[0], recipe="dual_replay", overrides=QUICK, gate=None)
    config = json.loads((ws.ledger.root / "perdure.json").read_text())
    del config["capabilities"]["experts"]  # as a workspace of then
    config["capabilities"]["no_adapter"] = "67% of the weights get no adapter"
    (ws.ledger.root / "perdure.json").write_text(json.dumps(config))
    ws = Workspace.open(ws.ledger.root)
    (told,) = [text for text in ws.plan("u", tasks[1], overrides=QUICK).notices if "of the weights" in text]
    assert "begun without them" in told
    assert "mlp.experts.gate_up_proj" in told
    ws.learn("u", tasks[1], overrides=QUICK, gate=None)
    assert sorted(from_tensors(ws.runtime.skill())) == sorted(dense)
    fresh = ws.plan("v", tasks[0], overrides={**QUICK, "start": "base"}, allow_leaks=True)
    assert not [text for text in fresh.notices if "of the weights" in text]


def test_what_a_recipe_leaves_out_on_purpose_is_no_weight_without_adapter(folder, tasks, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(folder("qwen3_moe")), dtype="float32")
    ws.learn("t", tasks[0], recipe="lora_mlp", overrides=QUICK, gate=None)
    assert all(".mlp." in name for name in from_tensors(ws.runtime.skill()))
    plan = ws.plan("u", tasks[1], recipe="lora_mlp", overrides=QUICK)
    assert not [text for text in plan.notices if "of the weights" in text]


def test_merging_is_compared_where_no_token_went_to_another_expert(folder):
    from perdure.bridges.export import check_merged, probe
    from perdure.core.errors import PerdureError

    base = Runtime(folder("mixtral"), "float32", "cpu").base
    text = "refund parcel invoice " * 8
    expected = probe(base, base.model, text)
    jumped = expected.clone()
    jumped[3] += 5.0
    assert check_merged(base, text, jumped).difference == 0.0
    jumped[:: len(jumped) // 5] += 5.0
    with pytest.raises(PerdureError, match="differs from the adapter"):
        check_merged(base, text, jumped)


def test_exact_orthogonality_holds_the_factors_of_each_expert(folder, tasks, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(folder("qwen3_moe")), dtype="float32")
    for name, rows in zip("tu", tasks, strict=True):
        ws.learn(
            name, rows, recipe={"methods": {"o_lora": {"exact": True}}}, overrides={**QUICK, "lora_r": 4}, gate=None
        )
    slots = ws.ledger.slots(ws.ledger.resolve("head"))
    old, new = (from_tensors(ws.ledger.objects.get(slots[f"sum:{name}"])) for name in "tu")
    assert sum(patch.down.ndim == 3 for patch in new.values()) == 4
    for module, patch in new.items():
        overlap = (patch.down @ old[module].down.mT).abs().max()
        assert overlap < 1e-5 * patch.down.norm() * old[module].down.norm(), module
