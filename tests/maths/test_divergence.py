"""Divergences: the coarsened KL is the KL of the k + 1 events, and never above the full one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.maths.divergence import events_of, kl_to_teacher, top_k

VOCAB = 8
pairs = st.integers(0, 10**6)


def logits(seed, scale=3.0):
    torch.manual_seed(seed)
    return scale * torch.randn(4, VOCAB, dtype=torch.float64)


def kl(p, q):
    return (p * (p.log() - q.log())).sum(-1)


@given(pairs, st.integers(1, VOCAB + 3))
@settings(deadline=None)
def test_top_k_and_tail_are_one_distribution_sorted_downwards(seed, k):
    index, logprob, tail = top_k(logits(seed), k)
    kept = min(k, VOCAB - 1)
    assert index.shape == logprob.shape == (4, kept)
    torch.testing.assert_close(logprob.exp().sum(-1) + tail.exp(), torch.ones(4), rtol=1e-5, atol=1e-6)
    assert (logprob[:, :-1] >= logprob[:, 1:]).all()
    expected = logits(seed).log_softmax(-1).sort(descending=True).values[:, :kept]
    torch.testing.assert_close(logprob.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_tail_is_right_even_where_one_token_is_nearly_certain():
    sure = torch.tensor([[60.0, 0.0, 0.0, 0.0]])
    assert events_of(sure, torch.tensor([[0]]))[1].item() == pytest.approx(
        -60 + torch.tensor(3.0).log().item(), abs=1e-4
    )


@given(pairs, st.integers(1, VOCAB - 1))
@settings(deadline=None)
def test_it_is_the_divergence_of_the_coarsened_distributions(seed, k):
    student, teacher = logits(seed), logits(seed + 1)
    index, logprob, tail = top_k(teacher, k)
    p, q = teacher.softmax(-1), student.softmax(-1)

    def coarse(x):
        kept = x.gather(-1, index)
        return torch.cat([kept, 1 - kept.sum(-1, keepdim=True)], -1).clamp(min=1e-300)

    found = kl_to_teacher(student, index, logprob, tail).double()
    torch.testing.assert_close(found, kl(coarse(p), coarse(q)), rtol=1e-3, atol=1e-4)
    assert (found <= kl(p, q) + 1e-4).all()  # merging events never adds divergence
    assert (found >= -1e-5).all()


def test_swapping_student_and_teacher_gives_another_number():
    a, b = logits(1), logits(2)
    forth, back = (kl_to_teacher(x, *top_k(y, VOCAB - 1)) for x, y in ((a, b), (b, a)))
    torch.testing.assert_close(forth.double(), kl(b.softmax(-1), a.softmax(-1)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(forth, back, rtol=0.05)


def test_the_gradient_flows_to_the_student_alone_and_grows_not_with_temperature():
    student = logits(1).requires_grad_()
    teacher = [part.requires_grad_() if part.is_floating_point() else part for part in top_k(logits(2), VOCAB - 1)]
    norms = []
    for temperature in (1.0, 50.0):
        (grad,) = torch.autograd.grad(kl_to_teacher(student, *teacher, temperature).sum(), [student])
        norms.append(grad.norm().item())
    assert 0.1 < norms[1] / norms[0] < 10
