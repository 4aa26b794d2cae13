"""The matrix as a heat map: a real table, so that it reads aloud, copies as text and scrolls on a phone."""

from collections.abc import Iterable

from perdure.evaluate.matrix import GuardColumn, Matrix, Part, Stage
from perdure.report.colour import LEVELS, level
from perdure.report.markup import Html, el, join, scrolling, trusted
from perdure.report.records import Cells
from perdure.report.words import DASH, clip, count, percent, short, span, title_of

DENSE = 8  # more tasks than this: vertical heads, whole percents, intervals on touch only


def heatmap(matrix: Matrix, scores: Cells, compact: bool = False, part: Part | None = None, bare: bool = False) -> Html:
    """Return stage x task as a table in its own scroll container.

    Args:
        matrix: The matrix; a cell that was not measured is drawn hatched.
        scores: Where the intervals come from.
        compact: Values only, as in the side-by-side comparison.
        part: The stages and tasks that are drawn; None draws all.
        bare: Cells are numbers without a tip, so that a large table is a small file.
    """
    part = part or Part.of(matrix)
    tasks = [matrix.tasks[j] for j in part.columns]
    dense = len(tasks) > DENSE
    heads = [
        el("th", el("span", clip(task, 44) if dense else _breakable(task)), scope="col", title=task) for task in tasks
    ]
    guards = {} if compact else dict(matrix.guards)  # behind a rule, as no metric counts them
    heads += [
        el(
            "th",
            el("span", clip(name, 44) if dense else _breakable(name)),
            scope="col",
            title=f"guard {name}",
            class_=rule,
        )
        for name, rule in _ruled(guards)
    ]
    corner = el("td", "after", el("br"), "learning", class_="corner")
    body = [
        el(
            "tr",
            _stage(i, matrix.stages[i]),
            [_bare(matrix, i, j) if bare else _cell(matrix, scores, i, j, compact, dense) for j in part.columns],
            [_guard_cell(name, guards[name], i, dense or bare, rule) for name, rule in _ruled(guards)],
        )
        for i in part.rows
    ]
    table = el(
        "table",
        el("thead", el("tr", corner, heads)),
        el("tbody", body),
        class_=f"heat{' dense' if dense else ''}",
        style=f"--columns:{len(tasks) + len(guards)}",
    )
    return scrolling(table, "Scores by stage and task")


def legend(matrix: Matrix | None = None) -> Html:
    """Return the key: colour scale, the ring of a task just learned, the hatching of a cell not measured.

    Args:
        matrix: The matrix below, whose cells may be marked as scored on other test rows.
    """
    marked = matrix and any(
        matrix.other_rows(i, j) for i in range(len(matrix.stages)) for j in range(len(matrix.tasks))
    )
    steps = [el("i", class_=f"v{step}") for step in range(0, LEVELS + 1, 4)]
    return el(
        "p",
        el("span", "0%", el("span", steps, class_="ramp", aria_hidden="true"), "100%"),
        el("span", el("i", class_="key just v30"), "just learned"),
        el("span", el("i", class_="key gap"), "not measured"),
        el("span", el("i", class_="key v30 blind"), "blind guard") if matrix and _any_blind(matrix) else None,
        el("span", "\u2020 other test rows than the newest score of the task") if marked else None,
        class_="legend",
    )


def _any_blind(matrix: Matrix) -> bool:
    return any(guard.blind for guard in matrix.guards.values())


def _breakable(name: str) -> Html:
    """Return a name that a narrow column breaks after an underscore rather than inside a word."""
    first, *rest = name.split("_")
    return join(first, [[trusted("_<wbr>"), part] for part in rest])


def _stage(index: int, stage: Stage) -> Html:
    name = title_of(stage)
    return el(
        "th",
        el("span", index, class_="step"),
        el("span", name, el("code", short(stage.entry)) if stage.entry else None, class_="stage"),
        scope="row",
        title=name,
    )


def _ruled(guards: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names of guards, each with the class of its cells: the first one is behind a rule."""
    return [(name, "guard" if i else "guard ruled") for i, name in enumerate(guards)]


def _guard_cell(name: str, guard: GuardColumn, i: int, whole: bool, rule: str) -> Html:
    score = guard.score[i]
    if score is None:
        unseen = el("span", "not measured", class_="unseen")
        return el("td", unseen, class_=f"gap {rule}", title=f"guard {name}, stage {i}: not measured")
    tip = f"guard {name} ({guard.ability}), stage {i}: {percent(score)}, n = {count(guard.n)}"
    if guard.blind:
        tip, rule = (
            f"{tip}; blind: the reference is no better than chance, so that no fall can be seen",
            f"blind {rule}",
        )
    shown = f"{100 * score:.0f}" if whole else f"{100 * score:.1f}"
    return el("td", el("b", shown), class_=f"v{level(score)} {rule}", title=tip)


def _bare(matrix: Matrix, i: int, j: int) -> Html:
    score = matrix.score[i][j]
    if score is None:
        return el("td", class_="gap")
    just = matrix.stages[i].learns(matrix.tasks[j])
    return el("td", f"{100 * score:.0f}", class_=f"v{level(score)}{' just' if just else ''}")


def _cell(matrix: Matrix, scores: Cells, i: int, j: int, compact: bool, dense: bool) -> Html:
    stage, task, score = matrix.stages[i], matrix.tasks[j], matrix.score[i][j]
    where = f"{task}, stage {i} ({title_of(stage)})"
    if score is None:
        return el("td", el("span", "not measured", class_="unseen"), class_="gap", title=f"{where}: not measured")
    record = scores.get((stage.entry or "", task))
    interval = span(record.low, record.high) if record else ""
    n = matrix.n[i][j]
    facts = [
        f"{where}: {percent(score)}",
        f"95% {record.interval} interval {interval}" if record and interval else "",
        f"n = {count(n)}" + (", other test rows than the newest" if matrix.other_rows(i, j) else "") if n else "",
        record.scorer if record else "",
    ]
    just = stage.learns(task)
    after = matrix.learned[j]
    classes = f"v{level(score)}" + (" just" if just else "") + (" before" if after is None or i < after else "")
    tip = ", ".join(fact for fact in facts if fact) + (". Just learned." if just else "")
    shown = f"{100 * score:.0f}" if dense else f"{100 * score:.1f}"
    small = (
        None
        if compact or dense or not record or not interval
        else el("small", span(record.low, record.high, digits=0).replace(" to ", DASH))
    )
    mark = el("sup", "\u2020") if matrix.other_rows(i, j) else None
    return el("td", join(el("b", shown), mark, small), class_=classes, title=tip)
