"""Checkpoints: all of it comes back, a broken one is refused in words, and a full disk costs nothing that was there."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from disks import full_after
from perdure.core.clock import Clock
from perdure.core.errors import BrokenStore, Interrupted, PerdureError
from perdure.train import loop
from perdure.train.checkpoint import Keeper, load, save
from perdure.train.optimizer import make_optimizer
from streams import same, weights

METHODS = {"replay": {}, "distill": {}, "tail_average": {"share": 1.0}}


@pytest.fixture
def stopped(stream, tmp_path):
    """A learn with every kind of state, stopped after three updates; and its checkpoint."""
    made = fresh(stream)
    made.validated = (0, 3, made.total - 1)
    seen = iter(range(99))
    keeper = Keeper(tmp_path / "run.safetensors", made, stop=lambda: "SIGINT" if next(seen) == 2 else None)
    with pytest.raises(Interrupted, match="stopped by SIGINT after update 3; run the same command again"):
        loop.train(made, keeper)
    return made, keeper.path


def fresh(stream):
    made = stream.learner(METHODS, pools=("replay",), validation=stream.old[:2], num_train_epochs=4)
    best = made.recipe.settings.model_copy(update={"keep": "best"})  # no recipe has both; a checkpoint holds each
    made.recipe = replace(made.recipe, settings=best)
    return made


def test_everything_that_an_update_depends_on_comes_back_to_the_bit(stream, stopped):
    made, path = stopped
    left, state, best = weights(made), made.state, made.best
    served, record = (
        {a: list(n) for a, n in made.pools["replay"].served.items()},
        json.dumps(made.record.frozen.to_json()),
    )
    again = fresh(stream)
    optimizer = make_optimizer(again.params.values(), again.recipe.settings)
    assert load(path, again, Clock(), optimizer) == 3
    assert same(weights(again), left)
    assert all(same(again.state[name], state[name]) for name in state)
    assert state["tail_average"]["count"].item() == 3
    assert (again.best.loss, again.best.update) == (best.loss, best.update)
    assert same(again.best.weights, best.weights)
    assert again.record.validation == made.record.validation != []
    assert again.pools["replay"].served == served
    assert sum(served["replay"]) > 0
    assert json.dumps(again.record.frozen.to_json()) == record
    assert "replay" in again.record.acted
    assert {name for part in optimizer.state.values() for name in part} == {"step", "exp_avg", "exp_avg_sq"}
    assert len(optimizer.state) == len(left)


def test_no_checkpoint_means_from_the_start(stream, tmp_path):
    assert load(tmp_path / "none.safetensors", fresh(stream), Clock(), None) == 0


def corrupt(path, how):
    whole = path.read_bytes()
    if how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "noise":
        path.write_bytes(b"\xff" * 100)
    elif how == "empty":
        path.write_bytes(b"")
    else:
        with safe_open(path, "pt") as file:
            told, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        name = next(name for name in tensors if name.startswith("param/"))
        if how == "no notes":
            told = None
        elif how == "an older version":
            stored = json.loads(told["perdure"])
            stored["best"] = {"loss": stored["best"]["loss"], "epoch": 1}
            told = {"perdure": json.dumps(stored)}
        elif how == "another model":
            tensors[f"{name}.other"] = tensors.pop(name)
        else:  # another rank
            tensors[name] = torch.zeros(1, 1)
        save_file(tensors, path, told)


@pytest.mark.parametrize(
    "how", ["cut", "noise", "empty", "no notes", "another model", "another rank", "an older version"]
)
def test_a_file_that_is_no_checkpoint_of_this_learn_is_refused_and_nothing_is_changed(stream, stopped, how):
    _, path = stopped
    corrupt(path, how)
    again = fresh(stream)
    before = weights(again)
    with pytest.raises(BrokenStore, match=r"run\.safetensors.*delete it to start this learn again"):
        load(path, again, Clock(), make_optimizer(again.params.values(), again.recipe.settings))
    assert same(weights(again), before)


def test_a_full_disk_leaves_the_old_checkpoint(stopped):
    made, path = stopped
    before = path.read_bytes()
    with full_after(2000), pytest.raises(PerdureError, match=r"cannot write .*free some space"):
        save(path, made, Clock(), None, 4)
    assert path.read_bytes() == before
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_a_checkpoint_is_written_when_its_time_has_come_and_not_at_the_end(stream, tmp_path, monkeypatch):
    made = stream.learner({})
    keeper = Keeper(tmp_path / "run.safetensors", made, seconds=10)
    saved = []
    monkeypatch.setattr(
        "perdure.train.checkpoint.save", lambda path, learner, clock, optimizer, done: saved.append(done)
    )
    now = keeper.last
    for update in range(made.total):  # four seconds an update
        now += 4
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        keeper.after(update, None)
    assert made.total == 8
    assert saved == [3, 6]
