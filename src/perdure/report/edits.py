"""Edited facts: what is left of them after each later entry, and how each is answered now, the lost ones first."""

from collections.abc import Sequence

from perdure.ledger.records import EditsSummary, FactLine
from perdure.report.fold import folded, is_long
from perdure.report.gates import badge
from perdure.report.lines import Scale, path, without_overlap
from perdure.report.markup import Html, el, join, scrolling
from perdure.report.records import ReportData, ReportEntry, lineage
from perdure.report.words import NOTHING, count, number, percent, short, title_of

WIDTH, HEIGHT = 250, 146
OPEN = 50  # facts that stand open; the rest are behind a summary


def edits(data: ReportData) -> dict[str, Html]:
    """Return the section, by its name: none where no fact was ever edited into head."""
    line = list(reversed(lineage(data, data.head)))
    entries = {entry.entry: entry for entry in data.entries}
    edited = [entries[name] for name in line if entries[name].edits]
    if not edited:
        return {}
    facts = sorted(data.facts, key=lambda fact: (fact.efficacy, -fact.at_edit))
    return {
        "edits": join(
            _summary(facts, edited[-1].entry),
            _panels(edited),
            _history(edited, is_long(data)),
            _facts(facts, is_long(data)),
        )
    }


def _summary(facts: Sequence[FactLine], newest: str) -> Html:
    if not facts:
        return el("p", "No fact is in force: all were reverted.", class_="empty")
    now, then = sum(fact.efficacy for fact in facts), sum(fact.at_edit for fact in facts)
    text = f"{count(len(facts), 'fact')} in force. {count(then)} said when edited, {count(now)} said now, "
    return el("p", text, "as verified at ", el("code", short(newest)), ".", class_="how")


def _panels(edited: Sequence[ReportEntry]) -> Html:
    """Return what is still said, and what all facts cost held-out text, over the entries since the first edit."""
    summaries = [entry.edits for entry in edited if entry.edits]
    shares = [share for summary in summaries if (share := _share(summary)) is not None]
    rises = [rise for summary in summaries if (rise := _rise(summary)) is not None]
    drawn = []
    if shares:
        drawn.append(_panel("Facts still said", f"{percent(shares[-1])} now", shares, 1.0))
    if rises:
        story = f"{percent(rises[-1], 2)} now"
        drawn.append(_panel("Rise of perplexity", story, rises, max(0.01, *rises)))
    return el("div", drawn, class_="panels")


def _panel(title: str, story: str, values: Sequence[float], top: float) -> Html:
    lowest = min(0.0, *values, 0.0)
    x, y = Scale(0, max(1, len(values) - 1), 46, WIDTH - 10), Scale(lowest, top, HEIGHT - 24, 10)
    ends = [0.0, lowest, top] if -lowest > top else [0.0, top, lowest]
    grid = [
        join(
            el("line", x1=38, x2=WIDTH - 2, y1=y(level), y2=y(level), class_="grid"),
            el("text", percent(level, 0 if top == 1 else 1), x=33, y=y(level) + 3.5, text_anchor="end"),
        )
        for level in without_overlap(list(dict.fromkeys(ends)), y)
    ]
    points = [(x(i), y(value)) for i, value in enumerate(values)]
    dots = [el("circle", cx=a, cy=b, r=2.5, class_="dot") for a, b in points]
    picture = el(
        "svg",
        grid,
        el("path", d=path(points), class_="line"),
        dots,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_label=f"{title}: {story}",
    )
    return el("figure", el("figcaption", el("b", title), el("span", story)), picture, class_="panel")


def _history(edited: Sequence[ReportEntry], folds: bool) -> Html:
    heads = ["Entry", "Kind", "Facts in force", "Still said", "Share", "Rise of perplexity", "KL, nats a token", ""]
    rows = []
    for entry in edited:
        summary = entry.edits
        if summary is None:
            continue
        cells = [
            count(summary.facts),
            count(summary.held),
            percent(_share(summary)),
            percent(_rise(summary), 2),
            number(summary.drift.kl) if summary.drift else NOTHING,
        ]
        name = title_of(entry) if entry.kind == "learn" else summary.about or NOTHING
        rows.append(
            el(
                "tr",
                el("th", name, el("code", short(entry.entry)), scope="row"),
                el("td", entry.kind),
                [el("td", cell, class_="num") for cell in cells],
                el("td", "written again" if summary.rewritten else ""),
            )
        )
    table = _table(heads, range(2, 7), rows, "Facts after each entry")
    if folds:
        return folded(f"After each of {count(len(rows))} entries", table)
    return join(el("h3", "After each entry"), table)


def _facts(facts: Sequence[FactLine], folds: bool) -> Html:
    if not facts:
        return Html("")
    heads = ["Subject", "Prompt", "Target", "Entry", "At the edit", "Now", "Freely", "Paraphrases", "Neighbours"]
    shown = _table(heads, range(7, 9), [_fact(fact) for fact in facts[:OPEN]], "Facts in force")
    rest = facts[OPEN:]
    hidden = _table(heads, range(7, 9), [_fact(fact) for fact in rest], "More facts in force") if rest else None
    more = el("details", el("summary", f"{count(len(rest), 'more fact')}"), hidden, class_="quiet") if rest else None
    if folds:
        return folded(f"{count(len(facts), 'fact')} in force, the lost ones first", shown, more)
    return join(el("h3", "Facts in force"), shown, more)


def _fact(fact: FactLine) -> Html:
    lost = not fact.efficacy
    words = [_answer(fact.at_edit), _answer(fact.efficacy), _answer(fact.generation)]
    shares = [percent(fact.paraphrase, 0), percent(fact.neighbourhood, 0)]
    return el(
        "tr",
        el("th", fact.subject, el("code", short(fact.fact)), scope="row"),
        el("td", fact.prompt),
        el("td", fact.target),
        el("td", el("code", short(fact.entry))),
        [el("td", badge("fail", word=False) if lost and n == 1 else None, " ", word) for n, word in enumerate(words)],
        [el("td", share, class_="num") for share in shares],
        class_="lost" if lost else None,
    )


def _table(heads: Sequence[str], right: Sequence[int], rows: Sequence[Html], label: str) -> Html:
    head = el("tr", [el("th", t, scope="col", class_="num" if i in right else None) for i, t in enumerate(heads)])
    table = el("table", el("thead", head), el("tbody", rows), class_="plain")
    return scrolling(table, label)


def _answer(value: bool | None) -> str:
    return NOTHING if value is None else "yes" if value else "no"


def _share(edits: EditsSummary) -> float | None:
    """Return the share of the facts in force that are said; None without a fact."""
    return edits.held / edits.facts if edits.facts else None


def _rise(edits: EditsSummary) -> float | None:
    return edits.drift.rise if edits.drift else None
