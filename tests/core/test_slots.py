"""Which slots the model of a task consists of, by their names."""

from perdure.core.slots import (
    adapters_of_task,
    is_isolated,
    kind_of_slot,
    measured_tasks,
    slots_of_task,
    task_slot,
    view_of,
    without_task,
)

SLOTS = {
    "skill": 1,
    "sum:a": 2,
    "edits": 3,
    "route:a": 4,
    "route:b": 9,
    "task:b": 5,
    "task:b/skill": 6,
    "task:b2": 7,
    "task:b/sum:a": 8,
}


def test_a_task_with_slots_of_its_own_sees_them_and_the_edits_alone():
    assert view_of(SLOTS, "b") == {"edits": 3, "task:b": 5, "task:b/skill": 6, "task:b/sum:a": 8}
    assert view_of(SLOTS, "b2") == {"edits": 3, "task:b2": 7}


def test_any_other_task_and_none_see_what_is_shared():
    assert view_of(SLOTS) == view_of(SLOTS, "a") == {"skill": 1, "sum:a": 2, "edits": 3}


def test_a_view_is_named_without_its_task():
    assert without_task(view_of(SLOTS, "b"), "b") == {"edits": 3, "task": 5, "task/skill": 6, "task/sum:a": 8}
    assert without_task(view_of(SLOTS), None) == view_of(SLOTS)


def test_what_goes_with_a_task():
    assert slots_of_task(SLOTS, "b") == ["route:b", "task:b", "task:b/skill", "task:b/sum:a"]
    assert slots_of_task(SLOTS, "a") == ["sum:a", "route:a"]
    assert adapters_of_task(SLOTS, "a") == ["sum:a"]
    assert adapters_of_task({"sum:a/repair": 1, "sum:ab/repair": 2, "task:a/repair": 3}, "a") == [
        "sum:a/repair",
        "task:a/repair",
    ]
    assert measured_tasks(SLOTS, "route") == {"a": "route:a", "b": "route:b"}
    assert (is_isolated(SLOTS, "b"), is_isolated(SLOTS, "a")) == (True, False)
    assert task_slot("b", "skill") == "task:b/skill"


def test_the_kind_of_a_slot_is_the_word_before_its_task():
    kinds = {name: kind_of_slot(name) for name in (*SLOTS, "initial", "sum:a/repair", "task:b/repair", "dense")}
    assert kinds["sum:a"] == "sum"
    assert (kinds["task:b"], kinds["task:b/skill"], kinds["task:b/sum:a"]) == ("task", "beneath", "beneath")
    assert kinds["sum:a/repair"] == kinds["task:b/repair"] == "repair"
    assert all(kinds[name] == name for name in ("skill", "edits", "initial", "dense"))
