"""What the host gives methods at each seam: other forwards, single gradients, references, and a state that lasts."""

from typing import ClassVar

import pytest
import torch
from pydantic.dataclasses import dataclass

from perdure.core.errors import BadSpec
from perdure.core.seams import Column, Draw, Method, checked_method
from perdure.methods.registry import all_methods
from perdure.train.draws import DrawName
from perdure.train.model_view import ModelView
from streams import FeatureStream, Stream, close, run, same, weights

SEEN = {}


@dataclass(frozen=True)
class Spy(Method):
    """Looks at everything a step shows, adds a term of the weights, and turns nothing."""

    name: ClassVar[str] = "spy"
    family: ClassVar[str] = "test"
    seams: ClassVar[tuple[str, ...]] = ("prepare", "draw", "loss", "reference", "gradient", "watch", "measure")
    source: ClassVar[str] = "arXiv"
    needs: ClassVar[tuple[str, ...]] = ("before", "task_grad", "row_losses")
    strength: float = 0.0
    active: ClassVar[bool] = True

    @property
    def columns(self):
        return (Column("start", "new", "start", 3),)

    def prepare(self, model, state):
        return {**state, "prepared": torch.ones(())}

    def draw(self, context, state):
        return {"a": Draw(2), "b": Draw(2, own=True)}

    def loss(self, step, state):
        SEEN.setdefault("steps", []).append(step)
        size = sum(value.square().sum() for value in step.params.values())
        return step.once(self.strength * size) if self.strength else None

    def reference(self, step, state):
        rows = step.drawn.get("spy.a")
        return {} if rows is None else {"old": rows.mean(rows.cross_entropy())}

    def gradient(self, grads, refs, step, state):
        SEEN["grads"], SEEN["refs"] = grads, refs
        return grads

    def watch(self, step, state):
        SEEN["watched"] = step
        return {**state, "count": state.get("count", torch.zeros(())) + 1}

    def measure(self, model, state):
        return {"kept": state["count"], "nll": torch.tensor(model.nll("new"))}


REGISTRY = {**all_methods(), "spy": Spy}


@pytest.fixture(params=["tokens", "features"])
def any_stream(request):
    return FeatureStream() if request.param == "features" else request.getfixturevalue("stream")


def spied(stream: Stream, **more):
    SEEN.clear()
    fields = more.pop("fields", {})
    methods = {"spy": fields, **more.pop("methods", {})}
    made = stream.learner(methods, pools=("replay",), **{"registry": REGISTRY, **more})
    made.begin()
    return made


def plain_grads(made, rows, weights_of_rows=None):
    """The gradient of the mean cross-entropy over the rows' label tokens, by plain autograd."""
    batch = made.trainable.reader.collate(rows, share_prefix=False)
    logits = made.trainable.reader.forward(made.model, batch).logits
    loss = torch.nn.functional.cross_entropy(logits, batch.labels)
    names = list(made.params)
    grads = torch.autograd.grad(loss, [made.params[n] for n in names], allow_unused=True)
    return {n: torch.zeros_like(made.params[n]) if g is None else g for n, g in zip(names, grads, strict=True)}


@pytest.mark.parametrize("accumulation", [1, 2])
def test_task_gradient_references_and_total_are_each_the_plain_gradient(any_stream, accumulation):
    made = spied(any_stream, fields={"strength": 0.1}, gradient_accumulation_steps=accumulation)
    rows = [made.inputs.rows[i] for batch in made.updates[0] for i in batch]
    task = plain_grads(made, rows)
    update = made.update(0)
    update.gradients()
    update.finish()
    close(dict(SEEN["watched"].task_grad), task, rtol=1e-3, atol=1e-5)
    old = [made.pools["replay"].rows[i] for i in update.drawn.rows[DrawName("replay")]]
    per_row = [plain_grads(made, [row]) for row in old]  # each row counts the same
    reference = {name: sum(grads[name] for grads in per_row) / len(old) for name in task}
    close(SEEN["refs"]["old"], reference, rtol=1e-3, atol=1e-5)
    total = {name: task[name] + 0.2 * made.params[name].detach() for name in task}
    close(SEEN["grads"], total, rtol=1e-3, atol=1e-5)


def test_another_forward_gives_what_the_shared_one_gave(any_stream):
    made = spied(any_stream)
    run(made, 0)
    step = SEEN["steps"][0]
    for part, shared in {"new": step.new, **step.drawn}.items():
        again = step.run(part)
        torch.testing.assert_close(again.logits, shared.logits.detach(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(again.hidden.float(), shared.hidden.detach().float(), rtol=1e-3, atol=1e-4)
        assert torch.equal(again.labels, shared.labels)
        assert not again.logits.requires_grad
        embedded = step.run(part, embeddings=step.embed(part))
        torch.testing.assert_close(embedded.logits, again.logits, rtol=1e-3, atol=1e-4)


def test_another_forward_with_other_weights_leaves_the_weights_alone(any_stream):
    made = spied(any_stream)
    before = weights(made)
    run(made, 0)
    step = SEEN["steps"][0]
    other = {name: torch.zeros_like(value) for name, value in made.params.items()}
    assert not torch.allclose(step.run("new", weights=other).logits, step.new.logits, atol=1e-3)
    assert same(weights(made), before)
    grown = step.embed("new").requires_grad_(True)
    made_logits = step.run("new", embeddings=grown, grad=True).logits
    (grad,) = torch.autograd.grad(made_logits.square().sum(), grown)
    assert grad.abs().sum() > 0


def test_columns_of_new_rows_say_what_the_model_said_at_the_start(any_stream):
    made = spied(any_stream)
    batch = made.trainable.reader.collate(made.inputs.rows, share_prefix=False)
    with torch.no_grad():
        said = made.trainable.reader.forward(made.model, batch).logits.log_softmax(-1)
    for update in range(2):
        run(made, update)
        step = SEEN["steps"][update]
        column = step.new.columns["start"]
        places = step.new.row.tolist()
        assert step.new.covered["start"].all()
        first = [n for n, place in enumerate(places) if n == 0 or places[n - 1] != place]
        for n in first:
            at = (batch.at[0] == places[n]).nonzero()[0, 0]
            torch.testing.assert_close(column.logprob[n], said[at].gather(-1, column.index[n]), rtol=1e-3, atol=1e-3)


def test_a_column_that_nobody_was_asked_for_is_refused(any_stream):
    @dataclass(frozen=True)
    class Asking(Spy):
        @property
        def columns(self):
            return (Column("other", "new", "/some/model", 3),)

    made = any_stream.learner({"spy": {}}, registry={**REGISTRY, "spy": Asking})
    with pytest.raises(BadSpec, match="'/some/model'"):
        made.begin()


def test_own_draws_and_common_ones_arrive_apart_and_row_losses_name_their_rows(any_stream):
    made = spied(any_stream, methods={"replay": {"mix": 0.5}})
    update = made.update(0)
    update.gradients()
    update.finish()
    step, shared, own = SEEN["steps"][0], DrawName("replay"), DrawName("replay", "spy.b")
    assert set(update.drawn.rows) == {shared, own}
    assert {part.name: part.draw for part in update.drawn.parts} == {"replay": shared, "spy.a": shared, "spy.b": own}
    assert step.drawn["replay"].logits.shape == step.drawn["spy.a"].logits.shape
    for part in ("spy.a", "spy.b"):
        rows, losses = SEEN["watched"].row_losses[part]
        drawn = update.drawn.rows[update.drawn.draw_of(part)]
        assert sorted(rows.tolist()) == sorted(drawn)
        pool = made.pools["replay"].rows
        for row, loss in zip(rows.tolist(), losses.tolist(), strict=True):
            assert loss == pytest.approx(made.inference.nll([pool[row]])[0], rel=1e-3)


def test_what_measure_returns_is_kept_and_the_next_task_begins_with_it(any_stream):
    made = spied(any_stream)
    any_stream.train(made)
    assert made.measured_state["spy"].keys() == {"kept", "nll"}
    assert made.measured_state["spy"]["kept"].item() == made.total
    again = any_stream.learner({"spy": {}}, registry=REGISTRY, state=made.measured_state)
    again.begin()
    assert again.state["spy"].keys() == {"kept", "nll", "prepared"}


@dataclass(frozen=True)
class Measuring(Spy):
    """Stores the mean features of the rows in a slot."""

    slot: ClassVar[str] = "route"

    def measure(self, model, state):
        features, labels = model.features("new")
        return {
            "mean": features.mean(0),
            "rows": torch.tensor(float(len(labels))),
            **({"again": state["mean"]} if "mean" in state else {}),
        }


def test_what_a_method_with_a_slot_measures_is_a_slot_of_the_task_and_no_state_of_the_next(any_stream):
    registry = {**REGISTRY, "spy": Measuring}
    made = spied(any_stream, registry=registry)
    any_stream.train(made)
    assert "spy" not in made.measured_state
    assert made.measured_slots.keys() == {"route:new"}
    assert made.measured_slots["route:new"]["rows"] == 16
    again = spied(any_stream, registry=registry, state={"spy": made.measured_slots["route:new"]})
    any_stream.train(again)
    assert torch.equal(again.measured_slots["route:new"]["again"], made.measured_slots["route:new"]["mean"])


def test_features_are_those_of_the_base_whatever_is_trained_over_it(stream):
    found = []
    for methods in ({}, {"incremental": {}}):
        made = stream.learner(methods, learning_rate=0.05)
        found.append(ModelView(made).features("new"))
        stream.train(made)
        found.append(ModelView(made).features("new"))
        assert all(value.requires_grad for value in made.params.values())
    stream.runtime.load({})
    bare = stream.runtime.reader.features(stream.runtime.model, stream.new, None)
    assert all(torch.equal(features, bare[0]) for features, _ in found)
    assert all(labels == bare[1] for _, labels in found)


@pytest.mark.parametrize(("slot", "seams"), [("skill", ("measure",)), ("route", ("watch",))])
def test_a_slot_that_is_not_for_what_is_measured_is_refused(slot, seams):
    class Odd(Method):
        name, family, source = "odd", "test", "arXiv"

        def measure(self, model, state):
            return {}

    Odd.slot, Odd.seams = slot, seams
    with pytest.raises(BadSpec, match="has slot"):
        checked_method(Odd)


def test_state_of_parameters_in_another_shape_is_refused(any_stream):
    name, value = next(iter(any_stream.learner({}).params.items()))
    state = {"spy": {f"anchor.{name}": torch.zeros(value.numel() + 1)}}
    with pytest.raises(BadSpec, match=r"method spy stored anchor\."):
        any_stream.learner({"spy": {}}, registry=REGISTRY, state=state)


def test_settling_twice_changes_nothing(any_stream):
    made = any_stream.learner({"tail_average": {"share": 1.0}})
    any_stream.train(made)
    settled = weights(made)
    made.settle()
    assert same(weights(made), settled)
