"""What the ledger says about the facts in force, as plain JSON; neither torch nor a model is needed to read it.

Every entry that writes the slot `edits` has a note "edits": {"about", "facts", "dropped", "drift", "norms"}, where a fact is a
line with "fact" (its id), "entry" (which wrote it), what it says, whether it was said when it was written ("at_edit"), and
how it was last verified. `edits verify` renews it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perdure.core.errors import NotFound

if TYPE_CHECKING:
    from perdure.edits.edit_set import EditSet, Written
    from perdure.edits.measures import Verdict
    from perdure.ledger import Entry, Ledger

Json = dict[str, Any]
NOTE = "edits"
MEASURES = ("efficacy", "paraphrase", "neighbourhood", "generation")  # what a verdict comes to
LISTED = ("fact", "entry", "subject", "prompt", "target", *MEASURES)
SHORTEST = 4  # digits of an id that may stand for the whole


def record_at(ledger: "Ledger", entry: "Entry") -> Json:
    """Return what was last noted about the facts in force at an entry; without facts if it has no edits."""
    for ancestor in ledger.ancestors(entry):
        if NOTE in (notes := ledger.notes(ancestor.id)):
            return notes[NOTE]
        if ancestor.slots.get(NOTE, "") is None:
            break
    return {"about": None, "facts": [], "dropped": [], "drift": None, "norms": {}}


def listed(ledger: "Ledger", at: str = "head") -> list[Json]:
    """Return the facts in force at a ref, oldest first, each as `perdure edits list --json` prints it.

    Raises:
        NotFound: The ref is not known.
    """
    return [{key: line[key] for key in LISTED} for line in record_at(ledger, ledger.resolve(at))["facts"]]


def shown(ledger: "Ledger", fact_id: str, at: str = "head") -> Json:
    """Return all that is known of one fact at a ref, in force or dropped.

    Raises:
        NotFound: The ref is not known, or not exactly one fact has an id that begins so.
    """
    record = record_at(ledger, ledger.resolve(at))
    found = matching(record, fact_id)
    if len(found) != 1:
        raise NotFound(f"{len(found) or 'no'} facts are called {fact_id!r} at {at}; 'perdure edits list' shows them")
    return found[0]


def matching(record: Json, fact_id: str) -> list[Json]:
    """Return the lines of a record, dropped ones too, whose fact has an id that begins so."""
    every = [*record["facts"], *record["dropped"]]
    return [line for line in every if len(fact_id) >= SHORTEST and line["fact"].startswith(fact_id)]


def about(ledger: "Ledger", entry_id: str, task: str | None) -> str | None:
    """Return what an entry is about, for people: its task, or the subject of the one fact it edits, or their number."""
    return task or (ledger.notes(entry_id).get(NOTE) or {}).get("about")


def named(subjects: Sequence[str]) -> str:
    """Return a subject, or how many there are."""
    return subjects[0] if len(subjects) == 1 else f"{len(subjects)} facts"


def noted(
    title: str,
    edit_set: "EditSet",
    verdicts: Mapping[str, "Verdict"],
    before: Json,
    drift: Mapping[str, float] | None,
    norms: Mapping[str, float],
    owners: Mapping[str, str] | None = None,
) -> Json:
    """Return the note of an entry.

    Args:
        title: What the entry is about.
        edit_set: The facts in force there.
        verdicts: By fact id, of all live facts.
        before: What was noted before, which knows who wrote a fact and whether it was said then.
        drift: What the set does to held-out text.
        norms: Relative norm of the update by layer name.
        owners: Entry that wrote a fact that is new, by fact id.
    """
    new = owners or {}
    owners = {line["fact"]: line["entry"] for line in (*before["facts"], *before["dropped"])} | dict(new)
    known = {line["fact"]: line.get("at_edit", line["efficacy"]) for line in before["facts"] if line["fact"] not in new}
    facts = [
        {**_line(w, owners[w.id]), "at_edit": known.get(w.id, verdicts[w.id].efficacy), **_asked(verdicts[w.id])}
        for w in edit_set.live
    ]
    dropped = [_line(w, owners[w.id]) for w in edit_set.dropped]
    return {"about": title, "facts": facts, "dropped": dropped, "drift": drift and dict(drift), "norms": dict(norms)}


def _line(written: "Written", entry: str) -> Json:
    fact = written.fact
    about = {"method": written.spec.method, "layers": list(written.layers), "optimised": dict(written.told)}
    said = {**fact.to_json(), "prompt": fact.question}
    return {"fact": fact.id, "entry": entry, **said, **about, "dropped": written.dropped}


def _asked(verdict: "Verdict") -> Json:
    """Return a verdict's summary, and beside it the losses and texts it rests on."""
    told = verdict.to_json()
    summary = {key: told[key] for key in MEASURES}
    answers = {"prompt": told["prompt"], "paraphrases": told["paraphrases"], "neighbours": told["neighbours"]}
    chat = verdict.chat
    said = {"generated": verdict.generated, "chat": None if chat is None else chat.preferred and chat.said}
    return {**summary, **said, "answers": {**answers, "chat": told["chat"]}}
