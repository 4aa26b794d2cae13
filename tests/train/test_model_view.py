"""Per-row gradients as methods see them: whose score, of which rows, whatever the batch; Fisher information in closed form."""

import pytest
import torch
from torch import nn

from perdure.core.recipe import build_recipe
from perdure.model.features import Example, Features
from perdure.train.learner import Learner
from perdure.train.model_view import ModelView
from perdure.train.task import TaskInputs, Trainable


def view(model, points, labels, batch=4, **settings):
    """What a method sees of `model` with these rows."""
    rows = [Example(point, int(label)) for point, label in zip(points, labels, strict=True)]
    recipe = build_recipe({"per_device_train_batch_size": batch, **settings}, {})
    trainable = Trainable(model, dict(model.named_parameters()), Features())
    return ModelView(Learner(trainable, recipe, TaskInputs("t", rows)))


def collected(seen, *args):
    batches = [dict(batch) for batch in seen.gradients(*args)]
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


@pytest.fixture
def line():
    """Two classes by a linear layer: logits (0, w x) up to what both share."""
    torch.manual_seed(0)
    return nn.Linear(2, 2, bias=False)


def chance(model, points):
    return model(points).softmax(-1).detach()


def test_of_data_it_is_the_score_of_the_written_label(line):
    points, labels = torch.randn(7, 2), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    found = collected(view(line, points, labels), "new", None, "data")["weight"]
    error = nn.functional.one_hot(labels, 2) - chance(line, points)
    torch.testing.assert_close(found, error[:, :, None] * points[:, None])


def test_of_sampled_its_mean_square_is_the_fisher_information(line):
    """Of logistic regression F = mean p (1 - p) x^2, whatever labels were written."""
    points = torch.randn(6000, 2)
    found = collected(view(line, points, torch.zeros(6000), 500), "new", None, "sampled")["weight"].square().mean(0)
    p = chance(line, points)[:, 1]
    torch.testing.assert_close(found[1], ((p * (1 - p))[:, None] * points.square()).mean(0), rtol=0.1, atol=0)


def test_of_outputs_it_is_the_squared_norm_of_the_centred_logits(line):
    points = torch.randn(5, 2)
    found = collected(view(line, points, torch.zeros(5)), "new", None, "outputs")["weight"]
    centred = line(points).detach() - line(points).detach().mean(-1, keepdim=True)
    torch.testing.assert_close(found, 2 * centred[:, :, None] * points[:, None])


@pytest.mark.parametrize("of", ["data", "sampled", "outputs"])
def test_it_does_not_depend_on_the_batch(line, of):
    points, labels = torch.randn(9, 2), torch.ones(9)
    whole, split = (collected(view(line, points, labels, batch), "new", None, of)["weight"] for batch in (9, 2))
    torch.testing.assert_close(whole, split)


def test_it_asks_for_that_many_rows_and_leaves_the_mode_as_it_was(line):
    seen = view(line.train(), torch.randn(9, 2), torch.zeros(9))
    assert len(collected(seen, "new", 3)["weight"]) == 3
    assert line.training
    assert not list(seen.gradients("validation"))


def test_a_layer_that_is_no_linear_one_is_differentiated_row_by_row():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    seen, points = view(model, torch.randn(5, 2), torch.ones(5)), None
    found = collected(seen, "new", None, "data")
    points = torch.stack([row.features for row in seen.open_task.inputs.rows])
    for i in range(5):
        model.zero_grad()
        model(points[i : i + 1]).log_softmax(-1)[0, 1].backward()
        for name, value in model.named_parameters():
            torch.testing.assert_close(found[name][i], value.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "scale"), [({}, 2.0), ({"lora_r": 4}, 4.0), ({"lora_r": 16, "use_rslora": True}, 4.0)]
)
def test_its_scale_is_that_of_the_adapter_that_trains(line, settings, scale):
    assert view(line, torch.randn(1, 2), [0], **settings).scale == scale
