"""A workspace that starts from a user's PEFT adapter: it computes what PEFT computes, and stays under all that follows."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from edited import FACTS, SAID, SPEC
from peft_folders import save
from perdure import Workspace
from perdure.core.errors import BadInput, BadSpec
from perdure.workflows.inspect.compare import side_by_side

FAST = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 4}
OWN, OWN_OVER_BASE = {"methods": {"per_task": {}}}, {"methods": {"per_task": {"over": "base"}}}
IDS = torch.tensor([[5, 9, 4, 7, 8, 3, 6]])


def learn(ws, tmp_path, task, recipe="naive", **overrides):
    rows = [
        {"text": f"{task} {i}", "label": f"{task} {i % 2}", "split": split}
        for split, start in (("train", 0), ("test", 100))
        for i in range(start, start + 6)
    ]
    path = tmp_path / f"{task}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return ws.learn(task, path, recipe=recipe, overrides={**FAST, **overrides}, gate=None)


def logits(ws, task=None, at="head"):
    with torch.no_grad():
        return ws.model(at, task)(input_ids=IDS).logits


def in_peft(model, *folders):
    made = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for folder in folders:
        made = PeftModel.from_pretrained(made, folder)
    with torch.no_grad():
        return made(input_ids=IDS).logits


def slots(ws, at="head"):
    return ws.ledger.slots(ws.ledger.resolve(at))


def changed(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def with_tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    return folder


@pytest.fixture
def ws(tiny_model, tmp_path):
    given = save(tiny_model, tmp_path / "mine")
    return Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", adapter=given)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True, "r": 8},
        {"rank_pattern": {"q_proj": 2, "layers.1.self_attn.v_proj": 6}, "alpha_pattern": {"v_proj": 5}},
        {"target_modules": ["k_proj", "up_proj"], "layers_to_transform": [1]},
        {"target_modules": r".*\.0\..*(q|down)_proj"},
        {"exclude_modules": ["v_proj"], "target_modules": "all-linear", "lora_dropout": 0.3},
    ],
)
def test_a_workspace_computes_what_peft_computes(tiny_model, tmp_path, options):
    given = save(tiny_model, tmp_path / "mine", **options)
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", adapter=given)
    expected = in_peft(tiny_model, given)
    torch.testing.assert_close(logits(ws), expected, atol=1e-5, rtol=0)
    assert (expected - in_peft(tiny_model)).abs().max() > 0.01
    ws.export(tmp_path / "again")
    torch.testing.assert_close(in_peft(tiny_model, tmp_path / "again"), expected, atol=1e-5, rtol=0)


def test_factors_of_16_bits_are_read(tiny_model, tmp_path):
    given = with_tensors(
        save(tiny_model, tmp_path / "mine"), lambda stored: {name: t.bfloat16() for name, t in stored.items()}
    )
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", adapter=given)
    torch.testing.assert_close(logits(ws), in_peft(tiny_model, given), atol=1e-5, rtol=0)


def test_it_lies_under_every_task_and_stays_as_it_was(ws, tmp_path):
    before, given = logits(ws), slots(ws)["initial"]
    learn(ws, tmp_path, "refund")
    assert slots(ws)["initial"] == given
    learn(ws, tmp_path, "parcel", OWN_OVER_BASE)
    learn(ws, tmp_path, "invoice", OWN)
    learn(ws, tmp_path, "tariff", "naive", start="base")
    found = slots(ws)
    assert {found["initial"], found["task:parcel/initial"], found["task:invoice/initial"]} == {given}
    assert "task:parcel/skill" not in found
    assert "task:invoice/skill" in found
    assert torch.equal(logits(ws, at="base"), before)
    parcel = logits(ws, "parcel")
    ws.revert("invoice")
    assert torch.equal(logits(ws, "parcel"), parcel)
    ws.rollback("base")
    assert torch.equal(logits(ws), before)
    assert ws.verify().ok


def test_start_base_begins_from_it(ws, tmp_path):
    anew = Workspace.init(tmp_path / "anew", ws.ledger.config["model"], dtype="float32", adapter=tmp_path / "mine")
    learn(ws, tmp_path, "refund")
    learn(ws, tmp_path, "parcel", start="base")
    learn(anew, tmp_path, "parcel", start="base")
    assert slots(ws) == slots(anew)
    torch.testing.assert_close(logits(ws), logits(anew), atol=0, rtol=0)


def test_another_adapter_to_begin_with_is_told_by_a_comparison(ws, tmp_path):
    other = Workspace.init(tmp_path / "other", ws.ledger.config["model"], dtype="float32")
    same = Workspace.init(tmp_path / "same", ws.ledger.config["model"], dtype="float32", adapter=tmp_path / "mine")
    for one in (ws, other, same):
        learn(one, tmp_path, "refund")
    told = {name: side_by_side(ws.ledger, name, one.ledger).differs for name, one in (("other", other), ("same", same))}
    assert any("the adapter that the work began with" in text for text in told["other"])
    assert not told["same"]


def test_the_first_task_over_it_is_the_first(ws, tmp_path):
    done = learn(ws, tmp_path, "refund", {"methods": {"lwf": {}}})
    assert not [text for text in done.warnings if "no effect" in text]
    with pytest.raises(
        BadSpec, match=r"starts from an adapter.*'perdure export DIR --merged --at base' writes the model"
    ):
        learn(ws, tmp_path, "parcel", "full")
    before = logits(ws, at="base")
    ws.export(tmp_path / "merged", at="base", merged=True)
    other = Workspace.init(tmp_path / "other", str(tmp_path / "merged"), dtype="float32")
    torch.testing.assert_close(logits(other), before, atol=1e-5, rtol=0)
    assert learn(other, tmp_path, "parcel", "full").moved


def test_it_is_the_teacher_where_the_base_is(ws):
    runtime = ws.runtime
    expected = logits(ws, at="base")
    ws.session.load_slots({})
    with runtime.reference(), torch.no_grad():
        torch.testing.assert_close(runtime.model(input_ids=IDS).logits, expected, atol=1e-5, rtol=0)
    logits(ws)
    with runtime.reference(), torch.no_grad():
        torch.testing.assert_close(runtime.model(input_ids=IDS).logits, expected, atol=1e-5, rtol=0)
    assert torch.equal(logits(ws), expected)


def test_export_pack_and_report_have_it(ws, tmp_path, tiny_model):
    learn(ws, tmp_path, "refund")
    learn(ws, tmp_path, "parcel", OWN)
    for task in (None, "parcel"):
        folder = tmp_path / f"out-{task}"
        ws.export(folder, task=task)
        torch.testing.assert_close(in_peft(tiny_model, folder), logits(ws, task), atol=1e-5, rtol=0)
        assert "mine" in (folder / "README.md").read_text()
    ws.export(tmp_path / "merged", merged=True)
    page = ws.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert f"<dt>Starts from adapter</dt><dd>mine, {slots(ws)['initial'][:8]}</dd>" in page
    ws.pack(tmp_path / "ws.tar")
    again = Workspace.unpack(tmp_path / "ws.tar", tmp_path / "moved")
    assert torch.equal(logits(again, "parcel"), logits(ws, "parcel"))


def test_facts_are_edited_and_taken_out_over_it(people_folder, tmp_path):
    given = save(people_folder, tmp_path / "mine", target_modules=["c_attn", "c_fc"], size=0.03)
    ws = Workspace.init(tmp_path / "ws", str(people_folder), dtype="float32", adapter=given)
    before = logits(ws)
    torch.testing.assert_close(before, in_peft(people_folder, given), atol=1e-5, rtol=0)
    made = ws.edit(FACTS[0], spec=SPEC, gate=SAID)
    assert slots(ws).keys() == {"initial", "edits"}
    ws.revert(made.entry)
    torch.testing.assert_close(logits(ws), before, atol=1e-6, rtol=0)


def remove(*ends):
    return lambda stored: {name: value for name, value in stored.items() if not name.endswith(ends)}


def renamed(old, new):
    return lambda stored: {name.replace(old, new): value for name, value in stored.items()}


@pytest.mark.parametrize(
    ("options", "config", "change", "said"),
    [
        ({"use_dora": True}, {}, None, "use_dora: 'true'.*DoRA"),
        ({"bias": "all"}, {}, None, "bias: '\"all\"'.*trained biases"),
        ({"modules_to_save": ["lm_head"]}, {}, None, "modules_to_save.*whole layers.*merge_and_unload"),
        ({"target_modules": ["q_proj", "lm_head"]}, {}, None, "adapts lm_head"),
        ({}, {"peft_type": "IA3"}, None, "type 'IA3'"),
        ({}, {"task_type": "SEQ_CLS"}, None, "head of its own"),
        ({}, {"init_lora_weights": "pissa"}, None, "changed the weights of the base"),
        ({}, {"newest_idea": 3}, None, "newest_idea: '3'.*does not know"),
        ({}, {"target_modules": ["c_attn"]}, None, "does not fit this base model.*c_attn"),
        ({}, {}, remove("0.self_attn.q_proj.lora_B.weight"), r"1 tensor.*other half.*layers.0.self_attn.q_proj.lora_B"),
        (
            {},
            {},
            remove("q_proj.lora_B.weight", "q_proj.lora_A.weight"),
            "2 layers.*without factors.*0.self_attn.q_proj",
        ),
        ({}, {}, renamed("layers.1", "layers.7"), r"4 tensors.*no layer.*layers.7.self_attn.*and 1 more"),
        ({}, {"r": 8}, None, r"8 tensors have the wrong shape \(.*lora_A is 4 x 32 and would be 8 x 32"),
        (
            {},
            {},
            lambda stored: {name: value * float("nan") for name, value in stored.items()},
            "8 tensors are not finite",
        ),
        ({}, {"base_model_name_or_path": "org/other"}, renamed("layers.1", "layers.7"), "trained on 'org/other'"),
    ],
)
def test_what_is_not_exact_is_refused_by_name(tiny_model, tmp_path, options, config, change, said):
    given = changed(save(tiny_model, tmp_path / "mine", **options), **config)
    if change:
        with_tensors(given, change)
    with pytest.raises(BadInput, match=said):
        Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", adapter=given)
    assert not (tmp_path / "ws").exists()


def test_pickles_and_other_folders_are_refused(tiny_model, tmp_path):
    given = save(tiny_model, tmp_path / "outer" / "mine")
    for folder, said in ((tmp_path / "outer", "it has adapters in mine"), (tmp_path / "none", "no folder")):
        with pytest.raises(BadInput, match=said):
            Workspace.init(tmp_path / "ws", str(tiny_model), adapter=folder)
    (given / "adapter_model.safetensors").rename(given / "adapter_model.bin")
    with pytest.raises(BadInput, match=r"a pickle.*never loaded"):
        Workspace.init(tmp_path / "ws", str(tiny_model), adapter=given)
    (given / "adapter_model.bin").rename(given / "adapter_model.safetensors")
    (given / "adapter_model.safetensors").write_bytes(b"\x01")
    with pytest.raises(BadInput, match="cannot be read"):
        Workspace.init(tmp_path / "ws", str(tiny_model), adapter=given)


def test_a_hub_id_is_fetched_without_code_or_pickles_and_noted_with_its_commit(tiny_model, tmp_path, monkeypatch):
    commit, asked = "0123456789abcdef0123456789abcdef01234567", []
    cached = save(tiny_model, tmp_path / "models--org--mine" / "snapshots" / commit)

    def download(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(cached)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    files = ["adapter_config.json", "adapter_model.safetensors"]
    ws = Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", adapter="org/mine@v1")
    assert asked == [("org/mine", "v1", files)]
    given = ws.status().adapter
    assert (given.folder, given.revision, given.object) == ("org/mine", commit, slots(ws)["initial"])
    other = Workspace.init(tmp_path / "other", str(tiny_model), dtype="float32", adapter="org/mine")
    assert asked[1] == ("org/mine", None, files)
    local = Workspace.init(tmp_path / "local", str(tiny_model), dtype="float32", adapter=cached)
    assert len(asked) == 2
    heads = {one.ledger.resolve("head").id for one in (ws, other, local)}
    assert len(heads) == 1  # the content decides, not where it was found
    (cached / "adapter_model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"of the hub adapter_model\.bin, a pickle, is never fetched"):
        Workspace.init(tmp_path / "none", str(tiny_model), dtype="float32", adapter="org/mine")


def test_what_is_no_hub_id_or_cannot_be_reached_is_refused_with_the_forms(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    forms = "a folder with adapter_config.json, or a hub id as ORG/NAME or ORG/NAME@REVISION"
    for name, said in (("mine", "there is no folder"), ("./a/b", "there is no folder"), ("org/mine", "go online")):
        with pytest.raises(BadInput, match=f"{said}.*{forms}"):
            Workspace.init(tmp_path / "ws", str(tiny_model), adapter=name)


def test_another_name_of_the_base_is_a_notice_and_another_folder_with_other_weights_an_error(tiny_model, tmp_path):
    given = changed(save(tiny_model, tmp_path / "mine"), base_model_name_or_path="org/other")
    with pytest.warns(UserWarning, match="trained on org/other"):
        Workspace.init(tmp_path / "ws", str(tiny_model), dtype="float32", adapter=given)
    other = tmp_path / "other"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        model.model.norm.weight.add_(1)
    model.save_pretrained(other)
    changed(given, base_model_name_or_path=str(other))
    with pytest.raises(BadInput, match="whose files differ"):
        Workspace.init(tmp_path / "ws2", str(tiny_model), dtype="float32", adapter=given)


POLICIES = ["incremental", "o_lora", "n_lora", "inf_lora", "osf", "slao", "isolated"]
STARTS = [{"methods": {"o_lora": {"exact": True}}}, {"methods": {"per_task": {"start": "nearest"}, "color": {}}}]


@pytest.mark.parametrize("recipe", [*POLICIES, *STARTS], ids=str)
def test_every_policy_trains_over_it(ws, tmp_path, tiny_model, recipe):
    before, given = logits(ws), slots(ws)["initial"]
    for task in ("refund", "parcel"):
        learn(ws, tmp_path, task, recipe, num_train_epochs=1)
    found = slots(ws)
    assert found["initial"] == given
    for task in ("refund", "parcel"):
        assert given in ws.ledger.view(ws.ledger.resolve("head"), task).values()
    named = "parcel" if "task:parcel" in found else None
    ws.export(tmp_path / "out", task=named)
    assert not torch.equal(logits(ws, named), before)
    torch.testing.assert_close(in_peft(tiny_model, tmp_path / "out"), logits(ws, named), atol=1e-5, rtol=0)
    assert torch.equal(logits(ws, at="base"), before)
