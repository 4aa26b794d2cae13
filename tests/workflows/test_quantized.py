"""A workspace whose base is in 4 or 8 bits: learn, score, go on, export, and what is refused."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from perdure import Workspace
from perdure.bridges.models import load_base
from perdure.core.errors import BadInput, BadSpec, BrokenStore

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4}


def rows(path, word):
    lines = [
        {"text": f"{word} number {i}", "label": f"{word} {'late' if i % 2 else 'other'}", "split": split}
        for split, start in (("train", 0), ("test", 100))
        for i in range(start, start + 8)
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["nf4", "int8"])
def learned(request, tiny_model, tmp_path_factory):
    """A workspace in each format that learned a task, and the folder that it is in."""
    folder = tmp_path_factory.mktemp(request.param)
    ws = Workspace.init(folder / "ws", str(tiny_model), quantization=request.param)
    ws.learn("parcel", rows(folder / "parcel.jsonl", "parcel"), overrides=FAST, gate=None)
    return ws, folder


def logits(ws, at="head"):
    ids = ws.tokenizer("parcel number 3", return_tensors="pt")["input_ids"]
    model = ws.model(at)
    with torch.no_grad(), ws.runtime.precision():
        return model(input_ids=ids).logits.float()


def test_it_learns_and_a_workspace_opened_anew_has_the_same_bits(learned):
    ws, folder = learned
    before, after = logits(ws, "head~1"), logits(ws)
    assert not torch.equal(before, after)
    again = Workspace.open(folder / "ws")
    assert torch.equal(logits(again), after)
    assert torch.equal(logits(again, "head~1"), before)
    assert ws.verify().ok


def test_show_and_the_report_name_the_format_beside_the_base(learned, tmp_path):
    from typer.testing import CliRunner

    from perdure.cli.main import app

    ws, folder = learned
    kind, page = ws.ledger.config["quantization"], tmp_path / "page.html"
    base = ws.ledger.resolve("base").base[:12]
    assert f"{base}, linear layers in {kind}" in CliRunner().invoke(app, ["-w", str(folder / "ws"), "show"]).stdout
    done = CliRunner().invoke(app, ["-w", str(folder / "ws"), "report", "-o", str(page), "--json"])
    assert json.loads(done.stdout) == {"path": str(page), "bytes": page.stat().st_size, "entries": 2}
    assert f"{base[:8]}, {kind}" in page.read_text(encoding="utf-8")


def test_a_second_task_trains_over_it(learned, tmp_path):
    _, folder = learned
    for recipe in ("ewc", {"methods": {"o_lora": {}}}):  # gradients a row, and a second adapter over a first
        place = tmp_path / str(len(str(recipe)))
        shutil.copytree(folder / "ws", place)
        other = Workspace.open(place)
        before = logits(other)
        other.learn("refund", rows(tmp_path / "refund.jsonl", "refund"), recipe=recipe, overrides=FAST, gate=None)
        now = logits(other)
        assert torch.isfinite(now).all()
        assert not torch.equal(now, before)


def test_a_row_in_a_batch_has_the_logits_that_it_has_alone(learned):
    ws, _ = learned
    base = load_base(ws.session.base_folder, "float32", "cpu", ws.ledger.config["quantization"])
    ids = torch.randint(0, base.rows, (6, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = base.model(ids).logits
        alone = torch.cat([base.model(row[None]).logits for row in ids])
    assert torch.allclose(together, alone, atol=1e-4)


def test_gradients_are_those_over_the_dequantised_weights_before_and_after_a_scoring(tiny_model):
    import bitsandbytes

    base = load_base(tiny_model, "float32", "cpu", "nf4")
    plain = load_base(tiny_model, "float32", "cpu")
    layers = dict(base.model.named_modules())
    for name, module in plain.model.named_modules():
        if isinstance(quantised := layers[name], bitsandbytes.nn.Linear4bit):
            weight = quantised.weight
            module.weight.data = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
    ids = torch.arange(12)[None]

    def gradient(model):
        given = model.get_input_embeddings()(ids).detach().requires_grad_()
        return torch.autograd.grad(model(inputs_embeds=given).logits.logsumexp(-1).sum(), given)[0]

    expected = gradient(plain.model)
    assert expected.abs().max() > 0
    assert torch.allclose(gradient(base.model), expected, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        base.model(ids)  # in which bitsandbytes would change the layout of the weights
    assert torch.allclose(gradient(base.model), expected, rtol=1e-3, atol=1e-4)


def test_it_is_another_base_in_less_memory(learned, tiny_model, tmp_path):
    ws, _ = learned
    plain = Workspace.init(tmp_path / "plain", str(tiny_model), dtype="bfloat16")
    assert "quantization" not in plain.ledger.config
    assert ws.ledger.config["base"] != plain.ledger.config["base"]

    def size(workspace):
        named = workspace.runtime.base.model.named_parameters()
        return sum(value.nbytes for name, value in named if name.endswith("_proj.weight"))

    assert ws.status().to_json()["quantization"] == ws.ledger.config["quantization"]
    assert "quantization" not in plain.status().to_json()
    at_most = {"nf4": 0.25, "int8": 0.5}
    assert size(ws) <= at_most[ws.ledger.config["quantization"]] * size(plain)


def test_the_adapter_is_exported_and_peft_loads_it_over_the_same_quantised_base(learned, tmp_path):
    from peft import PeftModel

    ws, _ = learned
    kind = ws.ledger.config["quantization"]
    expected = logits(ws)
    ws.export(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert f"a base in {kind}" in card
    base = load_base(ws.session.base_folder, ws.ledger.config["dtype"], "cpu", kind)
    served = PeftModel.from_pretrained(base.model, str(tmp_path / "out"))
    ids = ws.tokenizer("parcel number 3", return_tensors="pt")["input_ids"]
    with torch.no_grad(), base.precision():
        assert torch.allclose(served(input_ids=ids).logits.float(), expected, atol=0.05)


def test_what_needs_plain_weights_is_refused_with_the_reason(learned, tmp_path):
    ws, _ = learned
    kind = ws.ledger.config["quantization"]
    head = ws.ledger.resolve("head").id
    with pytest.raises(BadInput, match=f"weights in {kind}"):
        ws.export(tmp_path / "merged", merged=True)
    assert not (tmp_path / "merged").exists()
    with pytest.raises(BadSpec, match=f"those of this workspace are quantised \\({kind}\\)"):
        ws.plan("all", rows(tmp_path / "all.jsonl", "all"), recipe="full")
    with pytest.raises(BadInput, match="quantised"):
        ws.edit([{"prompt": "{} is in", "subject": "Rome", "target": "Italy"}])
    assert ws.ledger.resolve("head").id == head


def test_a_kind_that_is_none_and_a_missing_package_are_named_before_anything_is_made(tiny_model, tmp_path, monkeypatch):
    with pytest.raises(BadInput, match="unknown quantization 'gptq'; choose nf4 or int8"):
        Workspace.init(tmp_path / "ws", str(tiny_model), quantization="gptq")
    monkeypatch.setattr("perdure.bridges.quantization.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'perdure\[quantization\]'"):
        Workspace.init(tmp_path / "ws", str(tiny_model), quantization="nf4")
    assert not (tmp_path / "ws").exists()


def test_a_weight_that_is_no_number_is_named_before_it_is_rounded(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("down_proj.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(BadInput, match=f"{name} in .* holds NaN"):
        Workspace.init(tmp_path / "ws", str(tmp_path / "model"), quantization="nf4")


def test_a_damaged_kind_in_the_workspace_is_named(learned, tmp_path):
    _, folder = learned
    shutil.copytree(folder / "ws", tmp_path / "ws")
    path = tmp_path / "ws" / "perdure.json"
    path.write_text(path.read_text().replace('"quantization": "', '"quantization": "x'))
    with pytest.raises(BrokenStore, match="quantization"):
        Workspace.open(tmp_path / "ws").model("head")


def test_a_model_that_is_quantised_already_is_refused_by_its_method(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq", "bits": 4}}))
    with pytest.raises(BadInput, match="quantised \\(gptq\\)"):
        Workspace.init(tmp_path / "ws", str(tmp_path / "model"), quantization="nf4")


def test_the_weight_that_a_method_reads_is_the_one_that_the_model_computes_with(learned):
    ws, _ = learned
    ws.model()
    name = "model.layers.0.mlp.down_proj"
    layer = ws.runtime.model.get_base_model().get_submodule(name).base_layer
    x = torch.eye(layer.in_features)
    with torch.no_grad(), ws.runtime.precision():
        seen = layer(x).float().T
    weight = ws.runtime.weight(name)
    assert weight.shape == (layer.out_features, layer.in_features)
    torch.testing.assert_close(weight, seen, rtol=0.02, atol=0.02 * weight.abs().max().item())
