"""What the ledger says about the facts in force, as plain JSON; neither torch nor a model is needed to read it.

A record is {"about", "facts", "dropped", "drift", "norms", "rewritten"}, where a fact is a line with "fact" (its id), "entry"
(which wrote it), what it says, whether it was said when it was written ("at_edit"), and how it was last verified: by what all
tasks share; "lost_in" names the tasks whose own adapters say otherwise. An entry that changes it notes only the `changes` to the
record of its parent: a thousand edits take a thousand lines. What `edits verify` finds
stands beside an entry and not in that line: the records of entries made on it stay what they were.
"""

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perdure.core.errors import NotFound
from perdure.editing.spec import EditSpec

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet, Written
    from perdure.editing.measures import Verdict
    from perdure.ledger import Entry, Ledger

Json = dict[str, Any]
NOTE, VERIFIED = "edits", "edits verified"
MEASURES = ("efficacy", "paraphrase", "neighbourhood", "generation")  # what a verdict comes to
MEASURED = (*MEASURES, "generated", "chat", "answers")  # what verification in every form adds to a fact's line
LISTED = ("fact", "entry", "subject", "prompt", "target", *MEASURES, "lost_in")
SHORTEST = 4  # digits of an id that may stand for the whole
NOTHING: Json = {"about": None, "facts": [], "dropped": [], "drift": None, "norms": {}, "rewritten": False}


def record_at(ledger: "Ledger", entry: "Entry") -> Json:
    """Return what was last found about the facts in force at an entry; without facts if it has no edits."""
    return _along(ledger, reversed(ledger.ancestors(entry)))[-1][1]


def records(ledger: "Ledger", line: Iterable["Entry"]) -> list[Json]:
    """Return the record at each entry of a line that begins at the base."""
    return [found for _, found in _along(ledger, line)]


def note_of(ledger: "Ledger", entry: "Entry", record: Json) -> Json:
    """Return what to note of a record: of that at a child of `entry` under NOTE, or of its own found again under VERIFIED."""
    return changes(_along(ledger, reversed(ledger.ancestors(entry)))[-1][0], record)


def _along(ledger: "Ledger", line: Iterable["Entry"]) -> list[tuple[Json, Json]]:
    """Return the record at each entry as it was written, on which the next one stands, and as it was last verified."""
    notes, again, record, found = ledger.noted(NOTE), ledger.noted(VERIFIED), NOTHING, []
    for entry in line:
        if entry.id in notes:
            record = changed(record, notes[entry.id])
        elif NOTE in entry.slots:  # an entry without a note takes the slot away
            record = NOTHING
        found.append((record, changed(record, again[entry.id]) if entry.id in again else record))
    return found


def changes(before: Json, after: Json) -> Json:
    """Return what to note of a record at an entry, given the record at its parent; `changed` puts it on again."""
    after = json.loads(json.dumps(after))  # as it comes back from the ledger: tuples are lists there
    old, new = _lines(before), _lines(after)
    told = {key: value for key, value in after.items() if key not in ("facts", "dropped")}
    told["gone"] = [name for name in old if name not in new]
    told["lines"] = [line for name, line in new.items() if old.get(name) != line]
    return told if list(_lines(changed(before, told))) == list(new) else {**told, "order": list(new)}


def changed(before: Json, told: Json) -> Json:
    """Return the record that `changes` told of."""
    lines = {name: line for name, line in _lines(before).items() if name not in told["gone"]}
    lines |= {line["fact"]: line for line in told["lines"]}
    every = [lines[name] for name in told.get("order", lines)]
    rest = {key: value for key, value in told.items() if key not in ("gone", "lines", "order")}
    return {
        **NOTHING,
        **rest,
        "facts": [line for line in every if not line["dropped"]],
        "dropped": [line for line in every if line["dropped"]],
    }


def counted(record: Json) -> Json:
    """Return a record with the number of its facts, and of those that are said, in place of their lines."""
    held = sum(line["efficacy"] for line in record["facts"])
    return {key: record[key] for key in ("about", "drift", "rewritten")} | {"facts": len(record["facts"]), "held": held}


def _lines(record: Json) -> dict[str, Json]:
    return {line["fact"]: line for line in (*record["facts"], *record["dropped"])}


def listed(ledger: "Ledger", at: str = "head") -> list[Json]:
    """Return the facts in force at a ref, oldest first, each as `perdure edits list --json` prints it.

    Raises:
        NotFound: The ref is not known.
    """
    lines = record_at(ledger, ledger.resolve(at))["facts"]
    return [{key: {"lost_in": [], **line}[key] for key in LISTED} for line in lines]


def lost_by_task(lines: Iterable[Json]) -> dict[str, list[str]]:
    """Return the subjects of the facts that are not said with the adapter of a task, by task."""
    lost: dict[str, list[str]] = {}
    for line in lines:
        for task in line.get("lost_in", []):
            lost.setdefault(task, []).append(line["subject"])
    return dict(sorted(lost.items()))


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


def asked_specs(ledger: "Ledger", record: Json) -> dict[str, EditSpec]:
    """Return the settings that the facts of a record were asked for with, by id."""
    told = {line["fact"]: ledger.entry(line["entry"]).data.get("spec") for line in record["facts"]}
    return {fact_id: EditSpec.from_json(spec) for fact_id, spec in told.items() if spec}


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
    full: Container[str] | None = None,
) -> Json:
    """Return the record at an entry.

    Args:
        title: What the entry is about.
        edit_set: The facts in force there.
        verdicts: By fact id, of all live facts.
        before: What was noted before, which knows who wrote a fact and whether it was said then.
        drift: What the set does to held-out text.
        norms: Relative norm of the update by layer name.
        owners: Entry that wrote a fact that is new, by fact id.
        full: Ids of the facts that were verified in every form; None means all. Of the others it is noted whether they are said.
    """
    new = owners or {}
    owners = {line["fact"]: line["entry"] for line in (*before["facts"], *before["dropped"])} | dict(new)
    known = {line["fact"]: line.get("at_edit", line["efficacy"]) for line in before["facts"] if line["fact"] not in new}
    asked = {line["fact"]: line for line in before["facts"] if full is not None and line["fact"] not in full}
    facts = []
    for w in edit_set.live:
        verdict, at_edit = verdicts[w.id], {"at_edit": known.get(w.id, verdicts[w.id].efficacy)}
        measured = {key: asked[w.id][key] for key in MEASURED} if w.id in asked else _asked(verdict)
        facts.append({**_line(w, owners[w.id]), **at_edit, **measured, "efficacy": verdict.efficacy})
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
