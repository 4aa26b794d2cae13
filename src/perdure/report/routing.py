"""What requests go through: what lies under each task, and the scores and routes of requests that do not name their task."""

from perdure.evaluate.routing import RoutingAccuracy
from perdure.report.heatmap import heatmap
from perdure.report.markup import Html, el, join, scrolling
from perdure.report.records import ReportData
from perdure.report.words import count, percent, span
from perdure.workflows.inspect.report_records import RoutedReport


def routing(data: ReportData) -> dict[str, Html]:
    """Return the section by its name: none where all requests go through the same weights."""
    if data.routed is None:
        return {}
    found = data.routed
    isolated = any(view.own for view in found.views)
    return {"routing": join(_scores(data, found) if isolated else None, _views(found))}


def _scores(data: ReportData, found: RoutedReport) -> Html:
    """Return the matrix with and without the names of tasks, and the confusion of tasks."""
    if found.matrix is None:
        says = "Requests without a task's name were not scored at head: "
        return el("p", says, el("code", "perdure eval --routed"), " does it.", class_="how")
    sides = [("The request names its task", data.matrix), ("The request does not name it", found.matrix)]
    maps = [el("figure", el("figcaption", el("b", name)), heatmap(matrix, {}, compact=True)) for name, matrix in sides]
    accuracy = [
        f"{name}: {percent(acc.value)} ({span(acc.low, acc.high)})"
        for name, matrix in sides
        if (acc := matrix.metrics["acc"]).value is not None
    ]
    lines = el("ul", [el("li", text) for text in accuracy])
    confused = found.matrix.routing
    return join(el("div", maps, class_="sides"), lines, _confusion(confused) if confused else None)


def _confusion(found: RoutingAccuracy) -> Html:
    """Return where the test rows of each task were sent, as a table of counts."""
    tasks = [line.task for line in found.confusion]
    heads = [el("th", "Rows of", scope="col")]
    heads += [el("th", f"sent to {task}", scope="col", class_="num") for task in tasks]
    heads.append(el("th", "near no task", scope="col", class_="num"))
    body = [
        el(
            "tr",
            el("th", line.task, scope="row"),
            [
                el("td", el("b", count(n)) if task == line.task else count(n), class_="num")
                for task in tasks
                for n in [line.sent.get(task, 0)]
            ],
            el("td", count(line.unknown), class_="num"),
        )
        for line in found.confusion
    ]
    table = el("table", el("thead", el("tr", heads)), el("tbody", body), class_="plain")
    return join(el("p", f"The router: {found.line}.", class_="how"), scrolling(table, "Where requests are sent"))


def _views(found: RoutedReport) -> Html:
    """Return what the requests of each task go through, as a table."""
    heads = el("tr", [el("th", text, scope="col") for text in ("Task", "Adapter", "Under it, or shared")])
    body = [
        el(
            "tr",
            el("th", view.task, scope="row"),
            el("td", "its own" if view.own else "none of its own"),
            el("td", ", ".join(view.under) or "the base model alone"),
        )
        for view in found.views
    ]
    return scrolling(el("table", el("thead", heads), el("tbody", body), class_="plain"), "What requests go through")
