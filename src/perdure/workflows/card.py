"""The model card of an export: what it was made from and how, what it scores, and how to load it."""

from typing import TYPE_CHECKING, Any

import yaml

from perdure.evaluate.matrix import MEANING, learned_stages
from perdure.ledger import Entry

if TYPE_CHECKING:
    from perdure.workflows.workspace import Workspace

EMBEDDED = {"smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct"}  # what the embedded model was quantised from

LEVELS = ("acc", "learning_accuracy")  # metrics that are scores; the others are differences of scores


def card(ws: "Workspace", entry: Entry, kind: str, told: dict[str, Any]) -> str:
    """Return the card, Markdown with the front matter the hub reads.

    Args:
        ws: The workspace.
        entry: What is exported.
        kind: "adapter" or "merged".
        told: What the export found out: "rank", and "relative_error", or "difference" and "tolerance".
    """
    title = " + ".join(entry.tasks) or "base model"
    parts = [
        _front(ws, kind),
        f"# {title}",
        _intro(ws, entry, kind, told),
        "## Scores",
        *_scores(ws, entry),
        "## Load it",
        _usage(ws, kind, told),
        "## How it was made",
        *_history(ws, entry),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(ws: "Workspace", kind: str) -> str:
    base = _origin(ws)
    adapter = kind == "adapter"
    facts = {
        "library_name": "peft" if adapter else "transformers",
        "base_model": base,
        "base_model_relation": "adapter" if adapter else "finetune",
        "pipeline_tag": "text-generation",
        "tags": ["continual-learning", *(["lora"] if adapter else []), "perdure"],
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---"


def _intro(ws: "Workspace", entry: Entry, kind: str, told: dict[str, Any]) -> str:
    config = ws.ledger.config
    what = f"LoRA adapter of rank {told['rank']}" if kind == "adapter" else "whole model, no adapter needed,"
    lines = [
        f"A {what} that learned {len(entry.tasks)} task{'' if len(entry.tasks) == 1 else 's'} one after another with "
        f"perdure, exported from entry `{entry.id[:12]}`.",
        "",
        f"- Base model: `{_origin(ws)}`"
        + (f", revision `{config['revision']}`" if config.get("revision") else "")
        + f", {config['dtype']}, hash of configuration and weights `{config['weights']}`",
        f"- Entry: `{entry.id}`",
    ]
    if config["model"] in EMBEDDED:
        lines.append("- The base weights are a 4-bit release of that model, de-quantised; on others scores may differ.")
    if "relative_error" in told:
        lines.append(
            f"- Truncated to rank {told['rank']}: relative error {told['relative_error']:.2g}; not scored since."
        )
    if "difference" in told:
        lines.append(
            f"- Merging changed a logit by at most {told['difference']:.2g} on a probe (allowed {told['tolerance']:.2g})."
        )
    return "\n".join(lines)


def _scores(ws: "Workspace", entry: Entry) -> list[str]:
    """Return the table of scores, the metrics, and the gate's verdict."""
    if not entry.tasks:
        return ["No task was learned."]
    matrix = ws.matrix(entry.id)
    state = ws.ledger.state(entry)
    found = ws.ledger.scores([state], entry.tasks.values())
    table = ["| Task | Scorer | Score | 95% interval | n | When learned | Change |", "|---|---|---|---|---|---|---|"]
    for j, (name, stage) in enumerate(zip(matrix["tasks"], learned_stages(matrix), strict=True)):
        record = found.get((state, entry.tasks[name]))
        if record is None:
            table.append(f"| {name} | | not measured | | | | |")
            continue
        then = None if stage is None else matrix["score"][stage][j]
        since = "| | |" if then is None else f"| {_percent(then)} | {_points(record['score'] - then)} |"
        interval = f"{_percent(record['low'])} to {_percent(record['high'])}"
        table.append(
            f"| {name} | {record['scorer']} | {_percent(record['score'])} | {interval} | {record['n']} {since}"
        )
    metrics = ["| Metric | Value | 95% interval | Meaning |", "|---|---|---|---|"]
    for name, meaning in MEANING.items():
        metric = matrix["metrics"][name]
        if metric["value"] is None:
            metrics.append(f"| {name} | | | {meaning} ({metric['missing']}) |")
        else:
            shown = _percent if name in LEVELS else _points
            interval = f"{shown(metric['low'])} to {shown(metric['high'])}"
            metrics.append(f"| {name} | {shown(metric['value'])} | {interval} | {meaning} |")
    gate = (ws.ledger.notes(entry.id).get("record") or {}).get("gate")
    verdict = f"Gate: **{gate['verdict']}** ({gate.get('reason', '')})." if gate else ""
    return ["\n".join(table), "\n".join(metrics), verdict]


def _usage(ws: "Workspace", kind: str, told: dict[str, Any]) -> str:
    if kind == "merged":
        return (
            "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER")\n'
            'tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_FOLDER")\n```\n\n'
            "```bash\nvllm serve PATH_OF_THIS_FOLDER\n```"
        )
    base, revision = _origin(ws), ws.ledger.config.get("revision")
    at = f', revision="{revision}"' if revision else ""
    return (
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{base}", dtype="{ws.ledger.config["dtype"]}"{at})\n'
        'model = PeftModel.from_pretrained(base, "PATH_OF_THIS_FOLDER")\n'
        'tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_FOLDER")\n```\n\n'
        f"```bash\nvllm serve {base}{f' --revision {revision}' if revision else ''} --enable-lora "
        f"--max-lora-rank {told['max_lora_rank']} --lora-modules NAME=PATH_OF_THIS_FOLDER\n```"
    )


def _history(ws: "Workspace", entry: Entry) -> list[str]:
    """Return the line of entries with data and seeds, the recipe, and the software."""
    table = ["| Entry | Kind | Task | Task version | Train data | Seed |", "|---|---|---|---|---|---|"]
    for one in reversed(ws.ledger.ancestors(entry)):
        cells = [
            _hash(one.id),
            one.kind,
            one.task or "",
            _hash(one.tasks.get(one.task or "")),
            _hash(one.data.get("train")),
            str(one.seed),
        ]
        table.append(f"| {' | '.join(cells)} |")
    notes = ws.ledger.notes(entry.id)
    software = ", ".join(f"{name} {version}" for name, version in (notes.get("software") or {}).items())
    recipe = f"```yaml\n{yaml.safe_dump(entry.recipe, sort_keys=False)}```" if entry.recipe else ""
    return [
        "\n".join(table),
        "Recipe of the last learn:" if recipe else "",
        recipe,
        f"Software: {software}" * bool(software),
    ]


def _origin(ws: "Workspace") -> str:
    model = ws.ledger.config["model"]
    return EMBEDDED.get(model, model)


def _hash(value: str | None) -> str:
    return f"`{value[:12]}`" if value else ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _points(difference: float) -> str:
    return f"{100 * difference + 0.0:+.1f} points"
