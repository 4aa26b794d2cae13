"""Loop and transformers host are one thing: equal to the bit, resumed or not, accumulated or not."""

from functools import cached_property

import pytest
import torch
from pydantic.dataclasses import dataclass as pydantic_dataclass
from transformers import TrainingArguments

from perdure.bridges import transformers_host
from perdure.bridges.runtime import Runtime
from perdure.core.errors import BadSpec, Conflict, Interrupted
from perdure.core.recipe import build_recipe
from perdure.core.rows import Row
from perdure.core.seams import SUPPORTS
from perdure.data.encode import encode
from perdure.memory.pool import Pool
from perdure.methods.registry import all_methods, load_recipe
from perdure.train import loop
from perdure.train.checkpoint import Keeper
from perdure.train.learner import Learner
from perdure.train.task import TaskInputs
from streams import same

SETTINGS = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "lora_dropout": 0.1, "logging_steps": 2}


def rows(task: str, n: int) -> list[Row]:
    return [
        Row(f"Classify the text.\nText: {task} {'very ' * (i % 4)}{i}\nLabel:", f" {task} {i % 3}", label=str(i % 3))
        for i in range(n)
    ]


def learner(folder, validation: int = 0, **overrides) -> Learner:
    runtime = Runtime(folder, "float32", "cpu")
    recipe = load_recipe("dual_replay", {**SETTINGS, **overrides})
    params = runtime.start_adapter(recipe.settings, 0, "new")
    tokenizer = runtime.base.tokenizer
    old = [encode(row, tokenizer, 64) for row in rows("parcel", 6)]
    keys = [str(i) for i in range(6)]
    taught = runtime.top_k(old[:4], 8)  # two rows have no teacher column
    columns = {"teacher": dict(zip(keys, taught, strict=False))}
    pool = Pool(keys, old, [str(i % 3) for i in range(6)], ["parcel"] * 6, columns)
    new = [encode(row, tokenizer, 64) for row in rows("refund", 18)]
    held_out = [encode(row, tokenizer, 64) for row in rows("parcel", validation)]
    inputs = TaskInputs("new", new, validation=held_out, pools={"replay": pool})
    return Learner(runtime.trainable(params), recipe, inputs)


def weights(made: Learner) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in made.params.items()}


def test_the_two_hosts_agree_to_the_bit(tiny_model):
    by_loop, by_trainer = learner(tiny_model), learner(tiny_model)
    start = weights(by_loop)
    loop.train(by_loop)
    transformers_host.train(by_trainer)
    assert not same(start, weights(by_loop))
    assert same(weights(by_loop), weights(by_trainer))
    assert by_loop.record.heartbeats == by_trainer.record.heartbeats


@pytest.mark.parametrize("host", [loop.train, transformers_host.train])
@pytest.mark.parametrize("cut", [1, 5, 9])
def test_a_run_stopped_and_resumed_gives_the_same_bits(tiny_model, tmp_path, host, cut):
    whole = learner(tiny_model)
    host(whole)
    stopped, seen = learner(tiny_model), []

    def stop() -> str | None:
        seen.append(1)
        return "SIGTERM" if len(seen) == cut else None

    with pytest.raises(Interrupted, match="SIGTERM"):
        host(stopped, Keeper(tmp_path / "run.safetensors", stopped, stop=stop))
    resumed = learner(tiny_model)
    host(resumed, Keeper(tmp_path / "run.safetensors", resumed))
    assert same(weights(whole), weights(resumed))
    assert whole.record.loss == [tuple(pair) for pair in resumed.record.loss]


STOPPING = {"num_train_epochs": 6, "eval_steps": 2, "keep": "best", "early_stopping_patience": 2, "learning_rate": 0.05}


def test_validation_and_early_stop_are_the_same_in_both_hosts_and_after_a_stop_at_any_update(tiny_model, tmp_path):
    whole = learner(tiny_model, validation=4, **STOPPING)
    loop.train(whole)
    assert 4 < whole.ended < whole.total  # or the test shows nothing
    assert whole.record.kept is not None
    for host, cut in ((transformers_host.train, 3), (loop.train, 4), (transformers_host.train, whole.ended)):
        stopped, seen = learner(tiny_model, validation=4, **STOPPING), []

        def stop(seen=seen, cut=cut) -> str | None:
            seen.append(1)
            return "SIGTERM" if len(seen) == cut else None

        path = tmp_path / f"run-{cut}.safetensors"
        with pytest.raises(Interrupted, match="SIGTERM"):
            host(stopped, Keeper(path, stopped, stop=stop))
        resumed = learner(tiny_model, validation=4, **STOPPING)
        host(resumed, Keeper(path, resumed))
        assert same(weights(whole), weights(resumed))
        assert resumed.record == whole.record
        assert resumed.notices == whole.notices


def test_an_update_means_the_same_whatever_the_accumulation(tiny_model):
    whole = learner(tiny_model, per_device_train_batch_size=8, lora_dropout=0.0)
    split = learner(tiny_model, per_device_train_batch_size=8, lora_dropout=0.0)
    split.updates = [[batch[:3], batch[3:]] if len(batch) > 3 else [batch] for (batch,) in whole.updates]
    for made in (whole, split):
        loop.train(made)
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(split)[name], rtol=1e-3, atol=1e-5)


def test_a_machine_with_two_gpus_and_no_launcher_runs_every_update_once(tiny_model, monkeypatch):
    def two(arguments):
        device = one(arguments)
        arguments._n_gpu = 2
        return device

    one = TrainingArguments._setup_devices.func
    patched = cached_property(two)
    patched.__set_name__(TrainingArguments, "_setup_devices")
    monkeypatch.setattr(TrainingArguments, "_setup_devices", patched)
    by_loop, by_trainer = learner(tiny_model), learner(tiny_model)
    loop.train(by_loop)
    transformers_host.train(by_trainer)
    assert TrainingArguments(use_cpu=True).n_gpu == 2
    assert same(weights(by_loop), weights(by_trainer))


def test_a_launcher_that_started_several_processes_is_refused(tiny_model, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda self: 2))
    with pytest.raises(
        BadSpec, match=r"^this host runs one process, and 2 were launched; start perdure without a launcher$"
    ):
        transformers_host.train(learner(tiny_model))


def test_no_method_claims_what_no_host_tries():
    for method in all_methods().values():
        assert set(method().supports) <= SUPPORTS.keys() - {"processes", "sharding"}, method.name


def test_a_method_that_takes_no_accumulation_is_refused_by_name_and_its_updates_are_not_split(tiny_model):
    whole = pydantic_dataclass(frozen=True)(type("Whole", (all_methods()["replay"],), {"supports": frozenset()}))
    registry = {**all_methods(), "replay": whole}
    with pytest.raises(
        Conflict, match="method replay does not support gradient accumulation; set gradient_accumulation"
    ):
        build_recipe({"methods": {"replay": {}}, "gradient_accumulation_steps": 2}, registry)
    made = learner(tiny_model)
    made.recipe, made.room = build_recipe({**SETTINGS, "methods": {"replay": {}}}, registry), 1.0
    assert len(made.update(0).micro_batches) == 1
