"""Learning without forgetting: T^2 times the divergence from what the model said of the new rows before the task."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from perdure.core.seams import Column
from perdure.core.step import Slice, Step, TopK
from perdure.maths.divergence import top_k
from perdure.methods.distillation.lwf import Lwf
from streams import apart, close

VOCAB = 6
START = torch.tensor([[1.0, 0.0, -1.0, 2.0, 0.5, -2.0], [0.0, 3.0, 1.0, -1.0, 0.0, 0.0]], dtype=torch.float64)
TAUGHT = {"taught": torch.ones(())}


def step(offset, column=START):
    """New rows whose logits are the start's plus the parameter `w`, which is `offset` now."""
    w = offset.clone().requires_grad_()
    made = TopK(*top_k(column, VOCAB - 1))
    new = Slice(START + w, torch.tensor([0, 1]), torch.full((2,), 0.5, dtype=torch.float64))
    new = replace(new, columns={"start": made}, covered={"start": torch.ones(2)})

    def run(part, *, weights, embeddings, grad):
        assert (part, embeddings, grad) == ("new", None, False)
        return replace(new, logits=START + weights["w"])

    return Step(0, 10, {"w": w}, new=new, runner=run), w


def model(first=False):
    return SimpleNamespace(params={"w": torch.nn.Parameter(torch.zeros(VOCAB))}, first=first)


OFFSET = torch.tensor([2.0, 0.0, 0.0, -1.0, 0.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("vocabulary", ["top_k", "full"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_its_gradient_is_strength_times_t_times_model_minus_model_before(vocabulary, temperature):
    method = Lwf(strength=3.0, temperature=temperature, vocabulary=vocabulary)
    made, w = step(OFFSET)
    method.loss(made, method.prepare(model(), {})).backward()
    p, q = ((z / temperature).softmax(-1) for z in (START, START + OFFSET))
    torch.testing.assert_close(w.grad, 3.0 * temperature * (q - p).mean(0), rtol=1e-4, atol=1e-6)


def test_at_strength_one_quarter_its_gradient_is_the_papers_at_temperature_2():
    made, w = step(OFFSET)
    Lwf(strength=0.25).loss(made, TAUGHT).backward()
    now = (START + OFFSET).requires_grad_()
    recorded = START.softmax(-1).sqrt() / START.softmax(-1).sqrt().sum(-1, keepdim=True)  # y^(1/T), equation 3
    current = now.softmax(-1).sqrt() / now.softmax(-1).sqrt().sum(-1, keepdim=True)
    (-(recorded * current.log()).sum(-1).mean()).backward()
    torch.testing.assert_close(w.grad, now.grad.sum(0), rtol=1e-4, atol=1e-6)


def test_what_is_compared_agrees_whether_asked_once_or_in_every_update():
    made, _ = step(OFFSET)
    once, always = (Lwf(vocabulary=v) for v in ("top_k", "full"))
    assert once.loss(made, TAUGHT).item() == pytest.approx(
        always.loss(made, always.prepare(model(), {})).item(), rel=1e-5
    )
    assert once.columns == (Column("start", "new", "start", 32),)
    assert always.columns == ()


def test_in_the_first_task_there_is_nothing_to_keep():
    made, _ = step(OFFSET)
    for vocabulary in ("top_k", "full"):
        method = Lwf(vocabulary=vocabulary)
        assert method.prepare(model(first=True), {}) == {}
        assert method.loss(made, {}) is None


def test_with_the_base_as_teacher_it_is_the_kl_from_the_base_and_acts_from_the_first_task_on():
    """LLaMA-Factory's anchor: alpha x KL(base || model) at the label tokens, at temperature 1."""
    method = Lwf(teacher="base", strength=0.1, temperature=1.0)
    assert method.columns == (Column("teacher@base", "new", "base", 32),)
    made, w = step(OFFSET)
    made = replace(
        made,
        new=replace(
            made.new, columns={"teacher@base": made.new.columns["start"]}, covered={"teacher@base": torch.ones(2)}
        ),
    )
    found = method.loss(made, method.prepare(model(first=True), {}))
    expected = (
        torch.nn.functional.kl_div((START + OFFSET).log_softmax(-1), START.softmax(-1), reduction="none").sum(-1).mean()
    )
    assert found.item() == pytest.approx(0.1 * expected.item(), rel=1e-5)
    found.backward()
    torch.testing.assert_close(
        w.grad, 0.1 * ((START + OFFSET).softmax(-1) - START.softmax(-1)).mean(0), rtol=1e-4, atol=1e-6
    )


def test_the_base_is_asked_once_a_row_so_that_its_whole_vocabulary_is_refused():
    with pytest.raises(ValueError, match="set vocabulary: top_k"):
        Lwf(teacher="base", vocabulary="full")


def test_the_teacher_is_left_out_of_the_json_at_its_default():
    assert "teacher" not in Lwf().to_json()
    assert Lwf(**Lwf(teacher="base").to_json()) == Lwf(teacher="base")


def test_the_weights_before_are_copies():
    given = model()
    kept = Lwf(vocabulary="full").prepare(given, {})
    with torch.no_grad():
        given.params["w"] += 1
    assert kept["anchor.w"].eq(0).all()


def test_a_temperature_of_zero_is_refused_and_no_strength_is_no_method():
    with pytest.raises(ValueError, match=r"temperature\n.*greater than 0"):
        Lwf(temperature=0)
    assert not Lwf(strength=0).active


def test_on_a_whole_task_asking_once_ends_where_asking_in_every_update_ends(points):
    once, always, plain = (
        points.train(points.learner(methods, pools=("replay",))).weights
        for methods in (
            {"lwf": {"top_k": 3, "strength": 1}},
            {"lwf": {"vocabulary": "full", "strength": 1}},
            {},
        )
    )
    close(once, always)
    assert apart(once, plain) > 1e-2


def test_the_host_asks_the_model_before_the_task_once_a_row_and_no_one_in_the_first_task(points):
    later, first = (points.learner({"lwf": {}}, pools=pools) for pools in (("replay",), ()))
    for made in (later, first):
        made.begin()
    assert len(later.columns["start"]) == len(later.inputs.rows)
    assert first.columns == {}
