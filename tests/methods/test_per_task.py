"""An adapter for each task: what it starts from, which task is the nearest, and that older recipes keep their JSON."""

import pytest
import torch

from perdure.core.errors import BadSpec
from perdure.core.plan import Bare
from perdure.core.settings import Settings
from perdure.maths.low_rank import Patch, to_tensors
from perdure.maths.routing import fit
from perdure.methods.adapters.per_task import PerTask, nearest

SHAPES = {"q": (5, 6)}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def adapter(seed, rank=2, scale=2.0, modules=("q",)):
    return to_tensors({m: Patch(drawn(rank, 6, seed=seed), drawn(5, rank, seed=seed + 1), scale) for m in modules})


def measured(centre, seed):
    rows = centre + 0.1 * drawn(20, 3, seed=seed)
    return fit(rows, ["a", "b"] * 10).to_tensors()


class Rows:
    """A model whose features of the new rows are the given ones."""

    def __init__(self, features):
        self.found = features

    def features(self, rows, layer=None, size=None):
        assert rows == "new"
        return self.found, [None] * len(self.found)


def bare(slots, features=None, **settings):
    return Bare("new", 0, Settings(**{"lora_r": 2, "lora_alpha": 4, **settings}), SHAPES, slots, Rows(features))


EAST, NORTH = torch.tensor([4.0, 0, 0]), torch.tensor([0, 4.0, 0])
SLOTS = {
    "skill": adapter(1),
    "task:east": adapter(3),
    "task:north": adapter(5),
    "route:east": measured(EAST, 7),
    "route:north": measured(NORTH, 8),
}


def test_golden_the_json_of_an_old_recipe_is_what_it_was_and_a_start_is_part_of_it_where_it_is_one():
    assert PerTask().to_json() == {"over": "shared"}
    assert PerTask(over="base", start="nearest").to_json() == {"over": "base", "start": "nearest"}


def test_a_shared_start_is_a_copy_of_what_then_does_not_lie_under_it_as_well():
    plan = PerTask(start="shared").adapter(bare({**SLOTS, "sum:z": adapter(9)}), {})
    assert (plan.slot, plan.beneath) == ("task:new", ("sum:z",))
    (factors,) = plan.start().values()
    assert torch.equal(factors.down, SLOTS["skill"]["q.down"])
    assert torch.equal(factors.up, SLOTS["skill"]["q.up"])


@pytest.mark.parametrize(("centre", "name"), [(EAST, "east"), (NORTH, "north")])
def test_the_nearest_start_is_a_copy_of_the_adapter_of_the_task_whose_rows_are_most_alike(centre, name):
    given = bare(SLOTS, centre + 0.1 * drawn(6, 3, seed=11))
    assert nearest(given, ["east", "north"]) == name
    plan = PerTask(start="nearest").adapter(given, {})
    assert plan.beneath == ("skill",)
    assert torch.equal(plan.start()["q"].down, SLOTS[f"task:{name}"]["q.down"])


def test_a_copy_with_another_scale_is_the_same_update():
    copied = PerTask(start="shared").adapter(bare({"skill": adapter(1, scale=3.0)}), {}).start()["q"]
    torch.testing.assert_close(2.0 * copied.up @ copied.down, 3.0 * drawn(5, 2, seed=2) @ drawn(2, 6, seed=1))


def test_only_tasks_with_an_adapter_of_their_own_can_be_the_nearest():
    slots = {name: held for name, held in SLOTS.items() if name != "task:north"}
    plan = PerTask(start="nearest").adapter(bare(slots, NORTH + 0.1 * drawn(6, 3)), {})
    assert torch.equal(plan.start()["q"].down, SLOTS["task:east"]["q.down"])


def test_without_a_router_the_nearest_task_is_not_known_and_the_error_says_what_to_add():
    slots = {name: held for name, held in SLOTS.items() if not name.startswith("route:")}
    with pytest.raises(BadSpec, match=r"it measured none of east, north; learn tasks with color: \{\} in the recipe"):
        PerTask(start="nearest").adapter(bare(slots), {})


@pytest.mark.parametrize("start", ["shared", "nearest"])
def test_a_first_task_has_nothing_to_copy_and_a_task_that_is_learned_again_goes_on(start):
    assert PerTask(start=start).adapter(bare({}), {}).start is None
    again = PerTask(start=start).adapter(bare({**SLOTS, "task:new": adapter(12)}), {})
    assert (again.slot, again.start) == ("task:new", None)


@pytest.mark.parametrize("held", [adapter(1, rank=3), adapter(1, modules=("q", "k"))])
def test_an_adapter_of_another_shape_is_not_copied(held):
    plan = PerTask(start="shared").adapter(bare({"skill": held}), {})
    with pytest.raises(BadSpec, match="per_task is to start from the adapter in skill, of rank"):
        plan.start()
