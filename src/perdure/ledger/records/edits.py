"""Edited facts: the model's answers to them, and the notes of entries about the facts in force."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from perdure.core.records import Record, omitted


@dataclass(frozen=True)
class Neighbour(Record):
    """A prompt about something else, and the answer that an edit must not change."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Answer(Record):
    """How a model answers one prompt.

    Args:
        target: Mean loss of the target in nats per token.
        other: Mean loss of the competing answer (the ground truth, or a neighbour's own answer); None where that is not known.
        said: Whether each token of the wanted answer is the likeliest: greedy decoding gives the answer.
    """

    target: float
    other: float | None
    said: bool

    @property
    def preferred(self) -> bool:
        """Whether the target is likelier per token than the other answer; without another answer, whether the model gives it."""
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
    """A fact as it was written. Of a dropped fact only this is known.

    Args:
        fact: Its id.
        entry: The entry that wrote it.
        subject: What it is about.
        prompt: Beginning of a sentence, with the subject.
        target: The new end of the sentence.
        ground_truth: The old end of the sentence, where known.
        relation: Name of the relation, where known.
        paraphrases: The same question in other words.
        neighbours: Questions whose answers must not change.
        reason: Why the fact changes.
        method: Editing method.
        layers: Blocks it is written into.
        optimised: Loss, steps and size of the optimisation.
        dropped: Whether it is out of force; the update is then zero at its key.
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
        at_edit: Whether the model answered with the target when it was written.
        efficacy: Whether the target is likelier than the ground truth and is the model's answer.
        paraphrase: Share of the paraphrases that prefer the target; None where there are none.
        neighbourhood: Share of the neighbours that prefer their own answer; None where there are none.
        generation: Whether the text that the model generates begins with the target; None where no text was generated.
        generated: That text.
        chat: Whether the target is preferred and is the model's answer in a chat; None where the tokenizer has no chat template.
        answers: The answers that the values above are computed from.
        lost_in: Tasks whose own adapters give another answer.
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
        """The fact without the settings that it was written with, and without its answers."""
        about = (self.fact, self.entry, self.subject, self.prompt, self.target)
        measures = (self.efficacy, self.paraphrase, self.neighbourhood, self.generation)
        return ListedFact(*about, *measures, self.lost_in)


@dataclass(frozen=True)
class Drift(Record):
    """The effect of an edit set on held-out text.

    Args:
        perplexity_before: exp of the mean loss per token without the edit set.
        perplexity: The same with the edit set.
        kl: Mean KL(before || after) in nats per token.
    """

    perplexity_before: float
    perplexity: float
    kl: float

    @property
    def rise(self) -> float:
        """Relative increase of the perplexity."""
        return self.perplexity / self.perplexity_before - 1


@dataclass(frozen=True)
class EditsSummary(Record):
    """The facts in force at an entry, counted.

    Args:
        about: What the entry is about; see `EditsRecord`.
        drift: The effect of the edit set on held-out text.
        rewritten: Whether a learn wrote the facts again.
        facts: Number of facts in force.
        held: Number of them that the model answers with.
    """

    about: str | None
    drift: Drift | None
    rewritten: bool
    facts: int
    held: int


@dataclass(frozen=True)
class EditsRecord(Record):
    """The facts at an entry.

    Args:
        about: What the entry that last changed them is about: the subject of its fact, or the number of its facts.
        facts: The facts in force, oldest first.
        dropped: Facts that were dropped.
        drift: The effect of the edit set on held-out text; None where no fact is in force.
        norms: Relative norm of the update by layer name.
        rewritten: Whether a learn wrote the facts again.
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
        """Ids of the facts in force that the model answers with."""
        return [line.fact for line in self.facts if line.efficacy]

    @property
    def lost(self) -> list[str]:
        """Ids of the facts in force that the model does not answer with."""
        return [line.fact for line in self.facts if not line.efficacy]

    @property
    def summary(self) -> EditsSummary:
        """The record with counts of its facts instead of their lines."""
        return EditsSummary(self.about, self.drift, self.rewritten, len(self.facts), len(self.said))


@dataclass(frozen=True)
class EditsNote(Record):
    """An entry's note about the facts in force: the changes to the record of its parent.

    Args:
        about: See `EditsRecord`.
        drift: See `EditsRecord`.
        norms: See `EditsRecord`.
        rewritten: Whether a learn wrote the facts again; None in the note of an edit, which has no such key.
        gone: Ids of the facts that are not in the record any more.
        lines: The facts that are new, or whose line changed.
        order: Ids of all facts, where their order does not follow from the other fields.
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
    """A fact that was not written.

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
    """A fact that was in force and was replaced by another.

    Args:
        subject: What it is about.
        fact: Its id.
        by: Id of the fact that replaced it.
    """

    subject: str
    fact: str
    by: str


@dataclass(frozen=True)
class EditNote(Record):
    """The note of an edit.

    Args:
        applied: Ids of the facts that it wrote.
        refused: Facts that it did not write.
        superseded: Facts in force that new ones replaced.
        rewritten: Number of facts in force that had to be written again, because head has learned since.
        lost: Ids of facts in force that the model answered with before and does not now.
        known: Ids of applied facts that the model answered with before the edit.
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
    """A fact that was reverted.

    Args:
        fact: Its id.
        subject: What it is about.
        target: Its target.
        said: Whether the model still answers with it.
        preferred: Whether it is still likelier than the ground truth.
        left: Norm of the update at its key, relative to the norm before.
    """

    fact: str
    subject: str
    target: str
    said: bool
    preferred: bool
    left: float


@dataclass(frozen=True)
class RevertNote(Record):
    """The note of a revert of facts.

    Args:
        reverted: The facts that were reverted.
        lost: Ids of facts in force that the model answered with before and does not now.
        already: Ids of facts that had been reverted before.
        resolve: Whether the other facts were solved again as if these had never been written.
        seconds: Wall time.
    """

    reverted: tuple[RevertedFact, ...]
    lost: tuple[str, ...]
    already: tuple[str, ...]
    resolve: bool
    seconds: float
