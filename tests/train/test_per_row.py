"""Per-row gradients: each row's own gradient, as differentiating it alone gives it."""

import pytest
import torch
from torch import nn

from perdure.train.per_row import per_row_gradients


class Tied(nn.Module):
    """An embedding, a norm, a layer over positions, and a head that shares the embedding's weight."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.mix = nn.Embedding(7, 5), nn.LayerNorm(5), nn.Linear(5, 5)
        self.head = nn.Linear(5, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return self.head(self.norm(torch.tanh(self.mix(self.embed(ids)))))


def by_hand(model, params, score, rows):
    found = {name: [] for name in params}
    for i in range(rows):
        grads = torch.autograd.grad(score()[i], list(params.values()), allow_unused=True)
        for (name, value), grad in zip(params.items(), grads, strict=True):
            found[name].append(torch.zeros_like(value) if grad is None else grad)
    return {name: torch.stack(grads) for name, grads in found.items()}


@pytest.mark.parametrize("frozen", [(), ("embed.weight", "norm.weight", "norm.bias")])
def test_it_is_the_gradient_of_each_row_by_itself(frozen):
    torch.manual_seed(0)
    model, ids = Tied(), torch.randint(0, 7, (4, 3))
    params = {name: value for name, value in model.named_parameters() if name not in frozen}

    def score():
        return model(ids).log_softmax(-1).gather(-1, ids[..., None]).sum((1, 2))

    found = per_row_gradients(model, params, score)
    expected = by_hand(model, params, score, 4)
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)
    assert all(value.grad is None for value in model.parameters())


def test_a_layer_that_a_row_never_reaches_has_a_zero_gradient():
    torch.manual_seed(0)
    used, unused = nn.Linear(3, 2), nn.Linear(3, 2)
    model = nn.ModuleList([used, unused])
    points = torch.randn(5, 3)
    found = per_row_gradients(model, dict(model.named_parameters()), lambda: used(points).square().sum(1))
    assert found["1.weight"].shape == (5, 2, 3)
    assert not found["1.weight"].any()
    assert found["0.weight"].abs().sum() > 0


def test_a_head_that_is_given_label_positions_only_is_not_mixed_over_rows():
    torch.manual_seed(0)
    body, head = nn.Linear(3, 4), nn.Linear(4, 5)
    model, points = nn.ModuleDict({"body": body, "head": head}), torch.randn(2, 6, 3)
    at = torch.tensor([[0, 0, 1, 1, 1, 1], [4, 5, 2, 3, 4, 5]])  # two labels of the first row, four of the second
    params = dict(model.named_parameters())

    def score():
        hidden = torch.tanh(body(points))
        found = head(hidden[at[0], at[1]][None])[0].logsumexp(-1)  # (1, tokens, ...), as the head of a language model
        return torch.zeros(2).index_add(0, at[0], found)

    found, expected = per_row_gradients(model, params, score), by_hand(model, params, score, 2)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


class Routed(nn.Module):
    """A layer over positions that runs twice, and an expert that is given as many tokens of the batch as there are rows."""

    def __init__(self):
        super().__init__()
        self.mix, self.expert = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, points):
        hidden = torch.tanh(self.mix(torch.tanh(self.mix(points))))
        flat = hidden.reshape(-1, 3)
        return hidden.sum((1, 2)) + torch.zeros(2).index_add(
            0, torch.tensor([1, 1]), self.expert(flat[5:7]).square().sum(1)
        )


def test_a_layer_that_runs_twice_and_an_expert_are_not_mixed_over_rows():
    torch.manual_seed(0)
    model, points = Routed(), torch.randn(2, 4, 3)
    params = dict(model.named_parameters())
    found, expected = (
        per_row_gradients(model, params, lambda: model(points)),
        by_hand(model, params, lambda: model(points), 2),
    )
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)


def test_in_bfloat16_they_are_formed_in_float32_from_what_the_layers_were_given():
    torch.manual_seed(0)
    wide, narrow = nn.Linear(6, 2, bias=False, dtype=torch.bfloat16), nn.Linear(2, 6, bias=False, dtype=torch.bfloat16)
    model, points = nn.ModuleDict({"wide": wide, "narrow": narrow}), torch.randn(4, 30, 6, dtype=torch.bfloat16)
    seen = {}

    def score():
        for name, layer in model.items():
            layer.register_forward_hook(lambda _, given, out, name=name: seen.update({name: (given[0], out)}))
        return narrow(torch.tanh(wide(points))).float().logsumexp(-1).sum(1)

    found = per_row_gradients(model, dict(model.named_parameters()), score)
    outputs = [out for _, out in seen.values()]
    pulled = torch.autograd.grad(score().sum(), [out for _, out in seen.values()])
    assert len(outputs) == len(pulled) == 2
    for (name, (given, _)), grad in zip(seen.items(), pulled, strict=True):
        exact = torch.einsum("rto,rti->roi", grad.double(), given.double())
        assert found[f"{name}.weight"].dtype == torch.float32
        torch.testing.assert_close(found[f"{name}.weight"].double(), exact, rtol=1e-5, atol=1e-6)
        with pytest.raises(AssertionError):  # what rounding the product once would be
            torch.testing.assert_close(exact.bfloat16().double(), exact, rtol=1e-5, atol=1e-6)


class Pair(nn.Module):
    """A frozen layer with a LoRA pair beside it, and a full update D of the same layer, which is zero."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down, self.up, self.full = (nn.Linear(*shape, bias=False) for shape in ((5, 2), (2, 4), (5, 4)))
        nn.init.zeros_(self.full.weight)

    def forward(self, x):
        return self.up(self.down(x)) + self.full(x)


def test_sums_of_squares_of_a_product_are_those_of_the_full_gradients_of_each_row():
    """The gradient of B A is that of D; squares are of single rows, not of their sum."""
    model, x = Pair(), torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(1))
    params = {
        name: getattr(model, name.partition(".")[0]).weight for name in ("down.weight", "up.weight", "full.weight")
    }

    def score():
        return model(x).tanh().square().sum((1, 2)) * torch.tensor([1.0, -2.0, 3.0])

    grads = per_row_gradients(model, params, score)
    rows, columns = grads.product_sums("down.weight", "up.weight")
    squares = grads["full.weight"].square()
    torch.testing.assert_close(rows, squares.sum(2))
    torch.testing.assert_close(columns, squares.sum(1))
    assert grads.product_sums("down.weight", "nothing") is None
