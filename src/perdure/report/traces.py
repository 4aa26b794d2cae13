"""Causal traces: heat maps of prompts, averages over facts, and the sweep of single edits that shows where to edit."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from perdure.core.estimates import Estimate
from perdure.ledger.records import (
    AverageKind,
    EditMeasures,
    Effects,
    HarmonicMean,
    Sweep,
    SweptLayer,
    TracedAverage,
    TracedKind,
    TracedPrompt,
    TraceNotes,
    measures_of,
)
from perdure.report.lines import Scale, path, ticks, without_overlap
from perdure.report.markup import Child, Html, el, join, scrolling
from perdure.report.records import ReportData
from perdure.report.words import NOTHING, clip, count, percent, points, short, span

T = TypeVar("T")
WIDTH, LEFT, ROW, FOOT = 360, 112, 14, 18
HIGH = 130  # of a panel of curves
WORDS = {"block": "State", "mlp": "MLP", "attention": "Attention"}
SUBJECT, LAST = "last subject", "last"  # the roles that the literature's curves show
BROAD = "grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr))"  # three panels side by side
FAINT = 0.01  # a share of the scale that nobody sees


def traces(data: ReportData) -> dict[str, Child]:
    """Return the body of the section by its name, newest entry first; empty where nothing was traced."""
    noted = [(entry.entry, entry.traces) for entry in reversed(data.entries) if entry.traces]
    blocks = [block for entry, notes in noted for block in _entry(short(entry), notes)]
    if not blocks:
        return {}
    parts = [el("details", el("summary", title), body, open=number == 0) for number, (title, body) in enumerate(blocks)]
    return {"traces": el("div", parts, class_="gates")}


def _entry(where: str, notes: TraceNotes) -> list[tuple[Html, Html]]:
    """Return summary and body of all that was measured at an entry."""
    blocks = [(_title(clip(one.prompt, 80), where), _prompt(one)) for one in notes.prompts]
    if average := notes.average:
        blocks.append((_title(f"Average over {count(average.n, 'fact')}", where), _average(average)))
    if sweep := notes.sweep:
        blocks.append((_title(f"Single edits by layer, {count(sweep.facts, 'fact')}", where), _sweep(sweep)))
    return blocks


def _title(text: str, where: str) -> Html:
    return el("span", el("b", text), el("code", where), class_="who")


def _prompt(trace: TracedPrompt) -> Html:
    summary = (
        f"It goes on with “{trace.answer.strip()}”: {percent(trace.clean)}, with noise on “{trace.subject}” "
        f"{percent(trace.corrupted)}. Tokens of the subject have a star."
    )
    first, stop = trace.span
    labels = [
        (token.strip() or repr(token)) + ("*" if first <= n < stop else "") for n, token in enumerate(trace.tokens)
    ]
    panels = []
    for kind, part in _ordered(trace.kinds):
        at = part.strongest_subject
        story = f"in the subject most at “{at.token.strip()}”, layer {at.layer}: {percent(at.restored)}"
        panels.append(_panel(kind, part, story, _map(labels, part.restored, trace.corrupted, percent)))
    return join(el("p", summary), el("div", panels, class_="panels", style=BROAD))


def _average(average: TracedAverage) -> Html:
    total = average.total_effect
    summary = (
        f"Noise on the subject {_costs(total.value)} of the answer's chance "
        f"({span(total.low, total.high, signed=True) or 'no interval'}; n = {count(average.n)} of "
        f"{count(average.facts)} facts, those that the model says). The maps show what restoring brings back, in points. "
        "The curves are for the subject's last token (solid) and the prompt's last token (dashed), with 95% intervals."
    )
    panels = []
    for kind, part in _ordered(average.kinds):
        picture = join(_map(average.roles, part.mean, 0.0, points), _curves(average, part))
        panels.append(_panel(kind, part, "average indirect effect", picture))
    return join(el("p", summary), el("div", panels, class_="panels", style=BROAD))


def _costs(effect: float) -> str:
    """Return what noise does to the chance of an answer, in words."""
    return f"{'costs' if effect >= 0 else 'adds'} {points(abs(effect), signed=False)} points"


def _ordered(kinds: Mapping[str, T]) -> list[tuple[str, T]]:
    """Return the kinds in our order; a ledger stores keys by name."""
    return [(kind, kinds[kind]) for kind in WORDS if kind in kinds]


def _panel(kind: str, part: TracedKind | AverageKind, story: str, picture: Html) -> Html:
    window = "" if kind == "block" else f", {count(part.window, 'layer')} together"
    return el("figure", el("figcaption", el("b", WORDS[kind]), el("span", f"{story}{window}")), picture, class_="panel")


def _map(
    labels: Sequence[str], rows: Sequence[Sequence[float | None]], low: float, words: Callable[[float], str]
) -> Html:
    """Return a heat map, a row a label and a column a layer: nothing at `low`, full at the largest value."""
    layers = len(rows[0])
    top = max((v for row in rows for v in row if v is not None), default=low)
    x = Scale(0, layers, LEFT, WIDTH - 2)
    wide, bottom = x(1) - x(0), ROW * len(labels)
    drawn: list[Child] = [
        el("text", clip(label, 18), x=LEFT - 6, y=ROW * n + 10.5, text_anchor="end") for n, label in enumerate(labels)
    ]
    for n, row in enumerate(rows):
        for layer, value in enumerate(row):
            share = (value - low) / (top - low) if value is not None and top > low else 0.0
            if value is not None and share > FAINT:
                tip = el("title", f"{labels[n]}, layer {layer}: {words(value)}")
                place = {"x": x(layer), "y": ROW * n, "width": wide, "height": ROW}
                drawn.append(el("rect", tip, **place, class_="point", fill_opacity=min(share, 1.0)))
    drawn.append(
        el("path", d=path([(LEFT, 0), (WIDTH - 2, 0), (WIDTH - 2, bottom), (LEFT, bottom)], True), class_="line thin")
    )
    drawn += [el("text", n, x=x(n + 0.5), y=bottom + 13, text_anchor="middle") for n in ticks(layers, x)]
    description = f"rows {', '.join(labels)}; layers 0 to {layers - 1}; largest {words(top)}"
    return el("svg", drawn, viewBox=f"0 0 {WIDTH} {bottom + FOOT}", role="img", aria_label=description)


def _curves(average: TracedAverage, part: AverageKind) -> Html:
    """Return the averages at the subject's last token and at the prompt's last, with their intervals."""
    lines = [(average.roles.index(name), style) for name, style in ((SUBJECT, "line"), (LAST, "line other"))]
    known = [(role, style) for role, style in lines if part.n[role]]
    ends = [
        v for role, _ in known for values in (part.mean, part.low, part.high) for v in values[role] if v is not None
    ]
    x = Scale(0, max(1, len(part.mean[0]) - 1), LEFT, WIDTH - 4)
    y = Scale(min(0.0, *ends), max(0.0, *ends), HIGH - 10, 8)
    drawn: list[Child] = [el("line", x1=LEFT, x2=WIDTH - 4, y1=y(0), y2=y(0), class_="grid")]
    named = without_overlap([0.0, *sorted({max(0.0, *ends), min(0.0, *ends)}, key=abs, reverse=True)], y)
    drawn += [el("text", points(v), x=LEFT - 6, y=y(v) + 3.5, text_anchor="end") for v in named]
    for role, style in known:
        mean, low, high = (_points(values[role], x, y) for values in (part.mean, part.low, part.high))
        if len(low) == len(mean):
            drawn.append(el("path", d=path([*high, *reversed(low)], True), class_="band"))
        drawn.append(el("path", d=path(mean), class_=style))
    return el("svg", drawn, viewBox=f"0 0 {WIDTH} {HIGH}", role="img", aria_label="averages by layer with intervals")


def _points(effects: Effects, x: Scale, y: Scale) -> list[tuple[float, float]]:
    return [(x(layer), y(effect)) for layer, effect in enumerate(effects) if effect is not None]


def _sweep(sweep: Sweep) -> Html:
    heads = [el("th", text, scope="col", class_="num") for text in (*measures_of(sweep.before), "harmonic mean")]
    rows = [_row("unedited", sweep.before, None)]
    rows += [
        _row(f"{line.layer}{', the best' if line.layer == sweep.best and line.score.value else ''}", line, line.score)
        for line in sweep.layers
    ]
    summary = (
        f"Each of {count(sweep.facts, 'fact')} was edited alone in each layer ({sweep.method}), since tracing does not "
        "predict where to edit; nothing of it was recorded. Percent, with 95% intervals: Wilson's where each fact is right or "
        "wrong, else bootstrapped over facts; under the harmonic mean stand the harmonic means of their ends."
    )
    head = el("thead", el("tr", el("th", "layer", scope="col"), heads))
    table = el("table", head, el("tbody", rows), class_="plain")
    scroll = scrolling(table, "Single edits by layer")
    return join(el("p", summary), scroll)


def _row(name: str, measures: EditMeasures | SweptLayer, score: HarmonicMean | None) -> Html:
    cells = [*measures_of(measures).values(), score]
    return el("tr", el("th", name, scope="row"), [_cell(cell) for cell in cells])


def _cell(measure: Estimate | HarmonicMean | None) -> Html:
    if measure is None:
        return el("td", NOTHING, class_="num")
    n = f", n = {count(measure.n)}" if isinstance(measure, Estimate) else ""
    small = el("small", span(measure.low, measure.high) + n, class_="more")
    return el("td", percent(measure.value), small, class_="num")
