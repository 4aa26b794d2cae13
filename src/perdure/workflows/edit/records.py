"""The records of the facts in force. Reading them needs neither torch nor a model.

An entry that changes the facts notes only the `changes` to the record of its parent: a thousand edits take a thousand lines.
The results of `edits verify` are another note of the entry, so that the records of later entries stay as they were.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from perdure.core.errors import NotFound
from perdure.ledger.records import (
    MERGE,
    Answers,
    Drift,
    EditsNote,
    EditsRecord,
    FactLine,
    ListedFact,
    MergeNote,
    WrittenFact,
)
from perdure.workflows.fact_records import NOTE, along, changed, record_at

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet
    from perdure.editing.measures import Verdict
    from perdure.editing.spec import EditSpec
    from perdure.editing.written import Written
    from perdure.ledger import Entry, Ledger

MEASURES = ("efficacy", "paraphrase", "neighbourhood", "generation")  # of an edited fact
SHORTEST = 4  # digits of an id that may stand for the whole


def note_of(ledger: "Ledger", parent: "Entry", record: EditsRecord, rewritten: bool | None = None) -> EditsNote:
    """Return what to note of a record.

    Args:
        ledger: Of the workspace.
        parent: The entry on which the record follows: the parent under NOTE, or the entry itself under VERIFIED.
        record: The record.
        rewritten: Whether a learn wrote the facts again; None for an edit and a revert.
    """
    return changes(along(ledger, reversed(ledger.ancestors(parent)))[-1][0], record, rewritten)


def changes(before: EditsRecord, after: EditsRecord, rewritten: bool | None = None) -> EditsNote:
    """Return what to note of a record at an entry, given the record at its parent; `changed` applies it."""
    old, new = before.every, after.every
    gone = tuple(name for name in old if name not in new)
    lines = tuple(line for name, line in new.items() if old.get(name) != line)
    note = EditsNote(after.about, after.drift, after.norms, rewritten, gone, lines)
    return note if list(changed(before, note).every) == list(new) else replace(note, order=tuple(new))


def listed(ledger: "Ledger", at: str = "head") -> list[ListedFact]:
    """Return the facts in force at a ref, oldest first.

    Raises:
        NotFound: The ref is not known.
    """
    return [line.listed for line in record_at(ledger, ledger.resolve(at)).facts]


def lost_by_task(lines: Iterable[FactLine | ListedFact]) -> dict[str, list[str]]:
    """Return the subjects of the facts that are not said with the adapter of a task, by task."""
    lost: dict[str, list[str]] = {}
    for line in lines:
        for task in line.lost_in:
            lost.setdefault(task, []).append(line.subject)
    return dict(sorted(lost.items()))


def shown(ledger: "Ledger", fact_id: str, at: str = "head") -> FactLine | WrittenFact:
    """Return all that is known of one fact at a ref, in force or dropped.

    Raises:
        NotFound: The ref is not known, or not exactly one fact has an id that begins so.
    """
    lines = matching(record_at(ledger, ledger.resolve(at)), fact_id)
    if len(lines) != 1:
        raise NotFound(
            f"{len(lines) or 'no'} facts have an id that begins with {fact_id!r} at {at}; 'perdure edits list' shows them"
        )
    return lines[0]


def matching(record: EditsRecord, fact_id: str) -> list[FactLine | WrittenFact]:
    """Return the lines of a record, dropped ones too, whose fact has an id that begins so."""
    return [line for name, line in record.every.items() if len(fact_id) >= SHORTEST and name.startswith(fact_id)]


def first_specs(ledger: "Ledger", record: EditsRecord) -> "dict[str, EditSpec]":
    """Return the settings that the edits of the facts in force were begun with, by id; a retry may have used others."""
    from perdure.editing.spec import EditSpec  # only here: its checks load the settings of training

    specs = {line.fact: ledger.entry(line.entry).data.get("spec") for line in record.facts}
    return {fact_id: EditSpec.from_json(spec) for fact_id, spec in specs.items() if spec}


def about(ledger: "Ledger", entry_id: str, task: str | None) -> str | None:
    """Return what an entry is about, for people: its task, how it merged, or the one fact it edits, or how many."""
    if task:
        return ledger.shown_name(task)
    merged = ledger.note(entry_id, MERGE, MergeNote)
    return merged.about if merged else (ledger.notes(entry_id).get(NOTE) or {}).get("about")


def title_of(subjects: Sequence[str]) -> str:
    """Return a subject, or how many there are."""
    return subjects[0] if len(subjects) == 1 else f"{len(subjects)} facts"


@dataclass(frozen=True)
class VerifiedSet:
    """The facts in force at an entry, as they were verified.

    Args:
        edit_set: The facts.
        verdicts: By fact id, of all live facts.
        drift: What the set does to held-out text.
        norms: Relative norm of the update by layer name.
        full: Ids of the facts that were verified in every form; None means all. Of the others the record has whether they are
            said.
    """

    edit_set: "EditSet"
    verdicts: Mapping[str, "Verdict"]
    drift: Drift | None
    norms: Mapping[str, float]
    full: Container[str] | None = None


def make_record(
    title: str | None, verified: VerifiedSet, before: EditsRecord, new: Mapping[str, str] | None = None
) -> EditsRecord:
    """Return the record at an entry.

    Args:
        title: What the entry is about.
        verified: The facts in force there.
        before: The record before, which has the entry that wrote a fact, and whether it was said then.
        new: Entry that wrote a fact that is new, by fact id.
    """
    new, full, verdicts = new or {}, verified.full, verified.verdicts
    owners = {name: line.entry for name, line in before.every.items()} | dict(new)
    known = {line.fact: line for line in before.facts}
    facts = []
    for w in verified.edit_set.live:
        old = known.get(w.id)
        at_edit = old.at_edit if old and w.id not in new else verdicts[w.id].efficacy
        earlier = old if full is not None and w.id not in full else None
        facts.append(_line(w, owners[w.id], at_edit, verdicts[w.id], earlier))
    dropped = tuple(_written(w, owners[w.id]) for w in verified.edit_set.dropped)
    return EditsRecord(title, tuple(facts), dropped, verified.drift, dict(verified.norms))


def _written(written: "Written", entry: str) -> WrittenFact:
    fact = written.fact
    return WrittenFact(
        fact=fact.id,
        entry=entry,
        subject=fact.subject,
        prompt=fact.question,
        target=fact.target,
        ground_truth=fact.ground_truth,
        relation=fact.relation,
        paraphrases=fact.paraphrases,
        neighbours=fact.neighbours,
        reason=fact.reason,
        method=written.spec.method,
        layers=written.layers,
        optimised=written.optimised,
        dropped=written.dropped,
    )


def _line(written: "Written", entry: str, at_edit: bool, verdict: "Verdict", earlier: FactLine | None) -> FactLine:
    """Return the line of a fact in force.

    Args:
        written: The fact.
        entry: The entry that wrote it.
        at_edit: It was said then.
        verdict: How it is answered now.
        earlier: Its line before, where its prompt alone was verified now: its other measures are taken from there.
    """
    about = vars(_written(written, entry))
    if earlier:
        return replace(earlier, **about, at_edit=at_edit, efficacy=verdict.efficacy, lost_in=())
    chat = verdict.chat
    return FactLine(
        **about,
        at_edit=at_edit,
        efficacy=verdict.efficacy,
        paraphrase=verdict.paraphrase,
        neighbourhood=verdict.neighbourhood,
        generation=verdict.generation,
        generated=verdict.generated,
        chat=None if chat is None else chat.preferred and chat.said,
        answers=Answers(verdict.prompt, verdict.paraphrases, verdict.neighbours, chat),
    )
