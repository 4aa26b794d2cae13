"""Rows of guards that perdure makes itself: text written for it, and sums. They need no download and no licence."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from perdure.core.canonical import canonical_json
from perdure.core.errors import BadInput
from perdure.core.keyed import keyed
from perdure.core.rows import Check, Message, Row
from perdure.data.drawn_choices import with_drawn_choices
from perdure.data.passages import PASSAGES
from perdure.data.programs import PROGRAM, program_check

COMPLETE = "Complete this Python function:\n"
FOLDER = Path(__file__).parent / "guards"
NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry")
SUMS = 10  # rows of each kind of sum, and of each word problem
_SUMS = {  # first numbers, second numbers, sign
    "add, 1 digit": (range(1, 10), range(1, 10), "+"),
    "add, 1 digit to 2": (range(10, 90), range(1, 10), "+"),
    "add, tens": (range(10, 100, 10), range(10, 100, 10), "+"),
    "add, 2 digits": (range(10, 100), range(10, 100), "+"),
    "add, 3 digits": (range(100, 500), range(100, 500), "+"),
    "subtract, 1 digit": (range(2, 10), range(1, 10), "-"),
    "subtract, 1 digit from 2": (range(10, 100), range(1, 10), "-"),
    "subtract, tens": (range(20, 100, 10), range(10, 100, 10), "-"),
    "subtract, 2 digits": (range(10, 100), range(10, 100), "-"),
    "subtract, 3 digits": (range(100, 1000), range(100, 1000), "-"),
    "multiply, 1 digit": (range(2, 10), range(2, 10), "*"),
    "multiply by ten": (range(2, 100), range(10, 11), "*"),
    "multiply, 2 digits": (range(10, 100), range(2, 10), "*"),
}
EXAMPLES = (
    "Question: What is 3 + 4?\nAnswer: 7\n\n"
    "Question: What is 58 - 6?\nAnswer: 52\n\n"
    "Question: What is 2 * 7?\nAnswer: 14\n\n"
    "Question: Tom has 5 coins and gives away 2. How many coins are left?\nAnswer: 3\n\n"
)


def made_rows(name: str) -> tuple[Row, ...]:
    """Return the rows of a made guard; always the same rows in the same order.

    Args:
        name: A key of `MADE`.

    Raises:
        BadInput: Nothing is made under that name.
    """
    if name not in MADE:
        near = get_close_matches(name, MADE, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise BadInput(f"no rows are made under the name {name[:60]!r}{hint}; there are {', '.join(MADE)}")
    return tuple(MADE[name]())


def instructions() -> list[Row]:
    """Return requests with one verifiable instruction each, some topics of each kind; `group` is the kind."""
    rows = []
    for kind in _lines("instructions"):
        for topic in kind["topics"]:
            arguments = {
                key: _filled(value, topic, escape=key == "pattern") for key, value in kind.get("arguments", {}).items()
            }
            check = Check(kind["check"], canonical_json(arguments) if arguments else "")
            rows.append(_asked(_filled(kind["prompt"], topic), checks=(check,), group=kind["group"]))
    return rows


def drift() -> list[Row]:
    """Return prompts whose answers show how far a model is from a reference: requests, and beginnings of plain text."""
    return [
        _asked(line["instruction"]) if "instruction" in line else Row(prompt=line["prompt"]) for line in _lines("drift")
    ]


def manners() -> list[Row]:
    """Return requests that sound dangerous and are harmless, and requests that ought to be declined; the answer says which."""
    return [_asked(line["instruction"], line["label"], label=line["label"]) for line in _lines("manners")]


def arithmetic() -> list[Row]:
    """Return sums of numbers with one to three digits, and word problems, after four examples; `label` is the kind."""
    makers = [partial(_sum, kind, *parts) for kind, parts in _SUMS.items()]
    makers += [partial(_word_problem, line) for line in _lines("arithmetic")]
    return [row for make in makers for row in _distinct(make, SUMS)]


def facts() -> list[Row]:
    """Return facts with four choices each, the right one and three answers of other facts of the relation."""
    return list(with_drawn_choices(_facts(), 4))


def facts_free() -> list[Row]:
    """Return the facts of `facts` without choices: an answer is right that begins with the object."""
    return [
        replace(row, checks=(Check("text:begins", canonical_json({"options": [row.completion.strip()]})),))
        for row in _facts()
    ]


def programs() -> list[Row]:
    """Return requests to complete a short function in Python, each with a test; the reference answer is the whole function."""
    return [
        _asked(
            f"{COMPLETE}```python\n{line['prompt']}```",
            f"```python\n{line['prompt']}{line['completion']}```",
            checks=(program_check(line["test"], line["entry_point"]),),
        )
        for line in _lines("programs")
    ]


def language() -> list[Row]:
    """Return plain passages of different kinds of text."""
    more = (FOLDER / "language.txt").read_text(encoding="utf-8").strip().split("\n\n")
    return [Row(completion=passage) for passage in (*PASSAGES, *more)]


MADE: dict[str, Callable[[], list[Row]]] = {
    "instructions": instructions,
    "arithmetic": arithmetic,
    "facts": facts,
    "facts_free": facts_free,
    "programs": programs,
    "language": language,
    "drift": drift,
    "manners": manners,
}
"""What is made, by name."""


def plain_text(row: Row) -> Row:
    """Return a request as plain text, for a model without a chat template.

    It is the user's turn on a line of its own; of a request for a program the beginning of the function, to be continued.
    """
    if not row.messages:
        return row
    turns = "\n\n".join(turn.content for turn in row.messages[:-1])
    prompt, answer = f"{turns}\n", row.messages[-1].content
    if any(check.kind == PROGRAM for check in row.checks) and turns.startswith(COMPLETE):
        prompt, whole = (_unfenced(text) for text in (turns.removeprefix(COMPLETE), answer))
        answer = whole.removeprefix(prompt)
    return replace(row, messages=(), prompt=prompt, completion=answer)


def _unfenced(text: str) -> str:
    return text.removeprefix("```python\n").removesuffix("```")


def _facts() -> list[Row]:
    return [
        Row(prompt=line["prompt"].replace("{subject}", subject), completion=f" {answer}", label=line["relation"])
        for line in _lines("facts")
        for subject, answer in line["facts"]
    ]


def _distinct(make: Callable[[int], Row], count: int) -> list[Row]:
    """Return the first `count` different rows of those that `make` returns for 0, 1, 2, ..."""
    rows: dict[str, Row] = {}
    for n in range(20 * count):
        row = make(n)
        rows.setdefault(row.hash, row)
        if len(rows) == count:
            break
    return list(rows.values())


def _sum(kind: str, first: range, second: range, sign: str, n: int) -> Row:
    """Return the n-th sum of a kind; nothing is taken from a smaller number."""
    draw = keyed("made arithmetic", kind, n)
    a, b = (numbers[int(draw.integers(len(numbers)))] for numbers in (first, second))
    if sign == "-" and b > a:
        a, b = b, a
    return _question(f"What is {a} {sign} {b}?", _result(a, sign, b), kind)


def _word_problem(line: Mapping[str, Any], n: int) -> Row:
    """Return a word problem with numbers and a name; its template says how the answer is made of the numbers a and b."""
    draw = keyed("made arithmetic", line["kind"], n)
    a, b = (int(draw.integers(line[name][0], line[name][1] + 1)) for name in ("a", "b"))
    name = NAMES[int(draw.integers(len(NAMES)))]
    text = line["text"].replace("{a}", str(a)).replace("{b}", str(b)).replace("{name}", name)
    return _question(text, _result(a, line["sign"], b), line["kind"])


def _question(text: str, result: int, kind: str) -> Row:
    return Row(prompt=f"{EXAMPLES}Question: {text}\nAnswer:", completion=f" {result}", label=kind)


def _result(a: int, sign: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def _asked(text: str, answer: str = "", **more: Any) -> Row:
    """Return a conversation with one request, and the reference answer if there is one."""
    return Row(messages=(Message("user", text), Message("assistant", answer)), **more)


def _filled(value: Any, values: Mapping[str, Any], *, escape: bool = False) -> Any:
    """Return a text with its placeholders {name} replaced, or a list of such texts; a placeholder alone becomes its value.

    Braces around other text stay as they are: patterns have some.
    """
    if isinstance(value, list):
        return [_filled(item, values, escape=escape) for item in value]
    if not isinstance(value, str):
        return value
    if value[1:-1] in values and value == f"{{{value[1:-1]}}}" and not escape:
        return values[value[1:-1]]
    for name, text in values.items():
        value = value.replace(f"{{{name}}}", re.escape(str(text)) if escape else str(text))
    return value


def _lines(name: str) -> list[dict[str, Any]]:
    """Return the objects of a text file of this folder, one from each line."""
    text = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line]
