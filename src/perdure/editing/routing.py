"""Routing of a file's rows: facts are edited into the model, skills are trained, each with a reason."""

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
DETECTED = "it asks about one name, and its answer is short"
AGAIN = "it states a fact in other words, and only verifies it"
REPEAT = "it repeats a fact"
HELD_OUT = "its split is test or validation, so it is not written"
MARKED = "its column 'kind' decides"

_FACT = frozenset({"subject", "prompt", "target"})
_TRIPLE = frozenset({"subject", "relation", "object"})


@dataclass(frozen=True)
class ExampleRow(records.Record):
    """A row as an example: its source, prompt and answer."""

    source: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class RouteGroup(records.Record):
    """Rows with the same route and the same reason.

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
    """Whether one row is edited or trained.

    Args:
        record: The row as read; a fact in columns that is trained has prompt and completion instead.
        kind: "fact" is edited, "skill" is trained.
        reason: Why, in words.
        prompt: Its question.
        answer: Its answer.
        fact: The fact, if it is one.
        given: Whether columns give that fact.
        chat: Whether the question is a turn of a conversation.
    """

    record: Record
    kind: Literal["fact", "skill"]
    reason: str
    prompt: str
    answer: str
    fact: Fact | None = None
    given: bool = False
    chat: bool = False

    @property
    def held_out(self) -> bool:
        """Whether its split is test or validation."""
        return part_named(self.record.fields.get("split")) in ("test", "validation")

    @property
    def example(self) -> ExampleRow:
        """The row as an example."""
        return ExampleRow(self.record.source, self.prompt, self.answer)


@dataclass(frozen=True)
class Routing:
    """Every row of a file with its route, and the facts to write.

    Args:
        routes: One for each row, in order.
        facts: The facts to write. Rows that state a fact in other words became its paraphrases.
    """

    routes: tuple[Route, ...]
    facts: tuple[Fact, ...]

    @property
    def skills(self) -> list[Record]:
        """The rows to train."""
        return [route.record for route in self.routes if route.kind == "skill"]

    @property
    def chat(self) -> bool:
        """Whether the question of a fact is a turn of a conversation."""
        return any(route.fact and route.chat for route in self.routes)

    def summary(self) -> tuple[RouteGroup, ...]:
        """Return the rows by kind and reason: facts first, and of a kind the reason with most rows first."""
        groups: dict[tuple[Literal["fact", "skill"], str], list[Route]] = defaultdict(list)
        for route in self.routes:
            groups[route.kind, route.reason].append(route)
        order = sorted(groups.items(), key=lambda group: (group[0][0], -len(group[1])))
        return tuple(RouteGroup(kind, reason, len(group), group[0].example) for (kind, reason), group in order)


def route(
    records: Sequence[Record],
    *,
    format: str | None = None,
    template: str | None = None,
    labels: Mapping[str, str] | None = None,
    mapped: Collection[str] = (),
) -> Routing:
    """Return for every row whether it is edited or trained, and why.

    A row is a fact if its columns give one. It is also a fact if it has a question and an answer, and no rule of `routing_rules`
    sends it to training. A column `kind` (fact or skill) overrides both.

    Args:
        records: The rows of one file.
        format: Format of the rows that do not give a fact in columns; None detects it.
        template: Prompt of text_label, as in a task file.
        labels: Texts of labels, as in a task file.
        mapped: Names that a task file maps columns to.

    Raises:
        BadInput: A row is not valid, is marked as a fact without naming a subject, or contradicts another row. The message names
            the rows.
    """
    prompts = _prompts_of_relations(records)
    given = [_given(record, prompts) for record in records]
    plain = [record for record, known in zip(records, given, strict=True) if known is None]
    others = iter(_question_routes(plain, format, template, labels, mapped) if plain else ())
    return _joined([known or next(others) for known in given])


# ---- rows whose columns give a fact


def _given(record: Record, prompts: Mapping[str, str]) -> Route | None:
    """Return the route of a row whose columns give a fact; None for others."""
    values = _values(record)
    triple = values.keys() >= _TRIPLE and "target" not in values
    if triple:
        relation, object = str(values["relation"]), values.pop("object")
        values["target"] = str(object) if isinstance(object, int | float) else object  # a year, for example
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
    """Return by relation the first prompt with "{}" that a triple gives; triples without a prompt use it too."""
    prompts: dict[str, str] = {}
    for record in records:
        prompt = record.fields.get("prompt")
        if record.columns >= _TRIPLE and isinstance(prompt, str) and HOLE in prompt:
            prompts.setdefault(str(record.fields["relation"]), prompt)
    return prompts


# ---- rows with a question and an answer


def _question_routes(
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
    return [_route_of(record, Candidate(row, file, _column(record, prompt_of(row)))) for record, row in pairs]


def _route_of(record: Record, row: Candidate) -> Route:
    kind = _kind(record)
    why = MARKED if kind == "skill" else None if kind else why_trained(row)
    if why:
        return Route(record, "skill", why, row.prompt, row.answer)
    if row.name is None or not row.single:
        raise BadInput(
            f"{record.source}: kind is fact, but it is not one question about one name; "
            "add a column 'subject' with the name as the prompt spells it"
        )
    more = ("ground_truth", "relation", "reason") if row.given else ()
    values = {name: value for name, value in _values(record).items() if name in more and isinstance(value, str)}
    fact = _fact({**values, "subject": row.name, "prompt": row.prompt.rstrip(), "target": row.answer}, record)
    reason, chat = MARKED if kind else DETECTED, bool(row.row.messages)
    return Route(record, "fact", reason, row.prompt, row.answer, fact, chat=chat)


def _column(record: Record, prompt: str) -> str | None:
    """Return the subject that a column gives, if the prompt names it."""
    subject = record.fields.get("subject")
    return subject.strip() if isinstance(subject, str) and subject.strip() and subject.strip() in prompt else None


# ---- what both have


def _values(record: Record) -> dict[str, Any]:
    """Return the columns that are filled, without `kind` and `split`."""
    return {k: v for k, v in record.fields.items() if v not in (None, "") and k not in ("kind", "split")}


def _kind(record: Record) -> str | None:
    """Return the value of the column `kind`."""
    kind = record.fields.get("kind")
    if kind not in (None, "", "fact", "skill"):
        raise BadInput(f"{record.source}: kind is {kind!r}; write fact (edited) or skill (trained), or leave it out")
    return kind or None


def _fact(values: Mapping[str, Any], record: Record) -> Fact:
    try:
        return Fact.from_json(values)
    except BadInput as error:
        raise BadInput(f"{record.source}: {error}") from error


# ---- rows that state the same fact


def _joined(routes: Sequence[Route]) -> Routing:
    """Return the routes and the facts to write. Of rows that state the same fact one is written; the others verify it.

    The one that is written is a row whose columns give the fact, else the first row. Rows whose columns give facts are never
    joined with each other.
    """
    decided, seen = list(routes), set()
    leads: dict[tuple[str, str], list[int]] = defaultdict(list)
    words: dict[int, list[str]] = defaultdict(list)
    facts = {n: one.fact for n, one in enumerate(routes) if one.fact}
    for n in sorted(facts, key=lambda n: (routes[n].held_out, not routes[n].given, n)):
        one, fact = routes[n], facts[n]
        same = leads[fact.subject.casefold(), fact.target]
        lead = None if one.given else next((m for m in same if _one_relation(facts[m], fact)), None)
        if not one.given and (_folded(fact), fact.target) in seen:
            decided[n] = replace(one, reason=REPEAT)
        elif lead is not None:
            decided[n] = replace(one, reason=AGAIN)
            words[lead].append(fact.question)
        elif one.held_out:
            decided[n] = replace(one, reason=HELD_OUT)
        else:
            same.append(n)
        seen.add((_folded(fact), fact.target))
    _refuse_contradictions(decided)
    written = sorted(n for same in leads.values() for n in same)
    refuse_repeats([facts[n] for n in written], [routes[n].record.source for n in written])
    joined = [replace(facts[n], paraphrases=tuple(dict.fromkeys((*facts[n].paraphrases, *words[n])))) for n in written]
    return Routing(tuple(decided), tuple(joined))


def _refuse_contradictions(routes: Sequence[Route]) -> None:
    """Refuse two rows with the same question and different answers, paraphrases included."""
    stated = [(route.fact, route.record.source) for route in routes if route.fact and route.reason != REPEAT]
    refuse_repeats([replace(fact, relation=None) for fact, _ in stated], [source for _, source in stated])


def _one_relation(a: Fact, b: Fact) -> bool:
    return a.relation is None or b.relation is None or a.relation.casefold() == b.relation.casefold()


def _folded(fact: Fact) -> str:
    return " ".join(fact.question.split()).casefold()
