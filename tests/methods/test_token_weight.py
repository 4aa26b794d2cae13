"""Token reweighting: the factors of each scheme in closed form, that they have no gradient, and what they do to a task."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from goldens import GOLDEN, golden, logits, rows_of
from perdure.core.errors import BadSpec
from perdure.core.seams import Column
from perdure.core.step import Slice, Step, TopK
from perdure.maths.divergence import top_k_with_labels
from perdure.maths.token_weights import of_entropy, of_probability
from perdure.methods.token_weights.token_weight import COLUMN, TokenWeight
from streams import apart, finished, same

MIDDLE = 5.1  # perplexity that half of the points' labels have under the model that is their base
LABELS = torch.tensor([0, 0, 1])
P = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]], dtype=torch.float64)
BASE = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.4, 0.4], [0.3, 0.5, 0.2]], dtype=torch.float64)


def step(base=BASE):
    """Three label tokens in two rows, the first of which has two."""
    column = TopK(*top_k_with_labels(base.log(), LABELS, 1))
    new = Slice(P.log().requires_grad_(), LABELS, torch.full((3,), 1 / 3), row=torch.tensor([4, 4, 7]))
    return Step(0, 10, {}, new=replace(new, columns={COLUMN: column}, covered={COLUMN: torch.ones(3)}))


def model(*rows):
    """A model whose base gives each row's labels these probabilities."""
    taught = [
        TopK(torch.zeros(len(row), 1), torch.tensor(row).log()[:, None], *torch.zeros(2, len(row))) for row in rows
    ]
    return SimpleNamespace(columns={COLUMN: taught})


def factors(method, state=None, base=BASE):
    found = method.weight(step(base), state or {})
    assert not found.requires_grad
    return found.double()


def test_dft_is_the_probability_of_the_label_under_the_model_in_training():
    torch.testing.assert_close(factors(TokenWeight(scheme="dft")), torch.tensor([0.5, 0.1, 0.25]).double())


def test_eaft_is_the_entropy_over_three_to_the_exponent():
    entropy = -(P * P.log()).sum(-1)
    torch.testing.assert_close(factors(TokenWeight(scheme="eaft")), entropy / 3)
    torch.testing.assert_close(factors(TokenWeight(scheme="eaft", exponent=2.0)), (entropy / 3).square())


def test_eaft_looks_at_the_twenty_largest_logits_so_that_three_is_its_bound():
    torch.testing.assert_close(of_entropy(torch.zeros(1, 50)), torch.tensor([math.log(20) / 3]))
    tail = torch.cat([torch.zeros(20), torch.full((30,), -1.0)])[None]
    torch.testing.assert_close(of_entropy(tail), torch.tensor([math.log(20) / 3]))


def test_stm_leaves_out_the_labels_whose_perplexity_under_the_base_model_is_above_the_threshold():
    """1 / .8 = 1.25, 1 / .2 = 5, 1 / .5 = 2."""
    for threshold, kept in ((2.5, [1, 0, 1]), (1.5, [1, 0, 0]), (6.0, [1, 1, 1])):
        assert factors(TokenWeight(scheme="stm", threshold=threshold)).tolist() == kept


def test_stm_that_would_leave_nothing_is_refused():
    with pytest.raises(BadSpec, match=r"every label token is above 2.5.*the least is 4"):
        TokenWeight(scheme="stm").prepare(model([0.1, 0.25], [0.2]), {})
    assert TokenWeight(scheme="stm").prepare(model([0.1, 0.5], [0.2]), {}) == {}


def test_flow_weighs_a_row_by_the_base_models_mean_loss_over_the_median():
    state = TokenWeight(scheme="flow").prepare(model([0.5, 0.125], [0.25, 0.25, 0.25], [0.9]), {})
    assert state["temperature"].item() == pytest.approx(math.log(4))
    row = -(math.log(0.8) + math.log(0.2)) / 2, -math.log(0.5)
    expected = [math.exp(-row[i] / math.log(4)) for i in (0, 0, 1)]
    torch.testing.assert_close(factors(TokenWeight(scheme="flow"), state), torch.tensor(expected).double())


@pytest.mark.parametrize("strength", [0.25, 1.0])
def test_strength_is_the_share_of_the_scheme(strength):
    whole, part = (factors(TokenWeight(strength=s)) for s in (1.0, strength))
    torch.testing.assert_close(part, 1 + strength * (whole - 1))


def test_golden_numbers_of_every_scheme():
    """From the papers' formulas, in benchmarks/golden_papers.py."""
    part = GOLDEN["token_weight"]
    column = TopK(*top_k_with_labels(logits("settled", "new"), rows_of("new").labels, 1))
    new = rows_of("new", columns={COLUMN: column}, covered={COLUMN: torch.ones(6)})
    taught = [TopK(*(value[i : i + 1] for value in vars(column).values())) for i in range(6)]
    for scheme in ("dft", "eaft", "stm", "flow"):
        method = TokenWeight(scheme=scheme, threshold=part["threshold"])
        state = method.prepare(SimpleNamespace(columns={COLUMN: taught}), {})
        found = method.weight(Step(0, 1, {}, new=new), state).double()
        torch.testing.assert_close(found, golden("token_weight", "paper", scheme), rtol=1e-6, atol=1e-8)


def test_the_base_model_is_asked_for_the_labels_alone_and_only_where_the_scheme_reads_it():
    asked = (Column("teacher@base", "new", "base", 1, labels=True),)
    assert [TokenWeight(scheme=s).columns for s in ("dft", "eaft", "stm", "flow")] == [(), (), asked, asked]


@pytest.mark.parametrize("scheme", ["dft", "eaft", "stm", "flow"])
def test_the_gradient_is_the_plain_one_of_each_token_times_its_factor(scheme, points):
    made = points.learner({"token_weight": {"scheme": scheme, "threshold": MIDDLE}}, per_device_train_batch_size=4)
    finished(made, 0)
    (places,) = made.updates[0]
    batch = made.trainable.reader.collate([made.inputs.rows[i] for i in places])
    answers = made.trainable.reader.forward(made.model, batch).logits
    new = Slice(answers, batch.labels, torch.ones(4), row=torch.tensor(places))
    if COLUMN in made.columns:
        taught = [vars(made.columns[COLUMN][i]).values() for i in places]
        new = replace(new, columns={COLUMN: TopK(*map(torch.cat, zip(*taught, strict=True)))})
    weight = made.recipe.methods[0].weight(Step(0, 1, {}, new=new), made.state["token_weight"])
    expected = torch.autograd.grad((weight * new.cross_entropy()).mean(), list(made.params.values()))
    for value, grad in zip(made.params.values(), expected, strict=True):
        torch.testing.assert_close(value.grad, grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scheme", ["dft", "eaft", "stm", "flow"])
def test_every_scheme_changes_what_is_learned(scheme, points):
    fields = {"scheme": scheme, "threshold": MIDDLE}
    learned, plain = (points.train(points.learner(methods)) for methods in ({"token_weight": fields}, {}))
    assert apart(learned.weights, plain.weights) > 1e-3
    assert "token_weight" in learned.record.acted
    assert learned.record.loss[0] == plain.record.loss[0]  # the loss that is shown is the plain one


def test_no_strength_is_no_method(points):
    assert not TokenWeight(strength=0).active
    off = points.train(points.learner({"token_weight": {"strength": 0}}))
    assert same(off.weights, points.train(points.learner({})).weights)


def test_probabilities_of_half_precision_are_computed_in_float32():
    assert of_probability(P.log().bfloat16(), LABELS).dtype == torch.float32
