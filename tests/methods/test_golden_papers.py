"""Our methods against numbers made without them, in float64: the papers' formulas, and published code of the same.

`benchmarks/golden.py` and `golden_papers.py` write golden.json and say how. Here are the methods that test_golden.py has not.
Where published code is not the paper's, or ours is not, the difference is stated as an equation and pinned.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from goldens import GOLDEN, SHAPES, SIXTH, by_name, flat, given, golden, logits, network, path, rows_of, weights
from perdure.core.rows import Row
from perdure.core.seams import AdmitContext, DrawContext
from perdure.core.step import Slice, Step, TopK
from perdure.maths.divergence import top_k
from perdure.memory.admission import keep_best
from perdure.methods.distillation.distill import Distill
from perdure.methods.distillation.feature_distill import FeatureDistill
from perdure.methods.gradients.cagrad import CAGrad
from perdure.methods.gradients.ogd import Ogd
from perdure.methods.gradients.pcgrad import PCGrad
from perdure.methods.registry import all_methods
from perdure.methods.regularisation.hler import Hler
from perdure.methods.regularisation.l2 import L2
from perdure.methods.regularisation.mas import Mas
from perdure.methods.replay.adversarial_replay import AdversarialReplay
from perdure.methods.replay.forgetting_curve import ForgettingCurve, reviews
from perdure.methods.replay.importance_replay import ImportanceReplay
from perdure.methods.replay.instruction_replay import InstructionReplay
from perdure.methods.replay.mir import Mir
from perdure.methods.replay.surprise_replay import SurpriseReplay
from perdure.methods.representation.contrastive import Contrastive
from perdure.methods.robustness.adversarial import Adversarial
from perdure.methods.weights_over_time.ema import Ema
from perdure.methods.weights_over_time.tail_average import TailAverage
from perdure.methods.weights_over_time.wise_ft import WiseFt

EXACT = {"rtol": 1e-10, "atol": 1e-11}  # golden.json has 12 digits
SINGLE = {"rtol": 1e-5, "atol": 1e-7}  # what passed through float32, in a state that is kept or in Avalanche
HERE = Path(__file__).parent
TOGETHER = {"replayed": {"replay", "der", "der_pp"}}  # parts of golden.json that are several methods


def test_every_method_has_golden_numbers_here_or_in_a_test_of_its_own():
    numbered = set().union(*(TOGETHER.get(part, {part}) for part in GOLDEN))
    own = {path.stem.removeprefix("test_") for path in HERE.glob("test_*.py") if "def test_golden" in path.read_text()}
    computing = {
        name for name, method in all_methods().items() if method.seams != ("adapter",)
    }  # the rest have no formula
    assert computing <= numbered | own


def kept(what, at):
    return {f"{what}.{name}": value for name, value in weights(at).items()}


# Regularisation


def test_l2_is_the_papers_penalty_and_of_a_pair_that_of_its_product():
    now, settled = weights("now"), weights("settled")
    state = L2(strength=1.0).prepare(SimpleNamespace(params=settled, first=False), {})
    torch.testing.assert_close(L2(strength=1.0).loss(Step(0, 1, now), state), golden("l2", "paper", "penalty"), **EXACT)
    pair, before = ({"q.lora_A.w": at["0.weight"][:2], "q.lora_B.w": at["2.weight"][:, :2]} for at in (now, settled))
    for anchor, name in (("previous", "product"), ("start", "product_from_zero")):
        method = L2(strength=1.0, anchor=anchor)
        found = method.loss(Step(0, 1, pair), method.prepare(SimpleNamespace(params=before, first=False), {}))
        torch.testing.assert_close(found, golden("l2", "paper", name), **EXACT)


def sensitivity():
    """What MAS measures of the old rows, from per-row gradients of the squared length of their centred logits."""
    model = network("settled")
    outputs = model(given("old_x"))
    squares = (outputs - outputs.mean(-1, keepdim=True)).square().sum(-1)
    rows = [torch.autograd.grad(one, list(model.parameters()), retain_graph=True) for one in squares]
    batch = {name: torch.stack([row[i] for row in rows]) for i, name in enumerate(SHAPES)}
    return Mas().measure(SimpleNamespace(gradients=lambda rows, size, of: iter([batch])), {})


def test_mas_is_the_papers_importance_of_centred_outputs_over_its_mean_and_half_its_penalty():
    state, centred = sensitivity(), golden("mas", "paper", "centred")
    torch.testing.assert_close(flat({n: state[f"omega.{n}"] for n in SHAPES}), centred / centred.mean(), **EXACT)
    state = Mas().prepare(SimpleNamespace(params=weights("settled")), state)
    found = Mas(strength=1.0).loss(Step(0, 1, weights("now")), state)
    expected = 0.5 * golden("mas", "paper", "penalty_centred") / centred.mean()
    torch.testing.assert_close(found, expected, **EXACT)


def test_avalanches_mas_is_the_papers_at_batches_of_one_and_lets_rows_cancel_in_larger_ones():
    """Deviation of Avalanche: gradients of a batch are added before their size is taken, and older tasks fade by half."""
    paper, single, batched = (
        golden("mas", *where)
        for where in (
            ("paper", "importance"),
            ("avalanche", "importance_at_batch_1"),
            ("avalanche", "importance_at_batch_3"),
        )
    )
    torch.testing.assert_close(single, paper, **SINGLE)
    assert (batched <= paper + 1e-6).all()
    assert (batched.sum() / paper.sum()).item() == pytest.approx(0.653, abs=0.001)
    moved = given("now") - given("settled")
    penalty = golden("mas", "avalanche", "penalty_at_batch_1")
    torch.testing.assert_close(penalty, (paper * moved.square()).sum(), **SINGLE)
    assert GOLDEN["mas"]["avalanche"]["weight_of_older_tasks"] == 0.5


def test_hler_weighs_layers_by_root_mean_squares_and_the_papers_norms_would_leave_one_layer():
    state = {f"omega.{name}": value for name, value in by_name(golden("hler", "importance")).items()}
    state = Hler().prepare(SimpleNamespace(params=weights("settled")), state)
    found = Hler(strength=1.0).loss(Step(0, 1, weights("now")), state)
    torch.testing.assert_close(found, golden("hler", "by_root_mean_square", "penalty"), **EXACT)
    assert max(GOLDEN["hler"]["paper"]["factors"]) > 0.98
    assert max(GOLDEN["hler"]["by_root_mean_square"]["factors"]) < 1.5  # of a sum of 2


# Distillation


def told(column):
    """Old rows now, and what the settled model says of them; the rest beside three of four outputs is the fourth."""
    return rows_of("old", columns={column: TopK(*top_k(logits("settled", "old"), 3))}, covered={column: torch.ones(6)})


@pytest.mark.parametrize("kind", ["forward", "reverse", "symmetric"])
def test_distill_is_the_divergence_of_softened_outputs_times_the_squared_temperature(kind):
    method = Distill(strength=1.0, temperature=GOLDEN["distill"]["temperature"], divergence=kind)
    found = method.loss(Step(0, 1, {}, drawn={"distill": told("teacher")}), {})
    torch.testing.assert_close(found, golden("distill", "paper", kind), **EXACT)
    torch.testing.assert_close(golden("distill", "torch", "forward"), golden("distill", "paper", "forward"), **EXACT)


def test_instruction_replay_is_cross_entropy_and_divergence_from_the_base_model():
    part = GOLDEN["instruction_replay"]
    method = InstructionReplay(strength=part["strength"], distill=part["distill"], temperature=2.0)
    found = method.loss(Step(0, 1, {}, drawn={"instruction_replay": told("base")}), {})
    torch.testing.assert_close(found, golden("instruction_replay", "paper", "loss"), **EXACT)


def test_feature_distill_is_the_relative_squared_distance_and_at_equal_lengths_twice_avalanches():
    new, before = rows_of("new"), rows_of("new", "settled")

    def term(scale):
        now, then = (
            Slice(
                rows.logits, rows.labels, SIXTH, rows.hidden / (rows.hidden.norm(dim=-1, keepdim=True) if scale else 1)
            )
            for rows in (new, before)
        )
        step = Step(0, 1, weights("now"), new=now, runner=lambda part, **_: then)
        return FeatureDistill(strength=1.0, on="new").loss(step, kept("anchor", "settled"))

    torch.testing.assert_close(term(scale=False), golden("feature_distill", "paper", "relative"), **EXACT)
    torch.testing.assert_close(term(scale=True), 2 * golden("feature_distill", "paper", "cosine"), **EXACT)
    theirs = golden("feature_distill", "avalanche", "cosine")
    torch.testing.assert_close(theirs, golden("feature_distill", "paper", "cosine"), **EXACT)


# Replay


def memory(at):
    return SimpleNamespace(slices=lambda which: iter([rows_of("old", at)]))


def test_surprise_replay_keeps_the_most_surprising_rows_and_replays_their_cross_entropy():
    surprise = GOLDEN["surprise_replay"]["paper"]["surprise"]
    method, state = SurpriseReplay(strength=1.0), SurpriseReplay().prepare(memory("settled"), {})
    torch.testing.assert_close(state["surprise"].double(), torch.tensor(surprise).double(), **SINGLE)
    rows = [Row("p", str(i), task="t") for i in range(6)]
    scores = method.admit(rows, AdmitContext(0, "t", nll_before=surprise), {})
    assert set(keep_best(range(6), scores, lambda i: None, 3)) == set(GOLDEN["surprise_replay"]["paper"]["kept"])
    served = method.draw(DrawContext(0, 10, 6, {"replay": 6}), state).weights
    assert [sorted(surprise).index(one) + 1 for one in surprise] == served
    found = method.loss(Step(0, 1, {}, drawn={"surprise_replay": rows_of("old")}), state)
    torch.testing.assert_close(found, golden("surprise_replay", "paper", "replayed"), **EXACT)


def test_importance_replay_weighs_drawn_rows_by_p_over_q():
    part = GOLDEN["importance_replay"]
    now = rows_of("old").cross_entropy().detach()
    state = ImportanceReplay().prepare(memory("settled"), {}) | {"loss": now}
    some = torch.tensor(part["drawn"])
    rows = Slice(logits("now", "old")[some], given("old_y")[some], SIXTH[:2] * 3, row=some)
    method = ImportanceReplay(clip=part["clip"], priority=0.5, temperature=1.0)
    found = method.loss(Step(0, 1, {}, drawn={"importance_replay": rows}), state)
    torch.testing.assert_close(found, golden("importance_replay", "paper", "loss"), **SINGLE)
    drawn = torch.tensor(method.draw(DrawContext(0, 10, 6, {"replay": 6}), state).weights).double()
    torch.testing.assert_close(drawn / drawn.sum(), golden("importance_replay", "paper", "q"), **SINGLE)


def test_forgetting_curve_ages_along_the_path_and_holds_harder_where_it_is_fast():
    method = ForgettingCurve(anchor=0.1, day=1 / 6)
    state, before, ages, due = method.prepare(SimpleNamespace(params=weights("now")), {}), weights("now"), [], []
    for index, after in enumerate(path()):
        state = method.watch(Step(index, 6, after, before=before), state)
        before = after
        ages.append(state["age"].double())
        due.append(float(reviews(state)))
    torch.testing.assert_close(torch.stack(ages), golden("forgetting_curve", "paper", "age"), **EXACT)
    assert due == GOLDEN["forgetting_curve"]["paper"]["reviews"]
    found = method.loss(Step(5, 6, after, drawn={"forgetting_curve": rows_of("old", after)}), state)
    torch.testing.assert_close(found, golden("forgetting_curve", "paper", "loss"), **EXACT)


def test_mir_ranks_by_the_papers_rise_and_so_do_the_authors_code_and_avalanche():
    part = GOLDEN["mir"]
    model, x = network("now"), given("new_x")
    loss = torch.nn.functional.cross_entropy(model(x), given("new_y"))
    steps = torch.autograd.grad(loss, list(model.parameters()))
    before = weights("now")
    after = {name: before[name] - part["rate"] * step for name, step in zip(SHAPES, steps, strict=True)}
    step = Step(
        *(0, 1, after),
        before=before,
        parts=("mir.candidates",),
        runner=lambda which, weights=None, **_: rows_of("old", weights or after),
    )
    state = Mir().watch(step, {})
    assert state["worst"].tolist() == part["paper"]["worst"]
    torch.testing.assert_close(golden("mir", "published", "rise"), golden("mir", "paper", "rise"), **EXACT)
    worst = state["worst"][:3]
    rows = Slice(logits("now", "old")[worst], given("old_y")[worst], SIXTH[:3] * 2)
    found = Mir(strength=1.0).loss(Step(0, 1, {}, drawn={"mir.worst": rows}), state)
    for whose in ("paper", "avalanche"):
        torch.testing.assert_close(found, golden("mir", whose, "replayed"), **EXACT)


# Perturbed embeddings


def embedded(which):
    """A step whose rows have one position each, the embedding of which is the row's features."""
    x, model = given(f"{which}_x")[:, None], network("now")

    def run(part, *, embeddings, grad, weights):
        return Slice(model(embeddings[:, 0]), given(f"{which}_y"), SIXTH)

    return Step(0, 1, weights("now"), parts=("adversarial_replay",), runner=run, embedder=lambda part: x.clone())


@pytest.mark.parametrize(("steps", "name"), [(1, "fgm"), (3, "pgd")])
def test_adversarial_is_the_loss_at_the_perturbed_new_rows(steps, name):
    method = Adversarial(strength=1.0, epsilon=GOLDEN["adversarial"]["epsilon"], steps=steps)
    torch.testing.assert_close(method.loss(embedded("new"), {}), golden("adversarial", "paper", name), **EXACT)


def test_adversarial_replay_is_the_loss_at_the_perturbed_old_rows():
    method = AdversarialReplay(strength=1.0, epsilon=GOLDEN["adversarial_replay"]["epsilon"])
    torch.testing.assert_close(method.loss(embedded("old"), {}), golden("adversarial_replay", "paper", "fgm"), **EXACT)


# Gradients


def test_ogd_that_keeps_all_is_the_papers_projection_and_that_of_published_code():
    """The basis is kept in float32."""
    rows = golden("ogd", "paper", "rows").reshape(6, -1)
    batch = {name: torch.stack([by_name(row)[name] for row in rows]) for name in SHAPES}
    state = Ogd(keep=1.0).measure(SimpleNamespace(gradients=lambda rows, size: iter([batch])), {})
    found = flat(Ogd(keep=1.0).mask(by_name(golden("a_gem", "paper", "gradient")), state))
    for whose in ("paper", "published"):
        torch.testing.assert_close(found, golden("ogd", whose, "projected"), rtol=1e-5, atol=1e-6)


def surgery(method):
    new, old = (by_name(golden("a_gem", "paper", name)) for name in ("gradient", "reference"))
    return flat(method.gradient(new, {"memory": old}, Step(0, 1, {}), {}))


def test_pcgrad_is_the_papers_sum_of_which_published_code_gives_half():
    """Deviation of the published code: the mean, also where it is asked for the sum."""
    found = surgery(PCGrad())
    torch.testing.assert_close(found, golden("pcgrad", "paper", "projected"), **EXACT)
    half = golden("pcgrad", "published", "projected_when_asked_for_the_sum")
    torch.testing.assert_close(found, 2 * half, **EXACT)


def test_cagrad_is_twice_the_papers_vector_and_the_authors_divide_it_by_one_plus_the_radius():
    """Deviation of the authors' code: that factor, which the paper has not, and roots of squares + 1e-4."""
    radius = GOLDEN["cagrad"]["radius"]
    paper, theirs = (golden("cagrad", whose, "projected") for whose in ("paper", "published"))
    torch.testing.assert_close(surgery(CAGrad(radius=radius)), 2 * paper, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close((1 + radius) * theirs, paper, rtol=2e-3, atol=1e-4)
    assert not torch.allclose(theirs, paper, rtol=0.1)


# Representation


def test_contrastive_is_the_supervised_contrastive_loss_but_for_a_constant():
    """Deviation: no mean over positives inside the logarithm, which is the log of their number."""
    part = GOLDEN["contrastive"]
    own, older = (golden("contrastive", side).reshape(-1, 4) for side in ("own", "older"))
    method = Contrastive(strength=1.0, temperature=part["temperature"])
    found = method.loss(Step(0, 1, {}, new=rows_of("new")), {"own": own, "prototypes/old": older})
    constant = part["paper"]["of_the_number_of_positives"]
    torch.testing.assert_close(found + constant, golden("contrastive", "paper", "loss"), **EXACT)


# Weights over time


def followed(method, state):
    for index, after in enumerate(path()):
        state = method.watch(Step(index, 6, after), state)
    return flat(method.settle(SimpleNamespace(params=after), state)[0])


def test_ema_is_the_papers_and_torchs_average():
    found = followed(Ema(decay=GOLDEN["ema"]["decay"]), kept("slow", "now"))
    for whose in ("paper", "torch"):
        torch.testing.assert_close(found, golden("ema", whose, "slow"), **EXACT)


def test_tail_average_is_the_papers_and_torchs_average():
    found = followed(TailAverage(share=GOLDEN["tail_average"]["tail"] / 6), {})
    for whose in ("paper", "torch"):
        torch.testing.assert_close(found, golden("tail_average", whose, "mean"), **EXACT)


def test_wise_ft_is_the_papers_line_and_the_authors_and_takes_its_least_loss():
    tuned = by_name(golden("wise_ft", "tuned"))

    def nll(rows, weights, size):
        return rows_of("new" if rows == "validation" else "old", weights).cross_entropy().mean().item()

    model = SimpleNamespace(params=tuned, nll=nll)
    for method, name in (
        (WiseFt(choose="fixed", share=0.5), "half"),
        (WiseFt(choose="both", share=1.0, steps=5), "best"),
    ):
        values, _ = method.settle(model, kept("anchor", "now"))
        torch.testing.assert_close(flat(values), golden("wise_ft", "paper", name), **EXACT)
    torch.testing.assert_close(golden("wise_ft", "published", "half"), golden("wise_ft", "paper", "half"), **EXACT)
