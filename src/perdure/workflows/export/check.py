"""Check an export: its files are read back as a server loads them, and every fact in force is verified again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from perdure.core.slots import EDITS
from perdure.ledger import Entry
from perdure.workflows.edit.state import Place
from perdure.workflows.export.result import AdapterCheck, FactsCheck, Losses, LostFact
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.bridges.models import Base
    from perdure.editing.facts import Fact
    from perdure.editing.measures import Verdict

DTYPES = ("bfloat16", "float16", "float32")


def check_adapter(
    session: Session, entry: Entry, task: str | None, folder: Path, dtype: str | None, compressed: bool
) -> AdapterCheck:
    """Return how the adapter in `folder`, cast to the dtype of the server, answers the facts, compared with `entry`.

    Args:
        session: Of the workspace.
        entry: What was exported.
        task: Whose adapter, where it has one of its own; None for what all tasks share.
        folder: The files.
        dtype: One of `DTYPES`, that the server holds the factors in; None takes that of the workspace's model.
        compressed: The rank was cut, so that the loss of held-out text is measured too.
    """
    import torch

    from perdure.bridges.export import as_served, text_loss

    name = dtype or str(session.runtime.base.dtype).removeprefix("torch.")
    place, facts = Place.at(session, entry), facts_at(session, entry)
    if not facts and not compressed:
        return AdapterCheck(name)
    texts = place.held_out(entry)

    def measure() -> "tuple[list[Verdict], float]":
        loss = text_loss(session.runtime.base, session.runtime.model, texts) if compressed else 0.0
        return _verify(place, facts), loss

    session.load(entry, task)
    before, loss_before = measure()
    session.runtime.load({"export": as_served(folder, session.runtime, getattr(torch, name))})
    after, loss = measure()
    losses = Losses(loss_before, loss) if compressed else None
    return AdapterCheck(name, facts_check(facts, before, after) if facts else None, losses)


def check_merged_facts(session: Session, entry: Entry, task: str | None, written: "Base") -> FactsCheck | None:
    """Return how a merged model, whose sums were rounded to its dtype, answers the facts in force; None if there are none."""
    from perdure.editing.site import open_site
    from perdure.editing.verification import verify

    facts = facts_at(session, entry)
    if not facts:
        return None
    session.load(entry, task)
    before = _verify(Place.at(session, entry), facts)
    with open_site(written.model, written.tokenizer, written.precision) as site:
        return facts_check(facts, before, verify(site, facts, generation=False))


def facts_check(facts: "Sequence[Fact]", before: "Sequence[Verdict]", after: "Sequence[Verdict]") -> FactsCheck:
    """Return how many facts the workspace and an export say, which are lost, and the loss of their targets."""
    pairs = zip(facts, before, after, strict=True)
    return FactsCheck(
        n=len(facts),
        said_before=sum(v.efficacy for v in before),
        said=sum(v.efficacy for v in after),
        lost=tuple(LostFact(f.id, f.subject) for f, then, now in pairs if then.efficacy and not now.efficacy),
        nll_before=fmean(v.prompt.target for v in before),
        nll=fmean(v.prompt.target for v in after),
    )


def facts_at(session: Session, entry: Entry) -> "list[Fact]":
    """Return the facts in force at an entry, without paraphrases and neighbours."""
    if EDITS not in session.ledger.slots(entry):
        return []
    live = Place.at(session, entry).in_force(entry).live
    return [replace(w.fact, paraphrases=(), neighbours=()) for w in live]


def _verify(place: Place, facts: "Sequence[Fact]") -> "list[Verdict]":
    """Return how the model that is loaded answers."""
    from perdure.editing.verification import verify

    if not facts:
        return []
    with place.site() as site:
        return verify(site, facts, generation=False)
