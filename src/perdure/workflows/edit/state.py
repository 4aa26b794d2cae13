"""The edit set of a state on the workspace's one model: loaded with the other slots, verified, and written again."""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from perdure.core.progress import Tick
from perdure.core.slots import EDITS
from perdure.data.passages import PASSAGES
from perdure.ledger import Entry
from perdure.ledger.entry import Kind
from perdure.ledger.records import Drift
from perdure.workflows.cached import cached
from perdure.workflows.session import Session
from perdure.workflows.slots import factors_of, tensors_of

if TYPE_CHECKING:
    from perdure.editing.edit_set import EditSet
    from perdure.editing.facts import Fact
    from perdure.editing.measures import Verdict
    from perdure.editing.moments import Statistics
    from perdure.editing.site import Site
    from perdure.editing.spec import EditSpec

TEST_ROWS = 16  # test rows of a task whose text counts as held out
LONGEST = 128  # tokens of a held-out text


@dataclass(frozen=True)
class Place:
    """A workspace's model with the slots that edits are solved on.

    Args:
        session: Of the workspace.
        others: Object hash by slot, of all slots but the edits.
        tick: Called as work goes on.
    """

    session: Session
    others: dict[str, str]
    tick: Tick | None = None

    @classmethod
    def at(cls, session: Session, entry: Entry, tick: Tick | None = None) -> "Place":
        """Return the place of an entry."""
        return cls(session, {name: slot for name, slot in session.ledger.view(entry).items() if name != EDITS}, tick)

    def in_force(self, entry: Entry) -> "EditSet":
        """Return the edit set at an entry; an empty one where it has none."""
        from perdure.editing.edit_set import EditSet
        from perdure.editing.edit_tensors import set_from_tensors

        stored = self.session.ledger.slots(entry).get(EDITS)
        return set_from_tensors(self.session.ledger.objects.get(stored)) if stored else EditSet()

    def load(self, edit_set: "EditSet | None" = None) -> None:
        """Make the workspace's model the canonical form of these slots with an edit set, or without edits."""
        slots = tensors_of(self.session.ledger, self.others)
        if edit_set is not None and edit_set.live:
            slots[EDITS] = factors_of(edit_set)
        self.session.runtime.load(slots)

    @contextmanager
    def site(self) -> "Iterator[Site]":
        """Yield the model that is loaded."""
        from perdure.editing.site import open_site

        with open_site(self.session.runtime.model, self.session.tokenizer, self.session.runtime.precision) as site:
            yield site

    def verify(
        self, edit_set: "EditSet", facts: "Sequence[Fact] | None" = None, full: Container[str] | None = None
    ) -> "dict[str, Verdict]":
        """Load a set and return how the model answers its live facts, or others, by fact id.

        Args:
            edit_set: The set.
            facts: Facts to verify; the live facts, if None.
            full: Ids of facts to verify in every form and by free generation; None means all. The others are verified by
                their prompt alone, which shows whether they are still said.
        """
        from perdure.editing.verification import verify

        chosen = [w.fact for w in edit_set.live] if facts is None else list(facts)
        whole = [fact for fact in chosen if full is None or fact.id in full]
        rest = [fact for fact in chosen if full is not None and fact.id not in full]
        self.load(edit_set)
        self._report("verifying facts", 0, len(chosen))
        with self.site() as site:
            verdicts = verify(site, whole) if whole else []
            verdicts += verify(site, rest, generation=False, forms=False) if rest else []
        return {fact.id: verdict for fact, verdict in zip((*whole, *rest), verdicts, strict=True)}

    def cost(self, edit_set: "EditSet", entry: Entry) -> tuple[Drift, dict[str, float]]:
        """Load the slots without edits; return the effect of a set on held-out text, and its relative norm by layer name."""
        from perdure.editing.overlay import overlaid
        from perdure.editing.verification import drift, relative_norms

        self.load()
        texts = self.held_out(entry)
        factors = edit_set.factors()
        with self.site() as site:
            return drift(site, texts, lambda: overlaid(site, factors)), relative_norms(site, factors)

    def held_out(self, entry: Entry) -> list[list[int]]:
        """Return held-out text as tokens: fixed passages, and test rows of the tasks that an entry knows."""
        rows = [row for name in entry.tasks for row in self.session.task(name, entry).test[:TEST_ROWS]]
        texts = [row.prompt + row.completion + "\n".join(m.content for m in row.messages) for row in rows]
        most = min(LONGEST, self.session.runtime.base.positions or LONGEST)
        coded = [self.session.tokenizer(text)["input_ids"][:most] for text in (*PASSAGES, *texts)]
        return [ids for ids in coded if len(ids) > 1]

    def write(self, facts: "Sequence[Fact]", spec: "EditSpec", onto: "EditSet") -> "EditSet":
        """Add facts to those of `onto`, with the slots loaded without edits."""
        from perdure.editing.edit import edit

        return edit(*self._model(), facts, spec, onto=onto, **self._settings())

    def current(self, edit_set: "EditSet") -> "EditSet":
        """Return the set, written again if it was written on another state than the one that is loaded, without edits."""
        from perdure.editing.edit import rewrite
        from perdure.editing.moments import weights_hash

        if not edit_set.written or edit_set.state == weights_hash(self.session.runtime.model):
            return edit_set
        return rewrite(*self._model(), edit_set, **self._settings())

    def settle(self, edit_set: "EditSet") -> "EditSet":
        """Load the slots without edits; return the set with everything computed again that depended on a removed fact."""
        from perdure.editing.edit import settle

        if not edit_set.live:
            return edit_set
        self.load()
        return settle(*self._model(), edit_set, **self._settings())

    def pin(self, edit_set: "EditSet") -> "EditSet":
        """Load the slots without edits; return the set with the keys of its dropped facts as the model has them now."""
        from perdure.editing.edit import pin

        if not edit_set.live:
            return edit_set
        self.load()
        return pin(*self._model(), edit_set, **self._settings())

    def store(self, edit_set: "EditSet") -> str | None:
        """Store a set as an object, each fact a part of it, and return its hash; None for a set without live facts."""
        from perdure.editing.edit_tensors import pack_set

        return self.session.ledger.objects.put(*pack_set(pruned(edit_set))) if edit_set.live else None

    def _model(self) -> tuple[Any, Any]:
        return self.session.runtime.model, self.session.tokenizer

    def statistics(self) -> "Statistics":
        """Return the source of the keys' second moments: the base model, or the loaded state if it has other weights."""
        from perdure.editing.moments import Statistics

        runtime, folder = self.session.runtime, cached(self.session, "moments")
        if runtime.dense:
            return Statistics(folder)
        return Statistics(folder, f"{self.session.ledger.config['base']} {runtime.base.dtype}", runtime.bare)

    def _settings(self) -> dict[str, Any]:
        return {"precision": self.session.runtime.precision, "statistics": self.statistics(), "tick": self.tick}

    def _report(self, what: str, done: int, total: int) -> None:
        if self.tick:
            self.tick(what, done, total)


def entry_with(parent: Entry, kind: Kind, data: dict[str, Any], seed: int, edits: str | None) -> Entry:
    """Return the entry on `parent` that has another edit set, or none, and is the same in all else."""
    return Entry(
        parent=parent.id,
        kind=kind,
        base=parent.base,
        tasks=parent.tasks,
        data=data,
        seed=seed,
        slots={EDITS: edits},
        memory=parent.memory,
        columns=parent.columns,
        state=parent.state,
    )


def pruned(edit_set: "EditSet") -> "EditSet":
    """Return the set with the names of only those layers that a fact is written into: equal sets are equal to the bit."""
    used = {layer for w in edit_set.written for layer in w.layers}
    return replace(edit_set, modules={layer: name for layer, name in sorted(edit_set.modules.items()) if layer in used})
