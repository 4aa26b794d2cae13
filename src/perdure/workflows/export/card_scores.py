"""Scores, facts and history of a model card."""

import yaml

from perdure.evaluate.gate import renamed
from perdure.evaluate.matrix import MEANING
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import EditsRecord, GateOff, LearnRecord, Score
from perdure.maths.statistics import interval_name
from perdure.workflows.edit.records import about
from perdure.workflows.export.card_record import last_learn, notes_of_learn
from perdure.workflows.export.card_words import percent, plain, points, row_of, share_of, short_hash
from perdure.workflows.guards.columns import guard_scores
from perdure.workflows.guards.groups import grouped_interval, groups_of_score
from perdure.workflows.guards.measured import measured_guards
from perdure.workflows.inspect.matrix import matrix
from perdure.workflows.inspect.score_views import paired

FACTS = 20  # listed; the rest are counted
LEVELS = ("acc", "learning_accuracy")  # metrics that are scores; the others are differences of scores


def scores(ledger: Ledger, entry: Entry) -> list[str]:
    """Return the table of scores, the metrics, and the gate's verdict."""
    if not entry.tasks:
        return ["No task was learned."]
    measured = matrix(ledger, entry.id)
    seen = ledger.seen_by(entry, entry.tasks)
    stored = ledger.scores(seen.values(), entry.tasks.values())
    makers: dict[str, list[str]] = {}
    table = ["| Task | Scorer | Score | 95% interval | n | When learned | Change |", "|---|---|---|---|---|---|---|"]
    for name, stage in zip(measured.tasks, measured.learned, strict=True):
        record, shown_name = stored.get((seen[name], entry.tasks[name])), ledger.shown_name(name)
        if record is None:
            table.append(f"| {shown_name} | | not measured | | | | |")
            continue
        interval = f"{percent(record.low)} to {percent(record.high)}"
        since = _since(ledger, entry, name, None if stage is None else measured.stages[stage].entry, record)
        table.append(f"| {shown_name} | {record.scorer} | {percent(record.score)} | {interval} | {record.n} {since}")
        makers.setdefault(interval_name(record.items), []).append(shown_name)
    metrics = ["| Metric | Value | 95% interval | Meaning |", "|---|---|---|---|"]
    for name, meaning in MEANING.items():
        metric = measured.metrics[name]
        if metric.value is None or metric.low is None or metric.high is None:
            metrics.append(f"| {name} | | | {meaning} ({metric.missing}) |")
        else:
            shown = percent if name in LEVELS else points
            interval = f"{shown(metric.low)} to {shown(metric.high)}"
            metrics.append(f"| {name} | {shown(metric.value)} | {interval} | {meaning} |")
    learned = last_learn(ledger, entry)
    gate = (noted := learned and ledger.note(learned.id, "record", LearnRecord)) and noted.gate
    if gate and not isinstance(gate, GateOff):
        gate = renamed(gate, ledger.aliases)
    whose = "Gate" if entry.kind == "learn" else "Gate of the last learn"
    verdict = f"{whose}: **{gate.verdict}** ({plain(gate.reason)})." if gate else ""
    return ["\n".join(table), "\n".join(metrics), _intervals(makers), verdict]


def _since(ledger: Ledger, entry: Entry, task: str, learned: str | None, now: Score) -> str:
    """Return the cells of a task's score when it was learned first, and the change since, over the test rows of both."""
    if learned is None:
        return "| | |"
    pair = paired(ledger, ledger.entry(learned), entry, task)
    then, change = pair.a, pair.change
    if then is None or change is None:
        return "| | |"
    other = f" (n = {then.n})" if then.n != now.n else ""
    common = f" (n = {change.n})" if change.n != now.n or other else ""
    return f"| {percent(then.score)}{other} | {points(change.value)}{common} |"


def _intervals(makers: dict[str, list[str]]) -> str:
    """Return by which method each interval was made."""
    how = {"Wilson": "Wilson's, of answers that are right or wrong", "bootstrap": "bootstrapped over graded answers"}
    scores = "; ".join(f"{', '.join(names)}: {how[maker]}" for maker, names in makers.items())
    return f"Intervals of scores: {scores}. Those of the metrics are bootstrapped over test rows." if makers else ""


def guard_lines(ledger: Ledger, entry: Entry) -> list[str]:
    """Return the guards that were scored at an entry, with the change since their reference; nothing without any."""
    table = [
        "| Guard | Ability | Scorer | At its reference | Now | 95% interval | n |",
        "|---|---|---|---|---|---|---|",
    ]
    for guard in (*ledger.guards(), *measured_guards(ledger, entry)):
        before, now = guard_scores(ledger, guard, [ledger.entry(guard.reference), entry])
        if before is None or now is None:
            continue
        groups = groups_of_score(ledger, guard, now)
        _, low, high = grouped_interval(now, groups)
        n = f"{now.n} in {len(set(groups))} groups" if 0 < len(set(groups)) < now.n else str(now.n)
        cells = [
            plain(guard.name),
            guard.ability,
            now.scorer,
            percent(before.score),
            percent(now.score),
            f"{percent(low)} to {percent(high)}",
            n,
        ]
        table.append(row_of(cells))
    if len(table) == 2:
        return []
    return ["What the model could do before, and can do now; a guard is scored and never trained:", "\n".join(table)]


def fact_lines(record: EditsRecord) -> list[str]:
    """Return the facts in force with their last verification, their methods, and their effect on held-out text."""
    facts = record.facts
    if not facts:
        return []
    head = ["Subject", "Prompt", "Target", "Said", "Generated", "Paraphrases", "Neighbours unchanged"]
    table = [row_of(head), "|---" * len(head) + "|"]
    for fact in facts[:FACTS]:
        shares = map(share_of, (fact.efficacy, fact.generation, fact.paraphrase, fact.neighbourhood))
        table.append(row_of([*map(plain, (fact.subject, fact.prompt, fact.target)), *shares]))
    more = f"And {len(facts) - FACTS} more." if len(facts) > FACTS else ""
    summary = f"{len(record.said)} of {len(facts)} facts in force were said when last verified."
    ways = sorted({f"{fact.method}, layer {', '.join(map(str, fact.layers))}" for fact in facts})
    lines = [summary, f"Written by {'; '.join(ways)}."]
    if drift := record.drift:
        lines.append(
            f"Held-out text: perplexity {drift.perplexity_before:.2f} without them, {drift.perplexity:.2f} with them "
            f"({100 * drift.rise:+.2f}%), KL {drift.kl:.2g} nats a token."
        )
    return ["## Facts", " ".join(lines), "\n".join(table), more]


def history(ledger: Ledger, entry: Entry) -> list[str]:
    """Return the line of entries with data and seeds, the recipe, and the software."""
    table = ["| Entry | Kind | What | Task version | Train data | Seed |", "|---|---|---|---|---|---|"]
    for one in reversed(ledger.ancestors(entry)):
        cells = [
            short_hash(one.id),
            one.kind,
            plain(about(ledger, one.id, one.task) or ""),
            short_hash(one.tasks.get(one.task or "")),
            short_hash(one.data.get("train")),
            str(one.seed),
        ]
        table.append(row_of(cells))
    learned, notes = last_learn(ledger, entry), notes_of_learn(ledger, entry)
    software = ", ".join(f"{name} {version}" for name, version in (notes.get("software") or {}).items())
    recipe = f"```yaml\n{yaml.safe_dump(learned.recipe, sort_keys=False)}```" if learned else ""
    return [
        "\n".join(table),
        "Recipe of the last learn:" if recipe else "",
        recipe,
        f"Software: {software}" * bool(software),
    ]
