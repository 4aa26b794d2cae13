"""Formats: the columns that each of them needs, and the conversion of its records to rows."""

import string
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from perdure.core.errors import BadInput, BadSpec
from perdure.core.plain_text import quoted
from perdure.core.rows import Message, Row
from perdure.data.cells import date_in, joined, refuse_missing, text_in
from perdure.data.checked import from_aliases, from_checks
from perdure.data.choices import LETTERED, from_choices, from_contexts, with_prompt
from perdure.data.columns import CHOOSING, IN_FILE, LABELLED, PLACED, advice, answer_advice, listed, refuse_pairs
from perdure.data.columns import FORMATS as FORMATS
from perdure.data.label_sets import EMPTY, answer_of_set, label_of_set
from perdure.data.programs import program_check
from perdure.data.read import Record
from perdure.data.systems import with_system, with_system_column
from perdure.data.turns import conversation, turns_of

DEFAULT_TEMPLATE = "Classify the text.\nText: {text}\nLabel:"
"""Prompt of `text_label` unless the task sets its own."""

TEMPLATED = (*LABELLED, "prompt_completion", "choices")
"""Formats whose prompt a template can make."""

MOST_PARTS, MOST_CHARACTERS = 100, 50_000  # limits of a template: each placeholder may be replaced by a whole cell


def detect(
    records: Sequence[Record], template: str | None = None, mapped: Collection[str] = (), *, how: str = IN_FILE
) -> str:
    """Return the format of most records.

    With a `template` the format is "choices" where there are choices and a gold one, and neither a label nor a completion is
    mapped. It is "prompt_completion" if a completion is mapped and no label is, or if there is a completion and no label. Else it
    is "text_label", whatever the columns are called, or "text_labels" where a label is a list. A record that only lacks a column
    of that format is refused later, by `to_rows`.

    Args:
        records: The records of one file.
        template: Prompt, with columns as placeholders.
        mapped: Names that the user mapped columns to; a format that reads them is preferred.
        how: How the user can name the role of a column (see `columns`).

    Raises:
        BadInput: No record has a known format, or one has another format than most.
    """
    if template is not None:
        return _templated(records, template, mapped, how)
    kinds = [_kind(record, mapped) for record in records]
    counts = Counter(kind for kind in kinds if kind is not None)
    if not counts:
        refuse_pairs(records[0].source, records[0].columns)
        known = " | ".join(dict.fromkeys(" + ".join(columns) for columns in FORMATS.values()))
        raise BadInput(
            f"{records[0].source} has columns {listed(sorted(records[0].columns))}; known formats need {known}; "
            f"{advice(records, how)}"
        )
    most = counts.most_common(1)[0][0]
    for record, kind in zip(records, kinds, strict=True):
        if kind is not None and not set(FORMATS[kind]) <= set(FORMATS[most]):
            raise BadInput(
                f"{record.source} is {kind} (columns {listed(sorted(record.columns))}), but {counts[most]} rows are {most}, "
                f"the first {records[kinds.index(most)].source}; keep one format per file, or set `format` in a task file"
            )
    return most


def _templated(records: Sequence[Record], template: str, mapped: Collection[str], how: str) -> str:
    """Return the format of rows whose prompt a template makes."""
    columns = {name for record in records for name in record.columns}
    if {"choices", "gold"} <= columns and not {"completion", "label"} & set(mapped):
        return "choices"
    chosen = "completion" in mapped and "label" not in mapped
    if "completion" in columns and (chosen or not ("label" in columns or "label" in mapped)):
        return "prompt_completion"
    if not ("label" in columns or "label" in mapped):
        raise BadInput(
            f"{records[0].source}: the template makes the prompt, and no column is the answer; "
            f"{answer_advice(records, names_in(template), how)}"
        )
    return "text_labels" if any(isinstance(record.fields.get("label"), list) for record in records) else "text_label"


def to_rows(
    records: Sequence[Record],
    format: str,
    *,
    task: str = "",
    template: str | None = None,
    labels: Mapping[str, str] | None = None,
    mapped: Collection[str] = (),
    system: str | None = None,
) -> list[Row]:
    r"""Return one row for each record, in order.

    Args:
        records: The records of one file.
        format: A key of `FORMATS`.
        task: Name of the task, written into the rows.
        template: Prompt of `text_label`, `prompt_completion` or `choices`, with columns as placeholders:
            "Request: {text}\nIntent:". In `choices` the placeholder {choices} stands for lines "A. text", and then the letters
            are the choices.
        labels: Text of a label in the completion of `text_label`. A label that is not in it is
            written with its underscores as spaces.
        mapped: Names that the user mapped columns to; a `context` among them is put before the question.
        system: System prompt of the task, for the rows that have none of their own.

    Raises:
        BadInput: A record lacks a column or has nothing to train; the message has its line.
        BadSpec: `template`, `labels` or `system` is given for another format, or the template names no column.
    """
    needed, convert = FORMATS[format], _CONVERT.get(format)
    if (labels and format not in LABELLED) or (template is not None and format not in TEMPLATED):
        setting, formats = (
            ("labels", " and ".join(LABELLED)) if template is None else ("template", " and ".join(TEMPLATED))
        )
        raise BadSpec(
            f"`{setting}` belongs to the format {formats}, but the data are {format}; remove it or set `format`"
        )
    if convert is None or template is not None:
        placeholders = (
            ["text"] if template is None else _checked_names(template, {n for r in records for n in r.columns})
        )
        prompt = _prompter(DEFAULT_TEMPLATE if template is None else template, placeholders)
        makers = {"text_label": _classifier, "text_labels": _set_classifier}
        if format in LABELLED:
            convert = makers[format](prompt, labels or {})
        elif format in CHOOSING:
            convert = with_prompt(prompt, lettered=LETTERED in placeholders)
        else:
            convert = _completer(prompt)
        needed = (*placeholders, *FORMATS[format][1:])
    elif "context" in mapped:
        convert = _with_context(convert, format)
    placed = PLACED if format in CHOOSING else tuple(name for name in PLACED if name in mapped)
    completed = (with_system_column(record, system, format) for record in records)
    return [with_system(_to_row(record, needed, convert, format, task, placed), system, format) for record in completed]


def names_in(template: str) -> list[str]:
    """Return the placeholders of `template`, each once, in order.

    Raises:
        BadSpec: The template is malformed, has no placeholder, or one with a format.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise BadSpec(f"template {quoted(template)}: {error}; write {{column}}, and {{{{ for a brace") from error
    if len(parts) > MOST_PARTS or len(template) > MOST_CHARACTERS:
        raise BadSpec(
            f"the template has {len(parts):,} placeholders and {len(template):,} characters; {MOST_PARTS:,} and "
            f"{MOST_CHARACTERS:,} are the most"
        )
    if any(spec or conversion for _, _, spec, conversion in parts):
        raise BadSpec(f"template {quoted(template)} uses a format after ':' or '!'; write plain {{column}}")
    names = list(dict.fromkeys(name for _, name, _, _ in parts if name is not None))
    if not names:
        raise BadSpec(f"template {quoted(template)} names no column; write one as {{text}}")
    return names


def label_text(label: str, labels: Mapping[str, str]) -> str:
    """Return the text of `label`: the one given, else its name with underscores as spaces."""
    return labels.get(label, label.replace("_", " "))


def fill(template: str, values: Mapping[str, Any]) -> str:
    """Return `template` with its placeholders replaced; unlike in `str.format`, "a.b" is the name of a column."""
    parts = string.Formatter().parse(template)
    return "".join(literal + ("" if name is None else str(values[name])) for literal, name, _, _ in parts)


def alpaca_prompt(instruction: str, input: str = "", system: str = "", history: Sequence[tuple[str, str]] = ()) -> str:
    """Return the standard Alpaca prompt, up to and with the line break after "### Response:".

    A `system` text replaces the opening sentences, and the past turns of `history` (question, answer) come before the
    instruction as separate blocks. The original prompt has neither.
    """
    paired = ", paired with an input that provides further context" if input else ""
    opening = system or (
        f"Below is an instruction that describes a task{paired}. "
        "Write a response that appropriately completes the request."
    )
    past = "".join(f"\n\n### Instruction:\n{question}\n\n### Response:\n{answer}" for question, answer in history)
    given = f"\n\n### Input:\n{input}" if input else ""
    return f"{opening}{past}\n\n### Instruction:\n{instruction}{given}\n\n### Response:\n"


def _checked_names(template: str, columns: Collection[str]) -> list[str]:
    names = names_in(template)
    for name in names:
        if name not in columns:
            near = get_close_matches(name, columns, n=1)
            hint = f"did you mean {{{near[0]}}}?" if near else f"columns are {listed(sorted(columns))}"
            raise BadSpec(f"template {quoted(template)} names {{{name[:60]}}}, which is not a column; {hint}")
    return names


def _kind(record: Record, mapped: Collection[str] = ()) -> str | None:
    kinds = [format for format, columns in FORMATS.items() if record.columns.issuperset(columns)]
    kind = max(
        kinds, key=lambda format: len(set(mapped) & set(FORMATS[format])), default=None
    )  # of equal ones the first
    return "text_labels" if kind == "text_label" and isinstance(record.fields["label"], list) else kind


def _to_row(
    record: Record,
    needed: Sequence[str],
    convert: Callable[[Record], Row],
    format: str,
    task: str,
    placed: Sequence[str] = (),
) -> Row:
    missing = [name for name in needed if name not in record.columns]
    if missing:
        raise BadInput(
            f"{record.source} has no {' and no '.join(missing)}, which {format} needs (its columns: "
            f"{listed(sorted(record.columns))}); fill it in or remove the row"
        )
    row = convert(record)
    row = replace(row, label=row.label or _label(record), task=task, source=record.source)
    if placed:
        row = replace(
            row,
            date=date_in(record, "date") if "date" in placed else None,
            group=text_in(record, "group").strip() if "group" in placed else "",
        )
    try:
        row.hash  # noqa: B018 - computed here, where the line is known, because half a surrogate pair has no bytes
    except UnicodeEncodeError as error:
        raise BadInput(f"{record.source} holds half of a surrogate pair (\\ud800 to \\udfff); remove it") from error
    return row


def _label(record: Record) -> str | None:
    return _label_of(record.fields.get("label"), record)


def _label_of(value: Any, record: Record) -> str | None:
    if isinstance(value, str):
        value = value.strip()  # spaces around a label are a mistake, and would make another class
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return str(value).lower()
    refuse_missing(value, "label", record)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # tables store whole numbers as 1.0 when a cell is null
    if isinstance(value, str | int | float):
        return str(value)
    raise BadInput(f"{record.source}: label must be one text or number, got a {type(value).__name__}")


def _prompted(prompt: str, completion: str) -> Row:
    """Return a plain-text row; prompt and completion are joined by a space where neither has one, as a tokenizer expects."""
    return Row(prompt=prompt, completion=joined(prompt, completion))


def _from_messages(record: Record) -> Row:
    return conversation(_with_system_turn(record, turns_of(record.fields["messages"], record.source)), record)


def _from_sharegpt(record: Record) -> Row:
    turns = turns_of(record.fields["conversations"], record.source, "from", "value")
    return conversation(_with_system_turn(record, turns), record)


def _with_system_turn(record: Record, turns: list[Message]) -> list[Message]:
    """Return the turns, with the column `system` as the first turn if there is one."""
    system = text_in(record, "system")
    return [Message("system", system), *turns] if system and Message("system", system) not in turns[:1] else turns


def _from_prompt_completion(record: Record) -> Row:
    prompt, completion = record.fields["prompt"], record.fields["completion"]
    if isinstance(prompt, list) and isinstance(completion, list):
        turns = [*turns_of(prompt, record.source), *turns_of(completion, record.source)]
        return conversation(_with_system_turn(record, turns), record)
    if isinstance(prompt, list) or isinstance(completion, list):
        raise BadInput(f"{record.source}: prompt and completion must be both text or both lists of messages")
    return _prompted(text_in(record, "prompt"), text_in(record, "completion", required=True))


def _from_alpaca(record: Record) -> Row:
    history = record.fields.get("history")
    history = [] if history is None else history
    pairs = isinstance(history, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in history)
    if not pairs or any(not isinstance(side, str) for pair in history for side in pair):
        raise BadInput(f"{record.source}: history must be a list of [question, answer]")
    prompt = alpaca_prompt(
        text_in(record, "instruction"),
        text_in(record, "input"),
        text_in(record, "system"),
        [(q, a) for q, a in history],
    )
    return _prompted(prompt, text_in(record, "output", required=True))


def _from_query_response(record: Record) -> Row:
    return _prompted(text_in(record, "query"), text_in(record, "response", required=True))


def _from_text(record: Record) -> Row:
    return Row(completion=text_in(record, "text", required=True))


def _from_programs(record: Record) -> Row:
    test, entry_point = (text_in(record, column, required=True) for column in ("test", "entry_point"))
    check = program_check(test, entry_point)
    return Row(
        prompt=text_in(record, "prompt", required=True), completion=text_in(record, "completion"), checks=(check,)
    )


def _prompter(template: str, placeholders: Sequence[str]) -> Callable[[Record], str]:
    def prompt(record: Record) -> str:
        for name in placeholders:
            value = record.fields[name]
            refuse_missing(value, name, record)
            if isinstance(value, list | tuple | dict | bytes):
                raise BadInput(
                    f"{record.source}: {name} is a {type(value).__name__}, and a prompt is made of texts and numbers; write it "
                    "as text"
                )
        if not any(str(record.fields[name]).strip() for name in placeholders):
            raise BadInput(
                f"{record.source}: {' and '.join(placeholders)} is empty, so the prompt is empty; fill it in or remove the row"
            )
        return fill(template, record.fields)

    return prompt


def _classifier(prompt: Callable[[Record], str], labels: Mapping[str, str]) -> Callable[[Record], Row]:
    def convert(record: Record) -> Row:
        text, label = prompt(record), _label(record)
        if label is None or not label.strip():
            raise BadInput(
                f"{record.source}: label is empty, so there is nothing to train; fill it in or remove the row"
            )
        return Row(prompt=text, completion=f" {label_text(label, labels)}")

    return convert


def _set_classifier(prompt: Callable[[Record], str], texts: Mapping[str, str]) -> Callable[[Record], Row]:
    """Return a conversion of rows with a list of labels; a single label instead of a list counts as a list of one."""

    def convert(record: Record) -> Row:
        value = record.fields["label"]
        labels = [_label_of(item, record) for item in (value if isinstance(value, list) else [value])]
        named = [label for label in labels if label is not None and label.strip()]
        if len(named) < len(labels):
            raise BadInput(
                f"{record.source}: a label of the list is empty; remove it (an empty list means that none applies)"
            )
        known = {label: label_text(label, texts) for label in (*named, EMPTY)}
        return Row(
            prompt=prompt(record),
            completion=f" {answer_of_set(named, known, record.source)}",
            label=label_of_set(named),
        )

    return convert


def _completer(prompt: Callable[[Record], str]) -> Callable[[Record], Row]:
    return lambda record: _prompted(prompt(record), text_in(record, "completion", required=True))


def _with_context(convert: Callable[[Record], Row], format: str) -> Callable[[Record], Row]:
    """Return a conversion that puts the column `context` before the question, where a row has one."""
    question = FORMATS[format][0]

    def with_context(record: Record) -> Row:
        context = text_in(record, "context")
        if not context.strip():
            return convert(record)
        more = {"input": context} if format == "alpaca" else {question: f"{context}\n\n{text_in(record, question)}"}
        return convert(replace(record, fields={**record.fields, **more}))

    return with_context


_CONVERT: dict[str, Callable[[Record], Row]] = {
    "messages": _from_messages,
    "sharegpt": _from_sharegpt,
    "prompt_completion": _from_prompt_completion,
    "alpaca": _from_alpaca,
    "query_response": _from_query_response,
    "choices": from_choices,
    "contexts": from_contexts,
    "checks": from_checks,
    "aliases": from_aliases,
    "text": _from_text,
    "programs": _from_programs,
}
