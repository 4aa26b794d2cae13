"""Guesses about the role of a column from its name: for hints and warnings only, never to decide what is read."""

import re
from collections.abc import Iterable


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


LABELS = _words(
    "category categories class classes emotion gold intent intents label labels rating sentiment stance "
    "stars tag tags target targets topic topics toxicity y"
)
ANSWERS = _words(
    "ans answer answers assistant bot completion gpt model_answer output outputs reference reply response "
    "responses solution summary target target_text translation"
)
QUESTIONS = _words(
    "article dialogue document goal human input inputs instruction problem prompt query question request "
    "source source_text user"
)
CONTEXTS = _words("background context document evidence input knowledge paragraph passage")
TEXTS = _words("body comment content description headline message post review sentence text title tweet utterance")
MEDIA = _words("audio audios image images video videos")
HARMLESS = _words(
    "author created dataset date file filename fold guid hash id ids idx index key lang language length "
    "licence license line link meta metadata number page part path revision source src subset task time "
    "timestamp uid updated url uuid version"
)


def folded(name: str) -> str:
    """Return a name in lower case with underscores between its words, as people write names differently."""
    return re.sub(r"[\s\-_.]+", "_", name.strip().casefold())


def harmless(name: str) -> bool:
    """Return whether a column probably names the origin of a row, and has nothing to learn."""
    name = folded(name)
    return (
        name in HARMLESS
        or name.endswith(("_id", "_ids", "_idx", "_index", "_at", "_url", "_date", "_count", "_hash"))
        or re.match(r"(num|n)_|_index_level|unnamed:|column_\d+$", name) is not None
    )


def is_label(name: str) -> bool:
    """Return whether a column probably names the class of a row: "category", "intent_name", "true_label"."""
    parts = folded(name).split("_")
    number = parts[-1] in ("id", "ids", "idx", "index")
    return folded(name) in LABELS or (not number and any(part in LABELS - {"y", "gold", "stars"} for part in parts))


def answer_column(names: Iterable[str]) -> tuple[str, str] | None:
    """Return (role, column) of the column that probably answers: a completion, else a label; None where no name suggests it."""
    names = list(names)
    answer = next((name for name in names if folded(name) in ANSWERS), None)
    label = next((name for name in names if is_label(name)), None)
    return ("completion", answer) if answer else ("label", label) if label else None


def pair(names: Iterable[str], text: str | None = None) -> dict[str, str] | None:
    """Return the columns of the question and of the answer by role; None where the names suggest none.

    Args:
        names: The columns without a role.
        text: The column of the question, if that is known.
    """
    names = list(names)
    answer = next((name for name in names if folded(name) in ANSWERS), None)
    label = next((name for name in names if is_label(name)), None)
    question = next((name for name in names if folded(name) in QUESTIONS and name != answer), None)
    text = text or next((name for name in names if folded(name) in TEXTS), None)
    context = next((name for name in names if folded(name) in CONTEXTS and name not in (question, answer)), None)
    about = {"context": context} if context else {}
    if answer and question == "instruction":
        return _changed({**({"input": context} if context else {}), "output": answer})
    if answer and question:
        return _changed({"prompt": question, **about, "completion": answer})
    if label and text:
        return _changed({"text": text, "label": label})
    if answer and text:
        return _changed({"prompt": text, **about, "completion": answer})
    return None


def _changed(columns: dict[str, str]) -> dict[str, str]:
    # a context is only read where it is mapped, whatever its column is called
    return {role: column for role, column in columns.items() if role != column or role == "context"}
