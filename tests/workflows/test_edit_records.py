"""What is noted of facts: only what changes, and all of it comes back."""

from hypothesis import given
from hypothesis import strategies as st

from perdure.workflows.edit.records import NOTHING, changed, changes, counted

LINE = st.builds(lambda name, efficacy: {"fact": name, "efficacy": efficacy}, st.sampled_from("abcdef"), st.booleans())
LINES = st.lists(st.tuples(LINE, st.booleans()), max_size=6, unique_by=lambda pair: pair[0]["fact"])


@st.composite
def records(draw):
    lines = [{**line, "dropped": dropped} for line, dropped in draw(LINES)]
    return {
        **NOTHING,
        "about": draw(st.sampled_from(["a fact", "2 facts"])),
        "drift": draw(st.sampled_from([None, {"kl": 0.1}])),
        "facts": [line for line in lines if not line["dropped"]],
        "dropped": [line for line in lines if line["dropped"]],
    }


@given(st.lists(records(), max_size=5))
def test_the_changes_to_a_record_bring_the_next_one_back_in_its_order(line):
    notes, before = [], NOTHING
    for record in line:
        notes.append(changes(before, record))
        before = record
    found = NOTHING
    for record, note in zip(line, notes, strict=True):
        found = changed(found, note)
        assert found == record


def test_a_fact_more_costs_its_own_line_and_no_other():
    lines = [{"fact": str(n), "efficacy": n != 1, "dropped": n == 0} for n in range(100)]
    record = {**NOTHING, "facts": lines[1:99], "dropped": lines[:1]}
    note = changes(record, {**record, "facts": lines[1:]})
    assert note["lines"] == [lines[99]]
    assert (note["gone"], "order" in note) == ([], False)
    assert counted(record)["facts"] == 98
    assert counted(record)["held"] == 97
