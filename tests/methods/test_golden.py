"""Our methods against numbers made without them: the papers' formulas in float64, and what Avalanche makes of the same.

`benchmarks/golden.py` writes golden.json and says how. Where Avalanche is the paper's, both are held against ours; where it is
not, or we are not, the difference is stated here as an equation and pinned.
"""

from types import SimpleNamespace

import pytest
import torch

from goldens import GOLDEN, SHAPES, SIXTH, by_name, flat, given, golden, logits, network, per_row, rows_of
from perdure.core.recipe import build_recipe
from perdure.core.step import Slice, Step, TopK
from perdure.maths.divergence import top_k
from perdure.methods.distillation.lwf import Lwf
from perdure.methods.gradients.a_gem import AGem
from perdure.methods.gradients.gem import Gem
from perdure.methods.registry import all_methods
from perdure.methods.regularisation.ewc import Ewc
from perdure.methods.regularisation.si import Si
from perdure.methods.replay.der import Der
from perdure.methods.replay.der_pp import DerPlusPlus
from perdure.methods.replay.replay import Replay
from perdure.model.features import Example, Features
from perdure.train import loop
from perdure.train.learner import Learner
from perdure.train.model_view import ModelView
from perdure.train.task import TaskInputs, Trainable

SINGLE = {"rtol": 1e-5, "atol": 1e-7}  # what passed through float32, in our host or in Avalanche


def learner(methods, times=1, **settings):
    """The old task at the settled weights, on our host, which works in float32."""
    model = network("settled", torch.float32)
    xs, ys = given("old_x").float(), given("old_y").tolist()
    rows = [Example(x, y) for x, y in zip(xs, ys, strict=True)] * times
    recipe = build_recipe({"per_device_train_batch_size": 6, **settings, "methods": methods}, all_methods())
    return Learner(Trainable(model, dict(model.named_parameters()), Features()), recipe, TaskInputs("", rows))


def scaled(vector):
    """Importance of mean 1, as every penalty of ours has it."""
    return vector / vector.mean()


# EWC


def fisher(labels, times=1):
    made = learner({"ewc": {}}, times)
    state = Ewc(labels=labels, size=10**6).measure(ModelView(made), {})
    return state, flat({name: state[f"fisher.{name}"] for name in SHAPES})


def test_ewc_of_written_labels_is_the_empirical_fisher_of_mean_one():
    torch.testing.assert_close(fisher("data")[1], scaled(golden("ewc", "paper", "empirical")), **SINGLE)


def test_ewc_of_sampled_labels_is_the_papers_fisher_in_expectation():
    found = fisher("sampled", times=1000)[1]
    torch.testing.assert_close(found, scaled(golden("ewc", "paper", "fisher")), rtol=0.1, atol=0.03)
    assert (found - scaled(golden("ewc", "paper", "empirical"))).abs().max() > 0.3


def test_ewc_adds_the_papers_penalty_over_the_mean_of_its_fisher():
    state, _ = fisher("data")
    params = by_name(given("now"))
    found = Ewc(strength=1.0).loss(Step(0, 1, params), {name: value.double() for name, value in state.items()})
    mean = golden("ewc", "paper", "empirical").mean()
    torch.testing.assert_close(found, golden("ewc", "paper", "penalty_empirical") / mean, **SINGLE)


def test_avalanches_importance_is_ours_at_batches_of_one_and_squares_batch_means_otherwise():
    """Deviation of Avalanche: not a Fisher information at any other batch size, and far smaller."""
    grads = per_row(given("old_y"))
    torch.testing.assert_close(golden("ewc", "avalanche", "importance_at_batch_1"), grads.square().mean(0), **SINGLE)
    batched = grads.reshape(2, 3, -1).mean(1).square().mean(0)
    torch.testing.assert_close(golden("ewc", "avalanche", "importance_at_batch_3"), batched, **SINGLE)
    assert batched.sum() / grads.square().mean(0).sum() == pytest.approx(0.396, abs=0.001)


@pytest.mark.parametrize("size", [1, 3])
def test_avalanches_penalty_lacks_the_papers_half(size):
    moved = given("now") - given("settled")
    importance = golden("ewc", "avalanche", f"importance_at_batch_{size}")
    torch.testing.assert_close(
        golden("ewc", "avalanche", f"penalty_at_batch_{size}"), (importance * moved**2).sum(), **SINGLE
    )


# SI


def test_si_on_our_host_is_the_papers_path_integral_over_the_squared_way():
    part = GOLDEN["si"]
    damping = part["damping"] / golden("si", "paper", "moved").square().mean().item()  # ours is relative
    made = learner(
        {"si": {"damping": damping}},
        num_train_epochs=part["updates"],
        learning_rate=part["rate"],
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
    )
    loop.train(made)
    omega = flat({name: made.measured_state["si"][f"omega.{name}"] for name in SHAPES})
    torch.testing.assert_close(flat(made.params) - given("settled"), golden("si", "paper", "moved"), rtol=0, atol=1e-4)
    torch.testing.assert_close(omega, scaled(golden("si", "paper", "importance")), rtol=2e-3, atol=1e-4)


def test_si_in_float64_is_the_papers():
    path, moved = (by_name(golden("si", "paper", name)) for name in ("path", "moved"))
    damping = GOLDEN["si"]["damping"] / golden("si", "paper", "moved").square().mean().item()
    start = by_name(given("settled"))
    state = {f"path.{n}": path[n] for n in SHAPES} | {f"anchor.{n}": start[n] for n in SHAPES}
    settled = SimpleNamespace(params={name: start[name] + moved[name] for name in SHAPES})
    omega = Si(damping=damping).measure(settled, state)
    torch.testing.assert_close(
        flat({name: omega[f"omega.{name}"] for name in SHAPES}), scaled(golden("si", "paper", "importance"))
    )


def test_avalanches_si_does_nothing_on_a_cpu_as_it_watches_the_weights_themselves():
    assert not golden("si", "avalanche", "importance").any()


def test_avalanches_si_with_copies_is_the_papers_cut_off_at_a_thousandth():
    """Deviation of Avalanche: an upper bound of 0.001 on importance, which here leaves no difference between weights."""
    paper = golden("si", "paper", "importance")
    torch.testing.assert_close(golden("si", "avalanche", "importance_of_copies"), paper.clamp(max=1e-3), **SINGLE)
    assert (paper > 1e-3).float().mean() > 0.9


# LwF


def distilled(temperature=2.0):
    """Our term and its gradient by the logits, at strength 1."""
    new = rows_of("new")
    step = Step(0, 1, {}, new=new, runner=lambda part, **_: Slice(logits("settled", "new"), new.labels, SIXTH))
    term = Lwf(strength=1.0, temperature=temperature, vocabulary="full").loss(step, {"taught": torch.ones(())})
    return term, torch.autograd.grad(term, new.logits)[0].reshape(-1)


def test_lwf_is_the_papers_divergence_over_all_outputs_times_the_squared_temperature():
    term, gradient = distilled()
    squared = GOLDEN["lwf"]["temperature"] ** 2
    torch.testing.assert_close(term, squared * golden("lwf", "paper", "all_outputs"))
    torch.testing.assert_close(gradient, squared * golden("lwf", "paper", "all_outputs_gradient"))


def test_avalanches_lwf_is_the_papers_over_the_outputs_of_old_classes():
    """Deviation of ours: a language model has no outputs that belong to old tasks, so all of them are held."""
    for ours, theirs in (("old_outputs", "loss"), ("old_outputs_gradient", "gradient")):
        torch.testing.assert_close(golden("lwf", "avalanche", theirs), golden("lwf", "paper", ours))
    new_outputs = golden("lwf", "paper", "old_outputs_gradient").reshape(6, 4)[:, 2:]
    assert not new_outputs.any()
    assert distilled()[1].reshape(6, 4)[:, 2:].abs().min() > 1e-4


# A-GEM and GEM


def test_a_gem_and_avalanches_are_the_papers():
    grads, refs = (by_name(golden("a_gem", "paper", name)) for name in ("gradient", "reference"))
    found = flat(AGem().gradient(grads, {"memory": refs}, Step(0, 1, {}), {}))
    torch.testing.assert_close(found, golden("a_gem", "paper", "projected"))
    torch.testing.assert_close(golden("a_gem", "avalanche", "projected"), golden("a_gem", "paper", "projected"))


def test_avalanches_a_gem_serves_its_memory_in_one_fixed_order():
    """Deviation of Avalanche: the paper draws at random. The last batch of a round is smaller, and weighs as much."""
    rounds = GOLDEN["a_gem"]["avalanche"]["rows_drawn"]
    assert rounds == [[0, 1, 2, 3], [4, 5]] * 3


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_gem_is_the_papers_and_avalanches_is_off_by_its_ridge(margin):
    refs = golden("gem", "paper", "references").reshape(2, -1)
    named = {f"task {k}": by_name(ref) for k, ref in enumerate(refs)}
    gradient = golden("a_gem", "paper", "gradient")
    found = flat(Gem(margin=margin).gradient(by_name(gradient), named, Step(0, 1, {}), {}))
    paper, theirs = (golden("gem", whose, f"projected_{margin}") for whose in ("paper", "avalanche"))
    torch.testing.assert_close(found, paper, rtol=1e-9, atol=1e-10)
    if margin:  # both weights are at their bound, where the ridge changes nothing
        torch.testing.assert_close(theirs, paper, **SINGLE)
    else:
        ridge = torch.linalg.solve(refs @ refs.T + 1e-3 * torch.eye(2), -refs @ gradient)
        torch.testing.assert_close(theirs, gradient + ridge @ refs, **SINGLE)
        assert (refs @ paper).abs().max() < 1e-9
        assert (refs @ theirs).max() < -1e-4  # so each old loss still rises a little


# Replay and DER


def stored():
    """Old rows now, with the logits that were stored of them; a top_k of all outputs but one leaves nothing out."""
    column = TopK(*top_k(logits("settled", "old"), 3))
    return rows_of("old", columns={"teacher": column}, covered={"teacher": torch.ones(6)})


def test_der_is_the_term_of_the_authors_code_and_a_quarter_of_the_printed_one():
    step = Step(0, 1, {}, drawn={"der": stored()})
    found = Der(strength=GOLDEN["replayed"]["alpha"]).loss(step, {})
    torch.testing.assert_close(found, golden("replayed", "paper", "der_term_in_code"), **SINGLE)
    torch.testing.assert_close(4 * found, golden("replayed", "paper", "der_term"), **SINGLE)  # of four outputs


def test_avalanches_der_is_ours_but_for_its_default_which_is_der_pp():
    step = Step(0, 1, {}, drawn={"der": stored()})
    term = Der(strength=GOLDEN["replayed"]["alpha"]).loss(step, {})
    new, old = (golden("replayed", "paper", which) for which in ("new", "old"))
    torch.testing.assert_close(golden("replayed", "avalanche", "der"), new + term.detach(), **SINGLE)
    with_labels = new + term.detach() + GOLDEN["replayed"]["beta"] * old
    torch.testing.assert_close(golden("replayed", "avalanche", "der_pp"), with_labels, **SINGLE)
    assert GOLDEN["replayed"]["avalanche"]["der_beta_unless_given"] == 0.5


def test_der_pp_adds_what_avalanches_adds_where_both_see_all_rows():
    made = DerPlusPlus(strength=GOLDEN["replayed"]["alpha"], label_strength=GOLDEN["replayed"]["beta"])
    drawn = {f"der_pp.{part}": stored() for part in ("logits", "labels")}
    found = made.loss(Step(0, 1, {}, drawn=drawn), {})
    expected = golden("replayed", "avalanche", "der_pp") - golden("replayed", "paper", "new")
    torch.testing.assert_close(found, expected, **SINGLE)


def test_replay_is_twice_the_mean_over_one_batch_where_it_is_half_replayed():
    """Deviation of ours: a sum of two means, which is 1 / (1 - mix) times the paper's mean at strength mix / (1 - mix)."""
    term = Replay(mix=0.5, strength=1.0).loss(Step(0, 1, {}, drawn={"replay": rows_of("old")}), {})
    total = golden("replayed", "paper", "new") + term
    torch.testing.assert_close(total / 2, golden("replayed", "paper", "replay"))
    torch.testing.assert_close(
        golden("replayed", "avalanche", "replay"), golden("replayed", "paper", "replay"), **SINGLE
    )
