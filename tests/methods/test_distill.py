"""Distillation: the divergence from the stored teacher, and its gradient, in closed form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.seams import Column, Draw, DrawContext
from perdure.core.step import Slice, Step, TopK
from perdure.maths.divergence import top_k
from perdure.methods.distillation.distill import Distill

VOCAB = 6


def logits(seed, tokens=3):
    torch.manual_seed(seed)
    return 3 * torch.randn(tokens, VOCAB, dtype=torch.float64)


def rows(student, teacher, k=VOCAB - 1, covered=None, name="teacher"):
    """A slice of one row, whose column holds the k largest of these logits."""
    tokens = len(student)
    column = TopK(*top_k(teacher, k))
    covered = torch.ones(tokens) if covered is None else covered
    weight = torch.full((tokens,), 1 / tokens, dtype=torch.float64)
    labels = torch.zeros(tokens, dtype=torch.long)
    return Slice(student, labels, weight, columns={name: column}, covered={name: covered})


def loss(slice_, new=None, **fields):
    return Distill(**fields).loss(Step(0, 10, {}, new=new, drawn={"distill": slice_} if slice_ else {}), {})


def kl(p, q):
    return (p * (p.log() - q.log())).sum(-1)


@settings(max_examples=25)
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


def test_it_shares_the_rows_others_draw_and_asks_for_none_itself_unless_it_has_a_mix():
    context = DrawContext(0, 10, 30, {"replay": 9})
    assert Distill().draw(context, {}) == Draw(0)
    assert Distill(mix=0.25).draw(context, {}) == Draw(10)
    assert Distill(teacher="base", on="new").draw(context, {}) is None
    assert Distill().columns == (Column("teacher", "replay", "settled", 32),)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("kind", ["reverse", "symmetric"])
def test_in_other_directions_it_is_t_squared_times_that_divergence(kind, temperature):
    student, teacher = logits(1), logits(2)
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    expected = {"reverse": kl(q, p), "symmetric": (kl(p, q) + kl(q, p)) / 2}[kind].mean()
    found = loss(rows(student, teacher), temperature=temperature, divergence=kind)
    torch.testing.assert_close(found.double(), temperature**2 * expected, rtol=1e-4, atol=1e-6)


def test_a_column_of_the_whole_vocabulary_is_the_exact_divergence_and_a_short_one_less():
    student, teacher = logits(1), logits(2)
    whole, short = (loss(rows(student, teacher, k=k)).item() for k in (Distill(top_k=0).columns[0].top_k, 1))
    assert whole == pytest.approx(kl(teacher.softmax(-1), student.softmax(-1)).mean().item(), rel=1e-4)
    assert short < whole


def test_another_model_teaches_new_rows_replayed_rows_or_both_and_the_terms_of_both_are_added():
    name = "teacher@big"
    mine, drawn = rows(logits(1), logits(2), name=name), rows(logits(3), logits(4), name=name)
    on = {on: loss(drawn, new=mine, teacher="big", on=on).item() for on in ("new", "memory", "both")}
    assert on["both"] == pytest.approx(on["new"] + on["memory"], rel=1e-6)
    assert on["new"] == pytest.approx(loss(None, new=mine, teacher="big", on="both").item(), rel=1e-6)
    assert on["new"] != pytest.approx(on["memory"], rel=1e-2)
    columns = Distill(teacher="big", on="both", top_k=8).columns
    assert columns == (Column(name, "new", "big", 8), Column(name, "replay", "big", 8))


def test_the_columns_of_two_teachers_have_names_of_their_own():
    names = {Distill(teacher=teacher).column for teacher in ("settled", "base", "big", "bigger")}
    assert names == {"teacher", "teacher@base", "teacher@big", "teacher@bigger"}


@pytest.mark.parametrize("fields", [{"on": "new"}, {"on": "both"}, {"teacher": "start"}])
def test_the_model_before_the_task_on_new_rows_is_lwfs_teacher(fields):
    with pytest.raises(ValueError, match="lwf"):
        Distill(**fields)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"temperature": 0}, r"temperature\n.*greater than 0"),
        ({"mix": 1.0}, "mix"),
        ({"teacher": "big", "refresh": True}, "refresh"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields, match):
    with pytest.raises(ValueError, match=match):
        Distill(**fields)
