"""Records made by hand, of the types that a ledger gives: a stream with a rollback and a failed gate, and the edges of it."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from perdure.core.records import JsonObject
from perdure.evaluate.matrix import Matrix, Metric, Stage, Worst
from perdure.ledger.records import (
    Drift,
    EditsSummary,
    GateOff,
    Heartbeat,
    LearnRecord,
    Move,
    RowCounts,
    TaskVerdict,
    Verdict,
)
from perdure.ledger.records.verdict import Word
from perdure.workflows.inspect.report_records import (
    Band,
    Comparison,
    DriftedAnswer,
    GuardPanel,
    GuardReport,
    ReportData,
    ReportedScore,
    ReportEntry,
    SharedMetrics,
    WorkspaceInfo,
)

N = 96
Table = list[list[float | None]]


def entry_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def score(value: float, n: int = N) -> ReportedScore:
    half = 1.96 * math.sqrt(max(value * (1 - value), 0.01) / n)
    return ReportedScore(value, max(0.0, value - half), min(1.0, value + half), n, "exact", "Wilson")


def verdict(word: Word, rows: Sequence[TaskVerdict], reason: str) -> Verdict:
    return Verdict(word, 0.03, 0.95, False, reason, tuple(rows), None)


def guarded(
    task: str, word: Word, reference: float, now: float, half: float = 0.025, more: int | None = None
) -> TaskVerdict:
    drop = reference - now
    reason = f"{task}: drop {100 * drop:.1f} points"
    return TaskVerdict(task, word, reference, now, drop, drop - half, drop + half, N, 0.03, more, reason)


def learn_record(gate: Verdict | GateOff, updates: int = 90, first: bool = False, phase: float = 0.0) -> LearnRecord:
    def beat(u: int) -> Heartbeat:
        if first:
            return Heartbeat(loss=0.0, pull=0.0, rows=0.0)
        loss = 0.9 * math.exp(-u / 60) + 0.05 * math.sin(u + phase)
        return Heartbeat(loss=loss, pull=0.2 + 0.05 * math.cos(u / 7 + phase), rows=8.0)

    replay = tuple((u, beat(u)) for u in range(0, updates, 2))
    distill = tuple((u, Heartbeat(loss=(one.loss or 0.0) / 4, pull=0.1)) for u, one in replay)
    return LearnRecord(
        train_seconds=61.4 + updates / 10,
        train_cpu_seconds=120.0,
        eval_seconds=9.1,
        tokens=410 * updates,
        updates=updates,
        loss=tuple((u, 2.6 * math.exp(-u / 18) + 0.12 + 0.06 * math.sin(u * 1.7 + phase)) for u in range(updates)),
        heartbeats={"replay": replay, "distill": distill},
        gate=gate,
        settings={
            "learning_rate": 2e-4,
            "num_train_epochs": 3,
            "lora_r": 16,
            "seed": 0,
            "methods": {"replay": {"mix": 0.25}, "distill": {}},
        },
        warnings=("replay drew no row: the memory is empty on the first task",) if first else (),
    )


def entry(
    name: str,
    parent: str | None,
    kind: str,
    task: str | None,
    time: str,
    scores: Mapping[str, float],
    *,
    refs: Sequence[str] = (),
    record: LearnRecord | None = None,
    memory: Mapping[str, int] | None = None,
    edits: Any = None,
    traces: JsonObject | None = None,
) -> ReportEntry:
    rows = memory or {}
    return ReportEntry(
        entry_id(name),
        entry_id(parent) if parent else None,
        kind,
        task,
        time,
        tuple(refs),
        {t: score(v) for t, v in scores.items()},
        record,
        RowCounts(sum(rows.values()), rows),
        edits,
        traces,
    )


def metric(value: float | None, half: float = 0.021, missing: str = "", n: int = 4 * N) -> Metric:
    if value is None:
        return Metric(None, None, None, 0, missing)
    return Metric(value, value - half, value + half, n)


def matrix(tasks: Sequence[str], stages: Sequence[ReportEntry], table: Table, metrics: Mapping[str, Metric]) -> Matrix:
    return Matrix(
        tuple(tasks),
        tuple(Stage(one.entry, one.kind, one.task) for one in stages),
        tuple(map(tuple, table)),
        tuple(tuple(None if cell is None else N for cell in row) for row in table),
        metrics,
    )


def beside(name: str, ours: Matrix, theirs: Matrix, differs: tuple[str, ...] = ()) -> Comparison:
    return Comparison(name, theirs, SharedMetrics(ours.metrics, theirs.metrics), differs, ours.tasks)


def with_entry(data: ReportData, number: int, **fields: Any) -> ReportData:
    """Return the data with other fields of one of its entries."""
    entries = list(data.entries)
    entries[number] = replace(entries[number], **fields)
    return replace(data, entries=tuple(entries))


def with_record(data: ReportData, number: int, **fields: Any) -> ReportData:
    """Return the data with other fields of the learn record of one of its entries."""
    record = data.entries[number].record
    assert record is not None
    return with_entry(data, number, record=replace(record, **fields))


def four_tasks() -> ReportData:
    """Four product lines; the third learn failed its gate, was accepted, rolled back, and learned again."""
    tasks = ["broadband", "mobile", "television", "energy"]
    table: Table = [
        [0.115, 0.135, 0.094, 0.125],
        [0.938, 0.302, None, None],
        [0.917, 0.906, 0.281, None],
        [0.917, 0.885, 0.896, 0.323],
        [0.906, 0.875, 0.885, 0.927],
    ]
    bad = [0.604, 0.719, 0.917, None]
    cells = [{t: v for t, v in zip(tasks, row, strict=True) if v is not None} for row in [*table[:3], bad, *table[3:]]]
    passed = verdict(
        "pass", [guarded("broadband", "pass", 0.938, 0.917, 0.008)], "No earlier task lost more than 3.0 points."
    )
    failed = verdict(
        "fail",
        [guarded("broadband", "fail", 0.938, 0.604, 0.09), guarded("mobile", "fail", 0.906, 0.719, 0.08)],
        "broadband lost 33.4 points and mobile 18.7, with a tolerance of 3.0.",
    )
    again = verdict(
        "pass",
        [guarded("broadband", "pass", 0.938, 0.917, 0.008), guarded("mobile", "pass", 0.906, 0.885, 0.009)],
        "No earlier task lost more than 3.0 points.",
    )
    unsure = verdict(
        "inconclusive",
        [
            guarded("broadband", "inconclusive", 0.938, 0.906, 0.026, 140),
            guarded("mobile", "inconclusive", 0.906, 0.875, 0.026, 128),
            guarded("television", "pass", 0.896, 0.885, 0.012),
        ],
        "For broadband and mobile the interval of the drop contains the tolerance; 140 more test items would decide.",
    )
    entries = [
        entry("base", None, "base", None, "2026-02-02T09:12:00+00:00", cells[0], refs=["base"]),
        entry(
            "a",
            "base",
            "learn",
            "broadband",
            "2026-02-02T09:20:00+00:00",
            cells[1],
            memory={"broadband": 16},
            record=learn_record(verdict("pass", [], "first task: nothing to lose"), first=True),
        ),
        entry(
            "b",
            "a",
            "learn",
            "mobile",
            "2026-02-09T10:02:00+00:00",
            cells[2],
            memory={"broadband": 16, "mobile": 16},
            record=learn_record(passed, phase=1.0),
        ),
        entry(
            "c",
            "b",
            "learn",
            "television",
            "2026-02-16T16:41:00+00:00",
            cells[3],
            refs=["attempt"],
            record=learn_record(failed, phase=2.0),
        ),
        entry(
            "d",
            "b",
            "learn",
            "television",
            "2026-02-17T09:05:00+00:00",
            cells[4],
            memory={"broadband": 16, "mobile": 16, "television": 16},
            record=learn_record(again, 96, phase=3.0),
        ),
        entry(
            "e",
            "d",
            "learn",
            "energy",
            "2026-02-23T11:30:00+00:00",
            cells[5],
            refs=["head", "production"],
            memory=dict.fromkeys(tasks, 16),
            record=learn_record(unsure, 102, phase=4.0),
        ),
    ]
    stages = [entries[i] for i in (0, 1, 2, 4, 5)]
    ours = matrix(
        tasks,
        stages,
        table,
        {
            "acc": metric(0.898, 0.03),
            "bwt": replace(metric(-0.025, 0.019, n=3 * N), worst=Worst("broadband", -0.032)),
            "forgetting": metric(0.025, 0.019, n=3 * N),
            "learning_accuracy": metric(0.917, 0.028),
            "fwt": metric(0.184, 0.05, n=3 * N),
        },
    )
    naive_table: Table = [
        table[0],
        [0.938, 0.302, None, None],
        [0.667, 0.917, 0.292, None],
        [0.521, 0.635, 0.917, 0.312],
        [0.406, 0.479, 0.594, 0.938],
    ]
    naive = matrix(
        tasks,
        stages,
        naive_table,
        {
            "acc": metric(0.604, 0.048),
            "bwt": metric(-0.431, 0.06, n=3 * N),
            "forgetting": metric(0.431, 0.06, n=3 * N),
            "learning_accuracy": metric(0.927, 0.026),
            "fwt": metric(0.184, 0.05, n=3 * N),
        },
    )
    ids = {e: entry_id(e) for e in ("base", "a", "b", "c", "d", "e")}
    moves = [
        ("base", "a", "learn broadband", "2026-02-02T09:20:00+00:00"),
        ("a", "b", "learn mobile", "2026-02-09T10:02:00+00:00"),
        ("b", "c", "accept television", "2026-02-16T17:02:00+00:00"),
        ("c", "b", f"rollback {ids['b'][:8]}", "2026-02-17T08:55:00+00:00"),
        ("b", "d", "learn television", "2026-02-17T09:05:00+00:00"),
        ("d", "e", "learn energy", "2026-02-23T11:30:00+00:00"),
    ]
    return ReportData(
        workspace=WorkspaceInfo(
            "support-desk", "smollm2-135m", entry_id("weights"), "2026-02-02T09:12:00+00:00", "0.1.0"
        ),
        head=ids["e"],
        facts=(),
        matrix=ours,
        entries=tuple(entries),
        reflog=tuple(Move(time, ids[old], ids[new], why) for old, new, why, time in moves),
        compare=(beside("naive", ours, naive),),
    )


def empty() -> ReportData:
    """A workspace that was just made: the base model, nothing measured."""
    base = entry("base", None, "base", None, "2026-02-02T09:12:00+00:00", {}, refs=["head"])
    missing = metric(None, missing="no task has been learned")
    metrics = dict.fromkeys(("acc", "bwt", "forgetting", "fwt", "learning_accuracy"), missing)
    return replace(
        four_tasks(),
        head=base.entry,
        matrix=matrix([], [base], [[]], metrics),
        entries=(base,),
        reflog=(),
        compare=(),
    )


def one_task() -> ReportData:
    """One learn without a gate, a base that was never scored."""
    base = entry("base", None, "base", None, "2026-02-02T09:12:00+00:00", {})
    learn = entry(
        "a",
        "base",
        "learn",
        "broadband",
        "2026-02-02T09:20:00+00:00",
        {"broadband": 0.938},
        refs=["head"],
        record=learn_record(GateOff()),
    )
    missing = metric(None, missing="needs a second task")
    metrics = {
        "acc": metric(0.938, n=N),
        "learning_accuracy": metric(0.938, n=N),
        "bwt": missing,
        "forgetting": missing,
        "fwt": missing,
    }
    one = matrix(["broadband"], [base, learn], [[None], [0.938]], metrics)
    return replace(four_tasks(), head=learn.entry, matrix=one, entries=(base, learn), reflog=(), compare=())


def fifteen_tasks() -> ReportData:
    """Fifteen tasks with long names, sparse cells, then an edit, a merge and a revert without records."""
    names = [
        f"{area} for {who} customers"
        for area in (
            "Returns and refunds",
            "Invoices and payment reminders",
            "Deliveries",
            "Warranty",
            "Loyalty programme",
        )
        for who in ("consumer", "business", "public-sector-and-education")
    ]
    tree = [entry("base", None, "base", None, "2025-01-01T08:00:00+00:00", dict.fromkeys(names, 0.1))]
    table: Table = [[0.1] * 15]
    for i, name in enumerate(names):
        row = [
            max(0.0, 0.95 - 0.02 * (i - j) ** 1.2) if j <= i else 0.1 + 0.02 * i if j == i + 1 else None
            for j in range(15)
        ]
        if i == 7:
            row[2] = None
        table.append(row)
        rows = [guarded(old, "pass", 0.95, 0.94, 0.015) for old in names[:i]]
        cells = {t: v for t, v in zip(names, row, strict=True) if v is not None}
        tree.append(
            entry(
                name,
                names[i - 1] if i else "base",
                "learn",
                name,
                f"2025-{1 + i // 2:02d}-{1 + 14 * (i % 2):02d}T08:00:00+00:00",
                cells,
                record=learn_record(verdict("pass", rows, "No earlier task lost more than 3.0 points."), 400, phase=i),
            )
        )
    for kind, parent in (("edit", names[-1]), ("merge", "edit"), ("revert", "merge")):
        tree.append(entry(kind, parent, kind, None, "2025-10-01T08:00:00+00:00", {}))
        table.append(table[-1] if kind == "edit" else [None] * 15)
    tree[-1] = replace(tree[-1], refs=("head",))
    missing = metric(None, missing=f"{names[0]} is not measured at stage 18")
    metrics = {name: missing for name in ("acc", "bwt", "forgetting", "fwt")} | {"learning_accuracy": metric(0.951)}
    whole = matrix(names, tree, table, metrics)
    return replace(
        four_tasks(),
        head=tree[-1].entry,
        entries=tuple(tree),
        matrix=whole,
        reflog=(Move("2025-10-01T08:00:00+00:00", tree[-2].entry, tree[-1].entry, "revert"),),
        compare=(beside("naive", whole, whole),),
    )


EXAMPLES = {"four": four_tasks, "fifteen": fifteen_tasks, "one": one_task, "empty": empty}


def many_tasks(tasks: int = 52, learns: int | None = None) -> ReportData:
    """Many tasks, one after the other and then again, each forgotten a little; some gates fail, and head is rolled back after."""
    names = [f"line {i:03d} of support" for i in range(tasks)]
    learns = learns or tasks
    tree = [entry("base", None, "base", None, "2025-01-01T08:00:00+00:00", dict.fromkeys(names, 0.1))]
    table: Table = [[0.1] * tasks]
    moves = []
    for i in range(learns):
        known = names[: i + 1]
        row: list[float | None] = [max(0.2, 0.95 - 0.004 * (i - j) * (1 + j % 5)) for j in range(len(known))]
        row += [None] * (tasks - len(known))
        word: Word = ("pass", "inconclusive", "pass", "fail")[i % 4]
        rows = [guarded(old, word if n == 0 else "pass", 0.95, 0.94, 0.015) for n, old in enumerate(known[:-1])]
        reason = f"{known[0]} and others: a verdict of stage {i}, in a sentence that is about as long as one really is"
        time = f"{2025 + i // 336:04d}-{1 + i // 28 % 12:02d}-{1 + i % 28:02d}T08:00:00+00:00"
        scores = {t: v for t, v in zip(names, row, strict=True) if v is not None}
        name, parent = f"learn {i}", f"learn {i - 1}" if i else "base"
        judged = learn_record(verdict(word, rows, reason), 400, phase=i)
        facts = EditsSummary(None, Drift(20.0, 20.4, 0.01), False, 4, 3) if i > learns // 2 else None
        task, memory = names[i % tasks], {known[-1]: 40}
        tree.append(entry(name, parent, "learn", task, time, scores, record=judged, memory=memory, edits=facts))
        table.append(row)
        moves.append(Move(time, entry_id(parent), entry_id(name), f"learn {names[i % tasks]}"))
    tree[-1] = replace(tree[-1], refs=("head",))
    metrics = {"acc": metric(0.7), "bwt": metric(-0.2), "forgetting": metric(0.2), "learning_accuracy": metric(0.95)}
    whole = matrix(names, tree, table, metrics | {"fwt": metric(0.1)})
    return replace(
        four_tasks(), head=tree[-1].entry, entries=tuple(tree), matrix=whole, reflog=tuple(moves), compare=()
    )


def with_guards(data: ReportData) -> ReportData:
    """The workspace with drift and abilities that were measured at every stage but the second."""
    stages = len(data.matrix.stages)

    def line(first: float, last: float, half: float, note: str = "") -> tuple[Band | None, ...]:
        values = [first + (last - first) * i / (stages - 1) for i in range(stages)]
        return tuple(None if i == 1 else Band(v, v - half, v + half, note) for i, v in enumerate(values))

    answers = tuple(
        DriftedAnswer(f"Question {i} <b>?", "A long and <i>polite</i> answer", "Answer" if i else "", 0.4 + i / 20)
        for i in range(5)
    )
    panels = (
        GuardPanel("drift: sameness with the reference", line(1.0, 0.78, 0.02), (0.85, 0.925), "share"),
        GuardPanel("mean change of 2 abilities", line(0.0, -0.06, 0.02), (-0.03,), "points"),
        GuardPanel("worst change of an ability", line(0.0, -0.12, 0.05, "instructions"), (-0.1,), "points"),
    )
    return replace(data, guards=GuardReport(panels, answers))
