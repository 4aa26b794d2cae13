"""The comparison with another workspace: heat maps side by side, differences, and metrics over rows that both scored."""

from collections.abc import Mapping

from perdure.evaluate.matrix import Metric, Part
from perdure.report.fold import is_long
from perdure.report.heatmap import heatmap
from perdure.report.lines import Scale, whisker
from perdure.report.markup import Html, el, join, scrolling
from perdure.report.metrics import METRICS, MetricWords
from perdure.report.records import ReportData
from perdure.workflows.inspect.report_records import Comparison

TASKS, STAGES = 8, 6  # that each side of a long comparison shows
Side = tuple[str, Mapping[str, Metric]]  # what a side is called, and its metrics
SAME = "The same tasks in the same order, the same test rows, the same base model."


def comparison(data: ReportData) -> Html:
    """Return the matrices side by side, then for each other workspace the differences and the metrics of both sides."""
    sides = [(own_name(data), data.matrix)] + [(other.name, other.matrix) for other in data.compare]
    parts = [Part.of(matrix, TASKS, STAGES) if is_long(data) else Part.of(matrix) for _, matrix in sides]
    maps = [
        el("figure", el("figcaption", el("b", name)), heatmap(matrix, {}, compact=True, part=part))
        for (name, matrix), part in zip(sides, parts, strict=True)
    ]
    return join(el("div", maps, class_="sides"), [_compared(own_name(data), other) for other in data.compare])


def _compared(ours: str, other: Comparison) -> Html:
    """Return what differs from one other workspace, and the metrics over the test rows that both scored."""
    named = f"{ours} and {other.name}"
    if not other.differs:
        differences: Html = el("p", f"{named}: {SAME}", class_="how")
    else:
        differences = join(
            el("p", f"{named} differ:", class_="how"), el("ul", [el("li", one) for one in other.differs])
        )
    if other.shared is None:
        return join(
            differences, el("p", "No task has a test row that both scored: nothing is compared.", class_="empty")
        )
    return join(differences, _table([(ours, other.shared.ours), (other.name, other.shared.theirs)]))


def own_name(data: ReportData) -> str:
    """Return what this workspace's side of a comparison is called: the one recipe it learned by, else its own name."""
    return data.workspace.recipe or data.workspace.name


def _table(sides: list[Side]) -> Html:
    heads = [("Metric", None), ("Workspace", None), ("Value", "num"), ("95% interval", "num"), ("", None)]
    head = el("thead", el("tr", [el("th", text, scope="col", class_=name) for text, name in heads]))
    known = [metric for metric in METRICS if metric.key in sides[0][1]]
    table = el("table", head, [_group(metric, sides) for metric in known], class_="plain grouped")
    return scrolling(table, "Metrics of both sides")


def _group(metric: MetricWords, sides: list[Side]) -> Html:
    x = _scale(metric, sides)
    title = el("th", metric.title, el("small", metric.name), scope="rowgroup", rowspan=len(sides))
    rows = [
        el(
            "tr",
            title if i == 0 else None,
            _row(metric, name, metrics[metric.key], x, "other" if i else "own"),
        )
        for i, (name, metrics) in enumerate(sides)
    ]
    return el("tbody", rows)


def _scale(metric: MetricWords, sides: list[Side]) -> Scale:
    """Scores run from 0 to 1; differences as far as the widest of them all, so that their lines compare."""
    if not metric.difference:
        return Scale(0, 1, 8, 292)
    differences = [metrics[m.key] for m in METRICS if m.difference for _, metrics in sides if m.key in metrics]
    reach = max([0.05] + [abs(v) for one in differences for v in (one.low, one.value, one.high) if v is not None])
    return Scale(-reach, reach, 8, 292)


def _row(metric: MetricWords, side: str, result: Metric, x: Scale, tone: str) -> Html:
    value, low, high = result.value, result.low, result.high
    name = el("td", el("i", class_=f"key disc {tone}"), side)
    if value is None:
        return join(name, el("td", result.missing or "not measured", class_="soft reason", colspan=3))
    marks = [(0.0, "zero")] if metric.difference else [(0.0, "zero"), (1.0, "zero")]
    return join(
        name,
        el("td", metric.number(result) + metric.unit, class_="num"),
        el("td", metric.interval(result), class_="num"),
        el("td", whisker(x, low, value, high, marks, tone)),
    )
