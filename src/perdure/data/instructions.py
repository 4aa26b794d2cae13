"""Instructions that a model wrote: which of them have the form of an instruction, and which repeat another."""

from collections.abc import Collection, Iterable, Sequence

from perdure.core.script import count_words, narrowed

FEWEST, MOST = 3, 60  # words of an instruction
SHINGLE = 5  # characters
ALIKE = 0.8  # Jaccard similarity from which two instructions are near copies
ROLES = (
    "user",
    "assistant",
    "system",
    "human",
    "<|",
    "[inst",
    "###",
)  # beginnings of what a template writes, in lower case


def has_form(text: str, marks: Collection[str]) -> bool:
    """Return whether a text may be an instruction: one line of 3 to 60 words of whole characters, without a word of a template.

    Args:
        text: The text, without white space around it.
        marks: Texts that only a template writes, such as the special tokens of a tokenizer.
    """
    if "\n" in text or "\ufffd" in text or not FEWEST <= count_words(text) <= MOST:
        return False
    return not any(mark in text for mark in marks) and not text.lower().startswith(ROLES)


def shingles(text: str) -> frozenset[str]:
    """Return the runs of five characters of a text, in lower case and with single spaces; the text itself where it is shorter."""
    plain = " ".join(narrowed(text).lower().split())
    return frozenset(plain[n : n + SHINGLE] for n in range(max(len(plain) - SHINGLE + 1, 1)))


def similarity(mine: Collection[str], theirs: Collection[str]) -> float:
    """Return the Jaccard similarity of two sets: the size of what both have, divided by the size of what either has."""
    both = len(set(mine) & set(theirs))
    return both / (len(mine) + len(theirs) - both) if mine or theirs else 1.0


def without_copies(texts: Iterable[str], known: Sequence[str] = ()) -> list[str]:
    """Return the texts in order, without those that are a near copy of a known one or of one before.

    Cost: a comparison of two sets for each pair of texts.
    """
    seen, kept = [shingles(text) for text in known], []
    for text in texts:
        own = shingles(text)
        if all(similarity(own, other) < ALIKE for other in seen):
            seen.append(own)
            kept.append(text)
    return kept
