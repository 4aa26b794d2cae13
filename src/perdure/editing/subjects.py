"""The name that a prompt is about, detected from its spelling without a model, and used only if it is specific."""

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from perdure.editing.facts import HOLE

FEW, SHARE, MANY = (
    5,
    0.1,
    20,
)  # a specific name occurs in at most a tenth of all rows, but 5 to 20 rows are always the limit
LONGEST_NAME = 10  # words

_WORD = re.compile(r"(?:[^\W\d_]\.){2,}|[^\W_](?:[\w.&/+'\u2019-]*\w)?")  # "F.C." keeps its last point
_QUOTED = re.compile(  # in double quotes of any style, or in single ones that no word touches
    r"[\"\u201c\u00ab]([^\"\u201c\u201d\u00ab\u00bb\n]+)[\"\u201d\u00bb]|(?<!\w)['\u2018]([^'\u2018\u2019\n]+)['\u2019](?!\w)"
)
_ID = re.compile(r"(?=.*\d)(?=.*[-_])[^\W\d].*")  # "gpt-4", "order_77"
_HEADING = re.compile(r"^\s*\w+:", re.MULTILINE)  # "Question:"
_NUMBER = re.compile(r"\d[\d.]*")
_JOINTS = re.compile(r"of|the|de|da|di|du|la|le|el|von|van|der|den|and|for|in|on|to|&|y|et|und|bin|al")
_AFTER_A_NAME = re.compile(r"is|are|was|were|has|had|can|will|that|which|who|whose|\w+(?:ed|s)")
_COMMON = re.compile(
    r"a|an|the|this|that|these|those|my|your|his|her|its|our|their|i|you|he|she|it|we|they|there|here|in|on|"
    r"at|of|for|from|to|by|with|as|about|into|after|before|during|under|over|between|per|and|or|but|if|when|"
    r"where|who|whom|whose|what|which|why|how|am|is|are|was|were|be|been|do|does|did|has|have|had|can|could|will|"
    r"would|shall|should|may|might|must|not|no|yes|please|name|tell|give|state|say|question|answer|q"
)


@dataclass(frozen=True)
class Subjects:
    """The names in the prompts of one file.

    Args:
        names: By prompt.
        counts: Number of prompts that contain each name.
        rows: Number of prompts.
    """

    names: Mapping[str, tuple[str, ...]]
    counts: Counter[str]
    rows: int

    @classmethod
    def of(cls, prompts: Sequence[str]) -> "Subjects":
        """Return the names in `prompts`. A word that also occurs without a capital letter may open a sentence, but no name."""
        lower = frozenset(word for text in prompts for word in _WORD.findall(text) if word == word.lower())
        names = {text: tuple(_names(text, lower)) for text in prompts}
        counts = Counter(name for text in prompts for name in set(names[text]))
        return cls(names, counts, len(prompts))

    def named(self, prompt: str) -> str | None:
        """Return the name that one of the prompts is about: of those in it, the one in fewest rows, then the longest."""
        names = () if HOLE in prompt else self.names[prompt]
        return min(names, key=lambda name: (self.counts[name], -len(name)), default=None)

    def specific(self, name: str) -> bool:
        """Return whether so few prompts contain this name that it can be what one of them is about."""
        return self.counts[name] <= min(MANY, max(FEW, SHARE * self.rows))


@dataclass(frozen=True)
class _Word:
    """A word of a prompt, without the mark of the possessive.

    Args:
        text: The word.
        start: Where it begins.
        end: Where it ends, the mark left out.
        before: The text between it and the word before.
        cut: Whether it had the mark, which ends a name.
    """

    text: str
    start: int
    end: int
    before: str
    cut: bool

    def begins(self, lower: Container[str]) -> bool:
        """Return whether a name can begin with it: not with a "The", and not with a word in capitals for stress."""
        stressed = self.text.isupper() and len(self.text) > 2 and self.text.lower() in lower
        return _capital(self.text) and not stressed and not _COMMON.fullmatch(self.text.lower())

    @property
    def opens(self) -> bool:
        """Whether a sentence begins here, where every word has a capital letter."""
        return self.start == 0 or bool(re.search(r"[.?!:\n]", self.before))


def _names(prompt: str, lower: frozenset[str]) -> Iterator[str]:
    """Yield the names in a prompt: runs of words with capital letters, ids with digits, titles in quotes."""
    text = _HEADING.sub(lambda heading: "\n" * len(heading[0]), prompt)
    for match in _QUOTED.finditer(text):
        title = (match[1] or match[2]).strip()
        if title and all(_capital(word) or len(word) < 4 for word in title.split()) and _capital(title):
            yield title
    words = list(_words(text))
    for first, last in _runs(words, lower):
        name = text[words[first].start : words[last].end]
        alone = first == last and words[first].opens and not _ID.fullmatch(name)
        if alone and (name.lower() in lower or not _goes_on(words[first], words[first + 1 : first + 2])):
            continue
        if name != text.strip(" .?!:\n") and len(name) > 1 and len(name.split()) <= LONGEST_NAME:
            yield name


def _words(text: str) -> Iterator[_Word]:
    end = 0
    for match in _WORD.finditer(text):
        bare = re.sub(r"['\u2019]s?$", "", match[0])
        yield _Word(bare, match.start(), match.start() + len(bare), text[end : match.start()], bare != match[0])
        end = match.end()


def _capital(word: str) -> bool:
    return word != word.lower() or bool(_ID.fullmatch(word))


def _goes_on(name: _Word, rest: Sequence[_Word]) -> bool:
    """Return whether the text after a first word is typical after a name: "Lyon is", "Lyon, in", "Lyon's"."""
    return name.cut or any("," in word.before or _AFTER_A_NAME.fullmatch(word.text) for word in rest)


def _runs(words: Sequence[_Word], lower: Container[str]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last word of each run with capitals; a run may contain numbers, and words such as "of the"."""
    at = 0
    while at < len(words):
        if words[at].begins(lower):
            first, last = at, _next(words, at)
            while last is not None:
                at, last = last, _next(words, last)
            yield first, at
        at += 1


def _next(words: Sequence[_Word], at: int) -> int | None:
    """Return the index of the next word of the name after word `at`; None if the name ends there."""
    for i in range(at + 1, min(at + 4, len(words))):
        short = len(words[i - 1].text) < 3 and not _COMMON.fullmatch(words[i].text.lower())
        initial = words[i].before == ". " and short  # "J. Doe", "St. Ives"
        if words[i - 1].cut or not (words[i].before == " " or initial):
            return None
        if _capital(words[i].text) or (i == at + 1 and _NUMBER.fullmatch(words[i].text)):
            return i
        if not _JOINTS.fullmatch(words[i].text):
            return None
    return None
