"""Drift of a state that is loaded: none at the reference to the bit, more the further it is, and readings of its answers."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from perdure.bridges.runtime import Runtime
from perdure.core.errors import BadInput
from perdure.core.rows import Message, Row
from perdure.core.slots import SKILL
from perdure.model.reference import pack, unpack
from perdure.workflows.guards.drift import compared, measure_drift, reference_answers
from runtimes import trained

NEW = 8


def rows():
    """Questions in the chat template, and plain openings; one is empty, which still is a prompt."""
    asked = [f"Say {word} to me" for word in ("refund", "parcel", "invoice", "text", "label", "the")]
    chats = [Row(messages=(Message("user", text), Message("assistant", ""))) for text in asked]
    return (*chats, *(Row(prompt=text) for text in ("", "Once upon a time", "The parcel is")))


def task(test=rows(), most=NEW):
    return SimpleNamespace(test=test, spec=SimpleNamespace(max_new_tokens=most))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def runtime(request, tiny_model):
    runtime = Runtime(tiny_model, request.param, "cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for value in runtime.model.parameters():
            if value.dim() > 1:
                value.normal_(0, 0.2)
    return runtime


@pytest.fixture(scope="module")
def reference(runtime):
    runtime.load({})
    return reference_answers(runtime, compared(runtime, task()))


def scaled(slots, factor):
    """The slots with every B of LoRA scaled."""
    return {SKILL: {name: value * factor if name.endswith(".up") else value for name, value in slots[SKILL].items()}}


@pytest.fixture(scope="module")
def tuned(runtime):
    return trained(runtime, 3, lora_r=4, lora_alpha=8)


def measured(runtime, reference, these=None):
    return measure_drift(runtime, these or compared(runtime, task()), reference).score


def test_the_reference_does_not_drift_to_the_bit(runtime, reference):
    runtime.load({})
    score = measured(runtime, reference)
    assert score.items == (1.0,) * 9
    assert score.score == 1.0
    assert score.readings["kl"] == (0.0,) * 9
    for name in ("length", "ends", "declines"):
        assert score.readings[name] == (1.0,) * 9
    assert score.scorer == "same"
    assert score.rows == tuple(row.hash for row in rows())


def test_the_reference_itself_is_scored_without_a_forward(runtime, reference, monkeypatch):
    runtime.load({})
    measured_now = measured(runtime, reference)
    monkeypatch.setattr("perdure.model.reference.distances", None)
    monkeypatch.setattr("perdure.model.decode.generate", None)
    known = measure_drift(runtime, compared(runtime, task()), reference, is_reference=True).score
    assert replace(known, seconds=0) == replace(measured_now, seconds=0)


def test_stored_answers_of_the_reference_give_the_same_items(runtime, reference, tuned):
    runtime.load(tuned)
    assert measured(runtime, unpack(pack(reference))).items == measured(runtime, reference).items


def test_half_of_an_adapter_has_at_most_half_of_its_kl(runtime, reference, tuned):
    kls, same = [], []
    for factor in (1.0, 0.5, 0.0):
        runtime.load(scaled(tuned, factor))
        score = measured(runtime, reference)
        kls.append(sum(score.readings["kl"]) / 9)
        same.append(score.score)
    assert kls[0] >= 2 * kls[1] > 0
    assert same[0] < same[1] < 1
    assert same[2] == pytest.approx(1.0, abs=1e-6)


def test_the_mean_is_over_prompts_so_that_a_long_answer_weighs_as_much_as_a_short_one(runtime, reference, tuned):
    """Every answer but one is cut to a token: the score is still the mean of the items, not of the tokens."""
    runtime.load(tuned)
    long = max(reference, key=lambda row: reference[row].positions)
    cut = {
        row: one
        if row == long
        else replace(
            one, tokens=one.tokens[:1], ended=False, index=one.index[:1], logprob=one.logprob[:1], tail=one.tail[:1]
        )
        for row, one in reference.items()
        if one.tokens
    }
    own = tuple(row for row in rows() if row.hash in cut)
    these = compared(runtime, task(own))
    score = measure_drift(runtime, these, cut).score
    weights = [cut[row.hash].positions for row in own]
    assert len(set(weights)) > 1
    by_tokens = sum(w * item for w, item in zip(weights, score.items, strict=True)) / sum(weights)
    assert score.score == pytest.approx(sum(score.items) / len(own))
    assert score.score != pytest.approx(by_tokens, abs=1e-6)


def test_the_answers_are_stored_as_predictions(runtime, reference, tuned):
    runtime.load(tuned)
    score = measured(runtime, reference)
    assert len(score.predictions) == 9
    runtime.load({})
    assert score.predictions != measured(runtime, reference).predictions


def test_a_row_that_the_reference_did_not_answer_is_an_error(runtime, reference):
    with pytest.raises(BadInput, match="did not answer"):
        measure_drift(runtime, compared(runtime, task((Row(prompt="new"),))), reference)


def test_a_part_of_the_rows_is_compared_by_its_indices(runtime):
    these = compared(runtime, task(), only=range(6, 9))
    assert these.rows == rows()[6:]
    assert all(these.prompts)
    known = [[n, n] for n in range(2, 11)]
    assert compared(runtime, task(), only=[2], prompts=known).prompts == [[4, 4]]


def test_prompts_that_do_not_fit_lose_their_start_and_that_is_told(runtime):
    these = compared(runtime, task((Row(prompt="a long text " * 100),), most=16))
    assert len(these.prompts[0]) + these.most == 256
    assert "lost the start" in these.notices[0]
