"""The section on edited facts: every fact with what is left of it, and how that went entry by entry."""

from dataclasses import replace

import pytest
from report_examples import empty, entry, entry_id, four_tasks, with_entry, with_record
from test_report_page import Page

from fact_examples import fact_line
from perdure.ledger.records import Drift, EditsRecord, FactsVerdict
from perdure.report import render
from perdure.report.edits import edits


def fact(number, said=True, at_edit=True, **more):
    about = {"fact": entry_id(f"fact {number}"), "entry": entry_id("f")}
    return fact_line(number, said, at_edit, **about, **more)


def note(facts, rise=0.02, rewritten=False):
    drift = Drift(10.0, 10.0 * (1 + rise), 0.0123)
    return EditsRecord(f"{len(facts)} facts", tuple(facts), drift=drift, rewritten=rewritten).summary


@pytest.fixture
def data():
    """Three facts are edited, a learn loses one, the next writes them again and finds it."""
    data = four_tasks()
    tree = [
        entry("f", "e", "edit", None, "2026-03-01T08:00:00+00:00", {}),
        entry("g", "f", "learn", "water", "2026-03-02T08:00:00+00:00", {}),
        entry("h", "g", "learn", "gas", "2026-03-03T08:00:00+00:00", {}, refs=["head"]),
    ]
    lost = [fact(0), fact(1, said=False), fact(2)]
    found = (note([fact(n) for n in range(3)]), note(lost), note(lost, 0.05, rewritten=True))
    edited = (replace(one, edits=note) for one, note in zip(tree, found, strict=True))
    return replace(data, entries=(*data.entries, *edited), head=entry_id("h"), facts=tuple(lost))


def test_a_workspace_without_edits_has_no_such_section():
    assert edits(four_tasks()) == {}
    assert 'id="edits"' not in render(four_tasks())


def test_every_fact_stands_with_what_was_said_at_the_edit_and_now_and_the_lost_come_first(data):
    page = Page(render(data))
    assert "3 facts in force. 3 said when edited, 2 said now" in page.words
    at = page.words.index("Facts in force Subject Prompt Target Entry At the edit Now Freely Paraphrases Neighbours")
    told = page.words[at:]
    lost, kept = told.index("Subject 1 lives in Leeds"), told.index("Subject 0 lives in Leeds")
    assert lost < kept < told.index("Subject 2 lives in Leeds")
    short = entry_id("f")[:8]
    assert f"Subject 1 lives in Leeds {short} yes Failed no no 50% 100%" in told
    assert f"Subject 0 lives in Leeds {short} yes yes yes \u2013 100%" in told


def test_the_share_still_said_is_told_after_each_learn_with_the_drift(data):
    words = Page(render(data)).words
    f, g, h = (entry_id(name)[:8] for name in "fgh")
    assert f"3 facts {f} edit 3 3 100.0% 2.00% 0.0123" in words
    assert f"water {g} learn 3 2 66.7% 2.00% 0.0123" in words
    assert f"gas {h} learn 3 2 66.7% 5.00% 0.0123 written again" in words
    assert "Facts still said 66.7% now" in words
    assert "Rise of perplexity 5.00% now" in words


def test_only_entries_that_lead_to_head_count(data):
    data = replace(data, head=entry_id("f"), facts=tuple(fact(n) for n in range(3)))
    words = Page(render(data)).words
    assert "3 said when edited, 3 said now" in words
    assert "water" not in words.split("What became of the edited facts")[1].split("How it came to be")[0]


def test_many_facts_stand_behind_a_summary_and_none_is_left_out(data):
    many = [fact(n) for n in range(70)]
    data = replace(with_entry(data, -1, edits=note(many)), facts=tuple(many))
    page = Page(render(data))
    assert "20 more facts" in page.words
    assert all(f"Subject {n} lives in" in page.words for n in range(70))


def test_reverted_facts_are_said_to_be_gone(data):
    data = replace(with_entry(data, -1, edits=replace(note([]), drift=None)), facts=())
    words = Page(render(data)).words
    assert "No fact is in force: all were reverted." in words
    assert "Rise of perplexity 2.00% now" in words


def test_texts_of_facts_are_escaped(data):
    data = replace(data, facts=(fact(0, subject='<script>alert("x")</script>'),))
    assert "<script>alert" not in render(data)


def test_facts_that_did_not_decide_the_gate_are_told_beside_its_reason(data):
    said = FactsVerdict("pass", 3, (), 0.0, "all 3 edited facts are still said")
    data = with_record(data, 1, gate=replace(data.entries[1].gate, facts=said))
    assert "all 3 edited facts are still said. Tolerance 3.0 points" in Page(render(data)).words


def test_a_workspace_with_edits_alone_reports_facts_and_nothing_of_tasks():
    made = empty()
    edited = replace(
        entry("f", "base", "edit", None, "2026-03-01T08:00:00+00:00", {}, refs=["head"]),
        edits=note([fact(0), fact(1, said=False)]),
    )
    data = replace(made, entries=(*made.entries, edited), head=edited.entry, facts=(fact(0), fact(1, said=False)))
    html = render(data)
    words = Page(html).words
    assert "No task has been learned. 2 edited facts in force." in words
    assert "2 facts in force. 2 said when edited, 1 said now" in words
    assert "edit 2 facts 1 Mar 2026, 08:00" in words
    assert [
        name
        for name in ("matrix", "tasks", "gate", "training", "methods", "edits", "history")
        if f'id="{name}"' in html
    ] == [
        "edits",
        "history",
    ]
    for other in ("learn TASK DATA", "Average score now", "Forgotten", "has been through the gate", "Intervals hold"):
        assert other not in words
    assert "Average score now" in Page(render(made)).words
