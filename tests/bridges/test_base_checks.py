"""A model folder that cannot be used is refused in words at `init`, before anything is made, and at every later load."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from json_files import change
from perdure.bridges.base_files import LARGE, SMALL
from perdure.bridges.identity import fingerprint
from perdure.bridges.models import check_base, configuration, load_base, load_tokenizer
from perdure.bridges.sizes import sizes
from perdure.core.errors import BadInput, BrokenStore
from perdure.core.settings import Settings
from perdure.workspace.facade import Workspace

UP = "model.layers.0.mlp.up_proj.weight"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A copy of the tiny model, to spoil."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def config(**fields):
    return lambda folder: change(folder / "config.json", **fields)


def tokenizer(**fields):
    return lambda folder: change(folder / "tokenizer_config.json", **fields)


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def remove(*names):
    return lambda folder: [(folder / name).unlink(missing_ok=True) for name in names]


def weights(change):
    """Return what rewrites the weights with the tensors that `change` makes of them."""

    def spoil(folder):
        tensors = {name: value.clone() for name, value in change(load_file(folder / "model.safetensors")).items()}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return spoil


def one(name, value):
    """Return what puts one value of a weight at another."""

    def put(tensors):
        tensors[name].view(-1)[5] = value
        return tensors

    return weights(put)


def cut(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def shard(folder):
    """Spread the weights over two files with an index."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = dict(zip(SHARDS, (names[:9], names[9:]), strict=True))
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def index_of(names):
    def spoil(folder):
        shard(folder)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))

    return spoil


def without_a_shard(folder):
    shard(folder)
    (folder / SHARDS[1]).unlink()


def future_tokenizer(folder):
    told = json.loads((folder / "tokenizer.json").read_text())
    told["model"]["type"] = "FutureModel"
    (folder / "tokenizer.json").write_text(json.dumps(told))


def adapter(folder):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))


def encoder(folder):
    """Make the folder a BERT that was trained to fill gaps."""
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=300, **sizes))
    model.save_pretrained(folder)


SPOILED = {
    # weights
    "a layer is missing": (
        weights(lambda t: {name: value for name, value in t.items() if "layers.1" not in name}),
        r"weights are missing in .*: model\.layers\.1\.input_layernorm\.weight, .* and 6 more; they would be drawn at random",
    ),
    "a norm is missing": (
        weights(lambda t: {name: value for name, value in t.items() if name != "model.norm.weight"}),
        r"weights are missing in .*: model\.norm\.weight; ",
    ),
    "an untied head is missing": (config(tie_word_embeddings=False), r"weights are missing in .*: lm_head\.weight; "),
    "another vocabulary": (config(vocab_size=999), r"embed_tokens\.weight in .* has shape \(\d+, 32\), config\.json wants"),
    "another width": (config(intermediate_size=48), r"has shape .*\(\d+ weights differ\); configuration and weights are of diff"),
    "a weight of another shape": (
        weights(lambda t: {**t, UP: t[UP][:, :16]}),
        r"up_proj\.weight in .* has shape \(64, 16\), config\.json wants \(64, 32\); ",
    ),
    "fewer layers than stored": (config(num_hidden_layers=1), r"config\.json leaves out of the model: model\.layers\.1\."),
    "layers beyond reason": (config(num_hidden_layers=10**9), r"has 1,000,000,000 layers, but the weights have \d+ tensors"),
    "a bias that is left out": (
        weights(lambda t: {**t, UP.replace("weight", "bias"): torch.ones(64)}),
        r"leaves out of the model: model\.layers\.0\.mlp\.up_proj\.bias; ",
    ),
    "an adapter among the weights": (
        weights(lambda t: {**t, UP.replace("weight", "lora_A.default.weight"): torch.ones(4, 32)}),
        r"leaves out of the model: .*lora_A",
    ),
    "NaN": (one(UP, float("nan")), r"up_proj\.weight in .* holds NaN or infinity"),
    "infinity": (one("model.embed_tokens.weight", float("-inf")), r"embed_tokens\.weight in .* holds NaN or infinity"),
    "cut off": (cut, r"model\.safetensors is damaged or cut off"),
    "empty": (write("model.safetensors", ""), r"model\.safetensors is damaged or cut off"),
    "a pointer of git-lfs": (write("model.safetensors", "version https://git-lfs.github.com/spec/v1\n"), "run git lfs pull"),
    "a shard is absent": (without_a_shard, r"lacks 1 of its 2 weight files: model-00002-of-00002\.safetensors"),
    "an index that leaves a shard out": (index_of({"model.norm.weight": SHARDS[0]}), "weights are missing"),
    "an index of files elsewhere": (index_of({"model.norm.weight": "../x.safetensors"}), r"are in \.\./x\.safetensors; put"),
    "an empty index": (index_of({}), "is no index of weight files"),
    "weights elsewhere by configuration": (config(transformers_weights="a/b.safetensors"), r"are in a/b\.safetensors"),
    "pickles": (lambda f: (remove("model.safetensors")(f), write("pytorch_model.bin", "")(f)), "but pickles: perdure loads no"),
    "another name": (lambda f: (f / "model.safetensors").rename(f / "x.safetensors"), r"only x\.safetensors; rename the file"),
    "no weights": (remove("model.safetensors"), r"has no \.safetensors weights .*; download or copy the model again"),
    # quantised
    **{
        method: (config(quantization_config={"quant_method": method}), rf"is quantised \({method}\): quantised weights cannot be")
        for method in ("bitsandbytes", "gptq", "awq", "compressed-tensors", "fp8", "mxfp4", "unheard-of")
    },
    "4 bit without a method": (config(quantization_config={"load_in_4bit": True}), r"is quantised \(quantization_config\)"),
    "quantised inside": (config(text_config={"quantization_config": {"quant_method": "awq"}}), r"is quantised \(awq\)"),
    "8 bits without a configuration": (
        weights(lambda t: {**t, UP: t[UP].to(torch.float8_e4m3fn)}),
        r"stores model\.layers\.0\.mlp\.up_proj\.weight as F8_E4M3: quantised weights cannot be used",
    ),
    "integers": (weights(lambda t: {**t, UP: t[UP].to(torch.uint8)}), "as U8: quantised weights cannot be used"),
    # another kind of model
    "an adapter beside the model": (adapter, r"holds an adapter \(adapter_config\.json\) next to the model"),
    "an adapter alone": (lambda f: (adapter(f), remove("config.json")(f)), "holds an adapter .*, not a model; give .* its base"),
    "an encoder": (encoder, r"\(BertLMHeadModel\) predicts each token from those after it too"),
    "an encoder-decoder": (config(model_type="bart"), r"\(bart\) is an encoder-decoder"),
    "vision": (config(model_type="vit"), r"\(vit\) is no language model"),
    "a model type to come": (config(model_type="future"), "model type `future` but Transformers does not recognize"),
    "a model type that is no name": (config(model_type=7), "cannot read the configuration"),
    "a configuration of wrong types": (config(hidden_size="wide"), "cannot read the configuration .*'hidden_size' expected int"),
    "an unknown activation": (config(hidden_act="nope"), "cannot load a causal language model"),
    "a padding id outside": (config(pad_token_id=9999), r"config\.json has pad_token_id 9999, and the embedding"),
    "no positions": (config(max_position_embeddings=0), "allows a text 0 tokens"),
    "generation settings cut off": (write("generation_config.json", "{"), r"cannot read .*generation_config\.json"),
    "an end that is no token": (write("generation_config.json", '{"eos_token_id": "</s>"}'), "eos_token_id is no token id"),
    # tokenizer
    "no tokenizer": (remove("tokenizer.json"), "has no tokenizer"),
    "a broken tokenizer": (write("tokenizer.json", "{"), r"cannot read .*tokenizer\.json, line 1: "),
    "a tokenizer to come": (future_tokenizer, "cannot load a tokenizer .* did not match any variant"),
    "a broken chat template": (
        lambda f: (tokenizer(chat_template=None)(f), write("chat_template.jinja", "{% for m in messages %}")(f)),
        r"the chat template in .* is broken: .*endfor",
    ),
    "no end of text": (
        lambda f: (tokenizer(eos_token=None)(f), config(eos_token_id=None)(f), remove("generation_config.json")(f)),
        "names a token that ends a text",
    ),
    "a tokenizer of a larger model": (
        lambda f: (
            config(vocab_size=200)(f),
            weights(lambda t: {n: v[:200] if "embed_tokens" in n else v for n, v in t.items()})(f),
        ),
        r"the tokenizer in .* has \d+ tokens, the model's embedding 200; they are of different models",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_init_refuses_what_cannot_be_used_and_makes_nothing(folder, tmp_path, name):
    spoil, message = SPOILED[name]
    spoil(folder)
    with pytest.raises(BadInput, match=message) as raised:
        Workspace.init(tmp_path / "ws", str(folder), dtype="float32")
    assert str(folder) in str(raised.value)
    assert len(str(raised.value)) < 700
    assert not (tmp_path / "ws").exists()


HOSTILE = {  # what a JSON file of the model holds, and what is said of it
    "nested": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested deeper than 100 levels"),
    "nested without an end": (b"[" * 100_000, "nested deeper than 100 levels"),
    "a number of 5,000 digits": (b'{"vocab_size": ' + b"9" * 5000 + b"}", r"more digits than are read \(4,300\)"),
    "no UTF-8": (b'{"a": "\xff"}', r"not in UTF-8 \(byte 8\)"),
    "cut off": (b'{\n"a": [1,', "line 2: Expecting value"),
    "a name twice": (b'{"a": 1, "a": 2}', "'a' is named twice in one object"),
    "a list": (b"[1]", "holds a list"),
    "empty": (b"", "line 1: Expecting value"),
}


@pytest.mark.parametrize("fault", HOSTILE)
@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_a_damaged_json_file_is_refused_by_name_at_every_load(folder, tmp_path, name, fault):
    data, problem = HOSTILE[fault]
    if name == "vocab.json":  # is read where there is no tokenizer.json
        (folder / "tokenizer.json").unlink()
        change(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    (folder / name).write_bytes(data)
    loads = [
        lambda: Workspace.init(tmp_path / "ws", str(folder)),
        lambda: load_base(folder),
        lambda: load_tokenizer(folder),
    ]
    for load in [
        *loads,
        *([lambda: configuration(folder), lambda: sizes(str(folder), Settings())] if name == "config.json" else []),
    ]:
        with pytest.raises(BadInput, match=problem) as raised:
            load()
        assert str(folder / name) in str(raised.value)
        assert str(raised.value).endswith("; download or copy the model again")
        assert len(str(raised.value)) < 300
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_damaged_index_of_weights_is_refused_by_name(folder, tmp_path, fault):
    shard(folder)
    (folder / "model.safetensors.index.json").write_bytes(HOSTILE[fault][0])
    with pytest.raises(BadInput, match=rf"model\.safetensors\.index\.json.*{HOSTILE[fault][1]}.*; download") as raised:
        load_base(folder)
    assert len(str(raised.value)) < 300


def test_a_configuration_damaged_after_init_is_refused_in_the_same_words(folder, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(folder), dtype="float32")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"parcel {i}", "completion": "invoice"}) + "\n" for i in range(6)))
    (folder / "config.json").write_bytes(HOSTILE["nested"][0])
    for load in (lambda: ws.plan("t", rows), lambda: ws.predict(["hello"])):
        with pytest.raises(
            BadInput, match=r"config\.json: it is nested deeper than 100 levels; download or copy the model again"
        ):
            load()
    assert any("nested deeper" in problem for problem in ws.verify().problems)


def test_infinity_in_a_configuration_has_one_identity_in_both_of_its_spellings(folder):
    """Configurations of Mamba 2 have one (`time_step_limit`), bare in older files, by name in those written now."""
    config(time_step_limit=[0.0, float("inf")])(folder)
    bare = fingerprint(folder)
    config(time_step_limit=[0.0, {"__float__": "Infinity"}])(folder)
    assert fingerprint(folder) == bare
    config(time_step_limit=[0.0, {"__float__": "-Infinity"}])(folder)
    assert fingerprint(folder) != bare


def test_half_a_character_in_a_configuration_is_refused(folder, tmp_path):
    config(title="\ud800")(folder)
    with pytest.raises(BadInput, match=r"config\.json holds a character that UTF-8 has not; download"):
        Workspace.init(tmp_path / "ws", str(folder), dtype="float32")


def test_a_sound_model_passes_as_one_file_and_as_shards_to_the_same_weights(folder):
    whole = check_base(folder, "float32", "cpu").model.state_dict()
    shard(folder)
    assert all(
        torch.equal(value, whole[name])
        for name, value in check_base(folder, "float32", "cpu").model.state_dict().items()
    )


def test_weights_that_matter_to_no_one_may_lie_beside_the_model(folder):
    more = {"v_head.weight": torch.ones(1, 32), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    weights(lambda t: {**t, **more})(folder)
    check_base(folder, "float32", "cpu")


@pytest.mark.parametrize("kind", [torch.float16, torch.float64, torch.bfloat16])
def test_any_plain_dtype_is_loaded_in_the_one_asked_for(folder, kind):
    weights(lambda t: {name: value.to(kind) for name, value in t.items()})(folder)
    assert {value.dtype for value in check_base(folder, "float32", "cpu").model.parameters()} == {torch.float32}


def test_two_files_with_the_same_weights_are_refused_where_an_index_chooses(folder):
    shard(folder)
    shutil.copy(folder / SHARDS[0], folder / "other.safetensors")
    with pytest.raises(BadInput, match=r"model-00001-of-00002\.safetensors and other\.safetensors in .* both hold"):
        check_base(folder, "float32", "cpu")


def test_a_workspace_made_on_an_incomplete_model_is_refused_at_its_next_load_and_verify_names_it(
    folder, tmp_path, monkeypatch
):
    """As perdure 0.1 made them: init hashed the files and did not load them."""
    from perdure.bridges import models

    monkeypatch.setattr(models, "check_base", lambda where, dtype, *more: load_base(sound, dtype))
    sound = Path(shutil.copytree(folder, tmp_path / "sound"))
    weights(lambda t: {name: value for name, value in t.items() if "layers.1" not in name})(folder)
    ws = Workspace.init(tmp_path / "ws", str(folder), dtype="float32")
    with pytest.raises(BadInput, match="weights are missing"):
        ws.predict(["hello"])
    report = ws.verify()
    assert not report.ok
    assert any("weights are missing" in problem for problem in report.problems)


def test_an_adapter_put_beside_the_base_later_is_not_taken_in(folder, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(folder), dtype="float32")
    adapter(folder)
    with pytest.raises(BadInput, match="next to the model"):
        _ = ws.runtime
    assert not ws.verify().ok


def test_what_changed_on_disk_is_told_as_such(folder, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(folder), dtype="float32")
    one(UP, float("nan"))(folder)
    with pytest.raises(BrokenStore, match=r"changed on disk .*: model\.safetensors"):
        _ = ws.runtime
    assert [problem for problem in ws.verify().problems if "changed on disk" in problem]


# --- tokens outside the embedding


def test_padding_outside_the_embedding_is_replaced_by_a_token_inside(folder):
    tokens = load_tokenizer(folder)
    tokens.add_special_tokens({"pad_token": "[PAD]"})
    tokens.save_pretrained(folder)
    base = check_base(folder, "float32", "cpu")
    assert load_tokenizer(folder).pad_token_id == base.rows
    assert base.pad == base.tokenizer.pad_token_id == base.tokenizer.eos_token_id < base.rows


def test_an_added_token_outside_the_embedding_is_named_where_a_text_has_it(folder, tmp_path):
    tokens = load_tokenizer(folder)
    tokens.add_tokens(["<plan_a>"])
    tokens.save_pretrained(folder)
    base = check_base(folder, "float32", "cpu")
    plain, outside = (base.tokenizer(text, return_tensors="pt")["input_ids"] for text in ("parcel", "parcel <plan_a>"))
    base.model(input_ids=plain)
    ws = Workspace.init(tmp_path / "ws", str(folder), dtype="float32")
    rows = tmp_path / "rows.jsonl"
    for where in ("completion", "prompt"):
        lines = [{"prompt": f"parcel {i}", "completion": "invoice", where: f"<plan_a> {i}"} for i in range(6)]
        rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(BadInput, match=r"rows\.jsonl:\d: the model has no embedding for '<plan_a>'"):
            ws.plan("t", rows)
    with pytest.raises(BadInput, match=r"no embedding for '<plan_a>' \(token \d+ of \d+\).*take it out of the text"):
        base.model(input_ids=outside)


def test_a_tokenizer_without_an_end_takes_that_of_the_configuration(folder):
    end = load_tokenizer(folder).eos_token_id
    tokenizer(eos_token=None)(folder)
    base = check_base(folder, "float32", "cpu")
    assert base.tokenizer.eos_token_id == load_tokenizer(folder).eos_token_id == end


@pytest.mark.parametrize("fields", [{"hidden_size": "wide"}, {"model_type": "future"}, {"hidden_act": "nope"}])
def test_the_size_of_a_model_with_a_broken_configuration_is_refused_in_words(folder, fields):
    config(**fields)(folder)
    with pytest.raises(BadInput, match="cannot read the configuration of model"):
        sizes(str(folder), Settings())
