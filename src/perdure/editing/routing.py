"""Facts or skills: which rows of a file are written into the model by editing, which are trained, and why."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from perdure.core import records
from perdure.core.errors import BadInput
from perdure.data.columns import IN_TASK
from perdure.data.formats import FORMATS, detect, to_rows
from perdure.data.read import Record
from perdure.data.split import part_named
from perdure.editing.facts import HOLE, Fact, refuse_repeats
from perdure.editing.routing_rules import Candidate, File, prompt_of, why_trained

GIVEN = "it gives subject, prompt and target"
TRIPLE = "it gives subject, relation and object"
FOUND = "it asks about one name, and its answer is short"
AGAIN = "it says a fact in other words, and is only asked, to verify it"
REPEAT = "it repeats a fact"
HELD_OUT = "its split holds it out, so it is not written"
MARKED = "its kind says so"

_FACT = frozenset({"subject", "prompt", "target"})
_TRIPLE = frozenset({"subject", "relation", "object"})


@dataclass(frozen=True)
class ExampleRow(records.Record):
    """A row as an example: the place it was read from, what it asks, and what it answers."""

    source: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class RouteGroup(records.Record):
    """Rows that go the same way for the same reason.

    Args:
        kind: "fact" is edited, "skill" is trained.
        reason: Why, in words.
        rows: Number of rows.
        example: The first of them.
    """

    kind: Literal["fact", "skill"]
    reason: str
    rows: int
    example: ExampleRow


@dataclass(frozen=True)
class Route:
    """Where one row goes.

    Args:
        record: The row as read; where a fact's columns are trained, with its prompt and completion.
        kind: "fact" is edited, "skill" is trained.
        reason: Why, in words.
        asked: What it asks.
        answer: What it answers.
        fact: What it says, if it is a fact.
        given: Whether columns give that fact.
        chat: Whether it is asked in a conversation.
    """

    record: Record
    kind: Literal["fact", "skill"]
    reason: str
    asked: str
    answer: str
    fact: Fact | None = None
    given: bool = False
    chat: bool = False

    @property
    def held_out(self) -> bool:
        """Whether its split keeps it from being learned."""
        return part_named(self.record.fields.get("split")) in ("test", "validation")

    @property
    def example(self) -> ExampleRow:
        """The row as an example."""
        return ExampleRow(self.record.source, self.asked, self.answer)


@dataclass(frozen=True)
class Routing:
    """Every row of a file with its route, and what is to be written.

    Args:
        routes: One for each row, in order.
        facts: The facts to write; what other rows say in other words are their paraphrases.
    """

    routes: tuple[Route, ...]
    facts: tuple[Fact, ...]

    @property
    def skills(self) -> list[Record]:
        """The rows to train."""
        return [route.record for route in self.routes if route.kind == "skill"]

    @property
    def chat(self) -> bool:
        """Whether a fact is asked in a conversation."""
        return any(route.fact and route.chat for route in self.routes)

    def summary(self) -> tuple[RouteGroup, ...]:
        """Return the rows by kind and reason: facts first, and of a kind the reason with most rows first."""
        groups: dict[tuple[Literal["fact", "skill"], str], list[Route]] = defaultdict(list)
        for route in self.routes:
            groups[route.kind, route.reason].append(route)
        order = sorted(groups.items(), key=lambda group: (group[0][0], -len(group[1])))
        return tuple(RouteGroup(kind, reason, len(found), found[0].example) for (kind, reason), found in order)


def route(
    records: Sequence[Record],
    *,
    format: str | None = None,
    template: str | None = None,
    labels: Mapping[str, str] | None = None,
    mapped: Collection[str] = (),
) -> Routing:
    """Return for every row whether it is edited or trained, and why.

    A row is a fact if its columns give one, or if it has a question and an answer and no rule of `routing_rules` sends it to
    training. A column `kind` (fact or skill) overrides both.

    Args:
        records: The rows of one file.
        format: Format of the rows that do not give a fact in columns; None detects it.
        template: Prompt of text_label, as in a task file.
        labels: Texts of labels, likewise.
        mapped: Names that the user mapped columns to, likewise.

    Raises:
        BadInput: A row is not valid, is marked as a fact and names no subject, or contradicts another; the rows are named.
    """
    prompts = _prompts_of_relations(records)
    given = [_given(record, prompts) for record in records]
    plain = [record for record, known in zip(records, given, strict=True) if known is None]
    found = iter(_found(plain, format, template, labels, mapped) if plain else ())
    return _joined([known or next(found) for known in given])


# ---- rows whose columns give a fact


def _given(record: Record, prompts: Mapping[str, str]) -> Route | None:
    """Return the route of a row whose columns give a fact; None for others."""
    values = _values(record)
    triple = values.keys() >= _TRIPLE and "target" not in values
    if triple:
        relation, object = str(values["relation"]), values.pop("object")
        values["target"] = str(object) if isinstance(object, int | float) else object  # a year, say
        values.setdefault("prompt", prompts.get(relation) or f"{HOLE}'s {relation.replace('_', ' ')} is")
    elif not values.keys() >= _FACT:
        return None
    fact, kind = _fact(values, record), _kind(record)
    if kind == "skill":
        split = {name: record.fields[name] for name in record.columns & {"split"}}
        record = Record({"prompt": fact.question, "completion": fact.target, **split}, record.source)
        return Route(record, "skill", MARKED, fact.question, fact.target)
    reason = MARKED if kind else TRIPLE if triple else GIVEN
    return Route(record, "fact", reason, fact.question, fact.target, fact, given=True)


def _prompts_of_relations(records: Sequence[Record]) -> dict[str, str]:
    """Return by relation the first prompt with a hole that a triple gives: it serves those without a prompt too."""
    found: dict[str, str] = {}
    for record in records:
        prompt = record.fields.get("prompt")
        if record.columns >= _TRIPLE and isinstance(prompt, str) and HOLE in prompt:
            found.setdefault(str(record.fields["relation"]), prompt)
    return found


# ---- rows with a question and an answer


def _found(
    records: Sequence[Record],
    format: str | None,
    template: str | None,
    labels: Mapping[str, str] | None,
    mapped: Collection[str],
) -> list[Route]:
    """Return the routes of rows whose columns give no fact."""
    known = format or template or any(r.columns.issuperset(c) for r in records for c in FORMATS.values())
    if not known:
        raise BadInput(
            f"{records[0].source} has {', '.join(sorted(_values(records[0]))) or 'nothing'}; a fact needs subject, prompt and "
            "target, or subject, relation and object; a row to train needs prompt and completion, or messages"
        )
    format = format or detect(records, template, mapped, how=IN_TASK)
    rows = to_rows(records, format, template=template, labels=labels, mapped=mapped)
    file, pairs = File.of(rows), zip(records, rows, strict=True)
    return [_decided(record, Candidate(row, file, _column(record, prompt_of(row)))) for record, row in pairs]


def _decided(record: Record, asked: Candidate) -> Route:
    kind = _kind(record)
    why = MARKED if kind == "skill" else None if kind else why_trained(asked)
    if why:
        return Route(record, "skill", why, asked.prompt, asked.answer)
    if asked.name is None or not asked.single:
        raise BadInput(
            f"{record.source}: kind is fact, but no name is found that one question asks about; "
            "add a column 'subject' with the name as the prompt spells it"
        )
    more = ("ground_truth", "relation", "reason") if asked.given else ()
    values = {name: value for name, value in _values(record).items() if name in more and isinstance(value, str)}
    fact = _fact({**values, "subject": asked.name, "prompt": asked.prompt.rstrip(), "target": asked.answer}, record)
    reason, chat = MARKED if kind else FOUND, bool(asked.row.messages)
    return Route(record, "fact", reason, asked.prompt, asked.answer, fact, chat=chat)


def _column(record: Record, prompt: str) -> str | None:
    """Return the subject that a column gives, if the prompt names it."""
    subject = record.fields.get("subject")
    return subject.strip() if isinstance(subject, str) and subject.strip() and subject.strip() in prompt else None


# ---- what both have


def _values(record: Record) -> dict[str, Any]:
    """Return the columns that are filled, but for those that say where a row goes."""
    return {k: v for k, v in record.fields.items() if v not in (None, "") and k not in ("kind", "split")}


def _kind(record: Record) -> str | None:
    """Return what a row says that it is."""
    kind = record.fields.get("kind")
    if kind not in (None, "", "fact", "skill"):
        raise BadInput(f"{record.source}: kind is {kind!r}; write fact (edited) or skill (trained), or leave it out")
    return kind or None


def _fact(values: Mapping[str, Any], record: Record) -> Fact:
    try:
        return Fact.from_json(values)
    except BadInput as error:
        raise BadInput(f"{record.source}: {error}") from error


# ---- rows that say the same


def _joined(routes: Sequence[Route]) -> Routing:
    """Return the routes, and the facts to write: of rows that say the same, those of columns lead, then the first ones.

    Rows whose columns give a fact are never joined with each other: they mean what they say.
    """
    told, seen = list(routes), set()
    leads: dict[tuple[str, str], list[int]] = defaultdict(list)
    words: dict[int, list[str]] = defaultdict(list)
    facts = {n: one.fact for n, one in enumerate(routes) if one.fact}
    for n in sorted(facts, key=lambda n: (routes[n].held_out, not routes[n].given, n)):
        one, fact = routes[n], facts[n]
        same = leads[fact.subject.casefold(), fact.target]
        lead = None if one.given else next((m for m in same if _one_relation(facts[m], fact)), None)
        if not one.given and (_folded(fact), fact.target) in seen:
            told[n] = replace(one, reason=REPEAT)
        elif lead is not None:
            told[n] = replace(one, reason=AGAIN)
            words[lead].append(fact.question)
        elif one.held_out:
            told[n] = replace(one, reason=HELD_OUT)
        else:
            same.append(n)
        seen.add((_folded(fact), fact.target))
    _refuse_contradictions(told)
    written = sorted(n for same in leads.values() for n in same)
    refuse_repeats([facts[n] for n in written], [routes[n].record.source for n in written])
    joined = [replace(facts[n], paraphrases=tuple(dict.fromkeys((*facts[n].paraphrases, *words[n])))) for n in written]
    return Routing(tuple(told), tuple(joined))


def _refuse_contradictions(routes: Sequence[Route]) -> None:
    """Refuse two rows that ask the same about the same subject and answer differently, paraphrases included."""
    stated = [(route.fact, route.record.source) for route in routes if route.fact and route.reason != REPEAT]
    refuse_repeats([replace(fact, relation=None) for fact, _ in stated], [source for _, source in stated])


def _one_relation(a: Fact, b: Fact) -> bool:
    return a.relation is None or b.relation is None or a.relation.casefold() == b.relation.casefold()


def _folded(fact: Fact) -> str:
    return " ".join(fact.question.split()).casefold()
