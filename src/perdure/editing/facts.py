"""Facts to write into a model: their fields, how they are read from a file, and which of them contradict each other."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput
from perdure.core.plain_text import quoted
from perdure.core.records import Record
from perdure.data.read import read_records
from perdure.ledger.records import Neighbour

HOLE = "{}"  # the place of the subject in a prompt that is a template


@dataclass(frozen=True)
class Fact(Record):
    """One fact: after `prompt`, which names `subject`, the model shall continue with `target`.

    Args:
        subject: What the fact is about, spelt as in the prompt.
        prompt: Beginning of a sentence that `target` completes. It contains the subject, or "{}" in its place.
        target: The new answer, without the space before it.
        ground_truth: The old answer, where known; an edit is effective if `target` becomes likelier than it.
        relation: Name of the relation, where known. A later fact with the same subject and relation replaces this one.
        paraphrases: The same question in other words, "{}" for the subject; only used to verify.
        neighbours: Other questions whose answers must not change; only used to verify.
        reason: Why the fact changes, for the record.
    """

    subject: str
    prompt: str
    target: str
    ground_truth: str | None = None
    relation: str | None = None
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    reason: str | None = None

    @cached_property
    def id(self) -> str:
        """Hash of what is written into the model: subject, prompt, target."""
        return content_hash([self.subject, self.question, self.target])

    @cached_property
    def question(self) -> str:
        """The prompt with the subject in its place."""
        return self.prompt.replace(HOLE, self.subject)

    @cached_property
    def at(self) -> int:
        """Where the subject begins in the question: at the last "{}", else at its last occurrence (see `place_of`)."""
        before, hole, _ = self.prompt.rpartition(HOLE)
        return len(before.replace(HOLE, self.subject)) if hole else place_of(self.subject, self.prompt)

    @cached_property
    def slots(self) -> set[tuple[str, ...]]:
        """The slots that a fact fills. A newer fact that fills one of them replaces it."""
        filled: set[tuple[str, ...]] = {("prompt", " ".join(self.question.split()).casefold())}
        return filled | ({("relation", self.subject.casefold(), self.relation.casefold())} if self.relation else set())

    @cached_property
    def core(self) -> "Fact":
        """The fact with only the fields that are written into the model."""
        return Fact(self.subject, self.prompt, self.target)

    @classmethod
    def from_json(cls, data: Any) -> "Fact":
        """Return the fact that a JSON object describes.

        Raises:
            BadInput: `data` is no object; a field is missing, unknown, empty or cannot be stored; or the prompt has no subject.
        """
        _check(data)
        neighbours = tuple(Neighbour(n["prompt"], n["answer"].strip()) for n in data.get("neighbours") or ())
        texts = {name: data[name].strip() for name in ("subject", "target")}
        texts |= {name: (data.get(name) or "").strip() or None for name in ("ground_truth", "relation", "reason")}
        paraphrases = tuple(p.replace(HOLE, texts["subject"]) for p in data.get("paraphrases") or ())
        fact = cls(**{**data, **texts, "paraphrases": paraphrases, "neighbours": neighbours})
        if fact.target == fact.ground_truth:
            raise BadInput(
                f"the target {quoted(fact.target)} is the ground truth, so there is nothing to change; leave one out"
            )
        if fact.subject not in fact.question:
            raise BadInput(
                f"the prompt {quoted(fact.prompt)} does not name the subject {quoted(fact.subject)}; write it there as it is "
                f"spelt, or {HOLE} in its place"
            )
        try:
            content_hash(fact.to_json())
        except UnicodeEncodeError as error:
            raise BadInput("the fact holds half of a surrogate pair (\\ud800 to \\udfff); remove it") from error
        return fact


def read_facts(path: Path) -> list[Fact]:
    """Return the facts of a data file, usually JSON Lines.

    Raises:
        BadInput: The file cannot be read, a row is no valid fact, or two rows are the same fact or contradict each other.
            The message names the rows.
    """
    facts, places = [], []
    for record in read_records(path):
        try:
            facts.append(Fact.from_json({name: record.fields[name] for name in record.columns}))
        except BadInput as error:
            raise BadInput(f"{record.source}: {error}") from error
        places.append(record.source)
    refuse_repeats(facts, places)
    return facts


def refuse_repeats(facts: Sequence[Fact], places: Sequence[str] | None = None) -> None:
    """Refuse facts that repeat or contradict each other: of two facts that are written together, neither is newer.

    Args:
        facts: The facts that are to be written together.
        places: Where each fact comes from (file and line), for the message.

    Raises:
        BadInput: Two facts have the same subject and prompt, or the same subject and relation.
    """
    named = places or [f"fact {number}" for number in range(1, len(facts) + 1)]
    owners: dict[tuple[str, ...], int] = {}
    for number, fact in enumerate(facts):
        for slot in fact.slots:
            if (first := owners.setdefault(slot, number)) != number:
                other, about = facts[first], f"(subject {quoted(fact.subject)}); keep one of the two"
                if other.target == fact.target:
                    raise BadInput(f"{named[number]} repeats {named[first]} {about}")
                raise BadInput(
                    f"{named[number]} gives {quoted(fact.target)}, but {named[first]} gives {quoted(other.target)} {about}"
                )


def superseded(fact: Fact, others: Iterable[Fact]) -> list[Fact]:
    """Return the facts that `fact` replaces: the same subject and relation, or the same subject and prompt."""
    return [other for other in others if other.id != fact.id and other.slots & fact.slots]


def place_of(subject: str, prompt: str) -> int:
    """Return where a subject begins in a prompt: its last occurrence as a whole word, else its last occurrence, else -1."""
    words = [match.start() for match in re.finditer(rf"(?<!\w){re.escape(subject)}(?!\w)", prompt)]
    return words[-1] if words else prompt.rfind(subject)


def _check(data: Any) -> None:
    """Refuse data that is no object, and fields that are missing, unknown or of a wrong type."""
    known = [field.name for field in fields(Fact)]
    if not isinstance(data, Mapping):
        raise BadInput(f"a fact is an object with {', '.join(known[:3])} at least, not {quoted(data)}")
    if unknown := sorted(set(data) - set(known)):
        raise BadInput(f"unknown field {quoted(unknown[0])}; a fact has {', '.join(known)}")
    for name in known[:3]:
        if not isinstance(data.get(name), str) or not data[name].strip():
            raise BadInput(f"{name!r} is missing or empty; a fact needs subject, prompt and target as text")
    for name in ("ground_truth", "relation", "reason"):
        if not isinstance(data.get(name), str | None):
            raise BadInput(f"{name!r} is {quoted(data[name])}; give text or leave it out")
    paraphrases, neighbours = data.get("paraphrases") or (), data.get("neighbours") or ()
    if not isinstance(paraphrases, list | tuple) or not all(isinstance(p, str) and p.strip() for p in paraphrases):
        raise BadInput("'paraphrases' is a list of texts, none of them blank")
    if not isinstance(neighbours, list | tuple) or not all(_is_neighbour(n) for n in neighbours):
        raise BadInput("'neighbours' is a list of objects with prompt and answer, both text and not blank")
    if any(HOLE in n["prompt"] for n in neighbours):
        raise BadInput(
            f"the prompt of a neighbour has {HOLE}, but a neighbour is about another subject; write that subject"
        )


def _is_neighbour(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and set(value) == {"prompt", "answer"}
        and all(isinstance(text, str) and text.strip() for text in value.values())
    )
