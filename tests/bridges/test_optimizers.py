"""Optimizers and schedules of transformers: the same in both hosts, stopped and resumed to the bit, refused with a reason."""

import pytest
import torch
from transformers import SchedulerType, get_scheduler
from transformers.training_args import OptimizerNames

from perdure.bridges import transformers_host
from perdure.bridges.optimizers import FACTORIES, check, make_optimizer, make_schedule
from perdure.core.errors import BadSpec, Conflict, Interrupted
from perdure.core.optimizers import OPTIMIZERS
from perdure.core.recipe import build_recipe
from perdure.core.settings import Settings
from perdure.methods.registry import all_methods
from perdure.train import loop
from perdure.train import optimizer as plain
from perdure.train.checkpoint import Keeper
from streams import FeatureStream, same, weights

CPU = torch.device("cpu")
SCHEDULES = {
    "cosine_with_restarts": {"num_cycles": 2},
    "cosine_with_min_lr": {"min_lr_rate": 0.1},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1},
    "polynomial": {"power": 2.0},
    "constant_with_warmup": {},
    "inverse_sqrt": {},
    "warmup_stable_decay": {"num_decay_steps": 3},
    "cosine": {"num_cycles": 1.5},
}
USABLE = ("adamw_torch_fused", "sgd", "adafactor", "adagrad", "adamw_8bit", "lion_32bit")  # one of each kind of state


@pytest.fixture(scope="module")
def features():
    return FeatureStream()


def test_the_names_are_those_of_transformers():
    assert set(OPTIMIZERS) == {one.value for one in OptimizerNames}
    kinds = set(Settings.model_fields["lr_scheduler_type"].annotation.__args__)
    assert kinds == {one.value for one in SchedulerType}


@pytest.mark.parametrize("optim", USABLE)
def test_both_hosts_train_alike_and_a_resumed_learn_ends_in_the_same_bits(features, tmp_path, optim):
    settings = {
        "optim": optim,
        "learning_rate": 0.01,
        "lr_scheduler_type": "cosine_with_restarts",
        "weight_decay": 0.01,
    }
    settings |= {"warmup_ratio": 0.2, "optim_args": "momentum=0.9" if optim == "sgd" else ""}
    methods = {"replay": {"mix": 0.5}, "tail_average": {}}

    def learner():
        return features.learner(methods, pools=("replay",), **settings)

    whole = learner()
    before = weights(whole)
    loop.train(whole, factories=FACTORIES)
    found = weights(whole)
    assert not same(found, before)
    other = learner()
    transformers_host.train(other)
    assert same(weights(other), found)
    seen = iter(range(99))
    stopped, path = learner(), tmp_path / "run.safetensors"
    keeper = Keeper(path, stopped, stop=lambda: "SIGTERM" if next(seen) == 3 else None)
    with pytest.raises(Interrupted):
        loop.train(stopped, keeper, factories=FACTORIES)
    resumed = learner()
    transformers_host.train(resumed, Keeper(path, resumed))
    assert same(weights(resumed), found)


@pytest.mark.parametrize(("name", "arguments"), SCHEDULES.items())
def test_a_schedule_is_that_of_transformers_from_any_update_on(name, arguments):
    settings = Settings(lr_scheduler_type=name, lr_scheduler_kwargs=arguments, warmup_steps=2, learning_rate=0.5)
    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule, rates = get_scheduler(name, theirs, 2, 10, arguments), []
    for _ in range(10):
        rates.append(theirs.param_groups[0]["lr"])
        theirs.step()
        schedule.step()
    for done in (0, 4):
        ours = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
        schedule = make_schedule(ours, settings, 10, done)
        for rate in rates[done:]:
            assert ours.param_groups[0]["lr"] == pytest.approx(rate)
            ours.step()
            schedule.step()


def test_the_defaults_are_made_as_before_and_a_ratio_is_a_share_of_the_updates():
    params = [torch.nn.Parameter(torch.zeros(2))]
    assert make_optimizer(params, Settings()).defaults == plain.make_optimizer(params, Settings()).defaults
    rates = [[plain.learning_rate_share(n, 20, Settings(**warm)) for n in range(20)] for warm in (
        {"warmup_ratio": 0.2}, {"warmup_steps": 0.2}, {"warmup_steps": 4},
    )]  # fmt: skip
    assert rates[0] == rates[1] == rates[2]
    assert not {"optim", "optim_args", "lr_scheduler_kwargs", "warmup_ratio"} & Settings().to_json().keys()


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ({"optim": "adamw"}, BadSpec, "optim is 'adamw'; did you mean 'grokadamw'"),
        ({"optim": "schedule_free_adamw"}, Conflict, "switched to another mode.*average with tail_average"),
        ({"optim": "galore_adamw_layerwise"}, Conflict, "projects the gradient itself"),
        ({"optim": "adalomo"}, Conflict, "steps inside the backward"),
        ({"optim": "adamw_torch_xla"}, Conflict, "devices that perdure does not run on"),
        ({"optim": "lion_8bit", "methods": {"ogd": {}}}, Conflict, "ogd projects .* optim: lion_8bit keeps the sign"),
        ({"optim": "adafactor", "methods": {"a_gem": {}}}, Conflict, "a_gem projects .* whole rows and columns"),
        ({"lr_scheduler_type": "greedy"}, Conflict, "goes by a metric that Trainer evaluates"),
        ({"warmup_ratio": 0.1, "warmup_steps": 5}, BadSpec, "both name the warm-up"),
        ({"lr_scheduler_type": "exponential"}, BadSpec, "lr_scheduler_type"),
    ],
)  # fmt: skip
def test_what_no_recipe_or_not_this_one_can_be_trained_with_is_refused(spec, error, words):
    with pytest.raises(error, match=words):
        build_recipe(spec, all_methods())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"optim": "grokadamw"}, "optim: grokadamw cannot be used here: .*pip install grokadamw"),
        ({"optim": "stable_adamw"}, "install `torch-optimi`"),
        (
            {"optim": "sgd", "optim_args": "momentun=0.9"},
            "optim: sgd with optim_args 'momentun=0.9' cannot be used here",
        ),
        (
            {"lr_scheduler_type": "warmup_stable_decay"},
            "warmup_stable_decay and its lr_scheduler_kwargs: .*num_decay_steps",
        ),
        ({"lr_scheduler_kwargs": {"num_cycles": 2}}, "lr_scheduler_type: linear and its lr_scheduler_kwargs"),
        ({"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"a": 2}}, "it takes none, got a"),
    ],
)
def test_a_missing_package_or_a_wrong_argument_is_an_error_before_training(fields, words):
    with pytest.raises(BadSpec, match=words):
        check(Settings(**fields), CPU)


def test_state_that_no_checkpoint_stores_is_refused(monkeypatch):
    class Odd(torch.optim.SGD):
        def step(self, closure=None):
            self.state[self.param_groups[0]["params"][0]]["helper"] = object()

    monkeypatch.setattr("perdure.bridges.optimizers.make_optimizer", lambda params, settings: Odd(params))
    with pytest.raises(Conflict, match="optim: sgd has state of the type object, which no checkpoint stores"):
        check(Settings(optim="sgd"), CPU)


def test_the_reference_loop_alone_knows_adamw_and_three_schedules(features):
    for more in ({"optim": "sgd"}, {"lr_scheduler_type": "polynomial"}):
        with pytest.raises(BadSpec, match="needs transformers"):
            loop.train(features.learner({}, **more))
