"""What is summed is summed in float32 or wider: a model in bfloat16 rounds its forwards, never the statistics taken from them."""

import pytest
import torch

import people
from perdure.bridges.models import Base
from perdure.editing import moments
from perdure.editing.moments import Store, measured
from perdure.editing.site import open_site
from perdure.editing.solve import second_moment_metric
from perdure.maths.importance import mean_square
from perdure.methods.registry import all_methods
from perdure.model.hooks import hooked
from perdure.train import loop, per_row
from perdure.train.model_view import ModelView
from streams import Stream, apart

FINE = 1e-5  # relative error that float32 keeps below; a product rounded to bfloat16 is off by about 1e-3


@pytest.fixture(scope="module")
def coarse(tiny_model):
    """The contradicting stream on the tiny model in bfloat16."""
    return Stream(tiny_model, "bfloat16")


def off(found, exact):
    """The relative error of a tensor."""
    return ((found.double() - exact).norm() / exact.norm()).item()


def moments_and_keys(model, tokenizer, monkeypatch):
    """Return each layer's second moment, and the keys that it was summed from."""
    base = Base(model, tokenizer, torch.bfloat16, torch.device("cpu"))
    monkeypatch.setattr(moments, "READ", 8)  # several forwards
    keys = {0: [], 2: []}
    with open_site(model, tokenizer, base.precision) as site:
        rows = [[(7 * n + 3 * t) % len(tokenizer) for t in range(20)] for n in range(30)]
        hooks = [
            site.layout.module(site.model, site.layout.down[layer]).register_forward_pre_hook(
                lambda _, given, layer=layer: keys[layer].append(given[0][:, 1:].flatten(0, 1))
            )
            for layer in keys
        ]
        with hooked(*hooks):
            found = measured(site, list(keys), torch.tensor(rows), Store(None, ()))
    return found, {layer: torch.cat(parts) for layer, parts in keys.items()}


def test_the_moments_of_a_bfloat16_model_are_those_of_float64(monkeypatch):
    model, tokenizer = people.make("llama", steps=20)
    found, keys = moments_and_keys(model.bfloat16(), tokenizer, monkeypatch)
    for layer, moment in found.items():
        exact = keys[layer].double().T @ keys[layer].double() / len(keys[layer])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = keys[layer].T @ keys[layer] / len(keys[layer])
        assert off(moment, exact) < FINE < off(rounded, exact)
        assert torch.linalg.eigvalsh(moment.double())[0] > -FINE * moment.diagonal().mean()
        second_moment_metric(moment, ridge=1e-4)


def test_the_fisher_information_of_a_bfloat16_model_is_that_of_float64(coarse, monkeypatch):
    learner = coarse.learner({})
    found = mean_square(ModelView(learner).gradients("new"))

    def exactly(rows, grad, given):
        return torch.bmm(grad.reshape(rows, -1, grad.shape[-1]).mT.double(), given.double())

    monkeypatch.setattr(per_row, "_formed", exactly)
    exact = mean_square(ModelView(learner).gradients("new"))
    assert next(iter(exact.values())).dtype == torch.float64
    assert apart(found, exact) < FINE
    monkeypatch.setattr(per_row, "_formed", lambda *given: exactly(*given).bfloat16().float())
    assert apart(mean_square(ModelView(learner).gradients("new")), exact) > FINE


def test_what_a_bfloat16_teacher_says_is_summed_as_in_float64(coarse):
    learner = coarse.learner({})
    logits = {}
    for indices, batch, out in learner.inference.forwards(coarse.old):
        assert not torch.is_autocast_enabled("cpu")
        lengths = torch.bincount(batch.at[0]).tolist()
        logits |= dict(zip(indices, out.logits.double().split(lengths), strict=True))
    for n, top in enumerate(learner.inference.top_k(coarse.old, 8)):
        logp = logits[n].log_softmax(-1)
        assert off(top.logprob, logp.gather(-1, top.index)) < FINE
        mass = logp.exp().scatter(-1, top.index, 0.0).sum(-1)
        assert off(top.tail.double().exp(), mass) < FINE
        assert off(top.tail.bfloat16().double().exp(), mass) > FINE
    losses = []
    for n, row in enumerate(coarse.old):
        labels = torch.tensor([token for token, trained in zip(row.ids, row.trained, strict=True) if trained])
        losses.append(-logits[n].log_softmax(-1).gather(-1, labels[:, None]).mean())
    assert off(torch.tensor(learner.inference.nll(coarse.old)), torch.stack(losses)) < FINE


@pytest.mark.parametrize(
    "methods", [("contrastive", "ewc", "hler", "mas", "ogd", "distill"), ("cagrad", "si", "der_pp", "ema")]
)
def test_no_method_is_called_under_autocast(coarse, methods, monkeypatch):
    """Under it every product of a method, such as a projection or a cosine, would be rounded to bfloat16."""
    called = set()
    for name in methods:
        kind = all_methods()[name]
        for seam in kind.seams:

            def watched(self, *args, real=getattr(kind, seam), name=name, seam=seam):
                assert not torch.is_autocast_enabled("cpu")
                called.add((name, seam))
                return real(self, *args)

            monkeypatch.setattr(kind, seam, watched)
    recipe = {name: {} for name in methods}
    kept = coarse.kept(recipe)
    loop.train(coarse.learner(recipe, pools=("replay",), state=kept))
    assert called == {(name, seam) for name in methods for seam in all_methods()[name].seams}
