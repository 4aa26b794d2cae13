"""Short rows share the lines of a batch in a learn, which changes time and rounding, and nothing else."""

import json

import pytest
import torch

from perdure import Workspace
from perdure.model.batch import Batch
from perdure.model.forward import Tokens

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 8, "learning_rate": 1e-3}


@pytest.fixture
def rows(tmp_path):
    lines = [
        {"text": f"{i} " + "parcel " * (30 if i % 8 == 0 else 1), "label": "late" if i % 2 else "lost", "split": split}
        for split, start in (("train", 0), ("test", 100))
        for i in range(start, start + 16)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return path


def learned(tiny_model, folder, rows, monkeypatch, older=False, **overrides):
    """Return the weights after two learns, and the batches that were run."""
    batches: list[Batch] = []
    forward = Tokens.forward

    def watched(self, model, batch, *more):
        batches.append(batch)
        return forward(self, model, batch, *more)

    ws = Workspace.init(folder, str(tiny_model), dtype="float32")
    if older:
        config = ws.ledger.root / "perdure.json"
        config.write_text(config.read_text().replace('"packing": true', '"packing": false'))
        ws = Workspace.open(folder)
    monkeypatch.setattr(Tokens, "forward", watched)
    for task in ("first", "second"):
        ws.learn(task, rows, overrides={**FAST, **overrides}, gate=None, allow_leaks=True)
    monkeypatch.setattr(Tokens, "forward", forward)
    weights = {name: value for name, value in ws.model("head").state_dict().items() if ".lora_" in name}
    return weights, batches, ws


def test_a_learn_packs_and_comes_to_the_same_weights_up_to_rounding(tiny_model, tmp_path, rows, monkeypatch):
    packed, with_it, _ = learned(tiny_model, tmp_path / "packed", rows, monkeypatch)
    plain, without, _ = learned(tiny_model, tmp_path / "plain", rows, monkeypatch, packing=False)
    assert any(batch.packing for batch in with_it)
    assert not any(batch.packing for batch in without)
    assert sum(batch.padded_tokens for batch in with_it) < 0.9 * sum(batch.padded_tokens for batch in without)
    assert packed.keys() == plain.keys()
    moved = max(value.abs().max() for name, value in packed.items() if ".lora_B" in name)
    assert moved > 1e-3
    assert all(torch.allclose(packed[name], plain[name], atol=0.02 * moved) for name in packed)


def test_a_workspace_that_knows_of_no_packing_goes_on_without(tiny_model, tmp_path, rows, monkeypatch):
    _, batches, _ = learned(tiny_model, tmp_path / "ws", rows, monkeypatch, older=True)
    assert batches
    assert not any(batch.packing for batch in batches)


def test_a_batch_that_does_not_fit_is_computed_again_in_the_backward_and_the_entry_is_the_same(
    tiny_model, tmp_path, rows, monkeypatch
):
    from perdure.bridges import runtime, sizes

    plain = Workspace.init(tmp_path / "plain", str(tiny_model), dtype="float32")
    done = plain.learn("first", rows, overrides=FAST, gate=None)
    small = sizes.weight_bytes(tiny_model) + 200_000  # logits and block inputs fit, activations do not
    monkeypatch.setattr(sizes, "memory_bytes", lambda device="auto": small)
    switched = []
    recompute = runtime.recompute_blocks
    monkeypatch.setattr(runtime, "recompute_blocks", lambda *words: (switched.append(words), recompute(*words)))
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32")
    again = ws.learn("first", rows, overrides=FAST, gate=None)
    assert switched
    assert any("gradient checkpointing is on for this learn" in warning for warning in again.warnings)
    assert not any("gradient checkpointing" in warning for warning in done.warnings)
    old, new = (w.ledger.resolve("head") for w in (plain, ws))
    assert old.recipe == new.recipe
