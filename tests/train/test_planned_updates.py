"""Updates are counted from the lengths of rows alone, before a model is loaded."""

import hypothesis.strategies as st
from hypothesis import given

from perdure.core.settings import Settings
from perdure.train.planned_updates import count_updates, plan_updates


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=120),
    batch=st.integers(1, 20),
    group=st.integers(1, 5),
    epochs=st.integers(1, 3),
)
def test_as_many_updates_are_counted_as_planned_and_each_epoch_trains_each_row_once(lengths, batch, group, epochs):
    settings = Settings(num_train_epochs=epochs, per_device_train_batch_size=batch, gradient_accumulation_steps=group)
    planned = plan_updates(lengths, settings, 0, "task")
    assert len(planned.updates) == count_updates(len(lengths), settings)
    an_epoch = len(planned.updates) // epochs
    for n in range(epochs):
        updates = planned.updates[n * an_epoch : (n + 1) * an_epoch]
        assert sorted(i for update in updates for micro in update for i in micro) == list(range(len(lengths)))
        assert (n + 1) * an_epoch - 1 in planned.epoch_ends
    for steps in (1, an_epoch, an_epoch + 1):
        fewer = settings.model_copy(update={"max_steps": steps, "num_train_epochs": 1})
        assert count_updates(len(lengths), fewer) == steps
        begun = plan_updates(lengths, fewer, 0, "task").updates
        assert len(begun) == steps
        assert begun[: len(planned.updates)] == planned.updates[:steps]
    assert planned.room >= max(len(m) * max(lengths[i] for i in m) for update in planned.updates for m in update)
