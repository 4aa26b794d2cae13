"""Replay: the loss is strength x the mean over rows of each row's mean cross-entropy; the draw is a share of the final mix."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.core.errors import BadSpec
from perdure.core.rows import Row
from perdure.core.seams import AdmitContext, DrawContext
from perdure.core.step import Slice, Step, row_weights
from perdure.memory.admission import admission_scores
from perdure.methods.replay.replay import Replay


def replayed(lengths, seed=0, vocab=7):
    """Rows of these lengths as the slice a method sees, in float64; and for each token its row."""
    torch.manual_seed(seed)
    row_of = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    logits = torch.randn(len(row_of), vocab, dtype=torch.float64, requires_grad=True)
    weight = row_weights(row_of, len(lengths)).double()
    return Slice(logits, torch.randint(vocab, (len(row_of),)), weight), row_of


def context(new_rows, update=0):
    return DrawContext(update, 10, new_rows, {"replay": 100})


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.floats(0.1, 5.0))
def test_the_loss_is_strength_times_the_mean_over_rows_of_their_mean_cross_entropy(lengths, strength):
    rows, row_of = replayed(lengths)
    step = Step(0, 10, {}, drawn={"replay": rows})
    per_row = [F.cross_entropy(rows.logits[row_of == i], rows.labels[row_of == i]) for i in range(len(lengths))]
    expected = strength * torch.stack(per_row).mean()
    torch.testing.assert_close(Replay(strength=strength).loss(step, {}), expected, rtol=1e-6, atol=0)


def test_its_gradient_is_softmax_minus_one_hot_over_tokens_and_rows():
    lengths = [1, 4]
    rows, row_of = replayed(lengths)
    Replay(strength=2.0).loss(Step(0, 10, {}, drawn={"replay": rows}), {}).backward()
    error = rows.logits.detach().softmax(-1) - F.one_hot(rows.labels, 7)
    share = 1 / torch.tensor(lengths, dtype=torch.float64)[row_of] / len(lengths)
    torch.testing.assert_close(rows.logits.grad, 2.0 * error * share[:, None], rtol=1e-6, atol=1e-9)


def test_without_drawn_rows_or_strength_it_adds_nothing():
    rows, _ = replayed([2])
    assert Replay().loss(Step(0, 10, {}), {}) is None
    assert Replay(strength=0).loss(Step(0, 10, {}, drawn={"replay": rows}), {}) is None


@given(st.floats(0.01, 0.9), st.integers(1, 128))
def test_the_rows_drawn_are_the_share_mix_of_the_final_mix(mix, new_rows):
    drawn = sum(Replay(mix=mix).draw(context(new_rows, update), {}).size for update in range(20))
    assert abs(drawn - mix / (1 - mix) * 20 * new_rows) < 1 + 1e-6


@pytest.mark.parametrize(
    ("stored", "rows"),
    [
        (0, 10 * 16 / 3),  # a quarter of the mix is more than two passes
        (25, 10 * 16 / 3),
        (40, 80),
        (70, 140),
        (80, 160),
        (81, 160),  # half of the mix is the most
        (10**6, 160),
    ],
)
def test_with_passes_the_share_grows_until_every_stored_row_is_replayed_so_often_or_half_is(stored, rows):
    method = Replay(mix=0.25, passes=2)
    drawn = [method.draw(DrawContext(update, 10, 16, {"replay": stored}), {}).size for update in range(10)]
    assert sum(drawn) == int(rows + 1e-6)
    assert max(drawn) - min(drawn) <= 1
    assert Replay(mix=0.25).draw(DrawContext(0, 10, 16, {"replay": stored}), {}).size == 5
    assert (
        Replay(mix=0.75, passes=2).draw(DrawContext(0, 10, 16, {"replay": stored}), {}).size == 48
    )  # as it was asked for


def test_no_mix_is_no_method_and_a_mix_of_one_is_refused():
    assert not Replay(mix=0).active
    for mix in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"mix\n.*(less than 1|greater than or equal to 0)"):
            Replay(mix=mix)


@pytest.mark.parametrize(
    ("admission", "needs"), [("reservoir", ()), ("hard", ("nll_after",)), ("surprise", ("nll_before",))]
)
def test_admission_says_which_losses_it_needs_and_ranks_by_its_policy(admission, needs):
    rows = [Row("p", str(i), task="t") for i in range(4)]
    told = AdmitContext(3, "t", nll_before=[1.0, 4.0, 2.0, 3.0], nll_after=[9.0, 8.0, 7.0, 6.0])
    method = Replay(admission=admission)
    assert method.needs == needs
    scores = method.admit(rows, told, {})
    assert scores == admission_scores(admission, rows, told)
    assert scores == {"hard": told.nll_after, "surprise": told.nll_before}.get(admission, scores)
    if needs:
        with pytest.raises(BadSpec, match="did not measure"):
            method.admit(rows, AdmitContext(3, "t"), {})
