"""Second moments of a module's inputs: of each row's own tokens, however rows are batched, and what cannot be measured."""

import pytest
import torch
from torch import nn

from perdure.core.errors import BadSpec
from perdure.core.plan import Bare
from perdure.core.settings import Settings
from perdure.model import batch as batches
from perdure.model.input_moments import InputMoments
from perdure.train.model_view import ModelView

MODULES = [
    f"model.layers.{i}.{end}" for i in (0, 1) for end in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
]


def alone(stream, rows, skip):
    """Return the second moments by module, of each row in a forward of its own, and the number of tokens."""
    model, seen = stream.runtime.model, {name: [] for name in MODULES}
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    handles = [
        base.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: seen[name].append(args[0][0, skip:])
        )
        for name in MODULES
    ]
    model.eval()
    with torch.no_grad():
        for row in rows:
            model(input_ids=torch.tensor([row.ids[: row.last]]))
    for handle in handles:
        handle.remove()
    x = {name: torch.cat(parts).double() for name, parts in seen.items()}
    return {name: (value.T @ value / len(value)).float() for name, value in x.items()}, sum(
        row.last - skip for row in rows
    )


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("worth", [1, 10**9])
@pytest.mark.parametrize("own", [False, True])
def test_they_are_those_of_the_rows_one_by_one(stream, monkeypatch, packing, worth, own):
    """With a prefix that runs once for all rows and without, and with several rows in a line."""
    monkeypatch.setattr(batches, "SHARED_PREFIX_WORTH", worth)
    made = stream.learner({})
    made.trainable.reader.packing = packing
    rows = stream.new[:7]
    first = {row.ids[0] for row in rows}
    assert len(first) == 1  # they begin alike
    skip = made.trainable.reader.template(rows) if own else 0
    assert not own or 1 <= skip < min(row.last for row in rows)
    known, tokens = alone(stream, rows, skip)
    found = made.inference.moments(rows, MODULES, own=own, batch_size=3)
    assert found.keys() == known.keys()
    for name, moment in found.items():
        assert moment.tokens == tokens
        torch.testing.assert_close(moment.mean, known[name], rtol=1e-4, atol=1e-6)


def test_modules_that_read_one_input_have_one_tensor(stream):
    found = stream.learner({}).inference.moments(stream.new, MODULES)
    assert found[MODULES[0]].mean is found[MODULES[1]].mean
    assert found[MODULES[0]].mean is not found[MODULES[2]].mean


def test_where_memory_runs_out_no_batch_counts_twice(stream, monkeypatch):
    monkeypatch.setattr(batches, "SHARED_PREFIX_WORTH", 10**9)
    made = stream.learner({})
    known = made.inference.moments(stream.new, MODULES)
    reader, forward, failed = made.trainable.reader, made.trainable.reader.forward, []

    def limited(model, rows, *given):
        out = forward(model, rows, *given)
        if len(rows.ids) > 2:
            failed.append(len(rows.ids))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return out

    monkeypatch.setattr(reader, "forward", limited)
    found = made.inference.moments(stream.new, MODULES)
    assert failed
    for name, moment in found.items():
        assert moment.tokens == known[name].tokens
        torch.testing.assert_close(moment.mean, known[name].mean, rtol=1e-4, atol=1e-6)


def test_a_method_reads_them_of_the_rows_it_names_and_of_as_many_as_it_wants(stream):
    made = stream.learner({}, pools=("replay",))
    seen = ModelView(made)
    for rows, known in (("new", stream.new), ("validation", stream.held_out), ("replay", stream.old)):
        found = seen.moments(rows, MODULES, tokens="all")
        assert found[MODULES[0]].tokens == sum(row.last for row in known)
    assert seen.moments("general", MODULES) == {}
    few = seen.moments("new", MODULES, size=3)
    assert few[MODULES[0]].tokens < found[MODULES[0]].tokens + seen.moments("new", MODULES)[MODULES[0]].tokens
    assert torch.equal(few[MODULES[0]].mean, seen.moments("new", MODULES, size=3)[MODULES[0]].mean)


def test_what_does_not_read_each_token_once_is_refused_by_name(stream):
    made = stream.learner({})
    with pytest.raises(BadSpec, match=r"the inputs of model\.layers\.0\.experts cannot be measured"):
        made.inference.moments(stream.new, ["model.layers.0.experts"])


@pytest.mark.parametrize("calls", [[(3, 4)], [(4, 4), (4, 4)], []], ids=["some tokens", "twice", "never"])
def test_a_module_that_reads_other_than_each_token_once_is_refused(calls):
    expert = nn.Linear(4, 2)
    collected = InputMoments(nn.ModuleDict({"expert": expert}), ["expert"], [torch.ones(1, 4)])

    def run():
        with collected.collecting():
            for shape in calls:
                expert(torch.ones(shape))
        collected.checked()

    with pytest.raises(BadSpec, match="it does not read each token once, as the experts of a mixture do"):
        run()


def test_a_plan_that_reads_the_model_before_one_is_loaded_is_an_error_of_its_method():
    bare = Bare("b", 0, Settings(), {}, {})
    with pytest.raises(RuntimeError, match=r"read the model before one was loaded; read it in AdapterPlan\.start"):
        bare.weight("q")
    with pytest.raises(RuntimeError, match="before one was loaded"):
        bare.moments("new", ["q"])


def test_the_weight_is_that_of_the_base_whatever_lies_over_it(stream):
    name = MODULES[0]
    base = {n: p.detach().clone() for n, p in stream.runtime.base.model.named_parameters()}
    value = next(p for n, p in base.items() if n.endswith((f"{name}.weight", f"{name}.base_layer.weight")))
    made = stream.learner({"incremental": {}})
    assert torch.equal(ModelView(made).weight(name), value)
    ModelView(made).weight(name).zero_()
    assert torch.equal(stream.runtime.weight(name), value)
