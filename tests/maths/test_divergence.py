"""Divergences: the coarsened KL is the KL of the k + 1 events, and never above the full one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.maths.divergence import events_of, kl_to_teacher, top_k, top_k_with_labels
from perdure.maths.divergence import kl as divergence

VOCAB = 8
pairs = st.integers(0, 10**6)


def logits(seed, scale=3.0):
    torch.manual_seed(seed)
    return scale * torch.randn(4, VOCAB, dtype=torch.float64)


def kl(p, q):
    return (p * (p.log() - q.log())).sum(-1)


@given(pairs, st.integers(1, VOCAB + 3))
def test_top_k_and_tail_are_one_distribution_sorted_downwards(seed, k):
    index, logprob, tail, _ = top_k(logits(seed), k)
    kept = min(k, VOCAB - 1)
    assert index.shape == logprob.shape == (4, kept)
    torch.testing.assert_close(logprob.exp().sum(-1) + tail.exp(), torch.ones(4, dtype=torch.float64))
    assert (logprob[:, :-1] >= logprob[:, 1:]).all()
    expected = logits(seed).log_softmax(-1).sort(descending=True).values[:, :kept]
    torch.testing.assert_close(logprob.double(), expected, rtol=1e-5, atol=1e-5)


def test_the_tail_is_right_even_where_one_token_is_nearly_certain():
    sure = torch.tensor([[60.0, 0.0, 0.0, 0.0]])
    assert events_of(sure, torch.tensor([[0]]))[1].item() == pytest.approx(
        -60 + torch.tensor(3.0).log().item(), abs=1e-4
    )


@given(pairs, st.integers(1, VOCAB - 1))
def test_it_is_the_divergence_of_the_coarsened_distributions(seed, k):
    student, teacher = logits(seed), logits(seed + 1)
    index, logprob, tail, _ = top_k(teacher, k)
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
    forth, back = (kl_to_teacher(x, *top_k(y, VOCAB - 1)[:3]) for x, y in ((a, b), (b, a)))
    torch.testing.assert_close(forth.double(), kl(b.softmax(-1), a.softmax(-1)), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(forth, back, rtol=0.05)


def test_the_gradient_flows_to_the_student_alone_and_grows_not_with_temperature():
    student = logits(1).requires_grad_()
    teacher = [part.requires_grad_() if part.is_floating_point() else part for part in top_k(logits(2), VOCAB - 1)[:3]]
    norms = []
    for temperature in (1.0, 50.0):
        (grad,) = torch.autograd.grad(kl_to_teacher(student, *teacher, temperature).sum(), [student])
        norms.append(grad.norm().item())
    assert 0.1 < norms[1] / norms[0] < 10


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@given(pairs)
@settings(max_examples=20)
def test_each_kind_is_its_formula_over_the_whole_vocabulary(temperature, seed):
    student, teacher = logits(seed), logits(seed + 1)
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    expected = {"forward": kl(p, q), "reverse": kl(q, p), "symmetric": (kl(p, q) + kl(q, p)) / 2}
    for kind, value in expected.items():
        torch.testing.assert_close(divergence(student, teacher, temperature, kind), temperature**2 * value)
        whole = kl_to_teacher(student, *top_k(teacher, VOCAB - 1)[:3], temperature, kind)
        torch.testing.assert_close(whole.double(), temperature**2 * value, rtol=1e-3, atol=1e-4)


def test_the_kinds_agree_to_second_order_where_teacher_and_student_are_near():
    student = logits(1)
    near = student + 1e-3 * logits(2)
    forward, reverse, symmetric = (divergence(student, near, kind=k) for k in ("forward", "reverse", "symmetric"))
    torch.testing.assert_close(forward, reverse, rtol=2e-2, atol=0)
    torch.testing.assert_close(symmetric, (forward + reverse) / 2)


def test_golden_numbers_of_two_events():
    teacher, student = torch.tensor([[0.75, 0.25]]).log().double(), torch.tensor([[0.5, 0.5]]).log().double()
    assert divergence(student, teacher).item() == pytest.approx(0.130812, abs=1e-6)
    assert divergence(student, teacher, kind="reverse").item() == pytest.approx(0.143841, abs=1e-6)
    assert divergence(student, teacher, kind="symmetric").item() == pytest.approx(0.137327, abs=1e-6)


@pytest.mark.parametrize("k", [1, 3, VOCAB - 1])
def test_with_labels_the_label_is_the_first_event_and_the_largest_others_follow(k):
    x, labels = logits(3), torch.arange(len(logits(3))) % VOCAB
    index, logprob, tail, total = top_k_with_labels(x, labels, k)
    p = x.softmax(-1)
    assert index[:, 0].tolist() == labels.tolist()
    torch.testing.assert_close(logprob.exp(), p.gather(-1, index))
    torch.testing.assert_close(tail.exp(), 1 - p.gather(-1, index).sum(-1))
    torch.testing.assert_close(total, x.logsumexp(-1))
    others = p.scatter(-1, index, 0.0)
    assert (p.gather(-1, index[:, 1:]) >= others.max(-1, keepdim=True).values).all()
    assert index.shape[1] == k
