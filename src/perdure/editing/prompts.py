"""Facts as tokens: the contexts of a prompt, and the positions of the subject's last token and of the target."""

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.core.errors import BadInput
from perdure.data.encode import behind
from perdure.editing.facts import Fact, place_of
from perdure.editing.site import Tokenizer


@dataclass(frozen=True)
class Context:
    """The text around a prompt.

    Args:
        before: Text before it.
        after: Text between it and the target.
        special: Whether the tokenizer adds its special tokens (a chat template already contains them).
    """

    before: str = ""
    after: str = " "
    special: bool = True


BARE = Context()


@dataclass(frozen=True)
class Line:
    """A prompt in its context, followed by the answer, as tokens.

    Args:
        ids: All tokens.
        first: Position of the subject's first token; of the prompt's last token where there is no subject.
        last: Position of the subject's last token; of the prompt's last token where there is no subject.
        answer: Position of the answer's first token; the number of tokens where there is no answer.
    """

    ids: tuple[int, ...]
    first: int
    last: int
    answer: int

    @property
    def targets(self) -> tuple[int, ...]:
        """The answer's tokens."""
        return self.ids[self.answer :]


def encode(
    tokenizer: Tokenizer, context: Context, prompt: str, subject: str | None, answer: str = "", at: int | None = None
) -> Line:
    """Return the tokens of `context(prompt) answer`, and the subject's position from the tokenizer's offsets.

    The whole line is encoded at once, so that spaces and special tokens are right where its parts meet. `at` is where the
    subject begins in the prompt, where that is known (see `facts.place_of`).

    Raises:
        BadInput: The tokenizer gives no offsets or has no token for the subject, or the prompt does not name the subject.
    """
    if not tokenizer.is_fast:
        raise BadInput("editing needs a fast tokenizer (it must know which characters a token covers)")
    prompt, answer = prompt.rstrip(), answer.strip()
    start = len(prompt) - 1
    if subject:
        start = place_of(subject, prompt) if at is None else at
    if start < 0:
        raise BadInput(f"the prompt {prompt!r} does not name the subject {subject!r}")
    begin = len(context.before) + start
    end = begin + len(subject or " ")
    text = context.before + prompt + (context.after if answer or context.after.strip() else "")
    coded = tokenizer(text + answer, add_special_tokens=context.special, return_offsets_mapping=True)
    ids, spans = coded["input_ids"], coded["offset_mapping"]
    size = (
        max((t for t, (a, b) in enumerate(spans) if b > a), default=-1) + 1
    )  # without an end token that the tokenizer adds
    covering = [t for t, (a, b) in enumerate(spans[:size]) if a < end and b > max(a, begin)]
    if not covering:
        raise BadInput(f"the tokenizer has no token for {subject or prompt!r}; its vocabulary does not fit this text")
    if answer and not context.special and text.endswith(" "):  # in a chat that space is a token of the prompt
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return Line((*ids, *behind(answer, text, ids, tokenizer)), covering[0], covering[-1], len(ids))
    edge = len(
        context.before + prompt + context.after.rstrip(" ")
    )  # a token that is only a space belongs to the answer
    first_of_answer = next((t for t, (_, b) in enumerate(spans[:size]) if b > edge), size)
    return Line(tuple(ids[:size]), covering[0], covering[-1], first_of_answer)


def opens(tokenizer: Tokenizer, fact: Fact) -> bool:
    """Return whether the subject is the first token of the bare prompt.

    The state of a first token is an attention sink; it has next to no information about the subject.
    """
    return encode(tokenizer, BARE, fact.question, fact.subject, fact.target, fact.at).last == 0


def texts_of(fact: Fact) -> list[str]:
    """Return all texts that are used to write and to verify a fact."""
    neighbours = [f"{near.prompt} {near.answer}" for near in fact.neighbours]
    return [f"{fact.question} {fact.target}", *fact.paraphrases, *neighbours]


def too_long(tokenizer: Tokenizer, texts: Sequence[str], positions: int | None, spare: float = 0.0) -> str | None:
    """Return why texts do not fit a model; None if they do.

    Args:
        tokenizer: The model's tokenizer.
        texts: At least one.
        positions: Most tokens that the model takes; None where there is no limit.
        spare: Share of the positions that is reserved for the contexts around a text.
    """
    longest = max(len(tokenizer(text)["input_ids"]) for text in texts)
    if positions is None or longest <= positions * (1 - spare):
        return None
    reserved = f", and {spare:.0%} of them are for contexts" if spare else ""
    return f"its longest text has {longest} tokens; the model has {positions} positions{reserved}"


def refuse_long(
    tokenizer: Tokenizer, fact: Fact, texts: Sequence[str], positions: int | None, spare: float = 0.0
) -> None:
    """Refuse a fact whose texts do not fit the model; see `too_long`.

    Raises:
        BadInput: One is too long.
    """
    if why := too_long(tokenizer, texts, positions, spare):
        raise BadInput(f"the fact about {fact.subject!r}: {why}; shorten it, or leave the fact out")


def usable(contexts: Sequence[Context], tokenizer: Tokenizer, fact: Fact) -> list[Line]:
    """Return the lines of a fact in its contexts, without those in which the subject ends at position 0 (see `opens`)."""
    lines = [encode(tokenizer, c, fact.question, fact.subject, fact.target, fact.at) for c in contexts]
    usable_lines = [line for line in lines if line.last > 0]
    if not usable_lines:
        raise BadInput(f"the prompt {fact.question!r} begins with its subject; edit with at least one context")
    return usable_lines


def shares(lines: Sequence[Line], contexts: Sequence[Context]) -> list[float]:
    """Return the weight of each of a fact's lines in its key. The bare prompt, if it is a line, weighs as much as all others.

    A subject at the beginning of a text has another key than one after a text, and users send the bare prompt.
    Source: the two halves of MEMIT's official code.
    """
    if len(lines) < len(contexts) or contexts[0] != BARE or len(lines) == 1:  # the bare line alone can be missing
        return [1 / len(lines)] * len(lines)
    return [0.5, *[0.5 / (len(lines) - 1)] * (len(lines) - 1)]
