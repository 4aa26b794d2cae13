"""What `init` finds out about a base model: printed, kept, obeyed by later verbs, and a model that cannot be used is refused."""

import copy
import json

import pytest
import torch

from architectures import ARCHITECTURES, COMMON, make
from perdure import Workspace
from perdure.bridges.capabilities import capabilities_of
from perdure.bridges.models import Base
from perdure.core.errors import BadInput, BadSpec
from perdure.model.batching import Batching
from perdure.model.probing import batching_of, measure, plain


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """Return a function that writes a tiny model of an architecture, with a tokenizer, into a folder."""

    def write(name):
        place = tmp_path_factory.mktemp("architecture") / name
        model = make(
            name, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=1, bos_token_id=None
        )
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        return str(place)

    return write


ROWS = [
    {"split": split, "prompt": f"Classify the text.\nText: {more}{text}\nLabel:", "completion": label}
    for split, more in (("train", ""), ("train", "the "), ("test", "my "))
    for text, label in (("refund", "a"), ("parcel", "b"), ("invoice", "a"))
]


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    return path


@pytest.mark.parametrize("name", ["lfm2", "mamba", "qwen3_next"])
def test_a_hybrid_model_learns_scores_and_exports_and_says_what_it_cannot(name, folder, rows, tmp_path):
    ws = Workspace.init(tmp_path / "ws", folder(name), dtype="float32")
    found = ws.capabilities
    assert (found["training"], found["prefix"], found["editing"], found["export"]) == (True, False, False, True)
    assert found["cache"] == (name != "mamba")
    assert any("prefix" in note for note in found["notes"])
    with pytest.raises(BadInput, match="editing supports"):
        ws.edit({"subject": "Oslo", "prompt": "{} is in", "target": "Rome"})
    with pytest.raises(BadInput, match="editing supports"):
        ws.trace("Oslo is in", "Oslo")
    assert "runtime" not in ws.__dict__  # refused before the model was loaded
    done = ws.learn("t", rows, recipe="naive", overrides={"num_train_epochs": 2, "learning_rate": 3e-3}, gate=None)
    assert done.entry
    assert len(ws.predict(["refund"])) == 1


def test_knowledge_that_would_be_edited_is_refused_when_it_is_planned(folder, tmp_path):
    ws = Workspace.init(tmp_path / "ws", folder("lfm2"), dtype="float32")
    facts = tmp_path / "facts.jsonl"
    facts.write_text(json.dumps({"subject": "Oslo", "prompt": "{} is in", "target": "Rome"}))
    with pytest.raises(BadInput, match=r"1 rows are facts, but .*--kind task"):
        ws.plan_knowledge("t", facts)


def test_a_plain_model_can_everything(tiny_model, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    assert (ws.capabilities["editing"], ws.capabilities["no_adapter"], ws.capabilities["notes"]) == (True, None, [])
    assert ws.capabilities["batching"] == {
        "prefix": True, "decoding": "between", "spans": True, "window": None, "positions": True, "packing": True
    }  # fmt: skip


def test_what_init_found_is_not_found_out_again_but_by_other_code(tiny_model, tmp_path, monkeypatch):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    assert ws.runtime.batching is not None
    config = json.loads((ws.ledger.root / "perdure.json").read_text())
    config["capabilities"]["transformers"] = "4.0.0"
    (ws.ledger.root / "perdure.json").write_text(json.dumps(config))
    assert Workspace.open(ws.ledger.root).runtime.batching is None
    del config["capabilities"]  # a workspace of an older version
    (ws.ledger.root / "perdure.json").write_text(json.dumps(config))
    old = Workspace.open(ws.ledger.root)
    assert old.runtime.batching is None
    old.session.refuse_editing()


def test_experts_without_adapter_are_told_at_init_and_with_every_plan(folder, rows, tmp_path):
    ws = Workspace.init(tmp_path / "ws", folder("llama4_text"), dtype="float32")
    told = ws.capabilities["no_adapter"]
    assert "% of the weights" in told
    assert "experts.gate_up_proj" in told
    assert told in ws.plan("t", rows, recipe="naive").notices
    assert told not in ws.plan("t", rows, recipe="full").notices


def test_a_module_that_is_not_there_is_told_before_a_model_is_loaded(tiny_model, rows, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    with pytest.raises(BadSpec, match=r"'v_projj'.*did you mean v_proj.*'lm_head' is the output layer"):
        ws.plan("t", rows, overrides={"lora_target_modules": ["q_proj", "v_projj", "lm_head"]})
    assert "runtime" not in ws.__dict__


def test_a_model_that_looks_ahead_is_refused():
    from transformers import BertConfig, BertLMHeadModel

    sizes = {
        k: COMMON[k]
        for k in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    }
    torch.manual_seed(0)
    bert = BertLMHeadModel(BertConfig(**sizes)).eval()
    for looks in (measure, batching_of):
        with pytest.raises(
            BadInput, match=r"this model \(BertLMHeadModel\) predicts each token from those after it too"
        ):
            looks(bert)


def test_a_model_of_a_plain_structure_that_looks_ahead_is_refused_too():
    model = make("llama")
    assert batching_of(copy.deepcopy(model)) == Batching()

    def see_all(_, args, given):
        width = given["hidden_states"].shape[1]
        return args, {**given, "attention_mask": torch.ones(1, 1, width, width, dtype=torch.bool)}

    for layer in model.model.layers:
        layer.self_attn.register_forward_pre_hook(see_all, with_kwargs=True)
    assert plain(copy.deepcopy(model)) is not None
    with pytest.raises(BadInput, match="predicts each token from those after it too"):
        batching_of(model)


def test_a_model_that_reads_the_padding_behind_a_row_is_refused():
    model = make("llama")
    model.model.register_forward_pre_hook(
        lambda _, args, given: (args, {**given, "inputs_embeds": None, "input_ids": given["input_ids"].roll(1, 1)}),
        with_kwargs=True,
    )
    with pytest.raises(BadInput, match=r"from those after it too|padding behind"):
        measure(model)


def test_a_model_without_gradients_is_refused(tokenizer):
    model = make("llama", vocab_size=len(tokenizer))
    model.model.norm.register_forward_hook(lambda _, __, out: out.detach())
    with pytest.raises(BadInput, match="cannot be trained"):
        capabilities_of(Base(model, tokenizer, torch.float32, torch.device("cpu")))


def test_weights_that_are_not_finite_are_refused():
    model = make("llama")
    model.model.norm.weight.data[0] = float("nan")
    with pytest.raises(BadInput, match="not finite"):
        measure(model)


def test_there_are_twenty_architectures_and_more():
    assert len(ARCHITECTURES) > 40
