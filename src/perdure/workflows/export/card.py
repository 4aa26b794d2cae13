"""The model card of an export: origin, scores, use and history."""

from perdure.bridges.card import model_card
from perdure.core.plain_text import visible
from perdure.core.words import counted
from perdure.ledger import Entry, Ledger
from perdure.workflows.export.card_record import EMBEDDED, initial_adapter, origin
from perdure.workflows.export.card_scores import FACTS, fact_lines, guard_lines, history, scores
from perdure.workflows.export.card_words import code, loss_of, plain
from perdure.workflows.export.result import AdapterExport, Export, MergedExport
from perdure.workflows.fact_records import record_at


def card(ledger: Ledger, entry: Entry, made: Export) -> str:
    """Return the card, Markdown with the front matter the hub reads.

    Args:
        ledger: Of the workspace.
        entry: What is exported.
        made: The export, its files not yet known.
    """
    record = record_at(ledger, entry)
    count = len(record.facts)
    facts = counted(count, "edited fact")
    title = " + ".join([*map(ledger.shown_name, entry.tasks), *([facts] if count else [])]) or "base model"
    parts = [
        f"# {title}",
        _intro(ledger, entry, made),
        "## Scores",
        *scores(ledger, entry),
        *guard_lines(ledger, entry),
        *fact_lines(record),
        *_systems(ledger, entry),
        "## Load it",
        _usage(ledger, made),
        "## How it was made",
        *history(ledger, entry),
    ]
    adapter = isinstance(made, AdapterExport)
    return model_card(
        "\n\n".join(part for part in parts if part) + "\n",
        library_name="peft" if adapter else "transformers",
        base_model=visible(origin(ledger)),
        base_model_relation="adapter" if adapter else "finetune",
        pipeline_tag="text-generation",
        tags=["continual-learning", *(["lora"] if adapter else []), "perdure"],
    )


def _intro(ledger: Ledger, entry: Entry, made: Export) -> str:
    config = ledger.config
    adapter = made if isinstance(made, AdapterExport) else None
    what = f"LoRA adapter of rank {adapter.rank}" if adapter else "whole model, no adapter needed,"
    what = what if ledger.slots(entry) else "copy of the base model"
    did = _did(ledger, entry, edited=bool(made.facts))
    lines = [
        f"A {what} {did} with perdure, exported from entry `{entry.id[:12]}`.",
        "",
        f"- Base model: {code(origin(ledger))}"
        + (f", revision {code(revision)}" if (revision := config.get("revision")) else "")
        + f", {config['dtype']}, hash of weights, configuration, tokenizer and dtype `{config['base']}`",
        f"- Entry: `{entry.id}`",
    ]
    if given := initial_adapter(ledger):
        lines.append(
            f"- It contains the adapter {code(given.folder)} ({counted(given.modules, 'layer')}, rank {given.rank}), which the "
            "work began with and which stayed as it was."
        )
    if kind := config.get("quantization"):
        lines.append(
            f"- It was trained and scored over a base in {kind} (bitsandbytes). Over plain weights its answers may differ."
        )
    if config["model"] in EMBEDDED:
        lines.append("- The base weights are a 4-bit release of that model, de-quantised; on others scores may differ.")
    if adapter and adapter.relative_error is not None and adapter.held_out:
        lines.append(
            f"- Truncated to rank {adapter.rank}: relative error {adapter.relative_error:.2g}; held-out text went from "
            f"{loss_of(adapter.held_out)}. The tasks were not scored since."
        )
    if check := made.facts:
        form = f"this adapter in {adapter.dtype}" if adapter else "this model"
        lost = ", ".join(f"{plain(gone.subject)} (`{gone.fact[:12]}`)" for gone in check.lost[:FACTS])
        lines.append(
            f"- Of {check.n} facts {check.said} are said by {form}, {check.said_before} by the state it was made "
            f"from; their targets went from {loss_of(check)}." + (f" No longer said: {lost}." if lost else "")
        )
    if isinstance(made, MergedExport):
        lines.append(
            f"- Merging changed a logit by at most {made.difference:.2g} on a probe (allowed {made.tolerance:.2g})."
        )
    return "\n".join(lines)


def _systems(ledger: Ledger, entry: Entry) -> list[str]:
    """Return the system prompts of the tasks in training and scoring; nothing without system prompts."""
    settings = {name: ledger.settings(name, version) for name, version in entry.tasks.items()}
    lines = [
        f"- {plain(ledger.shown_name(name))}: {plain(values['system'])}"
        for name, values in settings.items()
        if values.get("system")
    ]
    if not lines:
        return []
    how = "The tasks were trained and scored with these system prompts; where rows are plain text, the prompt begins with it."
    return ["## System prompts", how, "\n".join(lines)]


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


def _usage(ledger: Ledger, made: Export) -> str:
    if isinstance(made, MergedExport):
        return (
            "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            'model = AutoModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER")\n'
            'tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_FOLDER")\n```\n\n'
            "```bash\nvllm serve PATH_OF_THIS_FOLDER\n```"
        )
    base, revision = origin(ledger), ledger.config.get("revision")
    at = f', revision="{revision}"' if revision else ""
    return (
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{base}", dtype="{ledger.config["dtype"]}"{at})\n'
        'model = PeftModel.from_pretrained(base, "PATH_OF_THIS_FOLDER")\n'
        'tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_FOLDER")\n```\n\n'
        + _served(f"{base}{f' --revision {revision}' if revision else ''}", made)
    )


def _served(base: str, made: AdapterExport) -> str:
    """Return how a server takes the adapter, or why not."""
    if made.experts:
        return (
            "The adapter has factors of experts. PEFT adds their product to the weights and rounds the sum to the dtype of the "
            "weights: a base in float32 computes what was trained. vLLM was not tried with factors of experts."
        )
    if not made.max_lora_rank:
        return f"vLLM serves no adapter of rank {made.rank}."
    return (
        f"```bash\nvllm serve {base} --enable-lora "
        f"--max-lora-rank {made.max_lora_rank} --lora-modules NAME=PATH_OF_THIS_FOLDER\n```"
    )
