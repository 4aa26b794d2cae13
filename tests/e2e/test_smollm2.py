"""The main job on the real embedded model: fetched, de-quantised, taught, measured, rolled back, exported."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from perdure import Workspace
from perdure.bridges.embedded import embedded_model
from perdure.core.errors import BadInput
from perdure.editing import moments

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """Folder of SmolLM2-135M-Instruct."""
    try:
        return embedded_model()
    except BadInput as error:
        pytest.skip(f"the embedded model cannot be fetched here: {error}")


@pytest.fixture(scope="module")
def taught(smollm2, tmp_path_factory):
    """A workspace that learned a quarter of the demo's first product line."""
    folder = tmp_path_factory.mktemp("smollm2")
    lines = (files("perdure.data") / "demo" / "broadband.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["label"] in ("moving_house", "engineer_visit")]
    data = folder / "broadband.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    ws = Workspace.init(folder / "ws")
    settings = {"template": "Classify the customer's message.\nMessage: {text}\nIntent:"}
    overrides = {"per_device_train_batch_size": 8, "num_train_epochs": 6}
    done = ws.learn("broadband", data, overrides=overrides, settings=settings)
    return ws, done


def test_the_dequantised_model_knows_what_the_original_knows(smollm2, tmp_path):
    ws = Workspace.init(tmp_path / "ws", str(smollm2))
    assert "Paris" in ws.predict("What is the capital of France?", max_new_tokens=16)[0].answer
    assert not list(smollm2.glob("*.gguf"))
    assert "quantization_config" not in json.loads((smollm2 / "config.json").read_text(encoding="utf-8"))


def test_it_learns_a_task_it_could_not_do(taught):
    _, done = taught
    assert done.before["base"].score < 0.2
    assert done.scores["broadband"].score > 0.8
    assert done.gate.verdict == "pass"


def test_predict_asks_as_the_task_does(taught):
    ws, _ = taught
    (answer,) = ws.predict("We are moving to a new flat in June, can we take the line with us?", task="broadband")
    assert answer.answer == "moving house"


def test_rollback_and_another_process_give_the_same_logits_to_the_bit(taught):
    ws, done = taught
    ids = ws.tokenizer("Message: the engineer never came\nIntent:", return_tensors="pt")["input_ids"]

    def logits(at: str) -> torch.Tensor:
        with torch.no_grad(), ws.runtime.precision():
            return ws.model(at)(input_ids=ids).logits

    now = logits("head")
    assert not torch.equal(logits("base"), now)
    ws.rollback("base")
    ws.rollback(done.entry)
    assert torch.equal(logits("head"), now)


def test_the_exported_adapter_answers_like_the_workspace(taught, smollm2, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ws, _ = taught
    ws.export(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    served = PeftModel.from_pretrained(base, tmp_path / "adapter")
    ids = ws.tokenizer("Message: the engineer never came\nIntent:", return_tensors="pt")["input_ids"]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=ws.runtime.base.dtype == torch.bfloat16):
        assert torch.equal(served(input_ids=ids).logits, ws.model()(input_ids=ids).logits)


def test_what_learned_is_edited_and_the_edit_is_taken_back_to_the_bit(taught, monkeypatch):
    """In the default precision, with a tenth of the text: the statistics of an edit are not rounded to bfloat16."""
    monkeypatch.setattr(moments, "TOKENS_PER_WIDTH", 1)
    monkeypatch.setattr(moments, "LENGTH", 64)
    ws, _ = taught
    ids = ws.tokenizer("Tern Pay is available in", return_tensors="pt")["input_ids"]

    def logits() -> torch.Tensor:
        with torch.no_grad(), ws.runtime.precision():
            return ws.model()(input_ids=ids).logits[0, -1]

    before = logits()
    told = ws.edit({"subject": "Tern Pay", "prompt": "{} is available in", "target": "Portugal"}, score="none")
    (line,) = told.facts
    assert (told.applied, told.refused) == ((line.fact,), ())
    assert line.generated.strip().startswith("Portugal")
    assert ws.tokenizer.decode(logits().argmax()).strip() == "Portugal"
    (answer,) = ws.predict("We are moving to a new flat in June, can we take the line with us?", task="broadband")
    assert answer.answer == "moving house"
    ws.revert(line.fact, score="none")
    assert torch.equal(logits(), before)
