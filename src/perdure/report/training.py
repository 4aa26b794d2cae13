"""What happened while it trained: the loss of each learn, and the heartbeat of each method."""

from statistics import fmean

from perdure.core.records import JsonObject
from perdure.ledger.records import Beats, LearnRecord
from perdure.report.fold import folded, is_long, newest
from perdure.report.lines import Scale, path, sparkline, thin
from perdure.report.markup import Child, Html, el, join, scrolling
from perdure.report.records import ReportData, ReportEntry, finite, learned
from perdure.report.words import count, duration, number, short, title_of

WIDTH, HEIGHT = 250, 116
SHOWN = 8  # newest learns of a long report whose loss is drawn with all points, and whose settings are shown
ROWS = 8  # newest learns of a long report whose heartbeats are drawn


def losses(data: ReportData) -> Html:
    """Return one panel per learn, all on one scale that starts at zero; those of a long report are folded."""
    entries = learned(data)
    if not entries:
        return el("p", "Nothing has been trained yet.", class_="empty")
    lines = [thin(record.loss, 120) for _, record in entries]
    curves = [thin(record.validation, 120) for _, record in entries]
    top = max((y for line in (*lines, *curves) for _, y in line), default=1.0) or 1.0
    panels = list(zip(entries, lines, curves, strict=True))
    shown, rest = newest(panels, SHOWN if is_long(data) else len(panels))
    drawn = [_loss(*given, top) for given in shown]
    legend = el(
        "p",
        el("span", el("i", class_="key stroke"), "task loss"),
        el("span", el("i", class_="key stroke other"), "loss on validation rows, of the weights that would be stored"),
        class_="legend",
    )
    if is_long(data):
        small = [_loss(learn, thin(line, 40), thin(curve, 40), top, small=True) for learn, line, curve in rest]
        every = el("div", [*drawn[::-1], *small[::-1]], class_="panels")
        return folded(f"{count(len(panels), 'learn')}, the newest first", legend if any(curves) else None, every)
    return join(legend if any(curves) else None, el("div", drawn, class_="panels"))


def _loss(
    learn: tuple[ReportEntry, LearnRecord],
    line: list[tuple[float, float]],
    curve: list[tuple[float, float]],
    top: float,
    small: bool = False,
) -> Html:
    entry, record = learn
    story = f"loss {number(line[0][1])} to {number(line[-1][1])}" if line else "no loss recorded"
    if curve:
        least, update = min((loss, update) for update, loss in curve)
        ends = f"{number(curve[0][1])} to {number(curve[-1][1])}"
        story += f"; validation {ends}, least {number(least)} after update {round(update) + 1}"
    caption = el(
        "figcaption",
        el("b", title_of(entry), title=title_of(entry)),
        el("code", short(entry.entry)),
        el("span", story),
    )
    return el(
        "figure",
        caption,
        _curve(line, curve, top, story),
        el("p", _effort(record), class_="meta"),
        None if small else _settings(record.settings),
        class_="panel",
    )


def _curve(
    line: list[tuple[float, float]], validation: list[tuple[float, float]], top: float, story: str
) -> Html | None:
    if not line:
        return None
    x, y = Scale(0, line[-1][0] or 1, 40, WIDTH - 8), Scale(0, top, HEIGHT - 22, 10)
    grid: list[Child] = [
        [
            el("line", x1=36, x2=WIDTH - 2, y1=y(v), y2=y(v), class_="grid"),
            el("text", number(v), x=31, y=y(v) + 3.5, text_anchor="end"),
        ]
        for v in (0.0, top)
    ]
    ends = [
        el("text", "0", x=x(0), y=HEIGHT - 5, text_anchor="middle"),
        el("text", f"update {count(round(line[-1][0]))}", x=WIDTH - 8, y=HEIGHT - 5, text_anchor="end"),
    ]
    drawn = [el("path", d=path((x(a), y(b)) for a, b in line), class_="line")]
    if validation:
        drawn.append(el("path", d=path((x(a), y(b)) for a, b in validation), class_="line other"))
    return el(
        "svg", grid, ends, drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"Training loss: {story}"
    )


def _effort(record: LearnRecord) -> Html:
    seconds, tokens = record.train_seconds, record.tokens
    parts = [
        count(record.updates, "update") if record.updates else "",
        count(tokens, "token") if tokens else "",
        duration(seconds) if seconds else "",
        f"{count(round(tokens / seconds))} tokens/s" if tokens and seconds else "",
    ]
    shown = [part for part in parts if part]
    return join([[el("span", part + ("," if part is not shown[-1] else ""), class_="nowrap"), " "] for part in shown])


def _settings(settings: JsonObject) -> Html | None:
    if not settings:
        return None
    pairs = [el("div", el("dt", key), el("dd", _value(value))) for key, value in settings.items()]
    return el("details", el("summary", "Settings"), el("dl", pairs, class_="settings"), class_="quiet")


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(inner) for inner in value) or "none"
    return "not set" if value is None else str(value)


def heartbeats(data: ReportData) -> Html:
    """Return one table per method: a row per learn, a column per quantity, each with its line, mean and last value.

    Those of a long report are folded, and earlier learns have no lines.
    """
    entries = learned(data)
    methods = sorted({name for _, record in entries for name in record.heartbeats})
    if not methods:
        return el("p", "No method has reported yet.", class_="empty")
    beats = {name: [(entry, record.heartbeats.get(name, ())) for entry, record in entries] for name in methods}
    learns = {name: [one for one in beats[name] if one[1]] for name in methods}
    if not is_long(data):
        return el("div", [_method(name, _beats(name, learns[name], lines=True)) for name in methods], class_="methods")
    tables = [_method(name, _newest_beats(name, learns[name])) for name in methods]
    return folded(f"{count(len(methods), 'method')}: {', '.join(methods)}", el("div", tables, class_="methods"))


def _method(name: str, tables: Html) -> Html:
    return el("section", el("h3", name), tables)


def _newest_beats(name: str, learns: list[tuple[ReportEntry, Beats]]) -> Html:
    shown, rest = newest(learns, ROWS)
    more = folded(count(len(rest), "earlier learn"), _beats(name, rest[::-1], lines=False)) if rest else None
    return join(_beats(name, shown[::-1], lines=True), more)


def _beats(name: str, learns: list[tuple[ReportEntry, Beats]], lines: bool) -> Html:
    quantities = list(dict.fromkeys(key for _, beats in learns for _, beat in beats for key in beat.values))
    head = el(
        "tr", el("th", "Learn", scope="col"), [el("th", key.replace("_", " "), scope="col") for key in quantities]
    )
    rows = [
        el(
            "tr",
            el("th", title_of(entry), el("code", short(entry.entry)), scope="row"),
            [_quantity(beats, key, lines) for key in quantities],
        )
        for entry, beats in learns
    ]
    table = el("table", el("thead", head), el("tbody", rows), class_="plain beats")
    return scrolling(table, f"Heartbeat of {name}")


def _quantity(beats: Beats, key: str, lines: bool) -> Html:
    line = [(update, beat.values[key]) for update, beat in beats if finite(beat.values.get(key))]
    if not line:
        return el("td", el("span", "no value", class_="soft"))
    values = [value for _, value in line]
    if not any(values):
        return el("td", el("span", "no effect", class_="soft"))
    mean = fmean(values)
    return el(
        "td",
        el(
            "div",
            sparkline(line) if lines else None,
            el("span", number(mean), el("small", f"last {number(values[-1])}") if values[-1] != mean else None),
            class_="beat",
        ),
    )
