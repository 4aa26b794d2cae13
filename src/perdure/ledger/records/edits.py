"""Edited facts: how each is answered, and what entries note about those in force."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from perdure.core.records import Record, omitted


@dataclass(frozen=True)
class Neighbour(Record):
    """A prompt about something else, and the answer that an edit must leave in place."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Answer(Record):
    """How a model answers one prompt.

    Args:
        target: Mean loss of the target in nats a token.
        other: The same of what it competes with (the ground truth, or a neighbour's own answer); None where that is not known.
        said: Each token of the wanted answer is the likeliest.
    """

    target: float
    other: float | None
    said: bool

    @property
    def preferred(self) -> bool:
        """The target is likelier than the other answer, token for token; where that is not known, it is what is said."""
        return self.said if self.other is None else self.target < self.other


@dataclass(frozen=True)
class Answers(Record):
    """How a model answers every form of a fact.

    Args:
        prompt: The fact's own prompt.
        paraphrases: Its paraphrases.
        neighbours: Prompts about something else; here the wanted answer is the neighbour's own, `other`.
        chat: The prompt as a user's turn; None where the tokenizer has no chat template.
    """

    prompt: Answer
    paraphrases: tuple[Answer, ...]
    neighbours: tuple[Answer, ...]
    chat: Answer | None


@dataclass(frozen=True)
class WrittenFact(Record):
    """A fact as it was written; of a fact that was dropped this is all that is known.

    Args:
        fact: Its id.
        entry: The entry that wrote it.
        subject: What it is about.
        prompt: Beginning of a sentence, the subject in its place.
        target: What completes the sentence.
        ground_truth: What completed it before, where known.
        relation: Name of the relation, where known.
        paraphrases: The same question in other words.
        neighbours: Questions whose answers must stay.
        reason: Why the fact changes.
        method: Editing method.
        layers: Blocks it is written into.
        optimised: Loss, steps and size of the optimisation.
        dropped: It is out of force, and its key is kept free of any update.
    """

    fact: str
    entry: str
    subject: str
    prompt: str
    target: str
    ground_truth: str | None
    relation: str | None
    paraphrases: tuple[str, ...]
    neighbours: tuple[Neighbour, ...]
    reason: str | None
    method: str
    layers: tuple[int, ...]
    optimised: Mapping[str, float]
    dropped: bool


@dataclass(frozen=True)
class ListedFact(Record):
    """A fact in force as `perdure edits list` shows it; for the fields see `FactLine`."""

    fact: str
    entry: str
    subject: str
    prompt: str
    target: str
    efficacy: bool
    paraphrase: float | None
    neighbourhood: float | None
    generation: bool | None
    lost_in: tuple[str, ...] = ()


@dataclass(frozen=True)
class FactLine(WrittenFact):
    """A fact in force, as it was last verified.

    Args:
        at_edit: It was said when it was written.
        efficacy: The target is likelier than the ground truth, and it is what the model says.
        paraphrase: Share of the paraphrases that prefer the target; None where there are none.
        neighbourhood: Share of the neighbours that prefer their own answer; None where there are none.
        generation: The text that the model goes on with begins with the target; None where that was not generated.
        generated: That text.
        chat: The target is preferred and said as the answer of a chat; None where the tokenizer has no chat template.
        answers: What all this rests on.
        lost_in: Tasks whose own adapters say otherwise.
    """

    at_edit: bool
    efficacy: bool
    paraphrase: float | None
    neighbourhood: float | None
    generation: bool | None
    generated: str | None
    chat: bool | None
    answers: Answers
    lost_in: tuple[str, ...] = omitted(())

    @property
    def listed(self) -> ListedFact:
        """The fact without how it was written, and without its answers."""
        about = (self.fact, self.entry, self.subject, self.prompt, self.target)
        measures = (self.efficacy, self.paraphrase, self.neighbourhood, self.generation)
        return ListedFact(*about, *measures, self.lost_in)


@dataclass(frozen=True)
class Drift(Record):
    """What an edit set does to held-out text.

    Args:
        perplexity_before: exp of the mean loss a token without it.
        perplexity: The same with it.
        kl: Mean KL(before || after) in nats a token.
    """

    perplexity_before: float
    perplexity: float
    kl: float

    @property
    def rise(self) -> float:
        """By what share the perplexity rose."""
        return self.perplexity / self.perplexity_before - 1


@dataclass(frozen=True)
class EditsSummary(Record):
    """The facts in force at an entry, counted.

    Args:
        about: What the entry is about; see `EditsRecord`.
        drift: What the set does to held-out text.
        rewritten: A learn wrote the facts again.
        facts: How many facts are in force.
        held: How many of them are said.
    """

    about: str | None
    drift: Drift | None
    rewritten: bool
    facts: int
    held: int


@dataclass(frozen=True)
class EditsRecord(Record):
    """What is known about the facts at an entry.

    Args:
        about: What the entry that changed them last is about: the subject of the one fact it edits, or their number.
        facts: The facts in force, oldest first.
        dropped: Facts that were dropped.
        drift: What the set does to held-out text; None where nothing is in force.
        norms: Relative norm of the update by layer name.
        rewritten: A learn wrote the facts again.
    """

    about: str | None = None
    facts: tuple[FactLine, ...] = ()
    dropped: tuple[WrittenFact, ...] = ()
    drift: Drift | None = None
    norms: Mapping[str, float] = field(default_factory=dict)
    rewritten: bool = False

    @property
    def every(self) -> dict[str, FactLine | WrittenFact]:
        """The facts in force, then the dropped ones, by id."""
        return {line.fact: line for line in (*self.facts, *self.dropped)}

    @property
    def said(self) -> list[str]:
        """Ids of the facts in force that are said."""
        return [line.fact for line in self.facts if line.efficacy]

    @property
    def lost(self) -> list[str]:
        """Ids of the facts in force that are not said."""
        return [line.fact for line in self.facts if not line.efficacy]

    @property
    def summary(self) -> EditsSummary:
        """The record with the number of its facts, and of those that are said, in place of their lines."""
        return EditsSummary(self.about, self.drift, self.rewritten, len(self.facts), len(self.said))


@dataclass(frozen=True)
class EditsNote(Record):
    """What an entry notes of the facts in force: the changes to the record of its parent.

    Args:
        about: As in the record, and so `drift` and `norms`.
        drift: See above.
        norms: See above.
        rewritten: A learn wrote the facts again; None in the note of an edit, which has no such key.
        gone: Ids of the facts that are in the record no more.
        lines: The facts that are new, or whose line is another now.
        order: Ids of all facts, where their order follows from nothing else.
    """

    about: str | None
    drift: Drift | None
    norms: Mapping[str, float]
    rewritten: bool | None = omitted(None)
    gone: tuple[str, ...] = ()
    lines: tuple[FactLine | WrittenFact, ...] = ()
    order: tuple[str, ...] | None = omitted(None)


@dataclass(frozen=True)
class RefusedFact(Record):
    """A fact that is not written.

    Args:
        subject: What it is about.
        fact: Its id.
        reason: Why, for people.
    """

    subject: str
    fact: str
    reason: str


@dataclass(frozen=True)
class SupersededFact(Record):
    """A fact in force before, whose place another took.

    Args:
        subject: What it is about.
        fact: Its id.
        by: Id of the fact that took its place.
    """

    subject: str
    fact: str
    by: str


@dataclass(frozen=True)
class EditNote(Record):
    """What an edit notes of itself.

    Args:
        applied: Ids of the facts that it wrote.
        refused: Those that it did not write.
        superseded: Facts in force before whose place new ones took.
        rewritten: How many facts in force had to be written again, because head learned since.
        lost: Ids of facts in force that were said before and are not now.
        known: Ids of those applied that were said without the edit.
        seconds: Wall time.
    """

    applied: tuple[str, ...]
    refused: tuple[RefusedFact, ...]
    superseded: tuple[SupersededFact, ...]
    rewritten: int
    lost: tuple[str, ...]
    known: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class RevertedFact(Record):
    """A fact that was taken out of force.

    Args:
        fact: Its id.
        subject: What it is about.
        target: What completed its prompt.
        said: It is still what the model says.
        preferred: It is still likelier than the ground truth.
        left: Norm of the update at its key, relative to what it was.
    """

    fact: str
    subject: str
    target: str
    said: bool
    preferred: bool
    left: float


@dataclass(frozen=True)
class RevertNote(Record):
    """What a revert of facts notes of itself.

    Args:
        reverted: The facts that were taken out.
        lost: Ids of facts in force that were said before and are not now.
        already: Ids of facts that were taken out before.
        resolve: The others were solved again as if these had never been made.
        seconds: Wall time.
    """

    reverted: tuple[RevertedFact, ...]
    lost: tuple[str, ...]
    already: tuple[str, ...]
    resolve: bool
    seconds: float
