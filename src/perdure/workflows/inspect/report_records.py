"""The types of what a report draws; pages are made of them without torch and without a ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from perdure.core.records import Record
from perdure.evaluate.matrix import Matrix, Metric
from perdure.ledger.records import (
    EditsSummary,
    FactLine,
    GateOff,
    LearnRecord,
    LogLine,
    Move,
    RowCounts,
    ScoreSummary,
    Signature,
    TraceNotes,
    Verdict,
)
from perdure.workflows.checkup_records import Checkup
from perdure.workflows.guards.kinds import KindChange
from perdure.workflows.inspect.view_records import InitialView


@dataclass(frozen=True)
class SharedMetrics(Record):
    """The metrics of two workspaces over the test rows that both scored at their head.

    Args:
        ours: Of this workspace, by name.
        theirs: Of the other one.
    """

    ours: Mapping[str, Metric]
    theirs: Mapping[str, Metric]


@dataclass(frozen=True)
class Comparison(Record):
    """What of another workspace can be compared with this one, and what cannot.

    Args:
        name: What the other is called.
        matrix: Its matrix, whole.
        shared: The metrics of both sides; None where no test row is shared.
        differs: Sentences on what differs; empty where tasks, order, test rows and base are the same.
        curves: The tasks that can be drawn over one another, stage by stage.
    """

    name: str
    matrix: Matrix
    shared: SharedMetrics | None
    differs: tuple[str, ...]
    curves: tuple[str, ...]


@dataclass(frozen=True)
class ReportedScore(ScoreSummary):
    """A score without its items, and whose method its interval is of.

    Args:
        interval: Name of the method.
    """

    interval: str


@dataclass(frozen=True)
class ReportEntry(LogLine):
    """An entry with all that a report draws of it.

    Args:
        scores: By task, where measured.
        record: What came of the learn; None where it is none.
        memory: The rows that it remembers now.
        edits: The facts in force there; None where it changed none of them.
        traces: What was traced there.
        signature: Who made it, and why.
    """

    scores: Mapping[str, ReportedScore]
    record: LearnRecord | None
    memory: RowCounts
    edits: EditsSummary | None = None
    traces: TraceNotes | None = None
    signature: Signature = field(default_factory=Signature)

    @property
    def gate(self) -> Verdict | None:
        """What its gate decided; None where there was none, or it was off."""
        gate = self.record.gate if self.record else None
        return None if isinstance(gate, GateOff) else gate


@dataclass(frozen=True)
class WorkspaceInfo(Record):
    """The workspace of a report.

    Args:
        name: Name of its folder.
        model: Name or path of the base model.
        base: Hash of the base model.
        created: When it was made, as ISO 8601.
        version: Version of perdure that writes the report.
        recipe: The one recipe that it learned by; None where there are several or none.
        quantization: Format of the weights of linear layers, "nf4" or "int8"; None for plain weights.
        adapter: The adapter that it was made with; None without one.
    """

    name: str
    model: str
    base: str
    created: str
    version: str
    recipe: str | None = None
    quantization: str | None = None
    adapter: InitialView | None = None


@dataclass(frozen=True)
class Band(Record):
    """A value with its interval.

    Args:
        value: The value.
        low: Lower bound.
        high: Upper bound.
        note: What it is of, where that differs from stage to stage.
    """

    value: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True)
class GuardPanel(Record):
    """One picture of guards over the stages.

    Args:
        title: Its title.
        values: By stage; None where nothing was measured.
        rules: Levels of the gate.
        unit: "share" for values in [0, 1]; "points" for changes.
    """

    title: str
    values: tuple[Band | None, ...]
    rules: tuple[float, ...]
    unit: Literal["share", "points"]


@dataclass(frozen=True)
class DriftedAnswer(Record):
    """An answer at head that is far from the reference's.

    Args:
        prompt: The prompt.
        before: What the reference answered.
        now: What the model answers at head.
        same: How like the reference it predicts along the reference's answer, in [0, 1].
    """

    prompt: str
    before: str
    now: str
    same: float


@dataclass(frozen=True)
class GuardKinds(Record):
    """What a guard whose rows come in groups gained and lost at head.

    Args:
        guard: Its name.
        kinds: The groups, those that changed most first.
    """

    guard: str
    kinds: tuple[KindChange, ...]


@dataclass(frozen=True)
class GuardReport(Record):
    """What a report draws of guards.

    Args:
        panels: Pictures over the stages.
        drifted: The answers that changed most.
        kinds: Guards whose rows come in groups, group by group.
    """

    panels: tuple[GuardPanel, ...]
    drifted: tuple[DriftedAnswer, ...]
    kinds: tuple[GuardKinds, ...] = ()


@dataclass(frozen=True)
class TaskView(Record):
    """What the requests of a task go through when they name it.

    Args:
        task: Name of the task.
        own: Whether it has an adapter of its own.
        under: What lies under that adapter, or what it shares with the other tasks, in words.
    """

    task: str
    own: bool
    under: tuple[str, ...]


@dataclass(frozen=True)
class RoutedReport(Record):
    """What a report draws of requests that do not name their task.

    Args:
        matrix: Their scores, and how many find their task; None where these were not measured at head.
        views: What requests that name their task go through.
    """

    matrix: Matrix | None
    views: tuple[TaskView, ...]


@dataclass(frozen=True)
class ReportData:
    """What a report draws.

    Args:
        workspace: About the workspace.
        head: Id of the entry.
        facts: The facts in force at head.
        matrix: Scores on the way to head.
        entries: All entries, oldest first.
        reflog: The moves of head, oldest first.
        compare: Other workspaces to compare with.
        references: The moves of the references of guards, guard by guard, oldest first.
        guards: What was measured of guards; None where nothing was.
        routed: Of requests that do not name their task; None where all requests go through the same weights.
        checkup: What checkups of head measured last; None where there was none.
    """

    workspace: WorkspaceInfo
    head: str
    facts: tuple[FactLine, ...]
    matrix: Matrix
    entries: tuple[ReportEntry, ...]
    reflog: tuple[Move, ...]
    compare: tuple[Comparison, ...]
    references: tuple[Move, ...] = ()
    guards: GuardReport | None = None
    routed: RoutedReport | None = None
    checkup: Checkup | None = None
