"""An adapter goes on in its own shape when the default of a recipe changes."""

import json

import pytest

from perdure import Workspace
from perdure.core.errors import BadSpec
from perdure.methods import registry

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop"}


@pytest.fixture
def ws(tiny_model, tmp_path, monkeypatch):
    """A workspace with a task of the shipped recipe, whose default is another one since."""
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", guards="none")
    for name in ("first", "second"):
        rows = [{"text": f"{name} {n}", "label": "refund" if n % 2 else "parcel"} for n in range(12)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    ws.learn("first", tmp_path / "first.jsonl", recipe="naive", overrides=FAST)
    real = registry.recipe_spec

    def changed(name, overrides=None):
        newer = {"lora_r": 4, "lora_alpha": 8.0, "lora_target_modules": ["down_proj"]} if name == "naive" else {}
        return real(name, {**newer, **(overrides or {})})

    monkeypatch.setattr(registry, "recipe_spec", changed)
    return ws


def learn(ws, **overrides):
    return ws.learn("second", ws.ledger.root.parent / "second.jsonl", recipe="naive", overrides=FAST | overrides)


def modules(ws, entry):
    return ws.ledger.objects.get(ws.ledger.slots(ws.ledger.entry(entry))["skill"]).keys()


def test_head_goes_on_in_its_own_shape(ws):
    done = learn(ws)
    (told,) = [text for text in done.warnings if "head's adapter goes on as it is" in text]
    assert "lora_r: 8" in told
    assert "lora_target_modules: all-linear" in told
    first, second = (ws.ledger.entry(one) for one in (ws.log()[1].entry, done.entry))
    assert {key: second.recipe[key] for key in ("lora_r", "lora_alpha", "lora_target_modules")} == {
        key: first.recipe[key] for key in ("lora_r", "lora_alpha", "lora_target_modules")
    }
    assert modules(ws, first.id) == modules(ws, second.id)


def test_a_new_adapter_has_the_new_shape(ws):
    ws.rollback("base")
    done = learn(ws)
    assert ws.ledger.entry(done.entry).recipe["lora_r"] == 4
    assert all("down_proj" in name for name in modules(ws, done.entry))


def test_a_shape_that_the_user_wants_is_refused_as_before(ws):
    with pytest.raises(BadSpec, match="differ from the adapter that head goes on training"):
        learn(ws, lora_r=2)
    assert learn(ws, start="base").moved


def test_what_the_user_did_not_change_of_a_shape_goes_on_beside_what_the_user_did(ws):
    assert "lora_target_modules: all-linear" in learn(ws, lora_r=8).warnings[0]  # 8 is head's, and 4 the recipe's
    with pytest.raises(BadSpec, match="differ from the adapter that head goes on training"):
        learn(ws, lora_r=8, lora_target_modules=["up_proj"])
