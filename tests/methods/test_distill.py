"""Distillation: the divergence from the stored teacher, and its gradient, in closed form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.seams import DrawContext
from perdure.core.step import Slice, Step, TopK
from perdure.maths.divergence import top_k
from perdure.methods.distill import Distill

VOCAB = 6


def logits(seed, tokens=3):
    torch.manual_seed(seed)
    return 3 * torch.randn(tokens, VOCAB, dtype=torch.float64)


def rows(student, teacher, k=VOCAB - 1, covered=None):
    """A slice of one row, whose column `teacher` holds the k largest of these logits."""
    tokens = len(student)
    column = TopK(*top_k(teacher, k))
    covered = torch.ones(tokens) if covered is None else covered
    weight = torch.full((tokens,), 1 / tokens, dtype=torch.float64)
    return Slice(student, torch.zeros(tokens, dtype=torch.long), weight, {"teacher": column}, {"teacher": covered})


def loss(slice_, **fields):
    return Distill(**fields).loss(Step(0, 10, {}, drawn={"distill": slice_}), {})


def kl(p, q):
    return (p * (p.log() - q.log())).sum(-1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 4.0))
def test_with_every_token_stored_it_is_strength_times_the_full_divergence(seed, strength):
    student, teacher = logits(seed), logits(seed + 1)
    expected = strength * kl(teacher.softmax(-1), student.softmax(-1)).mean()
    torch.testing.assert_close(loss(rows(student, teacher), strength=strength).double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_at_temperature_t_it_is_t_squared_times_the_divergence_of_the_tempered_distributions(temperature):
    student, teacher = logits(1), logits(2)
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    found = loss(rows(student, teacher), temperature=temperature)
    torch.testing.assert_close(found.double(), temperature**2 * kl(p, q).mean(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_its_gradient_is_t_times_student_minus_teacher(temperature):
    student, teacher = logits(1).requires_grad_(), logits(2)
    loss(rows(student, teacher), strength=3.0, temperature=temperature).backward()
    p, q = (teacher / temperature).softmax(-1), (student.detach() / temperature).softmax(-1)
    torch.testing.assert_close(student.grad, 3.0 * temperature * (q - p) / 3, rtol=1e-4, atol=1e-6)


def test_a_student_that_says_what_the_teacher_said_is_left_alone():
    student = logits(5).requires_grad_()
    value = loss(rows(student, student.detach(), k=2))
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert student.grad.norm().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="another row's teacher pulls, and the closed form sees it"
)
def test_the_wrong_teacher_is_seen():
    student = logits(5).requires_grad_()
    loss(rows(student, student.detach().roll(1, 0), k=2)).backward()
    assert student.grad.norm().item() == pytest.approx(0, abs=1e-6)


def test_rows_without_a_teacher_do_not_pull():
    student, teacher = logits(1).requires_grad_(), logits(2)
    loss(rows(student, teacher, covered=torch.tensor([1.0, 0.0, 1.0]))).backward()
    assert student.grad[1].norm().item() == 0
    assert student.grad[0].norm().item() > 0


def test_without_drawn_rows_or_column_it_adds_nothing():
    bare = rows(logits(1), logits(2))
    assert Distill().loss(Step(0, 10, {}), {}) is None
    assert loss(Slice(bare.logits, bare.labels, bare.weight)) is None


def test_it_asks_for_the_teacher_of_the_rows_others_draw_and_for_none_itself():
    wish = Distill().draw(DrawContext(0, 10, 16, {"replay": 9}), {})
    assert (wish.size, wish.pool, wish.columns) == (0, "replay", ("teacher",))


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="above 0"):
        Distill(temperature=0)
