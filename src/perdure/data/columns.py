"""Columns of a file: the names under which they are read, and notices about columns that nothing reads."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from perdure.core.errors import BadInput, BadSpec
from perdure.core.plain_text import clipped, quoted, visible
from perdure.data.guesses import ANSWERS, CONTEXTS, MEDIA, answer_column, folded, harmless, pair
from perdure.data.read import Record
from perdure.data.turns import ROW_FIELDS

FORMATS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "choices": ("prompt", "choices", "gold"),
    "contexts": ("contexts", "choices", "gold"),
    "prompt_completion": ("prompt", "completion"),
    "aliases": ("prompt", "completion", "aliases"),
    "alpaca": ("instruction", "output"),
    "query_response": ("query", "response"),
    "checks": ("prompt", "instruction_ids"),
    "text_label": ("text", "label"),
    "text_labels": ("text", "label"),
    "text": ("text",),
    "programs": ("prompt", "test", "entry_point"),
}
"""Columns a format needs. A record has the first format whose columns it has all; `text_labels` if its label is a list."""

LABELLED = ("text_label", "text_labels")
"""Formats whose answer is a label, or several."""

CHOOSING = ("choices", "contexts")
"""Formats whose rows have choices, of which one is right."""

CHECKED = {"checks": "checks", "aliases": "checks", "programs": "programs"}
"""Scorer of the formats whose answers are compared with the checks of their row. A question has their prompt alone."""

PLACED = ("group", "date")
"""Columns that name what a row belongs to, and not what it asks. The formats with choices read them, the others where mapped."""

MORE: dict[str, tuple[str, ...]] = {
    "messages": ("system", *ROW_FIELDS),
    "sharegpt": ("system", *ROW_FIELDS),
    "alpaca": ("input", "system", "history"),
    "choices": (*PLACED, "completion"),  # a completion beside choices is the right one again, and `gold` decides
    "contexts": (*PLACED, "completion"),
    "checks": ("kwargs",),
    "programs": ("completion",),
}
"""Optional columns of a format. Every format also reads `label` and `split`."""

CONTEXT = ("prompt_completion", "alpaca", "query_response")
"""Formats that put a `context` before the question, if the user maps a column to it."""

_COLUMNS = [names for format, names in (*FORMATS.items(), *MORE.items()) if format != "programs"]
ROLES = tuple(dict.fromkeys(name for names in (*_COLUMNS, ("context", "split")) for name in names))
"""Names that a column can be mapped to; the format programs has its own alone. In a file they may be in other case, but for
those of `PLACED`."""

IN_TASK, IN_FILE = "task", "file"
"""How the user can name the role of a column: by a mapping, or in the file alone."""

_FACTS = frozenset(
    ["ground_truth", "kind", "neighbours", "object", "paraphrases", "reason", "relation", "subject", "target"]
)
_SHOWN = 8  # columns that one line names


@dataclass(frozen=True)
class Unread:
    """Columns with data that nothing reads.

    Args:
        columns: Their names, in the order of the file.
        notices: Notices for the user; none about columns that name the origin of a row.
    """

    columns: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def take(
    records: Sequence[Record], columns: Mapping[str, str], file: str, *, lists: bool = False
) -> tuple[list[Record], list[str]]:
    """Return the records with their columns also under the names that are read, and notices for the user.

    A mapped column keeps its own name too, so that a template may use either. A name that differs from a known one only in
    upper and lower case counts as that name.

    Args:
        records: The rows of one file.
        columns: Column of the file by the name it is to be read under: {"prompt": "question"}.
        file: The file, for errors.
        lists: Read a column `labels` of lists as `label`, where there is a text and no label.

    Raises:
        BadSpec: The file has no such column; the message has the nearest.
    """
    names = _counts(records)
    for role, column in columns.items():
        if column not in names:
            near = _nearest(column, names) or f"; it has {listed(names)}"
            raise BadSpec(
                f"`columns` takes {role} from {quoted(column)}, a column that {file} does not have or fill{near}"
            )
    cased = _other_case(names, columns)
    if lists and (several := _label_lists(records, names, {**cased, **columns})):
        cased["label"] = several
    taken = {**cased, **columns}
    if not taken:
        return list(records), []
    renamed = [
        Record({**record.fields, **{role: record.fields.get(name) for role, name in taken.items()}}, record.source)
        for record in records
    ]
    notices = [f"{file}: {listed(cased.values())} is read as {listed(cased)}"] if cased else []
    return renamed, notices


def _label_lists(records: Sequence[Record], names: Collection[str], taken: Mapping[str, str]) -> str | None:
    """Return the column `labels` of texts with several labels a row; None where there is none, or a label beside it.

    Lists of numbers are left: a file of tokens has such a column, too.
    """
    columns = [name for name in names if folded(name) == "labels" and name not in taken.values()]
    if len(columns) != 1 or "label" in names or "label" in taken or not ("text" in names or "text" in taken):
        return None
    cells = [cell for record in records if (cell := record.fields.get(columns[0])) is not None]
    lists = any(cells) and all(isinstance(cell, list) for cell in cells)
    return columns[0] if lists and all(isinstance(item, str) for cell in cells for item in cell) else None


def _other_case(names: Collection[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return columns by role whose names equal the role except for case, where a role has one such column."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(name.casefold(), []).append(name)
    roles = [role for role in ROLES if role not in columns and role not in PLACED]
    one = {role: alike[role][0] for role in roles if len(alike.get(role, ())) == 1}
    return {role: name for role, name in one.items() if name != role and name not in columns.values()}


def read_by(
    format: str, placeholders: Collection[str] | None, columns: Collection[str], *, chat: bool = False
) -> list[str]:
    """Return the columns that a format reads: those in its template (`placeholders`), and those mapped to roles by `columns`.

    With `chat`, prompt and completion are the turns of a conversation.
    """
    answers = FORMATS[format][1:]
    if placeholders is not None:
        names = [*placeholders, *answers, *(MORE[format] if format in CHOOSING else ())]
    else:
        names = [*FORMATS[format], *MORE.get(format, ())]
    names += MORE["messages"] if chat else ()
    return [
        *names,
        *(["context"] if "context" in columns and format in CONTEXT and placeholders is None else []),
        *(name for name in PLACED if name in columns),
        "label",
        "split",
    ]


def check(
    records: Sequence[Record],
    format: str,
    read: Collection[str],
    *,
    columns: Mapping[str, str] | None = None,
    chosen: bool = False,
    facts: bool = False,
    how: str = IN_TASK,
) -> Unread:
    """Return the columns that nothing reads, with notices for the user.

    Args:
        records: The rows, as `take` returned them.
        format: Their format.
        read: The columns it reads.
        columns: The user's mapping of columns.
        chosen: Whether the user chose the format, and so leaves out the other columns on purpose.
        facts: Whether the file may have facts too, whose columns are read elsewhere.
        how: How the user can name the role of a column: `IN_TASK` or `IN_FILE`.

    Raises:
        BadInput: The file has preference data or images, or a column that is essential for the task is not read.
        BadSpec: A mapping is of no use to this format.
    """
    columns = columns or {}
    if useless := [role for role, column in columns.items() if role not in read and column not in read]:
        raise BadSpec(
            f"`columns` gives {useless[0]}, and the format {format} reads {listed(dict.fromkeys(read))} alone"
        )
    first = records[0]
    counts = {name: n for name, n in _counts(records, filled=True).items() if name not in {*read, *columns.values()}}
    # a column that `take` reads under another name occurs a second time, under its own name
    counts = {
        name: n for name, n in counts.items() if not any(_same(records, name, role) for role in _names_of(name, read))
    }
    _refuse_preferences(records, format, counts)
    if format not in ("text", *LABELLED) and (media := [name for name in counts if folded(name) in MEDIA]):
        raise BadInput(
            f"{first.source}: the column {listed(media[:1])} is not read, for perdure trains on text alone; remove it, and the "
            "rows whose answers need it"
        )
    wanted = None if chosen else _left_out(format, counts, records)
    if wanted:
        raise BadInput(
            f"{first.source}: the rows would be trained as {format}, and {listed(wanted.values())} would not be read; "
            f"to read it, {written(wanted, how)}{'; to leave it out, give --format ' + format if how == IN_TASK else ''}"
        )
    relevant = [name for name in counts if not harmless(name) and not (facts and name in _FACTS)]
    return Unread(tuple(counts), (_notice(counts, relevant, format),) if relevant else ())


def written(columns: Mapping[str, str], how: str = IN_TASK) -> str:
    """Return the text that shows the user how to name the roles of columns."""
    plain = {role: visible(clipped(column, 60)) for role, column in columns.items()}
    if how == IN_FILE:
        return f"rename {', '.join(f'{column} to {role}' for role, column in plain.items())} in the file"
    line, yaml = ",".join(map("=".join, plain.items())), ", ".join(map(": ".join, plain.items()))
    return f"give --columns {line} (`columns: {{{yaml}}}` in a task file)"


def advice(records: Sequence[Record], how: str) -> str:
    """Return advice for a file of no known format: the mapping that its columns suggest, or how to write one."""
    names = list(_counts(records, filled=True))
    roles = pair(names)
    deep = {name: value for name in (roles or {}).values() if isinstance(value := _first(records, name), dict | list)}
    if deep:
        name, value = next(iter(deep.items()))
        return (
            f"{visible(clipped(name, 40))} holds {nested(value)}; write the text in a column of its own, then "
            f"{written(roles or {}, how)} with that column"
        )
    if roles:
        return written(roles, how)
    if "label" in names or "label" in map(str.casefold, names):
        texts = [name for name in names if name.casefold() not in ("label", "split") and not harmless(name)]
        holes = " ".join(f"{{{visible(clipped(name, 40))}}}" for name in texts[:3]) or "{column}"
        return f"name the columns of the question in a template (--template '{holes}')"
    answer = next((name for name in names if folded(name) in ANSWERS), None)
    rest = [name for name in names if name != answer and not harmless(name)] or [n for n in names if n != answer]
    prompt, *others = [*rest, "COLUMN"]
    columns = {"prompt": prompt, "completion": answer or (others or ["COLUMN"])[0]}
    return f"name the role of each column: {written(columns, how)}"


def answer_advice(records: Sequence[Record], prompt: Collection[str], how: str) -> str:
    """Return how to name the column that is the answer to a prompt which a template makes of the columns `prompt`."""
    names = [name for name in _counts(records, filled=True) if name not in prompt]
    role, column = answer_column(names) or ("completion", "COLUMN")
    return f"name it: {written({role: column}, how)}"


def nested(value: dict[str, Any] | list[Any]) -> str:
    """Return a description of a cell that is no text: "a list of 2", "an object (text, answer_start)"."""
    return f"an object ({listed(value)})" if isinstance(value, dict) else f"a list of {len(value)}"


def _first(records: Sequence[Record], name: str) -> Any:
    return next((value for record in records if (value := record.fields.get(name)) not in (None, "", [], {})), None)


def listed(names: Iterable[str]) -> str:
    """Return names for people: the first few, long ones shortened."""
    all = [visible(clipped(str(name), 40)) for name in names]
    return ", ".join(all[:_SHOWN]) + (f" and {len(all) - _SHOWN} more" if len(all) > _SHOWN else "") or "(none)"


def _notice(counts: Mapping[str, int], relevant: Sequence[str], format: str) -> str:
    """Return the line that names the columns that are not read, those that may matter first."""
    order = sorted(counts, key=lambda name: (name not in relevant, -counts[name]))
    shown = listed(f"{clipped(name, 28)} ({counts[name]:,})" for name in order)
    first = visible(clipped(order[0], 28))
    if "tools" in relevant:
        hint = "tools belong to conversations (messages), and the model does not see these"
    elif {"test", "entry_point"} <= counts.keys() and format == "prompt_completion":
        hint = "to run test on what the model answers, give the format (--format programs)"
    elif format in ("messages", "sharegpt"):
        hint = "only text in the turns is trained"
    elif format in CHOOSING:
        hint = f"to use one, name it in a template ({{{first}}}) or name its role (--columns group={first})"
    else:
        hint = f"to use one, name it in a template ({{{first}}}) or name its role (--columns context={first})"
    return f"columns not read, with their filled rows: {shown}; {hint}"


def _counts(records: Sequence[Record], *, filled: bool = False) -> dict[str, int]:
    """Return the number of rows with a value by column, in the order of the file; with `filled`, empty values do not count."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(
            name
            for name, value in record.fields.items()
            if value is not None and not (filled and isinstance(value, str | list | dict) and not value)
        )
    return dict(counts)


def _names_of(name: str, read: Collection[str]) -> list[str]:
    """Return the names under which `take` may have read a column without a mapping."""
    names = [name.casefold(), *(["label"] if folded(name) == "labels" else [])]
    return [one for one in names if one in read and one != name]


def _same(records: Sequence[Record], name: str, role: str) -> bool:
    return all(record.fields.get(name) is record.fields.get(role) for record in records)


def refuse_pairs(source: str, columns: Iterable[str]) -> None:
    """Refuse rows that each have a good and a bad answer, unless the user mapped the good one to a role.

    Args:
        source: Place of the first row, for the error.
        columns: Columns that no mapping and no format reads.

    Raises:
        BadInput: The rows have both answers.
    """
    if {"chosen", "rejected"} <= {folded(name) for name in columns}:
        raise BadInput(
            f"{source} has the columns chosen and rejected, which is preference data (DPO), and perdure trains on good answers "
            "alone; give --columns completion=chosen (messages=chosen where it holds a conversation) to train on those"
        )


def _refuse_preferences(records: Sequence[Record], format: str, unread: Iterable[str]) -> None:
    source = records[0].source
    refuse_pairs(source, unread)
    if format not in ("text", *LABELLED):
        labels = [record.fields.get("label") for record in records]
        answers = {
            str(record.fields.get(FORMATS[format][-1])) for record in records if record.fields.get("label") is False
        }
        if len(answers) > 1 and all(isinstance(label, bool) for label in labels):
            raise BadInput(
                f"{source}: a label of true or false with free answers is preference data (KTO), and perdure trains on every "
                "answer as a good one; keep the rows labelled true, and remove the column label"
            )


def _left_out(format: str, unread: Collection[str], records: Sequence[Record]) -> dict[str, str] | None:
    """Return the mapping that would read a column which is essential for the task, if it is not read."""
    if format == "text":
        return pair(unread, "text")
    if format in ("alpaca", "query_response"):
        role = "input" if format == "alpaca" else "context"
        context = next((name for name in unread if folded(name) in CONTEXTS), None)
        return {role: context} if context and not any(record.fields.get(role) for record in records) else None
    return None


def _nearest(name: str, known: Collection[str]) -> str:
    near = get_close_matches(clipped(name, 60), [one for one in list(known)[:1000] if len(one) <= 60], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
