"""What is told of methods and recipes before anything runs: it is counted, not promised."""

import json
from inspect import cleandoc

import pytest

from perdure.bridges.sizes import sizes
from perdure.core.errors import BadInput, BadSpec
from perdure.core.recipe import build_recipe
from perdure.core.seams import SEAMS
from perdure.core.settings import Settings
from perdure.methods.registry import all_methods
from perdure.workflows.advise.explain import (
    columns,
    describe,
    exclusive,
    explain,
    memory,
    moments,
    sections,
)
from perdure.workflows.advise.explanation import Explanation, MethodCard, StateSize
from perdure.workflows.advise.rehearse import rehearse

METHODS = all_methods()


def recipe(settings=None, **methods):
    alone = {"train": "none"} if any(METHODS[name].answers for name in methods) else {}
    return build_recipe({"name": "mine", **alone, **(settings or {}), "methods": methods}, METHODS)


# --- methods


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_described_whole(name):
    told = describe(METHODS[name])
    assert MethodCard.from_json(json.loads(json.dumps(told.to_json()))) == told
    assert told.formula
    assert told.idea.endswith(".")
    assert {"seams", "state", "cost", "when to use"} <= told.says.keys()
    assert not any(f"{head}:" in told.formula for head in ("Seams", "State", "Cost", "Source"))
    for field in told.fields.values():
        assert field.about
        assert field.default is not None


def test_sections_are_found_wherever_they_stand_in_a_line():
    text = """
    Add x.

    More of it.

    Seams: draw, loss. State: none.
    Cost: no forward;
      nothing.
    Deviation from DER: top k. From Hinton: nothing.
    Source: Someone 2020, arXiv 2001.00001.
    """
    formula, says = sections(cleandoc(text))
    assert formula == "Add x.\n\nMore of it."
    assert says == {
        "seams": "draw, loss.",
        "state": "none.",
        "cost": "no forward; nothing.",
        "deviation": "from DER: top k. From Hinton: nothing.",
        "source": "Someone 2020, arXiv 2001.00001.",
    }


def test_a_word_within_a_sentence_opens_no_section():
    assert sections("The source: nothing. The cost is high.") == ("The source: nothing. The cost is high.", {})


def test_ranges_are_told_as_a_recipe_checks_them():
    fields = describe(METHODS["replay"]).fields
    assert fields["mix"].range == "at least 0 and below 1"
    assert fields["strength"].range == "at least 0"
    assert fields["balance"].range == "label or task or row"
    assert describe(METHODS["lwf"]).fields["temperature"].range == "above 0.0001"


# --- recipes


def test_the_moments_of_a_task_hold_every_seam_once_in_order():
    told = moments(recipe(replay={}, ewc={}, ema={}))
    owners = {line.seam: line.owners for line in told if line.owners}
    assert list(owners) == ["prepare", "draw", "loss", "watch", "settle", "measure", "admit"]
    assert owners["loss"] == ("ewc", "replay")
    assert [line.seam for line in told] == list(SEAMS)
    assert {line.seam for line in told if line.room == "one"} == {
        "adapter",
        "weight",
        "reference",
        "gradient",
        "settle",
        "admit",
    }
    assert all(line.purpose for line in told)
    assert list(dict.fromkeys(line.moment for line in told)) == ["task opens", "each update", "task closes"]


def test_an_exclusive_seam_names_whom_it_keeps_out_and_nobody_else():
    taken = {line.seam: line for line in exclusive(recipe(gem={}), METHODS)}
    assert taken.keys() == {"reference", "gradient"}
    assert {"a_gem", "pcgrad", "cagrad"} <= set(taken["gradient"].keeps_out)
    assert not {"gem", "ewc", "replay"} & set(taken["gradient"].keeps_out)


def test_columns_have_the_bytes_of_what_is_packed():
    (column,) = columns(recipe(replay={}, distill={"top_k": 10}))
    assert (column.rows, column.teacher, column.methods) == ("replay", "settled", ("distill",))
    assert column.bytes_per_label_token == 10 * (4 + 2) + 2 + 4  # index, log-probability; the rest's mass, the total
    (whole,) = columns(recipe(replay={}, distill={"top_k": 0}))
    assert whole.top_k is None
    assert columns(recipe(replay={})) == []


def test_memory_says_whether_any_row_is_kept():
    assert memory(recipe(ewc={})).keeps_rows is False
    told = memory(recipe(a_gem={}))
    assert told.keeps_rows
    assert told.admission == "reservoir"
    assert told.pools == {"replay": ("a_gem",)}


def test_a_method_that_acts_on_new_rows_alone_draws_none_and_one_without_any_is_told():
    new = recipe(distill={"teacher": "base", "on": "new"})
    assert memory(new).pools == {}
    assert next(line.owners for line in moments(new) if line.seam == "draw") == ()
    assert memory(new).starved == ()
    assert memory(recipe(distill={})).starved == ("distill",)
    assert memory(recipe(distill={}, replay={})).starved == ()


# --- what it costs


def test_plain_training_costs_itself():
    cost = rehearse(recipe())
    assert (cost.forward, cost.backward, cost.before, cost.after, cost.held) == (1, 1, 0, 0, 0)
    assert not cost.drawn
    assert not cost.state


def test_methods_that_share_their_rows_pay_one_forward():
    alone = rehearse(recipe(replay={"mix": 0.5}))
    assert alone.forward == alone.backward == 2
    assert rehearse(recipe(replay={"mix": 0.5}, distill={}, contrastive={})).forward == 2


def test_a_reference_costs_a_pass_over_the_rows_drawn_and_a_gradient():
    cost = rehearse(recipe(a_gem={"mix": 0.5}))
    assert cost.forward == cost.backward == 1 + 1
    assert cost.held == 4


def test_state_is_counted_in_bytes_a_trainable_parameter():
    cost = rehearse(recipe(ewc={}, ema={}))
    assert cost.state["ema"].learning == 4
    assert cost.state["ema"].kept == 0
    assert cost.state["ewc"].kept >= 8  # Fisher and anchor
    assert cost.after > 0


def test_the_models_own_word_on_new_rows_costs_a_forward_before_the_task():
    cost = rehearse(recipe(lwf={}))
    assert (cost.before, cost.forward) == (1, 1)
    assert rehearse(recipe(lwf={"vocabulary": "full"})).forward == 2


def test_passes_that_start_and_end_an_adapter_are_counted():
    """inf_lora reads the inputs of 256 of the 512 new rows before the task, and again after it."""
    cost = rehearse(recipe(inf_lora={}))
    assert (cost.before, cost.after, cost.forward) == (0.5, 256, 1)
    assert rehearse(recipe(inf_lora={"size": 64})).after == 64
    assert rehearse(recipe(osf={})).before == 0  # it reads weights alone


def test_features_that_are_read_are_counted_apart_from_forwards():
    after = rehearse(recipe(per_task={}, color={}))
    assert (after.features_before, after.features_after, after.before, after.after) == (0, 512, 0, 0)
    nearest = rehearse(recipe(per_task={"start": "nearest"}, color={}))
    assert (nearest.features_before, nearest.features_after) == (1, 512)
    alone = rehearse(build_recipe({"methods": {"slda": {}}, "train": "none"}, METHODS))
    assert (alone.forward, alone.after, alone.features_after) == (0, 0, 512)


def test_another_teacher_of_new_rows_runs_each_once_before_the_task():
    assert rehearse(recipe(lwf={"teacher": "base"})).before == 1


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_rehearsed(name):
    cost = rehearse(recipe(**{name: {}}))
    updates = not METHODS[name].answers  # without them nothing is trained
    assert cost.forward >= updates
    assert cost.backward >= updates


def test_a_rehearsal_leaves_randomness_and_threads_as_they_were():
    import torch

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    rehearse(recipe(replay={}))
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads


# --- in bytes


def test_sizes_are_those_of_the_adapter_that_is_trained(stream, tiny_model):
    for wanted in ("all-linear", ["q_proj", "v_proj"]):
        settings = Settings(lora_r=3, lora_target_modules=wanted)
        stream.runtime.load({})
        params = stream.runtime.start_adapter(settings, 0, "t")
        assert sizes(str(tiny_model), settings).trainable == sum(value.numel() for value in params.values())
    stream.runtime.load({})
    total = sum(value.numel() for value in stream.runtime.model.parameters())
    assert sizes(str(tiny_model), Settings(train="full")) == (total, total)


def test_a_model_that_is_not_there_or_fits_no_layer_is_refused(tiny_model, tmp_path):
    with pytest.raises(BadInput, match="no model folder"):
        sizes(str(tmp_path / "nowhere"), Settings())
    with pytest.raises(BadSpec, match="matches no linear layer"):
        sizes(str(tiny_model), Settings(lora_target_modules=["nothing"]))


def test_bytes_are_absolute_where_the_model_is_known():
    from perdure.bridges.sizes import Size

    told = explain(recipe(ema={}), {"methods": {"ema": {}, "ewc": {"strength": 0}}}, METHODS, size=Size(10**6, 1000))
    assert told.off == ("ewc",)
    assert told.model.trainable == 1000
    assert told.model.state_bytes["ema"] == StateSize(learning=4000, kept=0)
    assert told.model.training_bytes.optimizer == 8000
    assert Explanation.from_json(json.loads(json.dumps(told.to_json()))) == told


def test_the_keys_of_what_is_printed_stay():
    told = explain(recipe(replay={}, distill={}, ewc={}), {}, METHODS).to_json()
    assert list(told) == [
        *("name", "methods", "off", "settings", "changed", "moments", "exclusive", "needs", "columns", "memory"),
        *("cost", "model"),
    ]
    assert list(told["moments"][0]) == ["moment", "seam", "owners", "room", "for"]
    assert list(told["columns"][0]) == [
        *("name", "rows", "teacher", "refresh", "top_k", "bytes_per_label_token", "for")
    ]
    assert list(told["memory"]) == [
        *("pools", "keeps_rows", "starved", "admission", "memory_per_label", "memory_per_task", "memory_size")
    ]
    assert list(told["cost"]) == ["drawn", "forward", "backward", "held", "before", "after", "state"]
    assert list(told["cost"]["state"]["ewc"]) == ["learning", "kept", "more"]
    assert list(describe(METHODS["ewc"]).to_json()) == [
        *("name", "family", "seams", "fields", "supports", "source", "idea", "formula", "says", "exclusive"),
        *("module", "about"),
    ]
