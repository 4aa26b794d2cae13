"""A workspace whose base runs an implementation of attention that was named: recorded, used at every load, in no id."""

import json
import shutil

import pytest
import torch

from perdure import Workspace
from perdure.bridges.attention import refuse_every_weight
from perdure.bridges.export import load_merged
from perdure.core.errors import BadInput, BadSpec, BrokenStore
from perdure.model.probing import _exact_copy


@pytest.fixture(scope="module")
def eager(tiny_model, tmp_path_factory):
    return Workspace.init(
        tmp_path_factory.mktemp("eager") / "ws", str(tiny_model), dtype="float32", attn_implementation="eager"
    )


def attention_of(ws):
    return ws.runtime.base.model.config._attn_implementation


def test_it_is_used_wherever_the_base_is_loaded_and_in_no_id(eager, tiny_model, tmp_path):
    assert json.loads((eager.ledger.root / "perdure.json").read_text())["attn_implementation"] == "eager"
    again = Workspace.open(shutil.copytree(eager.ledger.root, tmp_path / "ws"))
    assert attention_of(again) == "eager"
    assert again.verify().ok
    again.runtime.start_dense()
    assert attention_of(again) == "eager"  # loaded again in float32
    assert load_merged(tiny_model, again.runtime.base).model.config._attn_implementation == "eager"

    plain = Workspace.init(tmp_path / "plain", str(tiny_model), dtype="float32")
    assert "attn_implementation" not in plain.ledger.config
    assert attention_of(plain) == "sdpa"
    assert plain.ledger.resolve("head").id == eager.ledger.resolve("head").id
    ids = torch.arange(20)[None]
    with torch.no_grad():
        eagerly, fused = (ws.model()(input_ids=ids).logits for ws in (eager, plain))
    torch.testing.assert_close(eagerly, fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flash_attention_2", "attn_implementation flash_attention_2: .*installed; choose eager or sdpa"),
        ("quick", "attn_implementation quick: .*is not supported.*; choose eager or sdpa"),
        ("kernels-community/flash-attn", "perdure fetches no code; choose eager, sdpa"),
        (" ", "no implementation that is installed here"),
    ],
)
def test_one_that_cannot_run_here_is_refused_with_its_reason_and_nothing_is_made(tiny_model, tmp_path, name, words):
    with pytest.raises(BadInput, match=words) as caught:
        Workspace.init(tmp_path / "ws", str(tiny_model), attn_implementation=name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ws").exists()


def test_a_model_that_runs_another_one_is_refused(tiny_model, tmp_path, monkeypatch):
    from transformers import LlamaForCausalLM

    monkeypatch.setattr(LlamaForCausalLM, "get_correct_attn_implementation", lambda *_, **__: "sdpa")
    with pytest.raises(BadInput, match="attn_implementation eager: LlamaForCausalLM runs sdpa in its place"):
        Workspace.init(tmp_path / "ws", str(tiny_model), attn_implementation="eager")


def test_a_damaged_record_of_it_is_refused(eager, tmp_path):
    root = shutil.copytree(eager.ledger.root, tmp_path / "ws")
    config = json.loads((root / "perdure.json").read_text())
    (root / "perdure.json").write_text(json.dumps({**config, "attn_implementation": 3}))
    with pytest.raises(BrokenStore, match="attn_implementation"):
        Workspace.open(root)


def test_kernels_of_16_bits_train_no_float32_and_are_measured_as_they_are(eager):
    refuse_every_weight(None)
    refuse_every_weight("sdpa")
    with pytest.raises(BadSpec, match="train: full computes in float32, and flash_attention_2 in 16 bits alone"):
        refuse_every_weight("flash_attention_2")
    narrow = type(eager.runtime.base.model)(eager.runtime.base.model.config).bfloat16()
    assert next(_exact_copy(narrow).parameters()).dtype == torch.float32
    narrow.config._attn_implementation_internal = "flash_attention_2"
    assert _exact_copy(narrow) is narrow
