"""An export is what was scored: PEFT and transformers load it and compute what the workspace computes."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import perdure
from perdure.bridges import export as bridge
from perdure.core.errors import BadInput, BadSpec, NotFound, PerdureError
from perdure.workflows.export.export import new_folder
from perdure.workflows.export.result import FactsCheck, LostFact, MergedExport

QUICK = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "learning_rate": 0.02}


def write_rows(path: Path, word: str) -> Path:
    rows = [
        {"text": f"{word} {i}", "label": ["refund", "parcel"][i % 2], "split": "test" if i % 4 > 1 else "train"}
        for i in range(16)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ws(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    made = perdure.Workspace.init(folder / "ws", model=str(tiny_model), dtype="float32")
    for task in ("shop", "post"):
        made.learn(task, write_rows(folder / f"{task}.jsonl", task), overrides=QUICK, gate=None)
    return made


@pytest.fixture(scope="module")
def ids(ws):
    return ws.tokenizer("Classify the text.\nText: shop 3\nLabel:", return_tensors="pt")["input_ids"]


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=ids).logits


def two_slots(ws, monkeypatch) -> None:
    """Let the head carry a second slot of another rank and scale, on some modules, as a task of a sum has."""
    real = ws.ledger.slots
    skill = ws.ledger.objects.get(real(ws.ledger.resolve("head"))["skill"])
    module = next(name.removesuffix(".down") for name in skill if name.endswith("down_proj.down"))
    torch.manual_seed(1)
    down, up = skill[f"{module}.down"], skill[f"{module}.up"]
    other = {
        f"{module}.down": torch.randn(3, down.shape[1]),
        f"{module}.up": 0.1 * torch.randn(up.shape[0], 3),
        f"{module}.scale": torch.tensor(1.0, dtype=torch.float64),
    }
    stored = ws.ledger.objects.put(other)
    monkeypatch.setattr(ws.ledger, "slots", lambda entry: {**real(entry), "sum:other": stored})


def test_peft_loads_an_adapter_that_computes_what_was_scored_to_the_bit(ws, ids, tiny_model, tmp_path):
    told = ws.export(tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    plain = logits(base, ids)
    loaded = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    assert torch.equal(logits(loaded, ids), logits(ws.model(), ids))
    assert not torch.allclose(logits(loaded, ids), plain, atol=1e-3)
    assert told.kind == "adapter"
    assert told.entry == ws.ledger.resolve("head").id
    assert told.rank == 16  # 12, and zeros up to the next rank that vLLM takes
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= set(told.files)
    json.dumps(told.to_json())
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    (tmp_path / "plain").touch()
    assert modes == {(tmp_path / "plain").stat().st_mode & 0o777}


def test_an_adapter_with_the_scale_of_rslora_is_exported_as_a_plain_one_and_goes_on(ids, tiny_model, tmp_path):
    ws, words = perdure.Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32"), {**QUICK, "use_rslora": True}
    for task in ("refund", "parcel"):
        ws.learn(task, write_rows(tmp_path / f"{task}.jsonl", task), overrides=words, gate=None)
    bill = write_rows(tmp_path / "bill.jsonl", "bill")
    assert ws.plan("bill", bill, overrides=QUICK).recipe.settings.use_rslora  # head goes on in its own shape
    with pytest.raises(BadSpec, match="keep lora_r, lora_alpha, use_rslora and"):
        ws.plan("bill", bill, overrides={**QUICK, "lora_alpha": 4.0})
    expected = logits(ws.model(), ids)
    ws.export(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert not config["use_rslora"]
    assert config["lora_alpha"] / config["r"] == pytest.approx(24 / 12**0.5)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    torch.testing.assert_close(logits(loaded, ids), expected, rtol=1e-4, atol=1e-4)


def test_the_adapter_directory_is_one_that_vllm_takes(ws, tiny_model, tmp_path):
    ws.export(tmp_path / "out")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"]) == (16, 32)
    assert set(config["target_modules"]) == {"gate_proj", "up_proj", "down_proj"}
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert config["task_type"] == "CAUSAL_LM"
    assert config["inference_mode"] is True
    assert not config["rank_pattern"]
    assert not config["alpha_pattern"]
    assert not config["use_rslora"]
    assert not config["use_dora"]
    assert config["modules_to_save"] is None
    tensors = load_file(tmp_path / "out/adapter_model.safetensors")
    assert "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight" in tensors
    assert {value.dtype for value in tensors.values()} == {torch.float32}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == ws.tokenizer.chat_template


def test_slots_of_other_ranks_and_scales_become_one_uniform_adapter(ws, ids, tiny_model, tmp_path, monkeypatch):
    two_slots(ws, monkeypatch)
    told = ws.export(tmp_path / "out")
    assert told.rank == 16  # 8 + 3
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    loaded = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    torch.testing.assert_close(logits(loaded, ids), logits(ws.model(), ids), rtol=1e-5, atol=1e-5)
    config = json.loads((tmp_path / "out/adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (16, 16, {})


def test_an_older_state_can_be_exported(ws, ids, tiny_model, tmp_path):
    ws.export(tmp_path / "out", at="head~1")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    loaded = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    assert torch.equal(logits(loaded, ids), logits(ws.model("head~1"), ids))
    assert not torch.equal(logits(loaded, ids), logits(ws.model("head"), ids))


def test_recompression_reports_what_it_lost(ws, tmp_path):
    errors = [ws.export(tmp_path / f"out{rank}", rank=rank).relative_error for rank in (1, 4, 12)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] < 1
    assert errors[2] < 1e-12  # nothing had to go
    tensors = load_file(tmp_path / "out4/adapter_model.safetensors")
    assert {value.shape[0] for name, value in tensors.items() if "lora_A" in name} == {4}
    assert "were not scored since" in (tmp_path / "out4/README.md").read_text(encoding="utf-8")


def test_a_merged_model_loads_without_peft_and_agrees_within_the_stated_tolerance(ws, ids, tiny_model, tmp_path):
    told = ws.export(tmp_path / "out", merged=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert 0 < told.difference <= told.tolerance
    torch.testing.assert_close(logits(model, ids), logits(ws.model(), ids), rtol=1e-4, atol=1e-4)
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    assert not torch.allclose(logits(model, ids), logits(base, ids), atol=1e-3)
    assert told.kind == "merged"
    assert told.rank is None
    assert "adapter_config.json" not in told.files
    assert torch.equal(logits(ws.model("base"), ids), logits(base, ids))  # the base in memory was not written


def test_a_merged_model_that_disagrees_is_refused_and_nothing_stays(ws, tmp_path, monkeypatch):
    monkeypatch.setattr(bridge, "TOLERANCE", {torch.float32: 1e-12})
    with pytest.raises(PerdureError, match="nothing was written"):
        ws.export(tmp_path / "out", merged=True)
    assert list(tmp_path.iterdir()) == []


def test_the_base_is_exported_merged_alone(ws, ids, tmp_path):
    with pytest.raises(BadInput, match="--merged"):
        ws.export(tmp_path / "out", at="base")
    assert ws.export(tmp_path / "out", at="base", merged=True).difference == 0
    assert torch.equal(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval(), ids), logits(ws.model("base"), ids)
    )


def test_a_state_of_dense_weights_is_exported_merged_alone(tiny_model, tmp_path, ids):
    ws = perdure.Workspace.init(tmp_path / "ws", model=str(tiny_model), dtype="float32")
    overrides = {**QUICK, "learning_rate": 1e-3}
    ws.learn("shop", write_rows(tmp_path / "shop.jsonl", "shop"), recipe="full", overrides=overrides, gate=None)
    with pytest.raises(BadInput, match="every weight"):
        ws.export(tmp_path / "out")
    ws.export(tmp_path / "out", merged=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    assert torch.equal(logits(model, ids), logits(ws.model(), ids))


def test_the_card_says_what_it_is_and_what_it_can_do(ws, tmp_path):
    ws.export(tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "peft"
    assert front["base_model"] == ws.ledger.config["model"]
    assert front["pipeline_tag"] == "text-generation"
    head = ws.ledger.resolve("head")
    for told in (
        head.id,
        ws.ledger.config["base"],
        head.data["train"][:12],
        "lora_mlp",
        "torch 2",
        "Gate: **off** (",
    ):
        assert told in text
    for task, record in ws.evaluate().tasks.items():
        assert f"| {task} | exact | {100 * record.score:.1f}% |" in text
        assert f"| {record.n} |" in text
    for metric in ("acc", "bwt", "forgetting", "learning_accuracy"):
        assert f"| {metric} |" in text
    assert "PeftModel.from_pretrained" in text
    assert "--max-lora-rank 16" in text


@pytest.mark.parametrize(
    ("options", "error"),
    [({"at": "nowhere"}, NotFound), ({"rank": 0}, BadInput), ({"rank": 4, "merged": True}, BadInput)],
)
def test_bad_wishes_are_refused_before_anything_is_written(ws, tmp_path, options, error):
    with pytest.raises(error):
        ws.export(tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_never_touched(ws, tmp_path):
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(BadInput, match="not an empty folder"):
        ws.export(tmp_path)
    with pytest.raises(BadInput, match="not an empty folder"):
        ws.export(tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    assert ws.export(tmp_path / "empty").files


def test_a_full_disk_leaves_no_folder(tmp_path):
    def fill() -> None:
        with new_folder(tmp_path / "out") as aside:
            (aside / "half").write_text("half", encoding="utf-8")
            raise OSError(28, "No space left on device")

    with pytest.raises(PerdureError, match="No space left"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_above_the_cap_is_refused_with_the_ways_out(ws, tmp_path, monkeypatch):
    two_slots(ws, monkeypatch)  # rank 15
    with pytest.raises(BadInput, match=r"rank 15, above the cap of 14;.*--merged.*--rank 14.*--max-rank"):
        ws.export(tmp_path / "out", max_rank=14)
    with pytest.raises(BadInput, match="from 1 to the cap of 14, got 15"):
        ws.export(tmp_path / "out", rank=15, max_rank=14)
    assert list(tmp_path.iterdir()) == []
    assert ws.export(tmp_path / "fits", max_rank=15).rank == 15
    assert ws.export(tmp_path / "cut", rank=14, max_rank=14).rank == 14


def test_an_adapter_larger_than_any_that_vllm_serves_says_so(ws, tmp_path, monkeypatch):
    monkeypatch.setattr(bridge, "RANKS", (1, 4))
    told = ws.export(tmp_path / "out")
    assert (told.rank, told.max_lora_rank) == (12, None)
    card = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "vLLM serves no adapter of rank 12" in card
    assert "vllm serve" not in card


def test_what_a_server_computes_with_is_the_file_rounded(ws, tmp_path):
    ws.export(tmp_path / "out")
    tensors = load_file(tmp_path / "out/adapter_model.safetensors")
    found = bridge.as_served(tmp_path / "out", ws.runtime, torch.bfloat16)
    name = "model.layers.0.mlp.up_proj"
    for part, lora in (("down", "lora_A"), ("up", "lora_B")):
        value = tensors[f"base_model.model.{name}.{lora}.weight"]
        assert torch.equal(found[f"{name}.{part}"], value.bfloat16().float())
        assert not torch.equal(found[f"{name}.{part}"], value)
    assert found[f"{name}.scale"] == 2
    with pytest.raises(BadInput, match="unknown dtype 'int8'"):
        ws.export(tmp_path / "other", dtype="int8")


def test_held_out_text_is_told_where_the_rank_was_cut(ws, tmp_path):
    losses = [ws.export(tmp_path / f"out{rank}", rank=rank).held_out for rank in (1, 12)]
    assert losses[0].nll != losses[0].nll_before
    assert losses[1].nll == pytest.approx(losses[1].nll_before, abs=1e-5)
    whole = ws.export(tmp_path / "whole")
    assert list(whole.to_json()) == [
        *("folder", "entry", "task", "kind", "files", "rank", "max_lora_rank", "experts", "dtype", "facts")
    ]
    cut = replace(whole, relative_error=0.1, held_out=losses[0]).to_json()
    assert list(cut)[7:] == ["relative_error", "experts", "dtype", "facts", "held_out"]


def test_the_keys_of_a_merged_export_stay():
    check = FactsCheck(2, 2, 1, (LostFact("f", "Ann"),), 0.1, 0.2)
    made = MergedExport(folder="out", entry="e", task=None, difference=0.1, tolerance=0.2, facts=check).to_json()
    assert list(made) == [*("folder", "entry", "task", "kind", "files", "rank", "difference", "tolerance", "facts")]
    assert list(made["facts"]) == ["n", "said_before", "said", "lost", "nll_before", "nll"]


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("options", [{}, {"merged": True}, {"rank": 2}], ids=["adapter", "merged", "rank"])
def test_two_exports_of_an_entry_are_equal_to_the_byte(ws, tmp_path, monkeypatch, options):
    from peft import LoraConfig

    ws.export(tmp_path / "a", **options)
    write = LoraConfig.save_pretrained

    def backwards(self, *args, **kwargs):  # the order in which a set comes is chance
        self.target_modules = sorted(self.target_modules, reverse=True)
        write(self, *args, **kwargs)

    monkeypatch.setattr(LoraConfig, "save_pretrained", backwards)
    perdure.Workspace.open(ws.ledger.root).export(tmp_path / "b", **options)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    if not options.get("merged"):
        modules = json.loads((tmp_path / "b" / "adapter_config.json").read_text())["target_modules"]
        assert modules == sorted(modules)


def test_an_export_removes_what_a_killed_one_left_and_makes_none_among_the_workspaces_files(ws, tmp_path):
    left = tmp_path / ".x.perdure-abcdefgh"
    left.mkdir()
    (left / "half").write_text("half")
    os.utime(left, (0, 0))
    ws.export(tmp_path / "x")
    assert not left.exists()
    for place in ("runs", "objects/new", "lock/x"):
        with pytest.raises(BadInput, match="belongs to the workspace"):
            ws.export(ws.ledger.root / place)
