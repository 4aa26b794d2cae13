"""Guards that perdure makes are read without data, with requests in the model's chat template where there is one."""

import pytest

from perdure.data.guard_spec import guard_file, guard_names, load_guard_spec
from perdure.data.made import made_rows
from perdure.workflows.guards.read import read_guard

MADE = [name for name in guard_names() if load_guard_spec(guard_file(name)).made]


@pytest.mark.parametrize("name", [name for name in MADE if name not in ("facts_free", "language")])
def test_a_made_guard_is_read_without_data(name, tmp_path):
    read = read_guard(name, tmp_path)

    assert len(read.task.test) == len(made_rows(load_guard_spec(guard_file(name)).made)) == read.items.full
    assert read.source.startswith("made by perdure")


def test_plain_passages_are_scored_where_a_fall_can_be_seen(tmp_path):
    read = read_guard("language", tmp_path)

    assert read.task.scorer == {"name": "likelihood", "scale": "log"}
    assert read.chance == 0


def test_a_learn_scores_one_instruction_of_each_kind(tmp_path):
    read = read_guard("instructions", tmp_path)

    assert len({row.group for row in read.task.test[: read.items.learn]}) == 40 == read.items.learn


@pytest.mark.parametrize("name", ["drift", "instructions", "manners"])
def test_requests_are_plain_text_for_a_model_without_a_chat_template(name, tmp_path):
    chat, plain = read_guard(name, tmp_path), read_guard(name, tmp_path, has_template=lambda: False)

    assert any(row.messages for row in chat.task.test)
    assert not any(row.messages for row in plain.task.test)
    assert len(plain.task.test) == len(chat.task.test)
    assert {row.group for row in plain.task.test} == {row.group for row in chat.task.test}
    assert plain.task.version != chat.task.version
