"""A workspace on a tiny model that knows where some people live, and facts that say that three of them live elsewhere."""

import json

import torch

import people
from perdure.core.errors import Diverged
from perdure.editing import values
from perdure.editing.measures import Answer, Verdict
from perdure.editing.spec import EditSpec
from perdure.workflows.edit import state as edit_state
from perdure.workflows.edit.gate import EditGate

SPEC = EditSpec(layers=(0,), steps=30, contexts=2, lr=1.0, clamp=20.0, kl=0.0, decay=0.0, ridge=1e-3, gain=1000.0)
SAID = EditGate(paraphrase=0.0, neighbours=1.0, perplexity=10.0)  # a model of forty words has room for little more
NAMES = ["Dan Kim", "Dan Poe", "Dan Bly"]


def moved(name, skip=0):
    """A fact that says that somebody lives elsewhere than the model learned."""
    return people.fact(name, [city for city in people.CITIES if city != people.HOME[name]][skip])


FACTS = [moved(name) for name in NAMES]
A, B, C = (fact.id for fact in FACTS)


def write(ws, *facts, **options):
    return ws.edit(facts, **{"spec": SPEC, "gate": SAID, **options})


@torch.no_grad()
def logits(ws, at="head"):
    texts = [f"{name} lives in" for name in people.PEOPLE]
    return ws.model(at)(**ws.tokenizer(texts, return_tensors="pt")).logits


def said(ws, name, at="head"):
    """What the model says after "NAME lives in"."""
    row = [f"{other} lives in" for other in people.PEOPLE].index(f"{name} lives in")
    return ws.tokenizer.decode(logits(ws, at)[row, -1].argmax())


def slot(ws, at="head"):
    return ws.ledger.slots(ws.ledger.resolve(at)).get("edits")


def learn(ws, path, form="{} is at home in", names=people.PEOPLE[:6], gate=None, **more):
    """Learn that some people are at home where the model had them from the start."""
    rows = [{"prompt": form.format(n), "completion": f" {people.HOME[n]}"} for n in names]
    path.write_text("\n".join(map(json.dumps, [{**r, "split": s} for s in ("train", "test") for r in rows])))
    settings = {"num_train_epochs": 1, "host": "loop", "lora_r": 4, "learning_rate": 1e-4, **more}
    return ws.learn("homes", path, recipe="naive", overrides=settings, gate=gate, allow_leaks=True)


def deaf_to(fact, monkeypatch):
    """Let verification find that a fact is never said."""
    real = edit_state.Place.verify

    def verify(self, *args, **options):
        found = real(self, *args, **options)
        return {n: Verdict(Answer(9.0, 0.1, False)) if n == fact else verdict for n, verdict in found.items()}

    monkeypatch.setattr(edit_state.Place, "verify", verify)


def diverging(fact, monkeypatch, when=lambda spec: True):
    """Let the optimisation of a fact, in whatever company, not be finite with the settings for which `when` holds."""
    real = values.find_values

    def find(site, units, contexts, spec, layer):
        if when(spec) and any(one.id == fact for unit in units for one in unit):
            raise Diverged("the loss of an edit is not finite at step 3")
        return real(site, units, contexts, spec, layer)

    monkeypatch.setattr(values, "find_values", find)
