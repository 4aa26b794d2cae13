"""What happened while it trained: the loss of each learn, and the heartbeat of each method."""

from statistics import fmean

from perdure.report.lines import Scale, path, sparkline, thin
from perdure.report.markup import Child, Html, el, join, scrolling
from perdure.report.records import Record, finite, learned
from perdure.report.words import count, duration, number, short, title_of

WIDTH, HEIGHT = 250, 116


def losses(data: Record) -> Html:
    """Return one panel per learn, all on one scale that starts at zero."""
    entries = learned(data)
    if not entries:
        return el("p", "Nothing has been trained yet.", class_="empty")
    lines = [thin(entry["record"].get("loss") or [], 120) for entry in entries]
    top = max((y for line in lines for _, y in line), default=1.0) or 1.0
    return el("div", [_loss(entry, line, top) for entry, line in zip(entries, lines, strict=True)], class_="panels")


def _loss(entry: Record, line: list[tuple[float, float]], top: float) -> Html:
    record = entry["record"]
    story = f"loss {number(line[0][1])} to {number(line[-1][1])}" if line else "no loss recorded"
    caption = el(
        "figcaption",
        el("b", title_of(entry), title=title_of(entry)),
        el("code", short(entry["entry"])),
        el("span", story),
    )
    return el(
        "figure",
        caption,
        _curve(line, top, story),
        el("p", _effort(record), class_="meta"),
        _settings(record),
        class_="panel",
    )


def _curve(line: list[tuple[float, float]], top: float, story: str) -> Html | None:
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
    drawn = el("path", d=path((x(a), y(b)) for a, b in line), class_="line")
    return el(
        "svg", grid, ends, drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"Training loss: {story}"
    )


def _effort(record: Record) -> Html:
    seconds, tokens = record.get("train_seconds"), record.get("tokens")
    parts = [
        count(record["updates"], "update") if record.get("updates") else "",
        count(tokens, "token") if tokens else "",
        duration(seconds) if seconds else "",
        f"{count(round(tokens / seconds))} tokens/s" if tokens and seconds else "",
    ]
    said = [part for part in parts if part]
    return join([[el("span", part + ("," if part is not said[-1] else ""), class_="nowrap"), " "] for part in said])


def _settings(record: Record) -> Html | None:
    settings = record.get("settings") or {}
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


def heartbeats(data: Record) -> Html:
    """Return one table per method: a row per learn, a column per quantity, each with its line, mean and last value."""
    entries = learned(data)
    methods = sorted({name for entry in entries for name in entry["record"].get("heartbeats") or {}})
    if not methods:
        return el("p", "No method has reported yet.", class_="empty")
    return el("div", [_method(name, entries) for name in methods], class_="methods")


def _method(name: str, entries: list[Record]) -> Html:
    beats = [(entry, beat) for entry in entries if (beat := (entry["record"].get("heartbeats") or {}).get(name))]
    quantities = list(dict.fromkeys(key for _, beat in beats for _, values in beat for key in values))
    head = el(
        "tr", el("th", "Learn", scope="col"), [el("th", key.replace("_", " "), scope="col") for key in quantities]
    )
    rows = [
        el(
            "tr",
            el("th", title_of(entry), el("code", short(entry["entry"])), scope="row"),
            [_quantity(beat, key) for key in quantities],
        )
        for entry, beat in beats
    ]
    table = el("table", el("thead", head), el("tbody", rows), class_="plain beats")
    return el(
        "section",
        el("h3", name),
        scrolling(table, f"Heartbeat of {name}"),
    )


def _quantity(beat: list[tuple[int, Record]], key: str) -> Html:
    line = [(update, values[key]) for update, values in beat if finite(values.get(key))]
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
            sparkline(line),
            el("span", number(mean), el("small", f"last {number(values[-1])}") if values[-1] != mean else None),
            class_="beat",
        ),
    )
