"""Gate verdicts: one block per learn, newest first, each guarded task with its drop against the tolerance."""

from collections.abc import Sequence

from perdure.evaluate.gate import TO_DECIDE
from perdure.ledger.records import TaskVerdict, Verdict
from perdure.report.fold import folded, is_long
from perdure.report.lines import Scale, whisker
from perdure.report.markup import Html, el, join, scrolling
from perdure.report.records import ReportData, ReportEntry
from perdure.report.words import count, percent, points, sentence, short, span, title_of, when

SHOWN = 3  # verdicts of a long report that are not folded
ROWS, OLD_ROWS = 4, 1  # tasks that a verdict shows there, and a folded one

WORDS = {"pass": "Passed", "inconclusive": "Inconclusive", "fail": "Failed"}
SHAPES = {
    "pass": "M4.5 8.4 7 10.9 11.6 5.6",
    "inconclusive": "M4.8 8H11.2",
    "fail": "M5.4 5.4 10.6 10.6M10.6 5.4 5.4 10.6",
}


def badge(verdict: str, word: bool = True) -> Html:
    """Return the verdict as shape, colour and word, so that none of them carries it alone."""
    icon = el(
        "svg",
        el("circle", cx=8, cy=8, r=7.2),
        el("path", d=SHAPES[verdict]),
        viewBox="0 0 16 16",
        width=16,
        height=16,
        aria_hidden="true",
    )
    return el("span", icon, el("span", WORDS[verdict], class_=None if word else "unseen"), class_=f"badge {verdict}")


def gates(data: ReportData) -> Html:
    """Return every verdict; the newest verdict, and each that is not a pass, is open.

    Of a long report only the newest is open, each verdict shows the tasks that lost most, and the older ones are folded.
    """
    judged = [(entry, gate) for entry in reversed(data.entries) if (gate := entry.gate)]
    if not judged:
        return el("p", "No learn has been through the gate yet.", class_="empty")
    if not is_long(data):
        blocks = [_verdict(entry, gate, n == 0 or gate.verdict != "pass") for n, (entry, gate) in enumerate(judged)]
        return el("div", blocks, class_="gates")
    shown = [_verdict(entry, gate, n == 0, ROWS) for n, (entry, gate) in enumerate(judged[:SHOWN])]
    rest = judged[SHOWN:]
    doubtful = sum(gate.verdict != "pass" for _, gate in rest)
    older = el("div", [_verdict(entry, gate, False, OLD_ROWS) for entry, gate in rest], class_="gates")
    more = folded(f"{count(len(rest), 'earlier verdict')}, {count(doubtful)} of them not passed", older)
    return join(el("div", shown, class_="gates"), more if rest else None)


def _verdict(entry: ReportEntry, gate: Verdict, is_open: bool, most: int | None = None) -> Html:
    rule = f"Tolerance {points(gate.tolerance, signed=False)} points, each bound with {100 * gate.confidence:g}% confidence"
    rule += ", strict: inconclusive counts as failed." if gate.strict else "."
    name = el("span", el("b", title_of(entry)), el("code", short(entry.entry)), class_="who")
    summary = el("summary", badge(gate.verdict), name, el("time", when(entry.time)))
    floor = gate.floor
    sentences = [sentence(gate.reason)]
    if floor and floor.reason not in gate.reason:
        sentences.append(sentence(f"{floor.task}: {floor.reason}"))
    if (facts := gate.facts) and facts.reason not in gate.reason:
        sentences.append(sentence(facts.reason))
    if (kept := gate.guards) and kept.reason not in gate.reason:
        sentences.append(sentence(f"Guards{'' if kept.enforced else ', which only warn'}: {kept.reason}"))
    if gate.verdict == "inconclusive":
        sentences.append(sentence(TO_DECIDE))
    rows = gate.tasks[:most]  # the worst first
    table = _table(rows) if rows else None
    left = len(gate.tasks) - len(rows)
    more = el("p", f"{count(left, 'more task')}: ", el("code", f"perdure show {short(entry.entry)}")) if left else None
    return el("details", summary, el("p", " ".join([*sentences, rule])), table, more, open=is_open)


def _table(rows: Sequence[TaskVerdict]) -> Html:
    ends = [value for row in rows for value in (row.low, row.high, row.drop, row.tolerance)]
    x = Scale(min(-0.02, *ends), max(0.05, *ends), 8, 232)
    heads = ["Task", "Verdict", "When last learned", "Now", "Drop, points", "Bounds", "n"]
    head = el(
        "tr",
        [el("th", text, scope="col", class_="num" if i > 1 else None) for i, text in enumerate(heads)],
        el("th", "Drop against tolerance", scope="col"),
    )
    table = el("table", el("thead", head), el("tbody", [_row(row, x) for row in rows]), class_="plain")
    return scrolling(table, "Drop of each guarded task")


def _row(row: TaskVerdict, x: Scale) -> Html:
    drawing = whisker(x, row.low, row.drop, row.high, [(0, "zero"), (row.tolerance, "limit")], row.verdict)
    cells = [percent(row.reference), percent(row.now), points(row.drop), span(row.low, row.high, signed=True)]
    return el(
        "tr",
        el("th", row.task, scope="row"),
        el(
            "td",
            badge(row.verdict),
            el("small", f"{count(row.more_items, 'more item')} would decide", class_="more")
            if row.more_items
            else None,
        ),
        [el("td", cell, class_="num") for cell in [*cells, count(row.n)]],
        el("td", drawing, title=row.reason or None),
    )
