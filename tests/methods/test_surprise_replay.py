"""SuRe: memory keeps the rows of highest surprise, a quota a group, and serves them by surprise, or with equal chances."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from perdure.core.errors import BadSpec
from perdure.core.rows import Row
from perdure.core.seams import AdmitContext, DrawContext
from perdure.core.settings import Settings
from perdure.core.step import Slice, Step, row_weights
from perdure.data.encode import Encoded
from perdure.memory.admission import admitted
from perdure.memory.pool import Pool
from perdure.methods.replay.surprise_replay import SurpriseReplay
from streams import FeatureStream, apart

NLL = [0.1, 4.0, 2.0, 3.0, 0.2, 5.0]


def test_the_rows_kept_are_the_most_surprising_of_each_label():
    rows = [Row("p", str(i), label="ab"[i % 2], task="t") for i in range(6)]
    scores = SurpriseReplay().admit(rows, AdmitContext(0, "t", nll_before=NLL, nll_after=[0.0] * 6), {})
    kept = admitted(rows, scores, lambda row: row.label, Settings(memory_per_label=1))
    assert sorted(kept) == [2, 5]
    bare = [Row("p", str(i), task="t") for i in range(6)]
    scores = SurpriseReplay().admit(bare, AdmitContext(0, "t", nll_before=NLL), {})
    assert sorted(admitted(bare, scores, lambda row: row.label, Settings(memory_per_task=3))) == [1, 3, 5]


def test_it_asks_for_the_losses_before_the_task_and_says_so_where_they_are_missing():
    assert SurpriseReplay().needs == ("nll_before", "row_losses")
    assert SurpriseReplay(priority=0).needs == ("nll_before",)
    with pytest.raises(BadSpec, match="did not measure"):
        SurpriseReplay().admit([Row("p", "c")], AdmitContext(0, "t", nll_after=[1.0]), {})


def test_without_priority_every_task_and_inside_it_every_row_has_equal_service():
    rows = [Encoded((1, 2), (False, True)) for _ in range(6)]
    pool = Pool([str(i) for i in range(6)], rows, [None] * 6, ["one"] * 2 + ["two"] * 4)
    served = Counter()
    for update in range(24):
        wish = SurpriseReplay(mix=0.25, priority=0).draw(DrawContext(update, 24, 6, {"replay": 6}), {})
        served.update(pool.draw(wish, 2, 0, update))
    assert [served[i] for i in range(6)] == [12, 12, 6, 6, 6, 6]


def told(losses, batches=2):
    """A model before the task that finds the rows of memory this surprising; it tells the last batch first."""
    places = torch.arange(len(losses)).chunk(batches)[::-1]
    logits = [
        torch.tensor([[0.0, math.log(math.expm1(losses[i]))] for i in part.tolist()], dtype=torch.float64)
        for part in places
    ]
    slices = [
        Slice(z, torch.zeros(len(part), dtype=torch.long), torch.ones(len(part)), row=part)
        for z, part in zip(logits, places, strict=True)
    ]
    return SimpleNamespace(slices=lambda rows: iter(slices if rows == "replay" else []))


def test_a_rows_chance_is_a_power_of_its_rank_by_surprise():
    losses = [4.0, 0.5, 9.0, 1.0]
    for priority in (0.5, 1.0):
        method = SurpriseReplay(priority=priority)
        state = method.prepare(told(losses), {})
        assert state["surprise"].tolist() == pytest.approx(losses)
        wish = method.draw(DrawContext(0, 10, 3, {"replay": 4}), state)
        assert wish.size == 1
        assert wish.weights == pytest.approx([rank**priority for rank in (3, 1, 4, 2)])


def test_rows_are_served_as_often_as_they_rank_however_far_off_one_is():
    pool = Pool(list("abc"), [Encoded((1, 2), (False, True))] * 3, [None] * 3, ["one", "one", "two"])
    method = SurpriseReplay(mix=0.5)
    state = method.prepare(told([1.0, 2.0, 80.0]), {})
    served = Counter(
        i for update in range(4000) for i in pool.draw(method.draw(DrawContext(0, 1, 1, {}), state), 2, 0, update)
    )
    assert [served[i] / 4000 for i in range(3)] == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.03)


def test_surprise_is_that_of_the_last_time_a_row_was_drawn():
    method, state = SurpriseReplay(), {"surprise": torch.tensor([1.0, 2.0, 3.0])}
    step = Step(0, 10, {}, row_losses={"surprise_replay": (torch.tensor([2, 0]), torch.tensor([0.5, 4.0]))})
    assert method.watch(step, state)["surprise"].tolist() == [4.0, 2.0, 0.5]
    assert state["surprise"].tolist() == [1.0, 2.0, 3.0]
    assert method.watch(Step(0, 10, {}), state) is state


def test_without_priority_or_memory_nothing_is_asked_and_service_is_even():
    assert SurpriseReplay(priority=0).prepare(told([1.0, 2.0]), {}) == {}
    assert SurpriseReplay().prepare(SimpleNamespace(slices=lambda rows: iter(())), {}) == {}
    wish = SurpriseReplay().draw(DrawContext(0, 10, 6, {}), {})
    assert (wish.weights, wish.balance) == (None, "task")


def test_on_our_host_priority_draws_what_surprises_and_changes_what_is_learned():
    points = FeatureStream()
    even, prior = (
        points.learner({"surprise_replay": {"priority": priority, "mix": 0.2}}, pools=("replay",))
        for priority in (0.0, 1.0)
    )
    prior.begin()
    asked = prior.inference.nll(prior.pools["replay"].rows)
    assert prior.state["surprise_replay"]["surprise"].tolist() == pytest.approx(asked, rel=1e-5)
    assert "surprise" not in even.state["surprise_replay"]
    even, prior = (
        points.train(points.learner({"surprise_replay": {"priority": p, "mix": 0.2}}, pools=("replay",)))
        for p in (0.0, 1.0)
    )
    assert apart(even.weights, prior.weights) > 1e-3
    assert prior.open_state["surprise_replay"]["surprise"].tolist() != pytest.approx(asked)


def test_the_loss_is_strength_times_the_mean_over_rows_of_their_cross_entropy():
    torch.manual_seed(0)
    row_of = torch.tensor([0, 1, 1])
    rows = Slice(torch.randn(3, 4, dtype=torch.float64), torch.tensor([1, 2, 3]), row_weights(row_of, 2).double())
    each = F.cross_entropy(rows.logits, rows.labels, reduction="none")
    found = SurpriseReplay(strength=3.0).loss(Step(0, 10, {}, drawn={"surprise_replay": rows}), {})
    torch.testing.assert_close(found, 3 * (each[0] + each[1:].mean()) / 2)
    assert SurpriseReplay().loss(Step(0, 10, {}), {}) is None


def test_no_rows_or_no_strength_is_no_method():
    assert not SurpriseReplay(mix=0).active
    assert not SurpriseReplay(strength=0).active
    with pytest.raises(ValueError, match="mix"):
        SurpriseReplay(mix=1)
