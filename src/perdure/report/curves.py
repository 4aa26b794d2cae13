"""Each task's score over the stages: small multiples on one scale, with interval bands."""

from collections.abc import Sequence

from perdure.evaluate.matrix import Matrix, Part, Stage
from perdure.report.compare import own_name
from perdure.report.fold import folded, is_long
from perdure.report.lines import Scale, path, runs, ticks
from perdure.report.markup import Html, el, join
from perdure.report.records import Cells, ReportData, ReportedScore, cells
from perdure.report.words import count, percent, span, title_of
from perdure.workflows.inspect.report_records import Comparison

WIDTH, HEIGHT = 250, 146
SHOWN = 8  # panels of a long report that are not folded
POINTS = 60  # most stages that the line of a folded panel goes through
Y = Scale(0, 1, HEIGHT - 24, 10)


def curves(data: ReportData) -> Html:
    """Return one panel per task, in the order of the matrix, with the first other recipe's line where one was given.

    Of a long report the newest tasks and those that lost most come first, the others are folded.
    """
    matrix, scores = data.matrix, cells(data)
    first = data.compare[0] if data.compare else None
    same = _same_stages(matrix, first) if first else 0
    other = first if same > 1 else None
    part = Part.of(matrix, SHOWN) if is_long(data) else Part.of(matrix)
    panels = [_panel(matrix, scores, _scores_of(other, matrix.tasks[j], same), j) for j in part.columns]
    rest = [j for j in range(len(matrix.tasks)) if j not in part.columns]
    more = None
    if rest:
        small = [_panel(matrix, {}, _scores_of(other, matrix.tasks[j], same), j, small=True) for j in rest]
        more = folded(count(len(rest), "more task"), el("div", small, class_="panels"))
    key = None
    if other:
        key = el(
            "p",
            el("span", el("i", class_="key stroke"), own_name(data)),
            el("span", el("i", class_="key stroke other"), other.name),
            class_="legend",
        )
    return join(key, el("div", panels, class_="panels"), more)


def _same_stages(matrix: Matrix, other: Comparison) -> int:
    """Return how many stages, from the first, did the same here and there; 0 where no curve can be compared."""
    same = 0
    for ours, theirs in zip(matrix.stages, other.matrix.stages, strict=False):
        if (ours.kind, ours.task) != (theirs.kind, theirs.task):
            break
        same += 1
    return same if other.curves else 0


def _scores_of(other: Comparison | None, task: str, stages: int) -> list[float | None]:
    """Return the other workspace's scores of a task over the common stages; empty if they are not drawn."""
    if other is None or task not in other.curves:
        return []
    column = other.matrix.tasks.index(task)
    return [row[column] for row in other.matrix.score[:stages]]


def _panel(matrix: Matrix, scores: Cells, theirs: list[float | None], column: int, small: bool = False) -> Html:
    stages, task = matrix.stages, matrix.tasks[column]
    values = [row[column] for row in matrix.score]
    bounds = [scores.get((stage.entry or "", task)) for stage in stages]
    x = Scale(0, max(1, len(stages) - 1), 46, WIDTH - 10)
    turn = matrix.learned[column]
    every = -(-len(stages) // POINTS) if small else 1
    drawn = [_axes(x, len(stages)), _band(x, values, bounds)]
    if turn is not None and (level := values[turn]) is not None:
        drawn.append(el("line", x1=x(turn), x2=x(len(stages) - 1), y1=Y(level), y2=Y(level), class_="was"))
    drawn += _line(x, theirs, "line other", every)
    drawn += _line(x, values, "line", every)
    drawn += [
        _dot(x, i, value, bounds[i], stages[i], stages[i].learns(task), matrix.other_rows(i, column))
        for i, value in enumerate(values)
        if value is not None and (not small or i in (turn, len(values) - 1))
    ]
    story = _story(values, turn)
    if turn is not None and turn < len(values) - 1 and matrix.other_rows(turn, column):
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


def _band(x: Scale, values: Sequence[float | None], bounds: Sequence[ReportedScore | None]) -> list[Html]:
    known = [value if bound else None for value, bound in zip(values, bounds, strict=True)]
    bands = []
    for run in runs(known):
        there = [(i, bound) for i in run if (bound := bounds[i])]
        upper = [(x(i), Y(bound.high)) for i, bound in there]
        lower = [(x(i), Y(bound.low)) for i, bound in reversed(there)]
        kind = "band" if len(run) > 1 else "band lone"
        bands.append(el("path", d=path(upper + lower, closed=True), class_=kind))
    return bands


def _line(x: Scale, values: Sequence[float | None], name: str, every: int) -> list[Html]:
    lines = [[i for i in run if i % every == 0 or i == run[-1]] for run in runs(values)]
    return [el("path", d=path((x(i), Y(values[i] or 0)) for i in line), class_=name) for line in lines]


def _dot(x: Scale, i: int, value: float, bound: ReportedScore | None, stage: Stage, just: bool, other: bool) -> Html:
    tip = f"Stage {i} ({title_of(stage)}): {percent(value)}"
    if bound:
        tip += f", 95% {bound.interval} interval {span(bound.low, bound.high)}, n = {bound.n}"
    tip += ", other test rows than the newest" if other else ""
    return el(
        "circle", el("title", tip), cx=x(i), cy=Y(value), r=4.5 if just else 2.5, class_="dot just" if just else "dot"
    )
