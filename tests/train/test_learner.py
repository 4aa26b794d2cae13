"""One learn: its losses are the plain ones, the best weights are found again, and nothing that is not finite passes."""

import math
from dataclasses import replace
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from pydantic.dataclasses import dataclass

from perdure.core.errors import BadSpec, Diverged
from perdure.core.rows import Row
from perdure.data.encode import encode
from perdure.methods.replay.replay import Replay
from perdure.model.batch import collate
from perdure.train import loop, splitting
from perdure.train.draws import DrawName, rows_in
from perdure.train.splitting import fitted, forwards_of
from streams import close, label_logits, run, same, weights

BOTH = ("replay", "general")
REPLAY, GENERAL = map(DrawName, BOTH)


def task_loss(made, update, smoothing=0.0):
    """The mean cross-entropy over the label tokens of an update's new rows, in one plain forward."""
    rows = [made.inputs.rows[i] for batch in made.updates[update] for i in batch]
    batch = collate(rows, 0, share_prefix=False)
    return F.cross_entropy(label_logits(made.model, batch), batch.labels, label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_loss_of_an_update_is_the_mean_over_its_label_tokens(stream, smoothing, accumulation):
    made = stream.learner({}, label_smoothing_factor=smoothing, gradient_accumulation_steps=accumulation)
    expected = task_loss(made, 0, smoothing).item()
    assert run(made, 0) == pytest.approx(expected, rel=1e-5)
    assert len(made.updates[0]) == accumulation
    assert made.record.loss == [(0, pytest.approx(expected, rel=1e-5))]


def test_label_smoothing_concerns_the_task_alone(stream):
    made = [stream.learner({"replay": {}}, pools=("replay",), label_smoothing_factor=s) for s in (0.0, 0.3)]
    for one in made:
        run(one, 0)
    plain, smooth = (one.record.heartbeats["replay"][0][1].loss for one in made)
    assert plain == smooth
    assert made[0].record.loss != made[1].record.loss


def test_rows_drawn_join_the_batch_and_the_task_loss_does_not_see_them(stream):
    made = stream.learner({"replay": {"mix": 0.5}}, pools=("replay",))
    expected = task_loss(made, 0).item()
    update = made.update(0)
    update.gradients()
    assert update.drawn.sizes[REPLAY] == len(made.updates[0][0])
    assert made.record.loss[0][1] == pytest.approx(expected, rel=1e-5)
    assert made.record.heartbeats["replay"][0][1].rows == len(made.updates[0][0])


def test_every_row_of_an_epoch_is_trained_once_and_epochs_end_where_they_end(stream):
    made = stream.learner({}, per_device_train_batch_size=3, gradient_accumulation_steps=4, num_train_epochs=2)
    epoch = made.total // 2
    for first in (0, epoch):
        seen = [i for update in made.updates[first : first + epoch] for batch in update for i in batch]
        assert sorted(seen) == list(range(len(made.inputs.rows)))
    assert made.epoch_ends == {epoch - 1, 2 * epoch - 1}


def test_keep_best_writes_the_weights_of_the_epoch_that_did_best_on_validation_rows(stream):
    made = stream.learner({}, keep="best", validation=stream.old, num_train_epochs=3)  # each epoch forgets them more
    ends = {}

    def watched(done, total, loss):
        if done - 1 in made.epoch_ends:
            ends[done] = (sum(made.inference.nll(stream.old)), weights(made))

    loop.train(made, progress=watched)
    best = min(ends, key=lambda update: ends[update][0])
    assert best != max(ends)  # or the test shows nothing
    assert same(weights(made), ends[best][1])
    assert made.best.loss == pytest.approx(ends[best][0] / len(stream.old))
    assert (made.best.update, made.record.kept) == (best - 1, best - 1)


METHOD_OF = {"tail_average": {"share": 0.5}, "ema": {"decay": 0.7}, "wise_ft": {"share": 0.8}}


@pytest.mark.parametrize("name", METHOD_OF)
def test_what_is_validated_is_what_a_learn_that_ends_there_would_store(stream, name):
    """The weights that each validation sees are those of a learn with so many updates, to the bit, and the best are stored."""
    more = {"pools": ("replay",), "lr_scheduler_type": "constant", "validation": stream.held_out}
    method = {name: METHOD_OF[name]}

    def ended(updates):
        made = stream.learner(method, max_steps=updates, **more)
        loop.train(made)
        return sum(made.inference.nll(stream.held_out)) / len(stream.held_out), weights(made)

    shorter = {updates: ended(updates) for updates in (2, 4, 6, 8)}
    made = stream.learner(method, max_steps=8, eval_steps=2, keep="best", **more)
    loop.train(made)
    curve = {update + 1: loss for update, loss in made.record.validation}
    assert curve == pytest.approx({updates: loss for updates, (loss, _) in shorter.items()}, rel=1e-5)
    best = min(curve, key=curve.__getitem__)
    assert same(weights(made), shorter[best][1])
    assert made.record.kept == (best - 1 if best < 8 else None)


def test_a_curve_alone_changes_no_bit_and_no_validation_is_a_learn_as_before(stream):
    method = {"tail_average": {"share": 0.5}}
    plain = stream.learner(method)
    watched = stream.learner(method, eval_steps=0.25)  # of 8 updates
    loop.train(plain)
    loop.train(watched)
    assert same(weights(plain), weights(watched))
    assert [update for update, _ in watched.record.validation] == [1, 3, 5, 7]
    assert not plain.record.validation
    assert watched.best is None
    assert watched.notices == []


def test_training_stops_after_so_many_validations_without_a_lower_loss(stream):
    """The old answers are forgotten from the first update on."""
    more = {"validation": stream.old, "eval_steps": 1, "keep": "best", "num_train_epochs": 3}
    whole = stream.learner({}, **more)
    loop.train(whole)
    losses = [loss for _, loss in whole.record.validation]
    best = losses.index(min(losses))
    assert best + 2 < whole.total - 1  # or the test shows nothing
    stopped = stream.learner({}, early_stopping_patience=2, **more)
    done = []
    loop.train(stopped, progress=lambda n, *_: done.append(n))
    assert (stopped.ended, done[-1], len(stopped.record.validation)) == (best + 3,) * 3
    assert same(weights(stopped), weights(whole))
    assert stopped.notices == [
        f"stopped early, after update {best + 3} of 12: 2 validations without a lower loss",
        f"keep: best took the weights of update {best + 1} of {best + 3}: their loss on the validation rows is "
        f"{losses[best]:.4g}, and that of the last {losses[best + 2]:.4g}",
    ]


def test_a_validation_that_is_not_finite_stops_the_learn(stream, monkeypatch):
    made = stream.learner({}, eval_steps=1)
    monkeypatch.setattr(made.inference, "nll", lambda rows, **_: [math.nan] * len(rows))
    with pytest.raises(
        Diverged, match=r"loss of the validation rows is nan after update 1 of 8; lower the learning rate"
    ):
        loop.train(made)


def test_max_steps_takes_the_place_of_the_epochs(stream):
    long = stream.learner({}, num_train_epochs=3)
    for steps in (3, 9):  # of 4 updates an epoch
        made = stream.learner({}, num_train_epochs=1, max_steps=steps)
        assert made.updates == long.updates[:steps]
    assert stream.learner({}, max_steps=0).total == stream.learner({}, max_steps=-1).total == 8


def test_keep_last_and_no_validation_rows_keep_the_last_weights(stream):
    runs = [{}, {"validation": stream.old}, {"keep": "best", "validation": ()}]
    plain, *others = [stream.train(stream.learner({}, **run)).weights for run in runs]
    assert all(same(plain, other) for other in others)


def test_nll_is_the_mean_per_label_token_of_each_row_and_leaves_the_model_training(stream):
    made = stream.learner({}, lora_dropout=0.5)
    made.model.train()
    found = made.inference.nll(stream.new, batch_size=3)
    assert made.model.training
    made.model.eval()
    for row, value in zip(stream.new, found, strict=True):
        batch = collate([row], 0)
        with torch.no_grad():
            assert value == pytest.approx(
                F.cross_entropy(label_logits(made.model, batch), batch.labels).item(), rel=1e-4
            )


def test_a_loss_on_every_token_is_the_same_with_and_without_a_shared_prefix(stream):
    texts = [Row(f"Classify the parcel of {who}:", " yes") for who in ("Ann", "Ann and Bob", "Joe")]
    rows = [encode(row, stream.runtime.base.tokenizer, 64, train_on="all") for row in texts]
    made = stream.learner({}, rows=rows)
    made.model.eval()
    for row, value in zip(rows, made.inference.nll(rows), strict=True):
        with torch.no_grad():
            logits = made.model(torch.tensor([row.ids])).logits[0, :-1]
        assert value == pytest.approx(F.cross_entropy(logits, torch.tensor(row.ids[1:])).item(), rel=1e-4)


def test_the_teacher_is_what_the_model_says_at_the_label_positions_of_each_row(stream):
    made = stream.learner({})
    told = made.inference.top_k(stream.new, 4, batch_size=3)
    for row, stored in zip(stream.new, told, strict=True):
        with torch.no_grad():
            expected = label_logits(made.model, collate([row], 0)).log_softmax(-1)
        assert stored.index.shape == (row.targets, 4)
        torch.testing.assert_close(stored.logprob, expected.gather(-1, stored.index), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(stored.tail.exp(), 1 - stored.logprob.exp().sum(-1), rtol=1e-3, atol=1e-4)


def test_rows_told_with_different_k_may_be_drawn_together(stream):
    made = stream.learner({"replay": {"mix": 0.5}, "distill": {}}, pools=("replay",))
    taught = made.pools["replay"].columns["teacher"]
    made.pools["replay"].columns = {"teacher": {k: t.narrowed(2 + int(k) % 3) for k, t in taught.items()}}
    assert math.isfinite(run(made, 0))


def test_a_task_loss_that_is_not_finite_stops_the_learn(stream):
    made = stream.learner({})
    with torch.no_grad():
        next(iter(made.params.values())).fill_(torch.nan)
    with pytest.raises(Diverged, match=r"the task loss gave nan at update 0 of 8; lower the learning rate"):
        loop.train(made)


def test_dropout_is_keyed_by_the_update_and_not_by_what_ran_before(stream):
    def loss(noise):
        made = stream.learner({}, lora_dropout=0.5)
        made.model.train()
        torch.rand(noise)
        return made.update(3).gradients()

    assert loss(0) == loss(7)
    assert loss(0) != pytest.approx(run(stream.learner({}), 3), rel=1e-6)


@pytest.mark.parametrize(("mix", "drawn"), [(0.25, [1, 0, 0]), (0.5, [2, 1, 1])])
def test_drawn_rows_are_spread_over_micro_batches_and_count_the_same(stream, mix, drawn):
    def run(parts):
        made = stream.learner({"replay": {"mix": mix}}, pools=("replay",), learning_rate=1e-3)
        made.updates = [[batch[i::parts] for i in range(parts)] for (batch,) in made.updates]
        made.room = math.inf
        drawn = [len(micro.drawn[REPLAY]) for micro in made.update(0).micro_batches]
        made.open = None  # only looked at
        made.pools["replay"].served.clear()
        return drawn, stream.train(made)

    (together, whole), (apart, split) = run(1), run(3)
    assert (together, apart) == ([sum(drawn)], drawn)
    close(split.weights, whole.weights, rtol=1e-3, atol=1e-4)
    told, expected = (learned.record.heartbeats["replay"] for learned in (split, whole))
    assert [beat.loss for _, beat in told] == pytest.approx([beat.loss for _, beat in expected], rel=1e-4)


def test_a_forward_that_drawn_rows_make_too_large_is_cut_and_the_update_stays_the_same(stream):
    def update(**room):
        made = stream.learner({"replay": {"mix": 0.6}, "distill": {}}, pools=("replay",))
        vars(made).update(room)
        update = made.update(0)
        loss = torch.tensor(update.gradients())
        pool = made.pools["replay"].rows
        rows = [[made.inputs.rows[i] for i in m.new] + [pool[i] for i in m.drawn[REPLAY]] for m in update.micro_batches]
        grads = [value.grad.clone() for value in made.params.values()]
        return made.room, [[len(row) for row in part] for part in rows], [loss, *grads]

    (_, [whole], expected), (room, cut, found) = update(room=math.inf), update()
    assert sorted(whole) == sorted(length for part in cut for length in part)
    assert max(len(part) * max(part) for part in cut) <= room < len(whole) * max(whole)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def long_rows(stream, n, words):
    """Rows that begin otherwise than those of the stream and are much longer."""
    rows = [Row(f"Instruction {i}: {'tell a story ' * words}", " once") for i in range(n)]
    return [encode(row, stream.runtime.base.tokenizer, 256) for row in rows]


def test_rows_that_would_pad_all_others_run_by_themselves_and_the_update_stays_the_same(stream, monkeypatch):
    def update(limit):
        monkeypatch.setattr(splitting, "SEPARATE", limit)
        made = stream.learner(
            {"replay": {"mix": 0.5}, "instruction_replay": {"mix": 0.25, "strength": 1.0}}, pools=BOTH
        )
        made.pools["general"] = replace(made.pools["general"], rows=long_rows(stream, 8, 12), columns={})
        made.begin()
        made.room, seen = math.inf, []
        handle = made.model.register_forward_hook(lambda *_: seen.append(1))
        update = made.update(0)
        (micro,) = update.micro_batches
        forwards = forwards_of(micro, made.inputs.rows, made.pools, made.trainable.reader.padded_tokens)
        loss = torch.tensor(update.gradients())
        handle.remove()
        told = {name: beats[0][1].values for name, beats in made.record.heartbeats.items()}
        return forwards, len(seen), [loss, *(value.grad.clone() for value in made.params.values())], told

    (together, one, expected, beats), (apart, two, found, told) = update(math.inf), update(1.5)
    assert [set(part.drawn) for part in together] == [{REPLAY, GENERAL}]
    assert [(len(part.new), set(part.drawn)) for part in apart] == [(4, {REPLAY}), (0, {GENERAL})]
    assert (one, two) == (1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert told["instruction_replay"] == pytest.approx(beats["instruction_replay"], rel=1e-3)


def test_two_draws_that_would_pad_the_new_rows_run_together_and_apart_from_them(stream):
    made = stream.learner({"replay": {"mix": 0.5}, "instruction_replay": {"mix": 0.5}}, pools=BOTH)
    for name in BOTH:
        made.pools[name] = replace(made.pools[name], rows=long_rows(stream, 8, 12), columns={})
    made.room = math.inf
    (micro,) = made.update(0).micro_batches
    first, second = forwards_of(micro, made.inputs.rows, made.pools, made.trainable.reader.padded_tokens)
    assert (len(first.new), first.drawn) == (4, {})
    assert (len(second.new), second.drawn) == (0, micro.drawn)


def test_cut_into_pieces_the_rows_that_run_apart_are_dealt_out(stream):
    """Cut as they stand, shortest first, the last piece would hold all the long ones."""
    methods = {"replay": {"mix": 0.25}, "instruction_replay": {"mix": 0.4}}
    made = stream.learner(methods, pools=BOTH, per_device_train_batch_size=12)
    made.pools["general"] = replace(made.pools["general"], rows=long_rows(stream, 8, 9), columns={})
    made.room = math.inf
    (whole,) = made.update(0).micro_batches
    forwards = forwards_of(whole, made.inputs.rows, made.pools, made.trainable.reader.padded_tokens)
    assert len(whole.drawn[GENERAL]) == 8
    assert [set(part.drawn) for part in forwards] == [{REPLAY}, {GENERAL}]

    def tokens(micro):
        parts = forwards_of(micro, made.inputs.rows, made.pools, made.trainable.reader.padded_tokens)
        rows = [[len(row) for row in rows_in(part, made.inputs.rows, made.pools)] for part in parts]
        return sum(len(own) * max(own) for own in rows)

    room = tokens(whole) / 4
    pieces = fitted(whole, made.inputs.rows, made.pools, forwards, room)
    assert [len(piece.drawn[GENERAL]) for piece in pieces] == [2] * 4
    assert max(map(tokens, pieces)) <= 1.15 * room
    for draw, rows in whole.drawn.items():
        assert sorted(rows) == sorted(i for piece in pieces for i in piece.drawn[draw])
    assert sorted(whole.new) == sorted(i for piece in pieces for i in piece.new)


def test_a_micro_batch_stays_whole_for_a_method_that_does_not_support_accumulation(stream):
    @dataclass(frozen=True)
    class Whole(Replay):
        supports: ClassVar[frozenset[str]] = frozenset()

    def micro_batches(method: type[Replay]) -> int:
        made = stream.learner({"replay": {"mix": 0.5}}, pools=("replay",), registry={"replay": method})
        made.room = 1.0
        return len(made.update(0).micro_batches)

    assert micro_batches(Replay) > 1
    assert micro_batches(Whole) == 1


def test_rows_of_like_length_run_with_the_others(stream):
    made = stream.learner({"replay": {"mix": 0.5}, "instruction_replay": {"mix": 0.25}}, pools=BOTH)
    for n in range(made.total):
        update = made.update(n)
        for micro in update.micro_batches:
            assert len(forwards_of(micro, made.inputs.rows, made.pools, made.trainable.reader.padded_tokens)) == 1
        update.gradients()
        update.finish()


def test_no_forward_is_cut_where_nothing_is_drawn(stream):
    made = stream.learner({}, per_device_train_batch_size=3)
    for n in range(made.total):
        update = made.update(n)
        assert len(update.micro_batches) == 1
        update.gradients()
        update.finish()


def test_a_method_acted_though_no_told_update_shows_it(stream):
    made = stream.learner({"replay": {"mix": 0.15}}, pools=("replay",), logging_steps=99)
    loop.train(made)
    first_and_last = [update for update, _ in made.record.heartbeats.get("replay", [])]
    assert 1 not in first_and_last
    assert {"replay"} == made.record.acted == made.record.fed


def test_what_was_kept_of_parameters_that_are_trained_no_more_is_refused_in_words(stream):
    elsewhere = {
        "ogd": {"basis.dense.weight": torch.zeros(2, 5, 5)},
        "contrastive": {"prototypes/v1.old": torch.zeros(2, 4)},
    }
    with pytest.raises(
        BadSpec, match=r"ogd stored basis.dense.weight and 0 more, but no parameter of theirs is trained now"
    ):
        stream.learner({"ogd": {}, "contrastive": {}}, state=elsewhere)


def test_an_update_is_driven_in_one_order_and_none_is_left_open(stream):
    made = stream.learner({})
    update = made.update(0)
    with pytest.raises(RuntimeError, match="finished once, after its gradients"):
        update.finish()
    with pytest.raises(RuntimeError, match="update 0 is not finished"):
        made.update(1)
    update.gradients()
    with pytest.raises(RuntimeError, match="computed already"):
        update.gradients()
    with pytest.raises(RuntimeError, match="update 0 is not finished"):
        made.settle()
    update.finish()
    with pytest.raises(RuntimeError, match="finished once"):
        update.finish()
    assert made.update(1).index == 1


def test_the_first_update_begins_the_task_and_no_later_one_does(stream, monkeypatch):
    made, calls = stream.learner({"lwf": {}}, pools=("replay",)), []
    top_k = made.inference.top_k
    monkeypatch.setattr(
        made.inference, "top_k", lambda *given, **named: (calls.append(given), top_k(*given, **named))[1]
    )
    for n in range(2):
        run(made, n)
    made.begin()
    assert len(calls) == 1


def test_of_two_wishes_for_one_draw_the_larger_is_served_and_of_equal_ones_the_order_decides_nothing(stream):
    def drawn(*methods):
        made = stream.learner(dict(methods), pools=("replay",))
        return made.update(0).drawn.rows[REPLAY]

    small, large = ("replay", {"mix": 0.2}), ("distill", {"mix": 0.5})
    assert drawn(small, large) == drawn(large, small) == drawn(large)
    assert len(drawn(large)) > len(drawn(small))
