"""Guards over the stages, and the ten answers that changed most, before and now side by side."""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from perdure.report.fold import folded
from perdure.report.lines import Scale, path, runs, ticks, without_overlap
from perdure.report.markup import Html, el, join, scrolling
from perdure.report.records import ReportData
from perdure.report.words import count, percent, span, title_of
from perdure.workflows.guards.kinds import KindChange
from perdure.workflows.inspect.report_records import Band, DriftedAnswer, GuardKinds, GuardPanel

WIDTH, HEIGHT = 250, 146
MOST_KINDS = 8  # of a guard that are not folded
OPEN = 3  # answers that are not folded
POINTS_SPAN = 0.12  # least height of a panel of changes, up and down
LONGEST = 600  # characters of an answer


def guards(data: ReportData) -> dict[str, Html]:
    """Return the section by its name: none where no guard was measured."""
    if data.guards is None:
        return {}
    panels = el("div", [_panel(data, panel) for panel in data.guards.panels], class_="panels")
    kinds = [_kinds(one) for one in data.guards.kinds]
    return {"guards": join(panels, *kinds, _answers(data.guards.drifted))}


def _kinds(guard: GuardKinds) -> Html:
    """Return a table of the kinds of a guard's rows that changed, and how many did not."""
    changed = [one for one in guard.kinds if one.changed]
    still = count(len(guard.kinds) - len(changed), "kind")
    head = el("p", el("b", guard.guard), f" by kind, reference and head: {still} did not change.", class_="how")
    if not changed:
        return head
    rest = changed[MOST_KINDS:]
    more = folded(count(len(rest), "more kind"), _kind_table(guard.guard, rest)) if rest else None
    return join(head, _kind_table(guard.guard, changed[:MOST_KINDS]), more)


def _kind_table(guard: str, kinds: Sequence[KindChange]) -> Html:
    first, *others = ("kind", "rows", "reference", "now", "lost", "gained")
    heads = el("tr", el("th", first), [el("th", text, class_="num") for text in others])
    rows = [
        el(
            "tr",
            el("td", one.kind),
            [
                el("td", text, class_="num")
                for text in (one.n, percent(one.before), percent(one.now), one.lost, one.gained)
            ],
        )
        for one in kinds
    ]
    return scrolling(
        el("table", el("thead", heads), el("tbody", rows), class_="plain"), f"Kinds of {guard} that changed"
    )


def _panel(data: ReportData, panel: GuardPanel) -> Html:
    values, share = panel.values, panel.unit == "share"
    known = [band for band in values if band]
    lowest = 0.0 if share else min([-POINTS_SPAN, *(band.low for band in known), *panel.rules])
    highest = 1.0 if share else max([POINTS_SPAN, *(band.high for band in known)])
    x, y = Scale(0, max(1, len(values) - 1), 46, WIDTH - 10), Scale(lowest, highest, HEIGHT - 24, 10)
    levels = [0.0, 0.5, 1.0] if share else without_overlap([0.0, *panel.rules, lowest, highest], y)
    drawn = [_level(y, level, share) for level in levels]
    drawn += [el("line", x1=38, x2=WIDTH - 2, y1=y(rule), y2=y(rule), class_="was") for rule in panel.rules]
    drawn += [el("text", i, x=x(i), y=HEIGHT - 6, text_anchor="middle") for i in ticks(len(values), x)]
    for run in runs([band.value if band else None for band in values]):
        there = [(i, band) for i in run if (band := values[i])]
        upper = [(x(i), y(band.high)) for i, band in there]
        lower = [(x(i), y(band.low)) for i, band in reversed(there)]
        drawn.append(el("path", d=path(upper + lower, closed=True), class_="band" if len(run) > 1 else "band lone"))
        drawn.append(el("path", d=path((x(i), y(band.value)) for i, band in there), class_="line"))
    drawn += [_dot(data, x, y, i, band, share) for i, band in enumerate(values) if band]
    now = values[-1]
    story = (
        "not measured at head" if now is None else f"{_shown(now.value, share)} now" + (now.note and f", {now.note}")
    )
    picture = el("svg", drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{panel.title}: {story}")
    return el("figure", el("figcaption", el("b", panel.title), el("span", story)), picture, class_="panel")


def _level(y: Scale, level: float, share: bool) -> Html:
    return join(
        el("line", x1=38, x2=WIDTH - 2, y1=y(level), y2=y(level), class_="grid"),
        el("text", percent(level, 0) if share else _shown(level, share), x=33, y=y(level) + 3.5, text_anchor="end"),
    )


def _dot(data: ReportData, x: Scale, y: Scale, stage: int, band: Band, share: bool) -> Html:
    where = data.matrix.stages[stage] if stage < len(data.matrix.stages) else None
    title = f"Stage {stage}" + (f" ({title_of(where)})" if where else "")
    bounds = span(band.low, band.high) if share else f"{_shown(band.low, share)} to {_shown(band.high, share)}"
    note = f", {band.note}" if band.note else ""
    tip = f"{title}: {_shown(band.value, share)}{note}, 95% interval {bounds}"
    changed = where is not None and where.kind in ("learn", "edit")
    kind = "dot just" if changed else "dot"
    return el("circle", el("title", tip), cx=x(stage), cy=y(band.value), r=4.5 if changed else 2.5, class_=kind)


def _shown(value: float, share: bool) -> str:
    return percent(value) if share else f"{100 * value:+.1f}"


def _answers(drifted: Sequence[DriftedAnswer]) -> Html | None:
    if not drifted:
        return None
    head = el(
        "p", f"The {count(len(drifted), 'answer')} that changed most. Words that differ are marked.", class_="how"
    )
    rest = drifted[OPEN:]
    more = folded(count(len(rest), "more answer"), _table(rest)) if rest else None
    return join(head, _table(drifted[:OPEN]), more)


def _table(answers: Sequence[DriftedAnswer]) -> Html:
    heads = el("tr", [el("th", text) for text in ("prompt", "reference", "now", "sameness")])
    return scrolling(
        el("table", el("thead", heads), el("tbody", [_row(one) for one in answers]), class_="plain answers"),
        "Answers that changed most",
    )


def _row(one: DriftedAnswer) -> Html:
    before, now = one.before[:LONGEST].split(), one.now[:LONGEST].split()
    blocks = SequenceMatcher(None, before, now, autojunk=False).get_matching_blocks()
    same_before = {i for block in blocks for i in range(block.a, block.a + block.size)}
    same_now = {i for block in blocks for i in range(block.b, block.b + block.size)}
    return el(
        "tr",
        el("td", one.prompt[:LONGEST]),
        el("td", list(_marked(before, same_before)) or "(empty)"),
        el("td", list(_marked(now, same_now)) or "(empty)"),
        el("td", percent(one.same), class_="num"),
    )


def _marked(words: Sequence[str], same: set[int]) -> Iterator[Html | str]:
    """Yield the words, those that are not the same marked."""
    for i, word in enumerate(words):
        yield word if i in same else el("mark", word)
        yield " "
