"""`gradient_checkpointing: true` changes no loss and no gradient, whatever the method, and no id where it is off."""

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainingArguments

from perdure.bridges.continual_trainer import ContinualTrainer
from perdure.bridges.models import load_tokenizer
from perdure.bridges.runtime import Runtime
from perdure.core.errors import BadSpec
from perdure.core.recipe import build_recipe
from perdure.core.settings import LATER, Settings
from perdure.methods.registry import all_methods
from perdure.model import batch
from perdure.model.recompute import recomputes
from perdure.train import loop
from perdure.train.learner import Learner
from perdure.train.model_view import ModelView
from perdure.train.task import TaskInputs
from streams import SETTINGS, Stream, apart, run, same, weights

METHODS = [name for name, method in all_methods().items() if "adapter" not in method.seams and not method.answers]
MEASURED = ("ewc", "mas", "ogd")  # from gradients of each row


@pytest.fixture(scope="module")
def alike(tiny_model):
    """The contradicting stream, with what some methods measured of its first task."""
    made = Stream(tiny_model)
    made.state = made.kept({name: {} for name in MEASURED})
    return made


@pytest.fixture(autouse=True)
def no_shared_prefix(monkeypatch):
    """Without checkpointing rows run as with it: none shares its prefix."""
    monkeypatch.setattr(batch, "SHARED_PREFIX_WORTH", 10**9)


def blocks(model):
    """Count the forwards of the blocks of the tiny model from here on."""
    counts = []
    root = model.get_base_model() if hasattr(model, "peft_config") else model
    for layer in root.model.layers:
        layer.self_attn.register_forward_hook(lambda *_: counts.append(1))
    return counts


def update_of(stream, methods, **more):
    """Return the loss and the gradients of the second task's first update."""
    made = stream.learner(methods, pools=("replay", "general"), num_train_epochs=1, **more)
    made.model.train()
    loss = run(made, 0)
    return loss, {name: value.grad.clone() for name, value in made.params.items()}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_same_update(alike, name):
    partner = {} if "admit" in all_methods()[name].seams else {"replay": {}}
    methods = {**partner, name: {}}
    state = {name: alike.state[name]} if name in MEASURED else None
    loss, grads = update_of(alike, methods, state=state, lora_dropout=0.1)
    again, checkpointed = update_of(alike, methods, state=state, lora_dropout=0.1, gradient_checkpointing=True)
    assert recomputes(alike.runtime.model)
    assert again == pytest.approx(loss, rel=1e-6)
    assert apart(checkpointed, grads) < 1e-5


def test_in_bfloat16_blocks_run_again_in_the_precision_of_their_forward(tiny_model):
    coarse = Stream(tiny_model, "bfloat16")
    loss, grads = update_of(coarse, {"replay": {}})
    again, checkpointed = update_of(coarse, {"replay": {}}, gradient_checkpointing=True)
    assert again == loss
    assert same(checkpointed, grads)


def test_every_weight_trains_with_the_same_gradients(tiny_model, alike):
    found = []
    for on in (False, True):
        runtime = Runtime(tiny_model, "float32", "cpu")
        recipe = build_recipe({**SETTINGS, "train": "full", "gradient_checkpointing": on}, all_methods())
        trainable = runtime.trainable(runtime.start_dense(), gradient_checkpointing=on)
        counts = blocks(runtime.model)
        made = Learner(trainable, recipe, TaskInputs("new", alike.new))
        runtime.model.train()
        run(made, 0)
        found.append({name: value.grad.clone() for name, value in made.params.items() if value.grad is not None})
        assert len(counts) == (4 if on else 2)  # two blocks
        runtime.freeze()
        assert not recomputes(runtime.model)
    assert same(found[1], found[0])


def test_gradients_of_each_row_are_the_same_and_one_row_is_stored_at_a_time(alike):
    found = []
    for on in (False, True):
        made = alike.learner({}, gradient_checkpointing=on)
        parts = [dict(part) for part in ModelView(made).gradients("new", 6, "data")]
        assert len(parts) == (6 if on else 2)
        found.append({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    assert apart(found[1], found[0]) < 1e-5


def test_a_whole_learn_ends_with_the_same_weights(alike):
    more = {"pools": ("replay",), "num_train_epochs": 1, "state": {"ewc": alike.state["ewc"]}}
    plain, checkpointed = (
        weights_after(alike.learner({"ewc": {}, "replay": {}}, gradient_checkpointing=on, **more))
        for on in (False, True)
    )
    assert apart(checkpointed, plain) < 1e-4


def weights_after(learner):
    loop.train(learner)
    return weights(learner)


def test_the_setting_is_in_the_record_where_it_is_on_and_changes_none_where_it_is_off():
    assert "gradient_checkpointing" not in Settings().to_json()
    assert set(Settings().to_json()) == set(Settings.model_fields) - set(LATER)
    on = build_recipe({"gradient_checkpointing": True}, {})
    assert on.to_json()["gradient_checkpointing"] is True
    assert build_recipe(on.to_json(), {}) == on
    with pytest.raises(BadSpec, match="gradient_checkpointing"):
        build_recipe({"gradient_checkpointing": "often"}, {})


@pytest.mark.parametrize("switch", ["arguments", "model"])
def test_continual_trainer_honours_it_from_the_arguments_and_from_the_model(tiny_model, tmp_path, switch):
    tokenizer = load_tokenizer(tiny_model)
    rows = [{"prompt": f"a {i}:", "completion": " refund"} for i in range(10)]
    found = []
    for on in (False, True):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        chosen = {"gradient_checkpointing": True} if on and switch == "arguments" else {}
        if on and switch == "model":
            model.activation_checkpointing_enable()
        args = TrainingArguments(
            output_dir=str(tmp_path / "out"), use_cpu=True, disable_tqdm=True, max_steps=2, report_to="none",
            gradient_checkpointing_kwargs={"use_reentrant": False}, **chosen,
        )  # fmt: skip
        trainer = ContinualTrainer(model, args, train_dataset=rows, processing_class=tokenizer, recipe="naive")
        counts = blocks(model)
        trainer.train()
        assert len(counts) == (8 if on else 4)  # two blocks, two updates
        found.append(weights(trainer.learner))
    assert apart(found[1], found[0]) < 1e-5
