"""The top of the page: what this is, the five numbers in words a manager understands, and what needs attention."""

from perdure.evaluate.matrix import Matrix, Metric
from perdure.report.fold import folded, is_long, newest
from perdure.report.markup import Html, el, join
from perdure.report.metrics import METRICS, MetricWords
from perdure.report.records import ReportData, ReportEntry, learned, lineage
from perdure.report.words import count, percent, points, sentence, short, span, title_of, when

NOTES = 3  # lines of a long report that are not folded


def masthead(data: ReportData) -> Html:
    """Return the name of the workspace, one sentence that sums it up, and where it stands."""
    workspace = data.workspace
    given = workspace.adapter
    starts = [("Starts from adapter", f"{given.folder}, {short(given.object)}")] if given else []
    facts = [
        ("Model", workspace.model),
        ("Base", short(workspace.base) + (f", {workspace.quantization}" if workspace.quantization else "")),
        *starts,
        ("Head", short(data.head)),
        ("Started", when(workspace.created)),
        ("perdure", workspace.version),
    ]
    return el(
        "header",
        el("p", "Continual learning report", class_="kicker"),
        el("h1", workspace.name),
        el("p", summary(data), class_="lead"),
        el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in facts], class_="facts"),
    )


def summary(data: ReportData) -> str:
    """Return the state of the ledger in one or two sentences."""
    matrix = data.matrix
    known = [task for task in matrix.tasks if matrix.learned_at(task) is not None]
    if not known:
        facts = len(data.facts)
        if facts:
            return f"No task has been learned. {count(facts, 'edited fact')} in force."
        if len(data.entries) > 1:
            return "Head knows no task and no edited fact."
        return "Nothing has been learned yet: the ledger holds the base model alone."
    acc, bwt = (matrix.metrics[name] for name in ("acc", "bwt"))
    text = f"{count(len(known), 'task')} learned."
    if acc.value is not None:
        text += f" The model now scores {percent(acc.value)}" + (" on average." if len(known) > 1 else ".")
    if bwt.value is not None:
        text += f" {_change_of_old_tasks(bwt)}"
    return text


def _change_of_old_tasks(bwt: Metric) -> str:
    low, high, value = bwt.low, bwt.high, bwt.value or 0.0
    if low is None or high is None:
        return f"Earlier tasks stand at {points(value)} points against when they were learned."
    if high < 0:
        change = (
            f"lost {points(-value, signed=False)} points since they were learned (95% interval {span(-high, -low)})"
        )
    elif low > 0:
        change = f"gained {points(value, signed=False)} points since they were learned (95% interval {span(low, high)})"
    else:
        change = (
            f"kept their scores within the error ({points(value)} points, 95% interval {span(low, high, signed=True)})"
        )
    return f"Earlier tasks have {change}."


def tiles(matrix: Matrix) -> Html:
    """Return the five metrics, each with its interval, n and meaning. A metric without a value has a reason."""
    return el("div", [_tile(matrix, metric) for metric in METRICS], class_="tiles")


def _tile(matrix: Matrix, metric: MetricWords) -> Html:
    result = matrix.metrics[metric.key]
    if result.value is None:
        under = el("span", result.missing or "not measured yet", class_="soft")
    else:
        error = [
            "95% interval" if metric.interval(result) else "",
            f"n = {count(result.n)}" if result.n else "",
        ]
        under = join(metric.interval(result), el("br"), el("span", ", ".join(filter(None, error)), class_="soft"))
    worst = result.worst
    unit = el("small", metric.unit) if result.value is not None else None
    return el(
        "section",
        el("h3", metric.title),
        el("p", metric.number(result), unit, class_="big"),
        el("p", under, class_="interval"),
        el(
            "p",
            metric.meaning,
            f" Worst: {worst.task}, {points(worst.value)}. " if worst else " ",
            el("abbr", metric.name),
            class_="says",
        ),
        class_=f"tile {metric.key}",
    )


def attention(data: ReportData) -> Html | None:
    """Return the list of what a reader must not miss: gates that failed, and warnings of the runs.

    An inconclusive gate is reported in the section on gates, with what to do.
    """
    line = lineage(data, data.head)
    notes = []
    for entry, record in learned(data):
        gate = entry.gate
        aside = "" if entry.entry in line else " It is not part of head."
        if gate and gate.verdict == "fail":
            notes.append(_note(entry, f"the gate failed: {sentence(gate.reason)}{aside}"))
        notes += [_note(entry, f"{sentence(text)}{aside}" if aside else text) for text in record.warnings]
    if not notes:
        return None
    shown, rest = newest(notes, NOTES if is_long(data) else len(notes))
    listed = el("ul", reversed(shown) if rest else shown)
    more = folded(f"{count(len(rest))} earlier", el("ul", reversed(rest))) if rest else None
    return el("aside", el("h2", "Worth a look"), listed, more, class_="attention")


def _note(entry: ReportEntry, text: str) -> Html:
    return el("li", el("b", title_of(entry)), " ", el("code", short(entry.entry)), f": {text}")
