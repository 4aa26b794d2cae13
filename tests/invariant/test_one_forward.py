"""Methods that draw from memory pay one forward together: none of them runs the model again."""

import math

import pytest
import torch

from perdure.methods.registry import all_methods
from perdure.model import batch
from perdure.train.draws import DrawName
from perdure.train.steps import step_of
from streams import FeatureStream

DRAWING = ("replay", "distill", "der", "der_pp", "importance_replay", "forgetting_curve", "instruction_replay")


@pytest.fixture(params=["tokens", "points"])
def forwards(request, monkeypatch):
    """A function that returns how often a recipe runs the model in each update, and the learn."""
    monkeypatch.setattr(
        batch, "SHARED_PREFIX_WORTH", 10**9
    )  # a shared prefix runs first, as a part of the same forward
    stream = FeatureStream() if request.param == "points" else request.getfixturevalue("stream")

    def count(methods):
        made = stream.learner(methods, pools=("replay", "general"), logging_steps=99)
        made.begin()
        made.room = math.inf  # a forward that grows too large is cut, its rows still run once
        calls, counts = [], []
        handle = made.model.register_forward_hook(lambda *_: calls.append(1))
        optimizer = torch.optim.SGD(made.params.values(), lr=0.1)
        for update in range(made.total):
            calls.clear()
            opened = made.update(update)
            opened.gradients()
            optimizer.step()
            optimizer.zero_grad()
            opened.finish()
            counts.append(len(calls))
        handle.remove()
        return counts, made

    return count


def test_seven_methods_that_draw_from_memory_run_the_model_as_often_as_none(forwards):
    plain, _ = forwards({})
    counts, made = forwards({name: {} for name in DRAWING})
    assert counts == plain == [1] * made.total
    assert made.record.fed == set(DRAWING)


def test_methods_that_share_a_draw_see_the_very_same_outputs(forwards):
    _, made = forwards({name: {"mix": 0.25} for name in ("replay", "der", "distill")})
    update = made.update(0)
    (micro,) = update.micro_batches
    step, _ = step_of(made, update.drawn, micro, made.total)
    replay, der, distill = (step.drawn[name] for name in ("replay", "der", "distill"))
    assert replay is der is distill
    assert len(replay.logits) == sum(
        made.pools["replay"].rows[i].targets for i in update.drawn.rows[DrawName("replay")]
    )


@pytest.mark.parametrize("name", ["mir", "adversarial_replay"])
def test_a_method_that_has_to_run_again_is_seen(forwards, name):
    counts, _ = forwards({name: {}})
    plain, _ = forwards({})
    assert sum(counts) > sum(plain)


def test_every_method_counted_draws_from_memory():
    assert all("draw" in all_methods()[name].seams for name in DRAWING)


@pytest.mark.parametrize("name", ["mir.candidates", "adversarial_replay"])
def test_rows_that_only_another_forward_reads_are_not_in_the_shared_one(forwards, name):
    method = name.split(".")[0]
    _, made = forwards({method: {"mix": 0.5}})
    update = made.update(2)
    (micro,) = update.micro_batches
    waiting = update.drawn.draw_of(name)
    rows = micro.drawn[waiting]
    assert rows
    step, (logits,) = step_of(made, update.drawn, micro, made.total)
    shared = {draw: places for draw, places in micro.drawn.items() if draw != waiting}
    read = [made.pools["replay"].rows[i] for places in shared.values() for i in places]
    assert len(logits) == sum(row.targets for row in [*(made.inputs.rows[i] for i in micro.new), *read])
    assert name not in step.drawn
    assert set(step.run(name).row.tolist()) == set(rows)


def test_rows_that_another_method_reads_in_the_shared_forward_stay_in_it(forwards):
    _, made = forwards({"adversarial_replay": {}, "replay": {"mix": 0.25}})
    update = made.update(0)
    (micro,) = update.micro_batches
    step, _ = step_of(made, update.drawn, micro, made.total)
    assert step.drawn["adversarial_replay"] is step.drawn["replay"]
