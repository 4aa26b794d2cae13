"""Contrastive separation: the closed form of the term on the unit circle, its prototypes, and when it acts."""

from math import exp, log
from types import SimpleNamespace

import pytest
import torch

from perdure.core.seams import Draw, DrawContext
from perdure.core.step import Slice, Step
from perdure.methods.representation.contrastive import Contrastive, first_tokens

EAST, NORTH = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
STATE = {"prototypes/old": EAST, "own": NORTH}


def rows(hidden, row, weight=None):
    row = torch.tensor(row)
    weight = torch.full((len(row),), 1 / len(row)) if weight is None else torch.tensor(weight)
    return Slice(torch.zeros(len(row), 3), torch.zeros(len(row), dtype=torch.long), weight, hidden, row)


def term(new=None, drawn=None, state=STATE, **fields):
    return Contrastive(**fields).loss(Step(0, 10, {}, new=new, drawn={"contrastive": drawn} if drawn else {}), state)


def expected(mine, others, temperature):
    return -log(exp(mine / temperature) / (exp(mine / temperature) + exp(others / temperature)))


def test_it_is_the_negative_log_share_of_its_own_side():
    hidden = torch.tensor([[3.0, 4.0], [5.0, 0.0]])  # cosines with north .8 and 0, with east .6 and 1
    found = term(rows(hidden, [0, 1]), strength=2.0, temperature=0.5)
    assert found.item() == pytest.approx(expected(0.8, 0.6, 0.5) + expected(0.0, 1.0, 0.5), rel=1e-5)


def test_the_representation_is_at_the_first_label_token_and_a_row_counts_with_all_its_tokens():
    hidden = torch.tensor([[0.0, 1.0], [9.0, 9.0], [9.0, 9.0], [1.0, 0.0]])
    found = term(rows(hidden, [7, 7, 7, 2]), strength=1.0, temperature=1.0)
    assert found.item() == pytest.approx(0.75 * expected(1.0, 0.0, 1.0) + 0.25 * expected(0.0, 1.0, 1.0), rel=1e-5)
    at, row_of = first_tokens(rows(hidden, [7, 7, 7, 2]))
    assert (at.tolist(), row_of.tolist()) == ([0, 3], [0, 0, 0, 1])


def test_a_step_down_its_gradient_brings_a_row_nearer_to_its_own_and_further_from_the_others():
    hidden = torch.tensor([[1.0, 1.0]], requires_grad=True)
    term(rows(hidden, [0])).backward()
    east, north = (-hidden.grad[0]).tolist()
    assert north > 0 > east


def test_a_replayed_row_belongs_to_the_older_side():
    hidden = torch.tensor([[0.6, 0.8]])
    found = term(drawn=rows(hidden, [3]), strength=1.0, temperature=0.5)
    assert found.item() == pytest.approx(expected(0.6, 0.8, 0.5), rel=1e-5)
    both = term(rows(hidden, [0]), rows(hidden, [3]), strength=1.0, temperature=0.5)
    assert both.item() == pytest.approx(found.item() + expected(0.8, 0.6, 0.5), rel=1e-5)


def test_rows_far_on_their_own_side_are_left_alone():
    assert term(rows(NORTH.clone(), [0])).item() < 1e-4


def model(task, hidden):
    return SimpleNamespace(task=task, slices=lambda which, size: iter([rows(hidden, list(range(len(hidden))))]))


def test_it_measures_unit_prototypes_a_task_and_a_task_learned_again_replaces_its_own():
    method = Contrastive(size=1)
    first = method.prepare(model("old", 5 * EAST), {})
    assert first == {}
    assert term(rows(EAST, [0]), state=first) is None
    kept = method.measure(model("old", 5 * EAST), first)
    torch.testing.assert_close(kept, {"prototypes/old": EAST})
    assert method.prepare(model("old", NORTH), kept) == kept  # an update of the only task has none to be kept from
    assert term(rows(NORTH, [0]), state=kept) is None
    second = method.prepare(model("new", 3 * NORTH), kept)
    torch.testing.assert_close(second, STATE)
    kept = method.measure(model("new", NORTH + EAST), second)
    assert set(kept) == {"prototypes/old", "prototypes/new"}
    again = method.prepare(model("old", 2 * NORTH), kept)
    assert set(again) == {"prototypes/new", "own"}
    replaced = method.measure(model("old", NORTH), again)
    torch.testing.assert_close(replaced["prototypes/old"], NORTH)


def test_it_draws_no_rows_of_its_own_and_refuses_a_temperature_of_zero():
    assert Contrastive().draw(DrawContext(0, 10, 30, {"replay": 9}), {}) == Draw(0)
    assert not Contrastive(strength=0).active
    with pytest.raises(ValueError, match=r"temperature\n.*greater than 0"):
        Contrastive(temperature=0)
