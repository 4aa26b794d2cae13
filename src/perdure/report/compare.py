"""The same stream under another recipe: heat maps side by side, metrics with their intervals."""

from perdure.report.heatmap import heatmap
from perdure.report.lines import Scale, whisker
from perdure.report.markup import Html, el, join, scrolling
from perdure.report.metrics import METRICS, Metric
from perdure.report.records import Record

Side = tuple[str, Record]  # a recipe's name and its matrix


def comparison(data: Record) -> Html:
    """Return the matrices beside each other, then one row per metric and recipe."""
    sides = [(own_name(data), data["matrix"])] + [(other["name"], other["matrix"]) for other in data["compare"]]
    maps = [el("figure", el("figcaption", el("b", name)), heatmap(matrix, {}, compact=True)) for name, matrix in sides]
    return join(el("div", maps, class_="sides"), _table(sides))


def own_name(data: Record) -> str:
    """Return what this workspace's side of a comparison is called."""
    return data["workspace"].get("recipe") or "this workspace"


def _table(sides: list[Side]) -> Html:
    heads = [("Metric", None), ("Recipe", None), ("Value", "num"), ("95% interval", "num"), ("", None)]
    head = el("thead", el("tr", [el("th", text, scope="col", class_=name) for text, name in heads]))
    table = el("table", head, [_group(metric, sides) for metric in METRICS], class_="plain grouped")
    return scrolling(table, "Metrics of the recipes")


def _group(metric: Metric, sides: list[Side]) -> Html:
    x = _scale(metric, sides)
    title = el("th", metric.title, el("small", metric.name), scope="rowgroup", rowspan=len(sides))
    rows = [
        el(
            "tr",
            title if i == 0 else None,
            _row(metric, name, matrix["metrics"].get(metric.key) or {}, x, "other" if i else "own"),
        )
        for i, (name, matrix) in enumerate(sides)
    ]
    return el("tbody", rows)


def _scale(metric: Metric, sides: list[Side]) -> Scale:
    """Scores run from 0 to 1; differences as far as the widest of them all, so that their lines compare."""
    if not metric.difference:
        return Scale(0, 1, 8, 292)
    records = [matrix["metrics"].get(m.key) or {} for m in METRICS if m.difference for _, matrix in sides]
    reach = max(
        [0.05] + [abs(v) for r in records for v in (r.get("low"), r.get("value"), r.get("high")) if v is not None]
    )
    return Scale(-reach, reach, 8, 292)


def _row(metric: Metric, side: str, record: Record, x: Scale, tone: str) -> Html:
    value, low, high = record.get("value"), record.get("low"), record.get("high")
    name = el("td", el("i", class_=f"key disc {tone}"), side)
    if value is None:
        return join(name, el("td", record.get("missing") or "not measured", class_="soft reason", colspan=3))
    marks = [(0.0, "zero")] if metric.difference else [(0.0, "zero"), (1.0, "zero")]
    return join(
        name,
        el("td", metric.number(record) + metric.unit, class_="num"),
        el("td", metric.interval(record), class_="num"),
        el("td", whisker(x, low, value, high, marks, tone)),
    )
