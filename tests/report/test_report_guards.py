"""The section on guards: panels over the stages, and the answers that changed most."""

import base64
import json
from dataclasses import replace

from report_examples import four_tasks, with_guards
from test_report_page import Page

from perdure.evaluate.matrix import GuardColumn
from perdure.ledger.records import GuardsVerdict, Verdict
from perdure.report import render
from perdure.workflows.checkup_records import Abilities, Change, Checkup, Cost, DriftReadings, GuardReading, Reading
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


def test_the_last_checkup_has_its_guards_its_verdict_its_cost_and_its_file() -> None:
    change = Change(-0.125, -0.198, -0.056)
    guards = {
        "sums": GuardReading(base=0.2, now=0.1, low=0.05, high=0.15, n=100, blind=True, ability="maths"),
        "<b>": GuardReading(base=0.342, now=0.217, low=0.1, high=0.3, n=120, groups=40, change=change, ability="other"),
    }
    found = Checkup(
        ref="head",
        against="base",
        tasks={},
        pretraining_abilities=Abilities(),
        knowledge_retention=None,
        instruction_drift=DriftReadings(kl=Reading(base=0.0, now=1.02, low=0.9, high=1.1, n=60)),
        gate=Verdict("fail", 0.03, 0.95, False, "<b> lost 12.5 points", (), None),
        cost=Cost(181.2, 1043, "standard", 660.0),
        guards=guards,
        budget="quick",
    )
    html = render(replace(four_tasks(), checkup=found))
    page = Page(html)
    text = " ".join(" ".join(page.text).split())
    assert "other <b> 34.2% 21.7% (10.0 to 30.0) -12.5 (-19.8 to -5.6) 120 in 40 groups" in text
    assert "maths sums 20.0% 10.0% (5.0 to 15.0) blind 100" in text
    assert "kl 1.02 nats a token (0.90 to 1.10) 60" in text
    assert "Gate, budget quick: fail. <b> lost 12.5 points" in text
    assert (
        "1,043 items, 181 s of scoring in the last run. The budget standard measures more rows in about 660 s more."
        in text
    )
    (link,) = [attrs for tag, attrs in page.elements if attrs.get("download") == "checkup.json"]
    assert json.loads(base64.b64decode(link["href"].partition("base64,")[2])) == found.to_json()
    assert 'id="checkup"' not in render(four_tasks())


def test_no_guard_measured_no_section() -> None:
    assert 'id="guards"' not in render(four_tasks())
    data = replace(four_tasks(), guards=GuardReport((), ()))
    assert 'id="guards"' in render(data)
