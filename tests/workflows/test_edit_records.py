"""What is noted of facts: only what changes, and all of it comes back."""

import json

from hypothesis import given
from hypothesis import strategies as st

from fact_examples import dropped, fact_line
from perdure.ledger.records import Drift, EditNote, EditsNote, EditsRecord, RefusedFact
from perdure.workflows.edit.records import changes
from perdure.workflows.edit.results import EditResult
from perdure.workflows.fact_records import NOTHING, changed

LINE = st.builds(fact_line, st.integers(0, 5), st.booleans())
LINES = st.lists(st.tuples(LINE, st.booleans()), max_size=6, unique_by=lambda pair: pair[0].fact)


@st.composite
def records(draw):
    lines = draw(LINES)
    return EditsRecord(
        about=draw(st.sampled_from(["a fact", "2 facts"])),
        facts=tuple(line for line, gone in lines if not gone),
        dropped=tuple(dropped(line) for line, gone in lines if gone),
        drift=draw(st.sampled_from([None, Drift(10.0, 10.2, 0.1)])),
    )


@given(st.lists(records(), max_size=5))
def test_the_changes_to_a_record_bring_the_next_one_back_in_its_order(line):
    notes, before = [], NOTHING
    for record in line:
        notes.append(json.loads(json.dumps(changes(before, record).to_json())))
        before = record
    found = NOTHING
    for record, note in zip(line, notes, strict=True):
        found = changed(found, EditsNote.from_json(note))
        assert found == record


def test_a_fact_more_costs_its_own_line_and_no_other():
    lines = tuple(fact_line(n, said=n != 1) for n in range(100))
    record = EditsRecord("99 facts", lines[1:99], (dropped(lines[0]),))
    after = EditsRecord("100 facts", lines[1:], (dropped(lines[0]),))
    note = changes(record, after)
    assert note.lines == (lines[99],)
    assert note.gone == ()
    assert "order" not in note.to_json()
    assert (record.summary.facts, record.summary.held) == (98, 97)


def test_the_keys_of_records_stay():
    line = fact_line(1)
    assert list(line.to_json()) == [
        *("fact", "entry", "subject", "prompt", "target", "ground_truth", "relation", "paraphrases", "neighbours"),
        *("reason", "method", "layers", "optimised", "dropped", "at_edit", "efficacy", "paraphrase", "neighbourhood"),
        *("generation", "generated", "chat", "answers"),
    ]
    assert list(line.to_json()["answers"]) == ["prompt", "paraphrases", "neighbours", "chat"]
    record = EditsRecord("a fact", (line,), (), Drift(10.0, 10.2, 0.1))
    assert list(record.to_json()) == ["about", "facts", "dropped", "drift", "norms", "rewritten"]
    assert list(record.summary.to_json()) == ["about", "drift", "rewritten", "facts", "held"]
    assert list(changes(NOTHING, record).to_json()) == ["about", "drift", "norms", "gone", "lines"]
    assert "rewritten" in changes(NOTHING, record, rewritten=False).to_json()
    refused = RefusedFact("Ann", line.fact, "why")
    result = EditResult(refused=(refused,), already=(line.fact,))
    assert list(result.summary.to_json()) == [
        *("entry", "applied", "refused", "already", "seconds", "before", "scores", "gate", "warnings")
    ]
    assert list(result.note.to_json()) == [
        *("applied", "refused", "superseded", "rewritten", "lost", "known", "seconds")
    ]
    assert EditNote.from_json(result.note.to_json()).refused == (refused,)
