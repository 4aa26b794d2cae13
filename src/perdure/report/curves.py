"""Each task's score over the stages: small multiples on one scale, with interval bands."""

from collections.abc import Sequence

from perdure.report.compare import own_name
from perdure.report.lines import Scale, path, runs, ticks
from perdure.report.markup import Html, el, join
from perdure.report.records import Record, learned_at, learns, other_rows, scores
from perdure.report.words import percent, span, title_of

WIDTH, HEIGHT = 250, 146
Y = Scale(0, 1, HEIGHT - 24, 10)


def curves(data: Record) -> Html:
    """Return one panel per task, in the order of the matrix, with the first other recipe's line where one was given."""
    matrix = data["matrix"]
    found = scores(data)
    other = _comparable(matrix, data["compare"][0]) if data["compare"] else None
    panels = [_panel(matrix, found, other, task) for task in matrix["tasks"]]
    key = None
    if other:
        key = el(
            "p",
            el("span", el("i", class_="key stroke"), own_name(data)),
            el("span", el("i", class_="key stroke other"), data["compare"][0]["name"]),
            class_="legend",
        )
    return join(key, el("div", panels, class_="panels"))


def _comparable(matrix: Record, beside: Record) -> Record | None:
    """Return the other matrix cut to the stages that did the same as ours; None if they never went together."""
    same, other = 0, beside["matrix"]
    if not beside["curves"]:
        return None
    for ours, theirs in zip(matrix["stages"], other["stages"], strict=False):
        if (ours["kind"], ours.get("task")) != (theirs["kind"], theirs.get("task")):
            break
        same += 1
    return {**other, "score": other["score"][:same], "drawn": beside["curves"]} if same > 1 else None


def _panel(matrix: Record, found: dict[tuple[str, str], Record], other: Record | None, task: str) -> Html:
    stages, column = matrix["stages"], matrix["tasks"].index(task)
    values = [row[column] for row in matrix["score"]]
    bounds = [found.get((stage["entry"], task), {}) for stage in stages]
    x = Scale(0, max(1, len(stages) - 1), 46, WIDTH - 10)
    turn = learned_at(matrix, task)
    drawn = [_axes(x, len(stages)), _band(x, values, bounds)]
    if turn is not None and values[turn] is not None:
        drawn.append(
            el("line", x1=x(turn), x2=x(len(stages) - 1), y1=Y(values[turn]), y2=Y(values[turn]), class_="was")
        )
    if other and task in other["drawn"]:
        theirs = [row[other["tasks"].index(task)] for row in other["score"]]
        drawn += _line(x, theirs, "line other")
    drawn += _line(x, values, "line")
    drawn += [
        _dot(x, i, value, bounds[i], stages[i], learns(stages[i], task), other_rows(matrix, i, column))
        for i, value in enumerate(values)
        if value is not None
    ]
    story = _story(values, turn)
    if turn is not None and turn < len(values) - 1 and other_rows(matrix, turn, column):
        story += " on other test rows"
    picture = el("svg", drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"{task}: {story}")
    return el("figure", el("figcaption", el("b", task, title=task), el("span", story)), picture, class_="panel")


def _story(values: list[float | None], turn: int | None) -> str:
    now = values[-1] if values else None
    text = f"{percent(now)} now" if now is not None else "not measured now"
    if turn is None:
        return f"{text}, never learned"
    return text if turn == len(values) - 1 else f"{text}, {percent(values[turn])} when learned"


def _axes(x: Scale, stages: int) -> Html:
    grid = [
        join(
            el("line", x1=38, x2=WIDTH - 2, y1=Y(level), y2=Y(level), class_="grid"),
            el("text", f"{level:.0%}", x=33, y=Y(level) + 3.5, text_anchor="end"),
        )
        for level in (0.0, 0.5, 1.0)
    ]
    return join(grid, [el("text", i, x=x(i), y=HEIGHT - 6, text_anchor="middle") for i in ticks(stages, x)])


def _band(x: Scale, values: Sequence[float | None], bounds: list[Record]) -> list[Html]:
    known = [value if bound.get("low") is not None else None for value, bound in zip(values, bounds, strict=True)]
    bands = []
    for run in runs(known):
        upper = [(x(i), Y(bounds[i]["high"])) for i in run]
        lower = [(x(i), Y(bounds[i]["low"])) for i in reversed(run)]
        kind = "band" if len(run) > 1 else "band lone"
        bands.append(el("path", d=path(upper + lower, closed=True), class_=kind))
    return bands


def _line(x: Scale, values: Sequence[float | None], name: str) -> list[Html]:
    return [el("path", d=path((x(i), Y(values[i] or 0)) for i in run), class_=name) for run in runs(values)]


def _dot(x: Scale, i: int, value: float, bound: Record, stage: Record, just: bool, other: bool) -> Html:
    interval = span(bound.get("low"), bound.get("high"))
    tip = f"Stage {i} ({title_of(stage)}): {percent(value)}" + (
        f", 95% {bound.get('interval', '')} interval {interval}, n = {bound['n']}".replace("  ", " ")
        if interval
        else ""
    )
    tip += ", other test rows than the newest" if other else ""
    return el(
        "circle", el("title", tip), cx=x(i), cy=Y(value), r=4.5 if just else 2.5, class_="dot just" if just else "dot"
    )
