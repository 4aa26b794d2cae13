"""Where memory runs out, work goes on in smaller parts, to the same result; one row that does not fit is an error."""

from types import SimpleNamespace

import pytest
import torch

from perdure.core.errors import OutOfMemory
from perdure.core.rows import Row
from perdure.methods.registry import all_methods
from perdure.model import batch, decode, within_memory
from perdure.model.within_memory import in_batches, is_out_of_memory
from perdure.train import checkpoint, loop
from perdure.train.checkpoint import Keeper
from perdure.train.model_view import ModelView
from perdure.workflows.scoring import Decoding, answers, generated, prompts_of
from streams import apart, run, same, weights

CUDA = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."
)
METHODS = ["naive", "gem", "distill", "si", "adversarial", "mir"]


@pytest.fixture(autouse=True)
def no_shared_prefix(monkeypatch):
    """What a forward computes is then what rows are counted by."""
    monkeypatch.setattr(batch, "SHARED_PREFIX_WORTH", 10**9)
    monkeypatch.setattr(
        within_memory, "gc", SimpleNamespace(collect=lambda: 0)
    )  # which takes longer than all else here


@pytest.fixture
def small_memory(monkeypatch):
    """A function that gives a learner so many padded tokens a forward; the sizes of the forwards are listed."""

    def limit(learner, most, error=CUDA, late=False):
        reader, sizes = learner.trainable.reader, []
        forward = reader.forward

        def limited(model, rows, *given, **more):
            out = forward(model, rows, *given, **more)
            sizes.append(rows.ids.numel())
            if rows.ids.numel() > most and torch.is_grad_enabled():
                if not late:
                    raise error
                out.logits.register_hook(lambda _: (_ for _ in ()).throw(error))  # in the backward, half of it done
            return out

        monkeypatch.setattr(reader, "forward", limited)
        return sizes

    return limit


def second_task(stream, name, **more):
    methods = {} if name == "naive" else {"replay": {}, name: {}}
    pools = () if name == "naive" else ("replay", "general")
    return stream.learner(methods, pools=pools, per_device_train_batch_size=8, num_train_epochs=1, **more)


def update_of(learner):
    learner.model.train()
    loss = run(learner, 0)
    return loss, {name: value.grad.clone() for name, value in learner.params.items()}


def test_what_counts_as_memory_that_ran_out():
    assert is_out_of_memory(CUDA)
    assert is_out_of_memory(CPU)
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"))
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


@pytest.mark.parametrize("name", METHODS)
def test_the_update_in_smaller_parts_is_the_same(stream, small_memory, name):
    whole = second_task(stream, name)
    loss, grads = update_of(whole)
    made = second_task(stream, name)
    sizes = small_memory(made, 110, CPU if name == "si" else CUDA, late=name in ("gem", "distill"))
    again, parts = update_of(made)
    assert again == pytest.approx(loss, rel=1e-4)
    assert apart(parts, grads) < 1e-4
    assert max(sizes) > 110
    assert {update for update, _ in made.record.memory_limits} == {0}
    assert len(made.update(1).micro_batches) > 1
    assert made.record.tokens == whole.record.tokens
    (found, expected) = (learner.record.heartbeats.get(name, []) for learner in (made, whole))
    for (_, beat), (_, of_whole) in zip(found, expected, strict=True):
        assert beat.values == pytest.approx(of_whole.values, rel=1e-3, abs=1e-4)


def test_the_learn_goes_on_with_the_smaller_size_and_notes_it_once(stream, small_memory):
    made = second_task(stream, "naive")
    sizes = small_memory(made, 110)
    loop.train(made)
    assert sum(size > 110 for size in sizes) == len(
        made.record.memory_limits
    )  # no later update tries the old size again
    assert [update for update, _ in made.record.memory_limits] == [0] * len(made.record.memory_limits)
    assert made.record.frozen.to_json()["memory_limits"]
    assert made.memory_notice.startswith("memory ran out at update 0 of 2; ")
    plain = second_task(stream, "naive")
    loop.train(plain)
    assert apart(weights(made), weights(plain)) < 1e-3
    assert plain.memory_notice is None
    assert "memory_limits" not in plain.record.frozen.to_json()


def test_a_run_that_goes_on_has_the_size_of_before(stream, small_memory, tmp_path):
    made = second_task(stream, "naive")
    small_memory(made, 110)
    optimizer = torch.optim.AdamW(made.params.values())
    made.model.train()
    run(made, 0)
    keeper = Keeper(tmp_path / "c.safetensors", made)
    keeper.save(optimizer, 1)
    later = second_task(stream, "naive")
    assert (
        checkpoint.load(tmp_path / "c.safetensors", later, keeper.clock, torch.optim.AdamW(later.params.values())) == 1
    )
    assert later.record.memory_limits == made.record.memory_limits
    assert len(later.update(1).micro_batches) == len(made.update(1).micro_batches) > 1


def test_one_row_that_does_not_fit_is_an_error_that_says_what_to_do(stream, small_memory):
    made = second_task(stream, "distill")
    small_memory(made, 5)
    made.model.train()
    with pytest.raises(
        OutOfMemory, match=r"at update 0 of 2, with one new row .* gradient_checkpointing: true.*max_length"
    ):
        made.update(0).gradients()
    whole = type("Whole", (all_methods()["replay"],), {"supports": frozenset()})
    made = stream.learner({"replay": {}}, pools=("replay",), registry={"replay": whole})
    small_memory(made, 5)
    with pytest.raises(OutOfMemory, match="method replay takes it in one piece; lower per_device_train_batch_size"):
        made.update(0).gradients()


def test_any_other_error_is_raised_as_it_is(stream, small_memory):
    made = second_task(stream, "naive")
    small_memory(made, 5, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        made.update(0).gradients()


def test_losses_distributions_and_gradients_of_rows_are_computed_in_smaller_batches(stream, monkeypatch):
    made = second_task(stream, "naive")
    view = ModelView(made)

    def gradients():
        parts = [dict(part) for part in view.gradients("new", 8, "sampled")]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    losses, per_row = made.inference.nll(stream.new), gradients()
    forward = made.trainable.reader.forward

    def limited(model, rows, *given):
        if len(rows.ids) > 3:
            raise CUDA
        return forward(model, rows, *given)

    monkeypatch.setattr(made.trainable.reader, "forward", limited)
    assert made.inference.nll(stream.new) == pytest.approx(losses, rel=1e-5)
    assert apart(gradients(), per_row) < 1e-5
    assert len(made.inference.top_k(stream.new, 3)) == len(stream.new)


def test_answers_are_the_same_in_smaller_batches_and_a_notice_says_so(stream, monkeypatch):
    stream.learner({})
    runtime, read = stream.runtime, decode.read_prompts
    runtime.freeze()
    rows = [Row(f"Parcel {'very ' * i}{i}?", " yes") for i in range(6)]
    prompts = prompts_of(runtime, rows)
    choices = [[[5], [6, 7]]] * len(rows)

    def results():
        answered = answers(runtime, rows, 5)
        scores = decode.choice_log_likelihoods(runtime.model, prompts, choices, pad=0)
        return answered.texts, [value for row in scores for value in row], answered.notices

    texts, scores, notices = results()
    assert notices == ()

    def limited(model, asked, *given):
        if len(asked) > 2:
            raise CUDA
        return read(model, asked, *given)

    monkeypatch.setattr(decode, "read_prompts", limited)
    again, others, notices = results()
    assert again == texts
    assert others == pytest.approx(scores, rel=1e-4)
    assert notices == ("memory ran out, and the rest was answered in batches of 2 rows at most",)
    with pytest.raises(OutOfMemory, match="with 6 rows of"):  # what is drawn does not begin again
        generated(runtime, rows, prompts, 5, Decoding(temperature=1.0))


def test_batches_are_halved_until_they_fit_and_stay_so():
    tried, sizes = [], []

    def work(rows):
        tried.append(len(rows))
        if len(rows) > 2:
            raise CUDA
        return rows

    found = list(in_batches([[0, 1, 2, 3, 4], [5, 6, 7, 8], [9]], [1] * 10, work, sizes.append))
    assert [row for rows, _ in found for row in rows] == list(range(10))
    assert all(made == rows for rows, made in found)
    assert sum(size > 2 for size in tried) == len(sizes) == 2
    with pytest.raises(OutOfMemory, match=r"with 1 row of 7 tokens at most; give shorter texts"):
        list(in_batches([[0, 1]], [7, 7], lambda rows: (_ for _ in ()).throw(CUDA)))
    with pytest.raises(OutOfMemory, match="with 2 rows of 7 tokens"):
        list(in_batches([[0, 1]], [7, 7], lambda rows: (_ for _ in ()).throw(CUDA), may_repeat=False))


def test_where_memory_is_enough_no_bit_changes(stream):
    first, again = (update_of(second_task(stream, "distill")) for _ in range(2))
    assert first[0] == again[0]
    assert same(first[1], again[1])
