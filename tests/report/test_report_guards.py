"""The section on guards: panels over the stages, and the answers that changed most."""

from dataclasses import replace

from report_examples import four_tasks, with_guards
from test_report_page import Page

from perdure.evaluate.matrix import GuardColumn
from perdure.ledger.records import GuardsVerdict
from perdure.report import render
from perdure.workflows.guards.kinds import KindChange
from perdure.workflows.inspect.report_records import GuardKinds, GuardReport


def section(text: str) -> str:
    start = text.index('id="guards"')
    return text[start : text.index('id="gate"')]


def test_each_panel_has_its_line_its_interval_and_the_limits_of_the_gate() -> None:
    data = with_guards(four_tasks())
    text = section(render(data))
    assert text.count('class="panel"') == 3
    assert text.count('class="was"') == 4
    assert "78.0% now" in text
    assert "-12.0 now, instructions" in text
    for panel in data.guards.panels:
        measured = sum(band is not None for band in panel.values)
        assert text.count("<circle") % measured == 0
    assert text.count('class="line"') == 6  # each is broken where nothing was measured
    assert "Stage 0 (base): 100.0%, 95% interval 98.0 to 102.0" in text


def test_answers_are_escaped_marked_and_folded() -> None:
    page = Page(render(with_guards(four_tasks())))
    text = "".join(page.text)
    assert "Question 0 <b>?" in text
    assert "The 5 answers that changed most" in text
    assert "2 more answers" in text
    assert "(empty)" in text
    assert [tag for tag, _ in page.elements].count("mark") == 5 + 4 * 5 + 4


def test_kinds_that_changed_are_a_table_with_gains_beside_losses() -> None:
    data = with_guards(four_tasks())
    kinds = [KindChange(f"kind {i}", 3, 1.0, 0.0, 0, 3) for i in range(9)]
    kinds += [KindChange("<few> words", 3, 0.0, 2 / 3, 2, 0), KindChange("unmoved", 3, 1.0, 1.0, 0, 0)]
    page = Page(render(replace(data, guards=replace(data.guards, kinds=(GuardKinds("instructions", tuple(kinds)),)))))
    text = "".join(page.text)
    assert "instructions by kind, reference and head: 1 kind did not change." in text
    assert "2 more kinds" in text
    assert "<few> words30.0%66.7%02" in text
    assert "unmoved" not in text
    assert "by kind" not in render(data)


def test_the_gate_says_what_was_found_of_guards_that_only_warn() -> None:
    data = four_tasks()
    lost = GuardsVerdict("fail", False, "homes (knowledge) fell from 90.0% to 40.0%, at least 30.0", (), None, None)
    told = "Guards, which only warn: homes (knowledge) fell from 90.0% to 40.0%, at least 30.0."
    assert told not in render(data)
    *others, last = data.entries
    judged = replace(last.record, gate=replace(last.gate, guards=lost))
    assert told in render(replace(data, entries=(*others, replace(last, record=judged))))


def test_blind_guards_are_hatched_in_the_heat_map() -> None:
    data = four_tasks()
    stages = len(data.matrix.stages)
    columns = {name: GuardColumn("maths", "base", (0.2,) * stages, 50, name == "sums") for name in ("sums", "words")}
    page = render(replace(data, matrix=replace(data.matrix, guards=columns)))
    assert page.count("blind: the reference is no better than chance") == stages
    assert "blind guard</span>" in page
    columns.pop("sums")
    assert "blind guard</span>" not in render(replace(data, matrix=replace(data.matrix, guards=columns)))


def test_no_guard_measured_no_section() -> None:
    assert 'id="guards"' not in render(four_tasks())
    data = replace(four_tasks(), guards=GuardReport((), ()))
    assert 'id="guards"' in render(data)
