"""The report: one HTML file that needs nothing else, not even a network."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from perdure.core.outputs import REPORT, REPORT_LINE, write_output
from perdure.evaluate.matrix import Part
from perdure.report.checkup import checkup
from perdure.report.colour import scale_css
from perdure.report.compare import comparison
from perdure.report.curves import curves
from perdure.report.edits import edits
from perdure.report.fold import folded, is_long
from perdure.report.gates import gates
from perdure.report.guards import guards
from perdure.report.headline import attention, masthead, tiles
from perdure.report.heatmap import heatmap, legend
from perdure.report.history import history
from perdure.report.markup import Child, Html, el, join, trusted
from perdure.report.records import ReportData, cells, only_edits
from perdure.report.routing import routing
from perdure.report.traces import traces
from perdure.report.training import heartbeats, losses
from perdure.report.words import count

TASKS, STAGES = 16, 8  # that the matrix of a long report shows
CELLS = 20_000  # cells above which the whole matrix is not on the page

INTERVALS = (
    "n counts test rows. Intervals hold 95%. Those of a task's score are Wilson's where answers are right or wrong, and "
    "bootstrapped over its test rows where they are graded. Those of metrics over tasks are bootstrapped over test rows."
)


@dataclass(frozen=True)
class Section:
    """The text around a section: its link, its title, and how to read it."""

    link: str
    title: str
    how_to_read: str


SECTIONS = {
    "matrix": Section(
        "Matrix",
        "What it knows, stage by stage",
        "Each row is the model after one stage, each column a task. Read down a column to see whether the model forgets a task.",
    ),
    "compare": Section(
        "Comparison",
        "Compared with another workspace",
        "Colours mean the same on every side. Metrics are over the test rows that both scored at their head.",
    ),
    "tasks": Section(
        "Tasks",
        "Each task over time",
        "Score after every stage with its 95% interval. "
        "The open circle marks each time the task was learned, the dotted line its level at the first.",
    ),
    "routing": Section(
        "Routing",
        "What requests go through",
        "A task with an adapter of its own is answered by it. A router sends a request that does not name its task to the task "
        "whose training texts it is nearest to. A request near no task goes through what all tasks share.",
    ),
    "guards": Section(
        "Guards",
        "What it could do before",
        "Guards are scored and never learned. They are compared with a reference, which is the base model unless it was moved. "
        "The band is the 95% interval, the dotted line a limit of the gate. The worst change has bounds that hold for all "
        "abilities together.",
    ),
    "checkup": Section(
        "Checkup",
        "What the last checkup measured",
        "All that 'perdure checkup' measured of this model, also guards that the workspace does not have. Changes are paired "
        "with the reference, row by row, and have 95% intervals. A blind guard scores no better than chance at its reference, so "
        "that no fall could be seen.",
    ),
    "gate": Section(
        "Gate",
        "What the gate decided",
        "A new version is refused when an earlier task is shown to have lost more than the tolerance, when a fact is lost, or "
        "when the new task stays below a floor. In each row the bar is between the two bounds of the drop. Each bound holds "
        "with the confidence named. It is by Tango's method where answers are right or wrong, else by bootstrap. The solid mark "
        "is no drop, the dashed mark the tolerance.",
    ),
    "training": Section(
        "Training", "Training loss", "Mean loss per label token of the new task, on one scale for all learns."
    ),
    "methods": Section(
        "Methods",
        "What each method did",
        "A method must be seen to act. Each cell shows its course over one learn, the mean, and the last value.",
    ),
    "edits": Section(
        "Facts",
        "What became of the edited facts",
        "A later learn can overwrite a fact, so each fact is verified again after it. Neighbours are questions whose answers "
        "must stay the same. Perplexity is that of held-out text, with all facts against without.",
    ),
    "traces": Section(
        "Traces",
        "Where the model stores its answers",
        "Noise on the subject makes the answer unlikely. A cell is strong where restoring that token in that layer makes it "
        "likely again. Intervals of averages are Student's over facts.",
    ),
    "history": Section(
        "Ledger",
        "How it came to be",
        "Entries are never changed or deleted. What was rolled back stays, and can be returned to.",
    ),
}


def render(data: ReportData) -> str:
    """Return the report as one self-contained HTML page.

    Args:
        data: Records of a workspace.

    Returns:
        HTML that loads nothing and is readable without its script; every text of the records is escaped.
    """
    bodies = _bodies(data)
    links = [el("a", SECTIONS[name].link, href=f"#{name}") for name in bodies]
    main = el(
        "main",
        masthead(data),
        el("nav", links, aria_label="Sections"),
        None if only_edits(data) else tiles(data.matrix),
        attention(data),
        [_section(name, body) for name, body in bodies.items()],
        el("footer", _footer(data)),
    )
    return (
        f"{REPORT_LINE}\n"
        + el(
            "html",
            head(f"{data.workspace.name}: continual learning report"),
            el("body", main, el("script", _script())),
            lang="en",
        )
        + "\n"
    )


def write_report(data: ReportData, path: Path, *, force: bool = False, workspaces: Sequence[Path] = ()) -> None:
    """Write the page to `path`, atomically.

    Args:
        data: See `render`.
        path: The file; an older report there is replaced.
        force: Replace any other file too.
        workspaces: Folders of the workspaces in use, whose own files are refused.

    Raises:
        BadInput: The file is there and no report, or a workspace's own.
        PerdureError: The file cannot be written; what was there before still is.
    """
    write_output(Path(path), render(data), REPORT, force=force, workspaces=workspaces)


def _bodies(data: ReportData) -> dict[str, Child]:
    if only_edits(data):  # sections on tasks would be empty
        return {**edits(data), **traces(data), "history": history(data)}
    bodies: dict[str, Child] = {}
    if data.matrix.tasks:
        bodies["matrix"] = _matrix(data)
        if data.compare:
            bodies["compare"] = comparison(data)
        bodies["tasks"] = curves(data)
    else:
        nothing = join("No task has been scored yet. ", el("code", "perdure learn TASK DATA"), " starts the stream.")
        bodies["matrix"] = bodies["tasks"] = el("p", nothing, class_="empty")
    return bodies | {
        **routing(data),
        **guards(data),
        **checkup(data),
        "gate": gates(data),
        "training": losses(data),
        "methods": heartbeats(data),
        **edits(data),
        **traces(data),
        "history": history(data),
    }


def _matrix(data: ReportData) -> Html:
    """Return the matrix; of a large one the newest and the worst, and all of it behind a summary."""
    matrix = data.matrix
    part = Part.of(matrix, TASKS, STAGES) if is_long(data) else Part.of(matrix)
    table = join(heatmap(matrix, cells(data), part=part), legend(matrix))
    tasks, stages = part.hides(matrix)
    if not tasks and not stages:
        return table
    counts = [count(n, f"more {word}") for n, word in ((tasks, "task"), (stages, "stage")) if n]
    if len(matrix.tasks) * len(matrix.stages) > CELLS:
        rest = el("p", f"{' and '.join(counts)}: ", el("code", "perdure matrix --all"), " prints them.", class_="how")
    else:
        rest = folded(f"{' and '.join(counts)}: the whole matrix", heatmap(matrix, {}, bare=True))
    says = "Here are the newest tasks, those that lost most since they were learned, and the newest stages."
    return join(el("p", says, class_="how"), table, rest)


def _section(name: str, body: Child) -> Html:
    section = SECTIONS[name]
    return el(
        "section", el("h2", section.title), el("p", section.how_to_read, class_="how"), body, id=name, class_="part"
    )


def _footer(data: ReportData) -> str:
    intervals = "" if only_edits(data) else f" {INTERVALS}"
    return f"Written by perdure {data.workspace.version}.{intervals} Times are UTC."


def head(title: str) -> Html:
    """Return the head of a page: the style, and a policy that forbids to load anything."""
    # A second protection after the escaping of records: nothing is loaded, and only the script of perdure runs.
    digest = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    dark = f"@media screen and (prefers-color-scheme: dark){{{scale_css(dark=True)}}}"
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("link", rel="icon", href="data:,"),
        el("style", trusted(_asset("style.css") + scale_css(dark=False) + dark)),
    )


def _script() -> Html:
    return trusted(_asset("tips.js"))


def _asset(name: str) -> str:
    return files("perdure.report").joinpath(name).read_text(encoding="utf-8")
