"""The model card of an export: what it was made from and how, what it scores, and how to load it."""

import re
from typing import Any

import yaml

from perdure.core.plain_text import visible
from perdure.core.words import counted
from perdure.evaluate.matrix import MEANING, learned_stages
from perdure.ledger import Entry, Ledger
from perdure.maths.statistics import interval_name
from perdure.workflows.edit.records import about, record_at
from perdure.workflows.inspect.matrix import matrix
from perdure.workflows.inspect.views import paired

EMBEDDED = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}  # what the embedded model was quantised from

FACTS = 20  # listed; the rest are counted
LEVELS = ("acc", "learning_accuracy")  # metrics that are scores; the others are differences of scores


def card(ledger: Ledger, entry: Entry, kind: str, told: dict[str, Any]) -> str:
    """Return the card, Markdown with the front matter the hub reads.

    Args:
        ledger: Of the workspace.
        entry: What is exported.
        kind: "adapter" or "merged".
        told: What the export found out; see `export`.
    """
    record = record_at(ledger, entry)
    count = len(record["facts"])
    facts = counted(count, "edited fact")
    title = " + ".join([*entry.tasks, *([facts] if count else [])]) or "base model"
    parts = [
        _front(ledger, kind),
        f"# {title}",
        _intro(ledger, entry, kind, told),
        "## Scores",
        *_scores(ledger, entry),
        *_facts(record),
        "## Load it",
        _usage(ledger, kind, told),
        "## How it was made",
        *_history(ledger, entry),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(ledger: Ledger, kind: str) -> str:
    base = _origin(ledger)
    adapter = kind == "adapter"
    facts = {
        "library_name": "peft" if adapter else "transformers",
        "base_model": base,
        "base_model_relation": "adapter" if adapter else "finetune",
        "pipeline_tag": "text-generation",
        "tags": ["continual-learning", *(["lora"] if adapter else []), "perdure"],
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---"


def _intro(ledger: Ledger, entry: Entry, kind: str, told: dict[str, Any]) -> str:
    config = ledger.config
    what = f"LoRA adapter of rank {told['rank']}" if kind == "adapter" else "whole model, no adapter needed,"
    what = what if ledger.slots(entry) else "copy of the base model"
    did = _did(ledger, entry, edited=bool(told.get("facts")))
    lines = [
        f"A {what} {did} with perdure, exported from entry `{entry.id[:12]}`.",
        "",
        f"- Base model: {_code(_origin(ledger))}"
        + (f", revision {_code(config['revision'])}" if config.get("revision") else "")
        + f", {config['dtype']}, hash of weights, configuration, tokenizer and dtype `{config['base']}`",
        f"- Entry: `{entry.id}`",
    ]
    if config["model"] in EMBEDDED:
        lines.append("- The base weights are a 4-bit release of that model, de-quantised; on others scores may differ.")
    if "relative_error" in told:
        lines.append(
            f"- Truncated to rank {told['rank']}: relative error {told['relative_error']:.2g}; held-out text went from "
            f"{_loss(told['held_out'])}. The tasks were not scored since."
        )
    if asked := told.get("facts"):
        form = f"this adapter in {told['dtype']}" if kind == "adapter" else "this model"
        lost = ", ".join(f"{plain(gone['subject'])} (`{gone['fact'][:12]}`)" for gone in asked["lost"][:FACTS])
        lines.append(
            f"- Of {asked['n']} facts {asked['said']} are said by {form}, {asked['said_before']} by the state it was made "
            f"from; their targets went from {_loss(asked)}." + (f" No longer said: {lost}." if lost else "")
        )
    if "difference" in told:
        lines.append(
            f"- Merging changed a logit by at most {told['difference']:.2g} on a probe (allowed {told['tolerance']:.2g})."
        )
    return "\n".join(lines)


def _did(ledger: Ledger, entry: Entry, edited: bool) -> str:
    """Return what was done to the base model, as a clause."""
    learned = [one for one in ledger.ancestors(entry) if one.kind == "learn"]
    also = "and whose facts were edited" if edited else ""
    if not learned:
        return "whose facts were edited" if edited else "made"
    trained: dict[str | None, None] = {}  # since training began at the base model, the newest first
    for one in learned:
        recipe = one.recipe or {}
        trained |= dict.fromkeys(one.tasks if recipe.get("data") == "all" else [one.task])
        if recipe.get("start") == "base":
            break
    if len(trained) < len(entry.tasks):
        return f"that was trained on {len(trained)} of the {counted(len(entry.tasks), 'task')} below {also}".rstrip()
    newest = learned[0].recipe or {}
    order = "at once" if newest.get("data") == "all" and newest.get("start") == "base" else "one after another"
    return f"that learned {counted(len(trained), 'task')} {order if len(trained) > 1 else ''} {also}".replace(
        "  ", " "
    ).rstrip()


def _scores(ledger: Ledger, entry: Entry) -> list[str]:
    """Return the table of scores, the metrics, and the gate's verdict."""
    if not entry.tasks:
        return ["No task was learned."]
    measured = matrix(ledger, entry.id)
    state = ledger.state(entry)
    found = ledger.scores([state], entry.tasks.values())
    makers: dict[str, list[str]] = {}
    table = ["| Task | Scorer | Score | 95% interval | n | When learned | Change |", "|---|---|---|---|---|---|---|"]
    for name, stage in zip(measured["tasks"], learned_stages(measured), strict=True):
        record = found.get((state, entry.tasks[name]))
        if record is None:
            table.append(f"| {name} | | not measured | | | | |")
            continue
        interval = f"{_percent(record['low'])} to {_percent(record['high'])}"
        since = _since(ledger, entry, name, None if stage is None else measured["stages"][stage]["entry"], record)
        table.append(
            f"| {name} | {record['scorer']} | {_percent(record['score'])} | {interval} | {record['n']} {since}"
        )
        makers.setdefault(interval_name(record["items"]), []).append(name)
    metrics = ["| Metric | Value | 95% interval | Meaning |", "|---|---|---|---|"]
    for name, meaning in MEANING.items():
        metric = measured["metrics"][name]
        if metric["value"] is None:
            metrics.append(f"| {name} | | | {meaning} ({metric['missing']}) |")
        else:
            shown = _percent if name in LEVELS else _points
            interval = f"{shown(metric['low'])} to {shown(metric['high'])}"
            metrics.append(f"| {name} | {shown(metric['value'])} | {interval} | {meaning} |")
    gate = (_notes_of_learn(ledger, entry).get("record") or {}).get("gate")
    whose = "Gate" if entry.kind == "learn" else "Gate of the last learn"
    verdict = f"{whose}: **{gate['verdict']}** ({plain(gate.get('reason', ''))})." if gate else ""
    return ["\n".join(table), "\n".join(metrics), _intervals(makers), verdict]


def _since(ledger: Ledger, entry: Entry, task: str, learned: str | None, now: dict[str, Any]) -> str:
    """Return the cells of a task's score when it was learned first, and the change since, over the test rows of both."""
    if learned is None:
        return "| | |"
    pair = paired(ledger, ledger.entry(learned), entry, task)
    then, change = pair["a"], pair["change"]
    if then is None or change is None:
        return "| | |"
    other = f" (n = {then['n']})" if then["n"] != now["n"] else ""
    common = f" (n = {change['n']})" if change["n"] != now["n"] or other else ""
    return f"| {_percent(then['score'])}{other} | {_points(change['value'])}{common} |"


def _intervals(makers: dict[str, list[str]]) -> str:
    """Return by which method each interval was made."""
    how = {"Wilson": "Wilson's, of answers that are right or wrong", "bootstrap": "bootstrapped over graded answers"}
    scores = "; ".join(f"{', '.join(names)}: {how[maker]}" for maker, names in makers.items())
    return f"Intervals of scores: {scores}. Those of the metrics are bootstrapped over test rows." if makers else ""


def _facts(record: dict[str, Any]) -> list[str]:
    """Return the facts in force as they were last verified in the workspace, how they were written, and what they cost."""
    facts = record["facts"]
    if not facts:
        return []
    head = ["Subject", "Prompt", "Target", "Said", "Said freely", "Paraphrases", "Neighbours kept"]
    table = [_row(head), "|---" * len(head) + "|"]
    for fact in facts[:FACTS]:
        shares = [_share(fact[name]) for name in ("efficacy", "generation", "paraphrase", "neighbourhood")]
        table.append(_row([*(plain(fact[name]) for name in ("subject", "prompt", "target")), *shares]))
    more = f"And {len(facts) - FACTS} more." if len(facts) > FACTS else ""
    said = f"{sum(fact['efficacy'] for fact in facts)} of {len(facts)} facts in force were said when last verified."
    ways = sorted({f"{fact['method']}, layer {', '.join(map(str, fact['layers']))}" for fact in facts})
    lines = [said, f"Written by {'; '.join(ways)}."]
    if drift := record["drift"]:
        before, after = drift["perplexity_before"], drift["perplexity"]
        lines.append(
            f"Held-out text: perplexity {before:.2f} without them, {after:.2f} with them ({100 * (after / before - 1):+.2f}%), "
            f"KL {drift['kl']:.2g} nats a token."
        )
    return ["## Facts", " ".join(lines), "\n".join(table), more]


def _usage(ledger: Ledger, kind: str, told: dict[str, Any]) -> str:
    if kind == "merged":
        return (
            "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER")\n'
            'tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_FOLDER")\n```\n\n'
            "```bash\nvllm serve PATH_OF_THIS_FOLDER\n```"
        )
    base, revision = _origin(ledger), ledger.config.get("revision")
    at = f', revision="{revision}"' if revision else ""
    return (
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{base}", dtype="{ledger.config["dtype"]}"{at})\n'
        'model = PeftModel.from_pretrained(base, "PATH_OF_THIS_FOLDER")\n'
        'tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_FOLDER")\n```\n\n'
        + _served(f"{base}{f' --revision {revision}' if revision else ''}", told)
    )


def _served(base: str, told: dict[str, Any]) -> str:
    """Return how a server takes the adapter, or why not."""
    if told["experts"]:
        return (
            "The adapter has factors of experts. PEFT adds their product to the weights and rounds the sum to the dtype of the "
            "weights: a base in float32 computes what was trained. vLLM was not tried with factors of experts."
        )
    if not told["max_lora_rank"]:
        return f"vLLM serves no adapter of rank {told['rank']}."
    return (
        f"```bash\nvllm serve {base} --enable-lora "
        f"--max-lora-rank {told['max_lora_rank']} --lora-modules NAME=PATH_OF_THIS_FOLDER\n```"
    )


def _history(ledger: Ledger, entry: Entry) -> list[str]:
    """Return the line of entries with data and seeds, the recipe, and the software."""
    table = ["| Entry | Kind | What | Task version | Train data | Seed |", "|---|---|---|---|---|---|"]
    for one in reversed(ledger.ancestors(entry)):
        cells = [
            _hash(one.id),
            one.kind,
            plain(about(ledger, one.id, one.task) or ""),
            _hash(one.tasks.get(one.task or "")),
            _hash(one.data.get("train")),
            str(one.seed),
        ]
        table.append(_row(cells))
    learned, notes = _last_learn(ledger, entry), _notes_of_learn(ledger, entry)
    software = ", ".join(f"{name} {version}" for name, version in (notes.get("software") or {}).items())
    recipe = f"```yaml\n{yaml.safe_dump(learned.recipe, sort_keys=False)}```" if learned else ""
    return [
        "\n".join(table),
        "Recipe of the last learn:" if recipe else "",
        recipe,
        f"Software: {software}" * bool(software),
    ]


def _last_learn(ledger: Ledger, entry: Entry) -> Entry | None:
    """Return the newest learn that an entry stands on, itself among them."""
    return next((one for one in ledger.ancestors(entry) if one.kind == "learn"), None)


def _notes_of_learn(ledger: Ledger, entry: Entry) -> dict[str, Any]:
    learned = _last_learn(ledger, entry)
    return ledger.notes(learned.id) if learned else {}


def _origin(ledger: Ledger) -> str:
    model = ledger.config["model"]
    return EMBEDDED.get(model, model)


def _hash(value: str | None) -> str:
    return f"`{value[:12]}`" if value else ""


def _row(cells: list[str]) -> str:
    """Return a row of a table of cells that are Markdown already."""
    return f"| {' | '.join(cells)} |"


def plain(text: str) -> str:
    """Return a text from data as Markdown that shows it on one line: nothing in it is markup, HTML or steers a terminal."""
    return re.sub(r"([\\`*_\[\]<>&|!#~$])", r"\\\1", visible(" ".join(text.split())))


def _code(text: str) -> str:
    """Return a text as it stands in a span of code."""
    return f"`{visible(' '.join(text.split())).replace('`', chr(39))}`"


def _share(value: bool | float | None) -> str:
    """Return a verdict or a share; nothing where it was not asked."""
    if value is None:
        return ""
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.0%}"


def _loss(told: dict[str, Any]) -> str:
    return f"{told['nll_before']:.3f} to {told['nll']:.3f} nats a token"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(difference: float) -> str:
    return f"{100 * difference + 0.0:+.1f} points"
