"""Recipes from configurations of LLaMA-Factory and Axolotl: what is taken, under which name, and what is not."""

import pytest
import yaml

from perdure.core.errors import BadSpec
from perdure.methods.registry import load_recipe
from perdure.workflows.recipe_import import import_recipe

# As the examples of LLaMA-Factory (examples/train_lora) and Axolotl (examples/llama-3) are written.
LLAMA_FACTORY = """
### model
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
trust_remote_code: true
quantization_bit: 4
### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 16
lora_alpha: 32
lora_target: all
### dataset
dataset: identity,alpaca_en_demo
template: llama3
cutoff_len: 2048
overwrite_cache: true
### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: constant_with_warmup
optim: adafactor
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
val_size: 0.1
"""
AXOLOTL = """
base_model: NousResearch/Meta-Llama-3-8B
load_in_8bit: true
datasets:
  - path: mhenrichsen/alpaca_2k_test
    type: alpaca
val_set_size: 0.05
adapter: lora
sequence_len: 4096
sample_packing: false
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_linear: true
gradient_accumulation_steps: 4
micro_batch_size: 2
max_steps: 200
num_epochs: 4
lr_scheduler: cosine
optimizer: adamw_torch
learning_rate: 0.0002
bf16: auto
gradient_checkpointing: true
flash_attention: true
warmup_steps: 10
special_tokens:
   pad_token: <|end_of_text|>
"""


LOSSES = [
    ("use_dft_loss: true", {"token_weight": {"scheme": "dft"}}),
    ("use_eaft_loss: true\neaft_alpha: 2.0", {"token_weight": {"scheme": "eaft", "exponent": 2.0}}),
    (
        "use_asft_loss: true\nasft_alpha: 0.05",
        {"token_weight": {"scheme": "dft"}, "lwf": {"teacher": "base", "strength": 0.05, "temperature": 1.0}},
    ),
    ("use_eaft: true\neaft_k: 20", {"token_weight": {"scheme": "eaft"}}),
    ("use_dft_loss: false\neaft_alpha: 2.0", {}),
]


@pytest.mark.parametrize(("text", "methods"), LOSSES)
def test_losses_are_methods_beside_those_of_the_default_recipe(text, methods, tmp_path):
    made = import_recipe(write(tmp_path, (AXOLOTL if "use_eaft:" in text else LLAMA_FACTORY) + text))
    default = load_recipe("dual_replay")
    expected = load_recipe(
        {**default.to_json(), **made.recipe.settings.to_json(), "methods": {**default.to_json()["methods"], **methods}}
    )
    assert made.recipe.methods == expected.methods
    assert not {"use_dft_loss", "use_eaft_loss", "eaft_alpha", "use_asft_loss", "asft_alpha", "use_eaft"} & set(
        made.left
    )


def test_an_entropy_of_other_than_twenty_logits_is_not_taken(tmp_path):
    made = import_recipe(write(tmp_path, AXOLOTL + "use_eaft: true\neaft_k: 32\n"))
    assert made.left["eaft_k"] == "the entropy is that of the 20 largest logits"


def write(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_configuration_of_llama_factory(tmp_path):
    made = import_recipe(write(tmp_path, LLAMA_FACTORY))
    assert made.source == "LLaMA-Factory"
    assert made.settings == {
        "train": "lora",
        "lora_r": 16,
        "lora_alpha": 32,
        "lora_target_modules": "all-linear",
        "max_length": 2048,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 8,
        "learning_rate": 1e-4,
        "num_train_epochs": 3,
        "lr_scheduler_type": "constant_with_warmup",
        "optim": "adafactor",
        "warmup_steps": 0.1,
        "validation_share": 0.1,
    }
    assert made.init == {
        "--model": "meta-llama/Meta-Llama-3-8B-Instruct",
        "--quantization": "nf4",
        "--dtype": "bfloat16",
    }
    assert made.data == ("identity", "alpaca_en_demo")
    assert set(made.left) == {"trust_remote_code", "template", "overwrite_cache", "ddp_timeout"}
    default = load_recipe("dual_replay").to_json()
    assert made.recipe.to_json() == {**default, **made.settings}


def test_a_configuration_of_axolotl(tmp_path):
    made = import_recipe(write(tmp_path, AXOLOTL))
    assert made.source == "Axolotl"
    assert made.settings == {
        "validation_share": 0.05,
        "train": "lora",
        "max_length": 4096,
        "packing": False,
        "lora_r": 32,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "lora_target_modules": "all-linear",
        "gradient_accumulation_steps": 4,
        "per_device_train_batch_size": 2,
        "max_steps": 200,
        "lr_scheduler_type": "cosine",
        "optim": "adamw_torch",
        "learning_rate": 2e-4,
        "gradient_checkpointing": True,
        "warmup_steps": 10,
    }
    assert made.init["--quantization"] == "int8"
    assert made.init["--attn-implementation"] == "flash_attention_2"
    assert made.data == ("mhenrichsen/alpaca_2k_test",)
    assert set(made.left) == {"special_tokens"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rate: 1", "neither LLaMA-Factory .* nor Axolotl"),
        ("- a", "is no configuration"),
        ("model_name_or_path: a\nstage: dpo", "stage is 'dpo'; perdure learns from completions"),
        ("base_model: a\nrl: orpo", "rl is 'orpo'"),
        ("base_model: a\nadapter: llama-adapter", "'llama-adapter' is no way of training here"),
        ("base_model: a\nlearning_rate: fast", "learning_rate"),
    ],
)
def test_what_cannot_be_imported_is_one_error(tmp_path, text, said):
    with pytest.raises(BadSpec, match=said):
        import_recipe(write(tmp_path, text))


def test_a_data_file_is_refused_with_the_files_that_are_taken(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(BadSpec, match=r"is data and no configuration; give the YAML file \(.yaml, .yml or .json\)"):
        import_recipe(path)


@pytest.mark.parametrize(
    "text",
    [
        "base_model: a\ntrain_on_inputs: true\npeft_use_rslora: true",
        "model_name_or_path: a\ntrain_on_prompt: true\nuse_rslora: true",
    ],
)
def test_loss_on_prompts_and_rslora_are_taken(tmp_path, text):
    made = import_recipe(write(tmp_path, text))
    assert made.settings == {"train_on": "all", "use_rslora": True}
    assert made.left == {}
    assert import_recipe(write(tmp_path, text.replace("true", "false"))).settings == {"use_rslora": False}


def test_half_an_epoch_is_left_with_the_reason(tmp_path):
    made = import_recipe(write(tmp_path, "base_model: a\nnum_epochs: 0.5"))
    assert "max_steps" in made.left["num_epochs"]
    assert made.settings == {}


def test_the_written_file_is_a_recipe(tmp_path):
    from shell import run, run_json

    path = write(tmp_path, AXOLOTL)
    done = run("recipe", "import", path, "-o", tmp_path / "mine.yaml")
    assert "not taken: special_tokens" in done.stderr
    assert "perdure init DIR --model NousResearch/Meta-Llama-3-8B" in done.stderr
    made = import_recipe(path)
    written = load_recipe(tmp_path / "mine.yaml").to_json()
    assert {**written, "name": "dual_replay"} == made.recipe.to_json()
    assert run_json("recipe", "import", path)["settings"] == made.settings
    before = (tmp_path / "mine.yaml").read_bytes()
    assert "is there already" in run("recipe", "import", path, "-o", tmp_path / "mine.yaml", code=1).stderr
    assert (tmp_path / "mine.yaml").read_bytes() == before
    assert yaml.safe_load(run("recipe", "import", path).stdout)["max_steps"] == 200
