"""The rules by which an update combines methods, whatever the methods: draws are merged, terms are added, masks intersect.

With them the contract suite trains only the pairs of methods that share a draw or a masked gradient.
"""

import itertools
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic.dataclasses import dataclass

from perdure.core.errors import Conflict
from perdure.core.recipe import Recipe
from perdure.core.seams import Column, Draw, DrawContext, Method
from perdure.core.settings import Settings
from perdure.memory.pool import Pool
from perdure.model.features import Example
from perdure.train.draws import DrawName, draw_rows
from streams import close, finished

CONTEXT = DrawContext(update=3, total=8, new_rows=8, pools={"replay": 12, "general": 12})
KEY = (0, "task")


@dataclass(frozen=True)
class Plain(Method):
    """A method with a name of its own, so that a recipe may have several."""

    family: ClassVar[str] = "test"
    source: ClassVar[str] = "arXiv"
    label: str = "a"

    @property
    def name(self):
        return self.label


@dataclass(frozen=True)
class Drawing(Plain):
    seams: ClassVar[tuple[str, ...]] = ("draw",)
    wish: Draw | None = None
    of: str = "replay"

    @property
    def pool(self):
        return self.of

    def draw(self, context, state):
        return self.wish


@dataclass(frozen=True)
class Term(Plain):
    """Adds scale x the sum of the weights."""

    seams: ClassVar[tuple[str, ...]] = ("loss",)
    scale: float = 1.0

    def loss(self, step, state):
        return step.once(self.scale * sum(value.sum() for value in step.params.values()))


@dataclass(frozen=True)
class Entries(Plain):
    """Removes every n-th entry of the gradient."""

    seams: ClassVar[tuple[str, ...]] = ("mask",)
    every: int = 2

    def mask(self, grads, state):
        return {name: value * self.left(value) for name, value in grads.items()}

    def left(self, value):
        return (torch.arange(value.numel()) % self.every != 0).to(value.dtype).view_as(value)


SEEN = {}


@dataclass(frozen=True)
class Turning(Plain):
    """Gives the reference gradient to the optimizer, and shows what it was given."""

    seams: ClassVar[tuple[str, ...]] = ("draw", "reference", "gradient")
    turn: bool = False

    def draw(self, context, state):
        return Draw(4)

    def reference(self, step, state):
        return {"old": step.drawn[self.name].mean(step.drawn[self.name].cross_entropy())}

    def gradient(self, grads, refs, step, state):
        SEEN.update(grads=grads, refs=refs)
        return refs["old"] if self.turn else grads


def recipe(*methods: Method) -> Recipe:
    return Recipe("mixed", Settings(per_device_train_batch_size=4, logging_steps=1), methods)


def updated(points, *methods: Method):
    """Return the loss of the second update, and the gradient that the optimizer gets."""
    made = points.learner(recipe(*methods), pools=("replay",))
    finished(made, 0)
    points.model.zero_grad()
    _, loss = finished(made, 1)
    return loss, {name: value.grad.clone() for name, value in made.params.items()}


# --- draws


WISHES = st.builds(
    Draw,
    size=st.integers(0, 5),  # so few that wishes of one size are common
    balance=st.sampled_from(["label", "task", "row"]),
    own=st.booleans(),
    weights=st.sampled_from([None, None, [1 / 12] * 12, [1.0, *[0.0] * 11]]),
    shared=st.booleans(),
)


def pools() -> dict[str, Pool]:
    rows = [Example(torch.ones(2), i % 2) for i in range(12)]
    keys = [str(i) for i in range(12)]
    tasks = ["first" if i < 8 else "second" for i in range(12)]
    return {name: Pool(keys, rows, [str(i % 2) for i in range(12)], tasks) for name in ("replay", "general")}


def drawn(methods):
    made = draw_rows(recipe(*methods), pools(), {m.name: {} for m in methods}, CONTEXT, 2, *KEY)
    return dict(made.rows), {part.name: part.draw for part in made.parts}, set(made.waiting)


@given(
    wishes=st.lists(st.tuples(st.none() | WISHES, st.sampled_from(["replay", "general"])), min_size=2, max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_the_rows_of_an_update_do_not_depend_on_the_order_of_the_methods(wishes, order):
    methods = [Drawing(label=f"m{i}", wish=wish, of=pool) for i, (wish, pool) in enumerate(wishes)]
    other = list(methods)
    order.shuffle(other)
    assert drawn(methods) == drawn(other)


@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4), own=st.lists(st.integers(1, 9), min_size=1, max_size=2)
)
def test_a_shared_draw_is_as_large_as_the_largest_wish_and_own_draws_are_what_they_are_alone(sizes, own):
    sharing = [Drawing(label=f"m{i}", wish=Draw(size)) for i, size in enumerate(sizes)]
    apart = [Drawing(label=f"own{i}", wish=Draw(size, own=True)) for i, size in enumerate(own)]
    rows, reads, _ = drawn([*sharing, *apart])
    assert len(rows.get(DrawName("replay"), ())) == max(sizes)
    assert {reads[method.name] for method in sharing} == {DrawName("replay")}
    assert rows.get(DrawName("replay")) == drawn(sharing)[0].get(DrawName("replay"))
    for method in apart:
        assert rows[reads[method.name]] == drawn([method])[0][reads[method.name]]


@pytest.mark.parametrize("wishes", list(itertools.permutations([Draw(4, "label"), Draw(4, "row"), Draw(4, "task")])))
def test_of_wishes_of_one_size_the_last_balance_of_the_alphabet_is_served(wishes):
    methods = [Drawing(label=f"m{i}", wish=wish) for i, wish in enumerate(wishes)]
    assert drawn(methods)[0] == drawn([Drawing(wish=Draw(4, "task"))])[0]


def test_columns_of_one_name_are_one_column_in_either_order():
    @dataclass(frozen=True)
    class Asking(Plain):
        top_k: int = 4
        again: bool = False

        @property
        def columns(self):
            return (Column("teacher", "replay", "settled", self.top_k, self.again),)

    both = Asking(label="a", top_k=4, again=True), Asking(label="b", top_k=9)
    for methods in itertools.permutations(both):
        assert recipe(*methods).columns("replay") == [Column("teacher", "replay", "settled", 9, True)]


# --- terms


def test_loss_and_gradient_are_the_sums_of_those_of_the_terms_in_any_order(points):
    terms = [Term(label=f"t{i}", scale=scale) for i, scale in enumerate((0.5, -2.0, 3.25))]
    loss, grads = updated(points)
    alone = [updated(points, term) for term in terms]
    total = loss + sum(one - loss for one, _ in alone)
    expected = {name: grad + sum(one[name] - grad for _, one in alone) for name, grad in grads.items()}
    for methods in itertools.permutations(terms):
        found, made = updated(points, *methods)
        assert found == pytest.approx(total, rel=1e-4)
        close(made, expected, rtol=1e-4, atol=1e-5)


# --- masks, references and the turned gradient


def test_masks_leave_what_every_one_of_them_leaves_in_any_order(points):
    masks = [Entries(label=f"k{every}", every=every) for every in (2, 3, 5)]
    _, grads = updated(points)
    expected = {
        name: grad * masks[0].left(grad) * masks[1].left(grad) * masks[2].left(grad) for name, grad in grads.items()
    }
    assert any((value == 0).any() and value.any() for value in expected.values())
    for methods in itertools.permutations(masks):
        close(updated(points, *methods)[1], expected, rtol=0, atol=0)


@pytest.mark.parametrize("turn", [False, True])
def test_the_gradients_owner_gets_masked_gradients_and_masked_references_whoever_is_listed_first(points, turn):
    masks, turning = [Entries(label=f"k{every}", every=every) for every in (2, 3)], Turning(label="t", turn=turn)
    updated(points, turning)

    def left(values):
        return {name: value * masks[0].left(value) * masks[1].left(value) for name, value in values.items()}

    expected = {"grads": left(SEEN["grads"]), "refs": left(SEEN["refs"]["old"])}
    for methods in itertools.permutations([*masks, turning]):
        _, grads = updated(points, *methods)
        close(SEEN["grads"], expected["grads"], rtol=0, atol=0)
        close(SEEN["refs"]["old"], expected["refs"], rtol=0, atol=0)
        close(grads, expected["refs" if turn else "grads"], rtol=0, atol=0)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_term_is_masked_as_the_task_loss_is(points, parts):
    """What a mask protects, no term of another method moves."""
    mask, term = Entries(label="k"), Term(label="t", scale=5.0)
    made = points.learner(recipe(mask, term))
    made.updates = [[batch[i::parts] for i in range(parts)] for (batch,) in made.updates]
    finished(made, 0)
    for value in made.params.values():
        assert not value.grad[mask.left(value) == 0].any()
        assert value.grad[mask.left(value) == 1].any()


# --- held values


@dataclass(frozen=True)
class Holding(Plain):
    """Holds the parameters whose names contain a word at a value, and shows the step that it was given."""

    seams: ClassVar[tuple[str, ...]] = ("hold", "watch")
    word: str = "bias"
    value: float = 0.0
    wants_refs: bool = False

    @property
    def needs(self):
        return ("refs",) if self.wants_refs else ()

    def hold(self, step, state):
        SEEN[self.label] = step
        return {name: torch.full_like(v, self.value) for name, v in step.params.items() if self.word in name}

    def watch(self, step, state):
        SEEN[f"{self.label} watched"] = {name: value.detach().clone() for name, value in step.params.items()}
        return state


def test_every_method_holds_its_own_parameters_in_any_order_and_watchers_see_them_all(points):
    methods = [Holding(label="a", word="weight", value=1.0), Holding(label="b", word="bias", value=2.0)]
    for ordered in itertools.permutations(methods):
        made = points.learner(recipe(*ordered))
        finished(made, 0)
        assert all((value == (2.0 if "bias" in name else 1.0)).all() for name, value in made.params.items())
        for label in "ab":
            close(SEEN[f"{label} watched"], dict(made.params), rtol=0, atol=0)


def test_two_methods_that_hold_one_parameter_are_named_with_it(points):
    made = points.learner(recipe(Holding(label="a"), Holding(label="b", word="0.bias")))
    with pytest.raises(Conflict, match=r"^a and b both hold 0\.bias; drop one of them$"):
        finished(made, 0)


@pytest.mark.parametrize("wants", [False, True])
def test_masked_references_are_there_after_the_step_for_who_needs_them(points, wants):
    made = points.learner(
        recipe(Entries(label="k"), Holding(label="h", word="none", wants_refs=wants), Turning(label="t")),
        pools=("replay",),
    )
    finished(made, 0)
    assert set(SEEN["h"].refs) == ({"old"} if wants else set())
    if wants:
        close(SEEN["h"].refs["old"], SEEN["refs"]["old"], rtol=0, atol=0)
