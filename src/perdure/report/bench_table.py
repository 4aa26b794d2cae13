"""A benchmark's comparison as Markdown, and as one HTML page that needs nothing else."""

from collections.abc import Sequence

from perdure.core.outputs import BENCH_LINE
from perdure.evaluate.matrix import Metric
from perdure.report.heatmap import heatmap, legend
from perdure.report.lines import Scale, whisker
from perdure.report.markup import Html, el, scrolling
from perdure.report.page import head
from perdure.report.words import NOTHING, count
from perdure.workflows.bench.compare import mean_matrix
from perdure.workflows.bench.comparison import (
    ArmLine,
    BenchComparison,
    Estimate,
    GuardChange,
    WatchedChange,
    WorstGuard,
)
from perdure.workflows.bench.records import FinishedRun, Run, RunError

SCORES = {"acc": "ACC", "bwt": "BWT", "forgetting": "forgetting", "learning_accuracy": "learning accuracy"}
ROUTED = {"acc_routed": "ACC, task not named", "routing": "routed right"}
ROWS = {"rows_new": "new rows", "rows_drawn": "replayed rows", "forwards": "row forwards"}
SIGNED = ("bwt",)  # a loss or a gain is written with its sign
WHISKER = 120  # pixels


def columns(comparison: BenchComparison) -> list[str]:
    """Return the heads of the table."""
    acc, *others = SCORES.values()
    gap = f"ACC minus {comparison.against}"
    watched = [f"{name} change" for name in comparison.watched]
    guards = [head for name in comparison.guards for head in _guard_heads(comparison, name)]
    routed = [*ROUTED.values()] if _has_routed(comparison) else []
    worst = ["worst guard"] if _has_worst(comparison) else []
    rows = [*ROWS.values()] if _has_rows(comparison) else []
    cost = [*rows, "train time / naive", "train s", "peak MiB", "stored MB"]
    return ["arm", "seeds", acc, *routed, gap, *others, *watched, *guards, *worst, *cost]


def cells(line: ArmLine, comparison: BenchComparison) -> list[str]:
    """Return one arm's row, every number with its interval, or its range over seeds."""
    acc, *others = (_score(getattr(line, key), key in SIGNED) for key in SCORES)
    return [
        line.arm,
        str(len(line.seeds)),
        acc,
        *(_score(getattr(line, key), False) for key in ROUTED if _has_routed(comparison)),
        _score(line.acc_minus, True),
        *others,
        *(_score(line.watched.get(name), True) for name in comparison.watched),
        *(cell for name in comparison.guards for cell in _guard_cells(comparison, line, name)),
        *([_worst(line.worst_guard)] if _has_worst(comparison) else []),
        *(_range(getattr(line, key), "{:,.0f}") for key in ROWS if _has_rows(comparison)),
        _range(line.train_ratio, "{:.2f}"),
        _range(line.train_seconds, "{:,.0f}"),
        _range(line.peak_mib, "{:,.0f}"),
        _range(line.stored_bytes, "{:.2f}", 1e-6),
    ]


def markdown(comparison: BenchComparison) -> str:
    """Return the table, the failed runs, and how to read it, as Markdown.

    Args:
        comparison: What `compare` returned.
    """
    heads = columns(comparison)
    lines = [
        _row(heads),
        _row(["---"] * len(heads)),
        *(_row(cells(line, comparison)) for line in comparison.arms),
    ]
    if comparison.failed:
        lines += ["", _row(["failed run", "seed", "error"]), _row(["---"] * 3)]
        lines += [_row([run.arm, str(run.seed), " ".join(run.error.split())]) for run in comparison.failed]
    return "\n".join([*lines, "", *(f"- {note}" for note in notes(comparison))]) + "\n"


def page(suite: str, about: str, comparison: BenchComparison, runs: Sequence[Run]) -> str:
    """Return the comparison as a self-contained HTML page, with the mean matrix of each arm below its table.

    Args:
        suite: Its name.
        about: What it is, in a sentence.
        comparison: What `compare` returned.
        runs: The results it was made from.
    """
    top = el("header", el("p", "Benchmark", class_="kicker"), el("h1", suite), el("p", about, class_="lead"))
    parts = [top, _part("Arms", "The best ACC first.", _table(comparison))]
    if comparison.failed:
        parts.append(_part("Failed runs", "They are in no number above.", _failed(comparison.failed)))
    if comparison.arms:
        maps = [el("figure", el("figcaption", el("b", line.arm)), _map(line, runs)) for line in comparison.arms]
        about_maps = "Mean score over the seeds: a row is the model after a stage, a column a task."
        parts.append(_part("How scores change", about_maps, el("div", maps, class_="sides"), legend()))
    parts.append(_part("How to read it", "", el("ul", [el("li", note) for note in notes(comparison)])))
    body = el("body", el("main", parts))
    return f"<!doctype html>{BENCH_LINE}\n{el('html', head(f'{suite}: benchmark'), body, lang='en')}\n"


def notes(comparison: BenchComparison) -> list[str]:
    """Return the notes that explain the columns."""
    lines = [
        "Scores: 95% bootstrap intervals over test rows, pooled over seeds; they do not include the spread between seeds.",
        f"ACC minus {comparison.against}: same seeds, paired row by row.",
        "Train time / naive: the same seed's run with as many threads and processes, the latest one if it ran under "
        "several labels; median, and in brackets the least and the most over seeds. Without an accelerator it is the processor's "
        "time, which other work on the machine raises less than it raises wall-clock time.",
        "Peak: the whole process, model and scoring included. Stored: what the last state needs in addition to the base model "
        "(weights learned, remembered text and its columns, the methods' state).",
    ]
    if _has_rows(comparison):
        lines.append(
            "New and replayed rows: those of the task and those from memory that updates had, over all tasks, each as often as "
            "an update had it. Row forwards: how often one ran forward in updates, further forwards of methods included; "
            "passes before the first update and after the last, and scoring, are in no count."
        )
    if _has_routed(comparison):
        lines.append(
            "ACC is that of requests that name their task. ACC, task not named: a router sends each request. Routed right: the "
            "share of test rows that it sent to their own task. An arm without a router has one ACC alone."
        )
    if comparison.watched:
        first = next(line.watched for line in comparison.arms if line.watched)
        scores = ", ".join(f"{name} {first[name].before:.3f} (n = {first[name].n})" for name in first)
        lines.append(f"Change: score after the last task minus the base model's, row by row. Before: {scores}.")
    lines += _guard_notes(comparison)
    if comparison.too_long:
        rows = (
            f"{name} {one.train} of {one.train_of:,} train rows and {one.test} of {one.test_of:,} test rows"
            for name, one in comparison.too_long.items()
            if one.train or one.test
        )
        lines.append(f"Left out before rows were drawn, as training would cut them: {'; '.join(rows) or 'no row'}.")
    if len(comparison.computed) > 1:
        lines.append(f"Computed in {' and '.join(comparison.computed)}: a part of any difference may come from that.")
    if comparison.left_out:
        lines.append(f"{count(comparison.left_out, 'result')} of an earlier recipe under the same label left out.")
    return lines


def _has_routed(comparison: BenchComparison) -> bool:
    return any(line.acc_routed for line in comparison.arms)


def _change_of(comparison: BenchComparison, name: str) -> GuardChange:
    """Return what the first arm that has a guard changed of it; the rows and the base's scores are those of all arms."""
    return next(line.guards[name] for line in comparison.arms if name in line.guards)


def _guard_heads(comparison: BenchComparison, name: str) -> list[str]:
    change = _change_of(comparison, name)
    return (
        [f"{name} same", *([f"{name} KL"] if "kl" in change.readings else [])] if change.drifts else [f"{name} change"]
    )


def _guard_cells(comparison: BenchComparison, line: ArmLine, name: str) -> list[str]:
    """Return an arm's cells of a guard: of drift how much is the same, and nats a token; else the change, or that it is blind."""
    heads, change = _guard_heads(comparison, name), line.guards.get(name)
    if change is None:
        return [NOTHING] * len(heads)
    if not change.drifts:
        return ["blind" if change.blind else _score(change, True)]
    last = _score(change.by_stage[-1], False)
    return [last, *([_score(change.readings["kl"], False)] if len(heads) > 1 else [])]


def _has_worst(comparison: BenchComparison) -> bool:
    return any(line.worst_guard for line in comparison.arms)


def _has_rows(comparison: BenchComparison) -> bool:
    return any(line.forwards for line in comparison.arms)


def _worst(worst: WorstGuard | None) -> str:
    return NOTHING if worst is None else f"{worst.name} {_score(worst, True)}"


def _guard_notes(comparison: BenchComparison) -> list[str]:
    """Return how to read the guards: what the base scores, on how many rows, and which interval the worst one has."""
    if not comparison.guards:
        return []
    changes = {name: _change_of(comparison, name) for name in comparison.guards}
    sizes = {name: f"n = {one.n}" + (f" in {one.groups} groups" if one.groups else "") for name, one in changes.items()}
    drifting = [f"{name} ({sizes[name]})" for name, one in changes.items() if one.drifts]
    abilities = [f"{name} {one.before:.3f} ({sizes[name]})" for name, one in changes.items() if not one.drifts]
    notes = []
    if drifting:
        same = "Same: 1 less the mean Jensen-Shannon divergence from the base along the base's own answers, over ln 2"
        notes.append(f"{same}; 1 is no change. KL: nats a token from the base. Rows: {', '.join(drifting)}.")
    if abilities:
        what = (
            "Guards: score after the last task minus the base model's, row by row; groups of rows are resampled whole."
        )
        notes.append(f"{what} Before: {', '.join(abilities)}. A blind one is not above chance before, and cannot fall.")
        several = "Worst guard: the ability that lost most; its interval holds for all of them together (Bonferroni)."
        notes.append(several)
    return notes


def _row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _score(record: Metric | Estimate | WatchedChange | GuardChange | WorstGuard | None, signed: bool) -> str:
    if record is None or record.value is None:
        return NOTHING
    form = "{:+.3f}" if signed else "{:.3f}"
    value, low, high = (form.format((end or 0.0) + 0.0) for end in (record.value, record.low, record.high))
    return f"{value} ({low} to {high})"


def _range(record: Estimate | None, form: str, unit: float = 1.0) -> str:
    """Return a median with its range over seeds, if there are several."""
    if record is None:
        return NOTHING
    value, low, high = (form.format(unit * end) for end in (record.value, record.low, record.high))
    return f"{value} ({low} to {high})" if record.n > 1 else value


def _part(title: str, about: str, *body: Html) -> Html:
    return el("section", el("h2", title), el("p", about, class_="how"), body, class_="part")


def _table(comparison: BenchComparison) -> Html:
    first, *others = columns(comparison)
    heads = [
        el("th", first, scope="col"),
        el("th", "", scope="col"),
        *(el("th", h, scope="col", class_="num") for h in others),
    ]
    rows = [el("tr", _cells(line, comparison)) for line in comparison.arms]
    table = el("table", el("thead", el("tr", heads)), el("tbody", rows), class_="plain")
    return scrolling(table, "Arms of the benchmark")


def _cells(line: ArmLine, comparison: BenchComparison) -> list[Html]:
    name, *others = cells(line, comparison)
    seeds = ", ".join(f"seed {seed}: {acc:.3f}" for seed, acc in line.acc_by_seed.items())
    acc = line.acc
    drawn = whisker(Scale(0, 1, 8, WHISKER - 8), acc.low, acc.value, acc.high, [(0.0, "zero"), (1.0, "zero")])
    return [
        el("th", name, scope="row"),
        el("td", drawn, title=f"ACC, {seeds}"),
        *(el("td", _broken(text), class_="num") for text in others),
    ]


def _broken(text: str) -> list[Html | str | None]:
    """Return a number, with the text in brackets on a line of its own."""
    value, _, rest = text.partition(" (")
    return [value, el("small", rest.removesuffix(")"), class_="more") if rest else None]


def _failed(failed: Sequence[RunError]) -> Html:
    rows = [el("tr", el("th", r.arm, scope="row"), el("td", r.seed), el("td", r.error)) for r in failed]
    heads = el("tr", [el("th", text, scope="col") for text in ("arm", "seed", "error")])
    return el("table", el("thead", heads), el("tbody", rows), class_="plain")


def _map(line: ArmLine, runs: Sequence[Run]) -> Html:
    own = [run for run in runs if isinstance(run, FinishedRun) and run.arm == line.arm and run.seed in line.seeds]
    return heatmap(mean_matrix(own), {}, compact=True)
