"""The top of the page: what this is, the five numbers in words a manager understands, and what needs attention."""

from perdure.report.markup import Html, el, join
from perdure.report.metrics import METRICS, Metric
from perdure.report.records import Record, gate_of, learned, learned_at, lineage
from perdure.report.words import count, percent, points, sentence, short, span, title_of, when


def masthead(data: Record) -> Html:
    """Return the name of the workspace, one sentence that sums it up, and where it stands."""
    workspace = data["workspace"]
    facts = [
        ("Model", workspace["model"]),
        ("Base", short(workspace["base"])),
        ("Head", short(data["head"])),
        ("Started", when(workspace["created"])),
        ("perdure", workspace["version"]),
    ]
    return el(
        "header",
        el("p", "Continual learning report", class_="kicker"),
        el("h1", workspace["name"]),
        el("p", summary(data), class_="lead"),
        el("dl", [el("div", el("dt", name), el("dd", value)) for name, value in facts], class_="facts"),
    )


def summary(data: Record) -> str:
    """Return the state of the ledger in one or two sentences."""
    matrix = data["matrix"]
    known = [task for task in matrix["tasks"] if learned_at(matrix, task) is not None]
    if not known:
        facts = len(data.get("facts") or ())
        if facts:
            return f"No task has been learned. {count(facts, 'edited fact')} in force."
        if len(data["entries"]) > 1:
            return "Head knows no task and no edited fact."
        return "Nothing has been learned yet: the ledger holds the base model alone."
    acc, bwt = (matrix["metrics"].get(name) or {} for name in ("acc", "bwt"))
    text = f"{count(len(known), 'task')} learned."
    if acc.get("value") is not None:
        text += f" The model now scores {percent(acc['value'])}" + (" on average." if len(known) > 1 else ".")
    if bwt.get("value") is not None:
        text += f" {_kept(bwt)}"
    return text


def _kept(bwt: Record) -> str:
    low, high, value = bwt.get("low"), bwt.get("high"), bwt["value"]
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


def tiles(matrix: Record) -> Html:
    """Return the five metrics, each with interval, n and a plain sentence; a missing one says why."""
    return el("div", [_tile(matrix, metric) for metric in METRICS], class_="tiles")


def _tile(matrix: Record, metric: Metric) -> Html:
    record = matrix["metrics"].get(metric.key) or {}
    if record.get("value") is None:
        under = el("span", record.get("missing") or "not measured yet", class_="soft")
    else:
        error = [
            "95% interval" if metric.interval(record) else "",
            f"n = {count(record['n'])}" if record.get("n") else "",
        ]
        under = join(metric.interval(record), el("br"), el("span", ", ".join(filter(None, error)), class_="soft"))
    worst = record.get("worst")
    unit = el("small", metric.unit) if record.get("value") is not None else None
    return el(
        "section",
        el("h3", metric.title),
        el("p", metric.number(record), unit, class_="big"),
        el("p", under, class_="interval"),
        el(
            "p",
            metric.says,
            f" Worst: {worst['task']}, {points(worst['value'])}. " if worst else " ",
            el("abbr", metric.name),
            class_="says",
        ),
        class_=f"tile {metric.key}",
    )


def attention(data: Record) -> Html | None:
    """Return the list of what a reader must not miss: gates that did not pass, and warnings of the runs."""
    kept = lineage(data, data["head"])
    notes = []
    for entry in learned(data):
        gate = gate_of(entry) or {}
        aside = "" if entry["entry"] in kept else " It is not part of head."
        if gate.get("verdict") in ("fail", "inconclusive"):
            word = "failed" if gate["verdict"] == "fail" else "was inconclusive"
            notes.append(_note(entry, f"the gate {word}: {sentence(gate['reason'])}{aside}"))
        notes += [
            _note(entry, f"{sentence(text)}{aside}" if aside else text)
            for text in entry["record"].get("warnings") or []
        ]
    if not notes:
        return None
    return el("aside", el("h2", "Worth a look"), el("ul", notes), class_="attention")


def _note(entry: Record, text: str) -> Html:
    return el("li", el("b", title_of(entry)), " ", el("code", short(entry["entry"])), f": {text}")
