"""The rules that send a row with a question and an answer to training. A row that matches none of them is a fact.

The rules use spelling and counts, and no model. Doubtful rows are trained: training a fact works too and only costs more, while
editing cannot write a skill.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from perdure.core.rows import Row
from perdure.core.script import UNSPACED, count_words, has_unspaced
from perdure.editing.facts import HOLE
from perdure.editing.subjects import Subjects

LONGEST_PROMPT, LONGEST_ANSWER = 30, 6  # words
STOPS = "\u3002\uff01\uff1f"  # marks that end a sentence where no space follows
LETTERS = 3  # letters of a script without spaces that count as one word
SHARED = 5  # an answer of at least this many rows is a label
FORMS = 3  # a form of words about at least this many names is a relation, whose answers may repeat
FEW = 0.15  # at most this many different answers per row: then all answers are labels

_INSTRUCTION = re.compile(
    r"add|analyse|analyze|answer|arrange|calculate|change|choose|classify|combine|compare|complete|compose|"
    r"compute|convert|correct|count|create|decide|define|describe|design|detect|determine|discuss|edit|"
    r"estimate|evaluate|expand|explain|extract|fill|find|fix|format|generate|guess|identify|improve|infer|"
    r"insert|join|label|list|make|match|paraphrase|pick|predict|produce|propose|rank|rate|read|recommend|"
    r"remove|reorder|rephrase|replace|respond|reverse|rewrite|select|separate|shorten|simplify|solve|sort|"
    r"spell|split|suggest|summarise|summarize|tag|transcribe|transform|translate|turn|use|verify|write",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(
    rf"(?:[a-z]{{3}}|\d)[.!?][\"')\]]* +\S|[{STOPS}]\s*[^\s{STOPS}]"
)  # not "Dr. Moss", not "J. Doe"
_EXPLAINED = re.compile(
    r"(?:question:|q:)?\s*(?:why|how\s+(?:am|are|can|could|did|do|does|is|should|to|was|were|would))\b", re.IGNORECASE
)
_CHOICE = re.compile(r"\b(?:whether|(?:which|what|one) of (?:these|those|the following))\b", re.IGNORECASE)
_CHOSEN = re.compile(r"yes|no|true|false|[a-z]", re.IGNORECASE)
_ASKER = re.compile(r"\b(?:I|me|my|mine|we|us|our|you|your)\b(?!\.)", re.IGNORECASE)
_BEGIN = re.compile(rf"(?<!\w)|(?<=[{UNSPACED}])")  # of a word; in a script without spaces, anywhere
_END = re.compile(rf"(?!\w)|(?=[{UNSPACED}])")
_NUMBER = re.compile(r"[-+$€£]?\d[\d.,]*\s?%?")


@dataclass(frozen=True)
class File:
    """Counts over all rows with a question and an answer.

    Args:
        subjects: The names in the prompts.
        answers: Number of rows of each answer.
        names: Number of names in each form of words, a prompt with "{}" in place of its name.
    """

    subjects: Subjects
    answers: Counter[str]
    names: Mapping[str, int]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "File":
        """Return the counts over `rows`."""
        subjects = Subjects.of([prompt_of(row) for row in rows])
        answers = Counter(row.answer.strip().casefold() for row in rows)
        named = [(prompt_of(row), subjects.named(prompt_of(row))) for row in rows]
        forms = {(form(prompt, name), name) for prompt, name in named}
        return cls(subjects, answers, Counter(text for text, _ in forms))

    @cached_property
    def classes(self) -> bool:
        """Whether there are so few different answers that each one that occurs twice is a label."""
        return len(self.answers) <= FEW * self.answers.total()


@dataclass(frozen=True)
class Candidate:
    """One row with everything that the rules need.

    Args:
        row: The row.
        file: The counts over all rows.
        given: The subject that a column gives, if the prompt contains it.
    """

    row: Row
    file: File
    given: str | None = None

    @property
    def prompt(self) -> str:
        """Its question."""
        return prompt_of(self.row)

    @property
    def answer(self) -> str:
        """Its answer."""
        return self.row.answer.strip()

    @cached_property
    def name(self) -> str | None:
        """The name that the question is about."""
        return self.given or self.file.subjects.named(self.prompt)

    @property
    def single(self) -> bool:
        """Whether it is one question with one answer."""
        plain = not self.row.extra and not any(turn.extra for turn in self.row.messages)
        return plain and [turn.role for turn in self.row.messages] in ([], ["user", "assistant"])

    @property
    def passage(self) -> bool:
        """Whether the prompt is long, of several sentences or many lines, or has its answer on a new line."""
        lines = self.prompt.count("\n") + self.prompt.endswith("\n")
        return _words(self.prompt) > LONGEST_PROMPT or lines > 1 or bool(_SENTENCE_END.search(self.prompt))

    @property
    def personal(self) -> bool:
        """Whether the prompt has words such as "I" or "you" outside the name in it."""
        return bool(_ASKER.search(form(self.prompt, self.name)))

    @property
    def text(self) -> bool:
        """Whether the answer is long, a sentence, a list, or of several lines."""
        words, parts = _words(self.answer), sum(self.answer.count(sign) for sign in ",\uff0c\u3001\n")
        return (
            words > LONGEST_ANSWER
            or parts > 1
            or "\n" in self.answer
            or (words > 3 and self.answer[-1] in f".!?{STOPS}")
        )

    @property
    def copied(self) -> bool:
        """Whether the answer occurs in the prompt, to be chosen or copied."""
        places = re.finditer(f"(?=({re.escape(self.answer)}))", self.prompt, re.IGNORECASE)  # places may overlap
        return any(
            _BEGIN.match(self.prompt, place.start(1)) and _END.match(self.prompt, place.end(1)) for place in places
        )

    @property
    def computed(self) -> bool:
        """Whether the prompt has numbers and the answer is one."""
        return bool(_NUMBER.fullmatch(self.answer)) and len(_NUMBER.findall(self.prompt)) > 1

    @property
    def label(self) -> bool:
        """Whether many rows share the answer, unless they ask the same question about different names."""
        rows = self.file.answers[self.answer.casefold()]
        if self.file.classes:
            return rows > 1
        return rows >= SHARED and self.file.names[form(self.prompt, self.name)] < FORMS


RULES: tuple[tuple[str, Callable[[Candidate], bool]], ...] = (
    ("it is a conversation of several turns, or has a system text, reasoning or tools", lambda row: not row.single),
    ("it is text without a question", lambda row: not row.prompt.strip()),
    ("it has a label, so it is classification", lambda row: row.row.label is not None),
    (f"its prompt is a passage: over {LONGEST_PROMPT} words, a sentence or 2 lines", lambda row: row.passage),
    ("its prompt is an instruction", lambda row: bool(_INSTRUCTION.fullmatch(row.prompt.split()[0].strip(",:.")))),
    ("it asks how or why, which is explained, not named", lambda row: bool(_EXPLAINED.match(row.prompt))),
    ("it is about the writer or the reader, not only about a name", lambda row: row.personal),
    (f"its answer is a text: over {LONGEST_ANSWER} words, a sentence or a list", lambda row: row.text),
    ("its answer is yes, no, or a letter to choose", lambda row: bool(_CHOSEN.fullmatch(row.answer))),
    ("it asks for a choice", lambda row: bool(_CHOICE.search(row.prompt))),
    ("its answer occurs in its prompt", lambda row: row.copied),
    ("its answer is computed: numbers in, a number out", lambda row: row.computed),
    ("its prompt has no name, id or title", lambda row: row.name is None),
    (
        "the name in its prompt occurs in many rows",
        lambda row: not row.given and not row.file.subjects.specific(row.name or ""),
    ),
    ("its answer is a label that many rows share", lambda row: not row.given and row.label),
)
"""Why a row is trained; the first rule that matches is the reason."""


def why_trained(row: Candidate) -> str | None:
    """Return the reason to train a row; None if it is a fact."""
    return next((reason for reason, holds in RULES if holds(row)), None)


def _words(text: str) -> float:
    """Return about how many words a text has."""
    return count_words(text) / (LETTERS if has_unspaced(text) else 1)


def prompt_of(row: Row) -> str:
    """Return the question of a row: its prompt, or its first turn."""
    return row.messages[0].content if row.messages else row.prompt


def form(prompt: str, name: str | None) -> str:
    """Return a prompt with "{}" in place of the name."""
    return prompt.replace(name, HOLE) if name else prompt
