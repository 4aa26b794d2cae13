"""`export --all`: each task's adapter as a folder, all of one rank, and a router that plain Python reads."""

import importlib.util
import json
import re

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from perdure import Workspace
from perdure.core.errors import BadInput
from perdure.maths.routing import Gaussian, Moments

FAST = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "host": "loop", "lora_r": 4}
WORDS = {"refund": "money back please", "parcel": "where is my box", "tariff": "what does it cost"}
IDS = torch.tensor([[5, 9, 4, 7, 8, 3, 6]])


def text_of(task, i):
    return f"{i} {WORDS[task]} {7 * i % 10}"


def rows_file(tmp_path, task):
    rows = [
        {"text": text_of(task, i), "label": f"{task} {i % 2}", "split": "test" if i > 59 else "train"}
        for i in range(64)  # a fifth of 60 is held out: two tasks have enough for a limit
    ]
    path = tmp_path / f"{task}.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def learn(ws, tmp_path, task, recipe, **overrides):
    return ws.learn(task, rows_file(tmp_path, task), recipe=recipe, overrides={**FAST, **overrides}, gate=None)


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


@pytest.fixture(scope="module")
def ws(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    made = Workspace.init(folder / "ws", str(tiny_model), dtype="float32")
    learn(made, folder, "tariff", "naive")
    learn(made, folder, "refund", "isolated")
    learn(made, folder, "parcel", "isolated", lora_r=8)
    made.task_rename("parcel", "box")
    return made


@pytest.fixture(scope="module")
def written(ws, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "out"
    return folder, ws.export_all(folder)


def program(folder):
    """Return the names that the program in the README defines."""
    code = re.findall(r"```python\n(import array.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(code) == 1
    assert len(code[0].strip().splitlines()) <= 40
    names = {}
    exec(code[0], names)
    return names


def test_each_folder_is_an_adapter_that_computes_what_its_task_computes(ws, written, tiny_model):
    folder, made = written
    assert made.tasks == {"tariff": "shared", "refund": "refund", "parcel": "box"}
    assert made.shared == "shared"
    assert made.files == ("README.md", "adapters.json", "box", "refund", "router.json", "router.safetensors", "shared")
    for name, task in (("shared", None), ("refund", "refund"), ("box", "parcel")):
        config = json.loads((folder / name / "adapter_config.json").read_text())
        assert config["r"] == made.rank == made.adapters[name].rank == 16  # 4 + 8 of parcel over tariff's, padded
        model = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), folder / name
        )
        torch.testing.assert_close(logits(model), logits(ws.model(task=task)), atol=1e-5, rtol=0)
        assert made.adapters[name].relative_error is None
    told = (folder / "README.md").read_text(encoding="utf-8")
    assert "--max-lora-rank 16 --max-loras 3" in told
    assert json.loads((folder / "adapters.json").read_text())["tasks"] == dict(made.tasks)


def test_the_program_of_the_readme_names_the_task_of_a_vector(ws, written):
    names = program(written[0])
    router = names["load"](written[0])
    slots = ws.ledger.slots(ws.ledger.resolve("head"))
    ours = Gaussian.of(
        {task: Moments.from_tensors(ws.ledger.objects.get(slots[f"route:{task}"])) for task in ("refund", "parcel")}
    )
    assert set(router["owners"]) == {"refund", "parcel"}
    texts = [text_of(task, i) for task in ("refund", "parcel") for i in range(12)]
    known = ws.runtime.features([ws.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts])
    features = torch.cat([known, 10 * torch.randn(5, known.shape[1], generator=torch.manual_seed(0))])
    features = features[
        (ours.distances(features) - ours.limit).abs() > 1e-3
    ]  # a row that was held out is the limit itself
    decided = ours.route(features)
    assert [names["task_of"](router, row.tolist()) for row in features] == decided
    assert {None, "refund", "parcel"} == set(decided)
    assert router["limit"] == ours.limit
    assert "A text with no task near it gets none" in (written[0] / "README.md").read_text(encoding="utf-8")


def test_the_program_reads_a_text_as_the_workspace_does(ws, written, tiny_model):
    names = program(written[0])
    router = names["load"](written[0])
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    ids = ws.tokenizer("where is my box 3", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        feature = names["feature_of"](router, " where is my box 3\n", model, ws.tokenizer, torch.tensor)
    torch.testing.assert_close(torch.tensor(feature), ws.runtime.features([ids])[0], atol=1e-5, rtol=1e-4)


def test_a_rank_that_is_given_cuts_every_adapter(ws, tmp_path):
    made = ws.export_all(tmp_path / "out", rank=2)
    assert {one.rank for one in made.adapters.values()} == {made.rank} == {2}
    assert all(one.relative_error > 0 for one in made.adapters.values())


def test_one_task_alone_is_the_same_adapter(ws, written, tmp_path):
    from safetensors.torch import load_file

    ws.export(tmp_path / "one", task="box", rank=written[1].rank)
    one, other = (load_file(path / "adapter_model.safetensors") for path in (tmp_path / "one", written[0] / "box"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_without_a_router_or_shared_weights_there_is_none(ws, tmp_path):
    made = ws.export_all(tmp_path / "first", at=ws.ledger.log()[-2].entry)
    assert made.files == ("README.md", "adapters.json", "shared")
    assert (made.tasks, made.router) == ({"tariff": "shared"}, False)
    with pytest.raises(BadInput, match="no adapter to export"):
        ws.export_all(tmp_path / "none", at="base")
    assert not (tmp_path / "none").exists()


def test_the_name_of_a_task_that_is_a_file_of_the_export_is_refused(ws, tmp_path):
    ws.task_rename("refund", "router.json")
    with pytest.raises(BadInput, match=r"name of a file.*task rename"):
        ws.export_all(tmp_path / "out")
    ws.task_rename("refund", "shared")
    made = ws.export_all(tmp_path / "out")
    assert (made.tasks["refund"], made.shared) == ("shared", "shared~")
    ws.task_rename("refund", "refund")


@pytest.fixture(scope="module")
def labelled(tiny_model, tmp_path_factory):
    """A workspace of a task with an adapter of its own and one that is answered with labels, and the folder of its export."""
    folder = tmp_path_factory.mktemp("labelled")
    ws = Workspace.init(folder / "ws", str(tiny_model), dtype="float32")
    learn(ws, folder, "refund", "isolated")
    ws.learn("tariff", rows_file(folder, "tariff"), recipe="slda", gate=None)
    ws.task_rename("tariff", "price")
    return ws, folder / "out", ws.export_all(folder / "out")


def test_a_task_that_is_answered_with_labels_has_its_classifier_in_a_folder(labelled, tiny_model):
    ws, folder, made = labelled
    assert made.tasks == {"refund": "refund", "tariff": "price"}
    assert (list(made.adapters), made.classifiers, made.shared) == (["refund"], ("price",), None)
    about = json.loads((folder / "adapters.json").read_text(encoding="utf-8"))
    assert (about["tasks"], about["classifiers"]) == (dict(made.tasks), ["price"])
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert "--max-loras 1 --lora-modules refund=" in readme
    assert "a classifier on features of the base model, has `price`" in readme
    spec = importlib.util.spec_from_file_location("classify", folder / "price" / "classify.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    texts = [text_of("tariff", i) for i in range(60, 64)]
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    assert program.classify("tariff", texts, model, ws.tokenizer) == [
        answer.answer for answer in ws.predict(texts, "price")
    ]


def test_the_router_names_tasks_that_are_answered_with_labels_as_the_workspace_does(labelled):
    ws, folder, _ = labelled
    names = program(folder)
    router = names["load"](folder)
    assert set(router["owners"]) == {"refund", "tariff"}
    texts = [text_of(task, i) for task in ("refund", "tariff") for i in range(60, 64)]
    features = ws.runtime.features([ws.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts])
    found = [names["task_of"](router, row.tolist()) for row in features]
    assert found == [answer.routed.task for answer in ws.predict(texts)]
    assert set(found) == {"refund", "tariff"}


def test_with_too_few_held_out_rows_the_program_takes_no_text_for_unknown_and_the_readme_has_the_reason(labelled):
    _, folder, _ = labelled
    names = program(folder)
    router = names["load"](folder)
    assert router["limit"] is None  # 12 rows of refund, and none of tariff, which learned with slda
    far = [100.0 * (-1) ** n for n in range(len(router["centre"]))]
    assert names["task_of"](router, far) in ("refund", "tariff")
    assert "Every text gets a task" in (folder / "README.md").read_text(encoding="utf-8")
