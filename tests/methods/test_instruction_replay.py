"""Instruction replay: cross-entropy with the written answers plus the divergence from the base model, each with its weight."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perdure.core.seams import Column, DrawContext
from perdure.core.step import Slice, Step, TopK
from perdure.maths.divergence import kl_to_teacher, top_k
from perdure.methods.replay.instruction_replay import InstructionReplay


@pytest.fixture
def rows():
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 9), torch.randn(4, 9)
    column = TopK(*top_k(teacher, 3))
    return Slice(
        student,
        torch.tensor([1, 2, 3, 4]),
        torch.full((4,), 0.25),
        columns={"base": column},
        covered={"base": torch.ones(4)},
    )


def loss(rows, **fields):
    return InstructionReplay(**fields).loss(Step(0, 10, {}, drawn={"instruction_replay": rows}), {})


@pytest.mark.parametrize(("strength", "distill"), [(0.5, 2.0), (0.0, 1.0), (1.0, 0.0)])
def test_the_loss_is_the_weighted_sum_of_both_terms(rows, strength, distill):
    teacher = rows.columns["base"]
    cross = torch.nn.functional.cross_entropy(rows.logits, rows.labels)
    kl = kl_to_teacher(rows.logits, teacher.index, teacher.logprob, teacher.tail, 2.0).mean()
    found = loss(rows, strength=strength, distill=distill, temperature=2.0)
    torch.testing.assert_close(found, strength * cross + distill * kl)


def test_without_drawn_rows_or_column_it_adds_nothing(rows):
    assert InstructionReplay().loss(Step(0, 10, {}), {}) is None
    bare = Slice(rows.logits, rows.labels, rows.weight)
    assert loss(bare) is None
    assert loss(bare, strength=1.0).item() > 0


@given(st.floats(0.01, 0.9), st.integers(1, 128))
def test_it_draws_its_share_of_the_final_mix_from_the_general_rows(mix, new_rows):
    wishes = [InstructionReplay(mix=mix).draw(DrawContext(u, 10, new_rows, {"general": 9}), {}) for u in range(10)]
    assert {wish.balance for wish in wishes} == {"row"}
    assert InstructionReplay().pool == "general"
    assert InstructionReplay(top_k=8).columns == (Column("base", "general", "base", 8),)
    drawn = sum(wish.size for wish in wishes)
    assert abs(drawn - mix * (10 * new_rows + drawn)) <= 1 / (1 - mix)


def test_it_acts_only_with_rows_and_a_weight():
    assert InstructionReplay().active
    assert not InstructionReplay(mix=0).active
    assert not InstructionReplay(distill=0, strength=0).active


@pytest.mark.parametrize(("field", "value"), [("mix", 1.0), ("mix", -0.5), ("temperature", 0.0)])
def test_fields_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        InstructionReplay(**{field: value})
