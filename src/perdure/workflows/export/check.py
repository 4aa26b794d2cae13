"""What an export still says: its files are read back as a server holds them, and every fact in force is asked again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from perdure.core.slots import EDITS
from perdure.ledger import Entry
from perdure.workflows.edit.state import Place
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.bridges.models import Base
    from perdure.editing.facts import Fact
    from perdure.editing.measures import Verdict

DTYPES = ("bfloat16", "float16", "float32")
Json = dict[str, Any]


def check_adapter(
    session: Session, entry: Entry, task: str | None, folder: Path, dtype: str | None, compressed: bool
) -> Json:
    """Return what the adapter in `folder` says, its factors cast to the dtype of the server, beside what `entry` says.

    Args:
        session: Of the workspace.
        entry: What was exported.
        task: Whose adapter, where it has one of its own; None for what all tasks share.
        folder: The files.
        dtype: One of `DTYPES`, that the server holds the factors in; None takes that of the workspace's model.
        compressed: The rank was cut, so that the loss of held-out text is measured too.

    Returns:
        "dtype"; "facts": see `said`, None where none is in force; if compressed also "held_out": the mean loss of held-out text
        in nats a token, "nll_before" and "nll".
    """
    import torch

    from perdure.bridges.export import as_served, text_loss

    name = dtype or str(session.runtime.base.dtype).removeprefix("torch.")
    place, facts = Place.at(session, entry), facts_at(session, entry)
    told: Json = {"dtype": name, "facts": None}
    if not facts and not compressed:
        return told
    texts = place.held_out(entry)

    def asked() -> "tuple[list[Verdict], float]":
        loss = text_loss(session.runtime.base, session.runtime.model, texts) if compressed else 0.0
        return _asked(place, facts), loss

    session.load(entry, task)
    before, loss_before = asked()
    session.runtime.load({"export": as_served(folder, session.runtime, getattr(torch, name))})
    after, loss = asked()
    if facts:
        told["facts"] = said(facts, before, after)
    return told | ({"held_out": {"nll_before": loss_before, "nll": loss}} if compressed else {})


def check_merged_facts(session: Session, entry: Entry, task: str | None, written: "Base") -> Json:
    """Return {"facts"}: what a merged model says, whose sums were rounded to its dtype, beside what `entry` says."""
    from perdure.editing.site import open_site
    from perdure.editing.verification import verify

    facts = facts_at(session, entry)
    if not facts:
        return {"facts": None}
    session.load(entry, task)
    before = _asked(Place.at(session, entry), facts)
    with open_site(written.model, written.tokenizer, written.precision) as site:
        return {"facts": said(facts, before, verify(site, facts, generation=False))}


def said(facts: "Sequence[Fact]", before: "Sequence[Verdict]", after: "Sequence[Verdict]") -> Json:
    """Return how many facts are said by the workspace and by an export, which are lost, and the loss of their targets.

    Returns:
        "n", "said_before", "said", "lost" ({"fact", "subject"} of those said before and not now), and the mean loss of the
        targets in nats a token, "nll_before" and "nll".
    """
    pairs = zip(facts, before, after, strict=True)
    lost = [{"fact": f.id, "subject": f.subject} for f, then, now in pairs if then.efficacy and not now.efficacy]
    return {
        "n": len(facts),
        "said_before": sum(v.efficacy for v in before),
        "said": sum(v.efficacy for v in after),
        "lost": lost,
        "nll_before": fmean(v.prompt.target for v in before),
        "nll": fmean(v.prompt.target for v in after),
    }


def facts_at(session: Session, entry: Entry) -> "list[Fact]":
    """Return the facts in force at an entry, without what is only asked beside their prompts."""
    if EDITS not in session.ledger.slots(entry):
        return []
    live = Place.at(session, entry).in_force(entry).live
    return [replace(w.fact, paraphrases=(), neighbours=()) for w in live]


def _asked(place: Place, facts: "Sequence[Fact]") -> "list[Verdict]":
    """Return how the model that is loaded answers."""
    from perdure.editing.verification import verify

    if not facts:
        return []
    with place.site() as site:
        return verify(site, facts, generation=False)
