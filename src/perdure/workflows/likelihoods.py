"""Items of test rows that are scored by likelihood: choices among answers, and whole texts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perdure.core.errors import BadInput
from perdure.core.rows import Row
from perdure.data.task import TaskData
from perdure.evaluate.choosing import options_of, probability_of
from perdure.evaluate.scorers import SCALES, choice_score, text_score

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime

MOST_ANSWERS = 100  # of a task without labels whose answers are the choices of every row


@dataclass(frozen=True)
class Items:
    """What rows score.

    Args:
        items: Score of each row.
        texts: The answer of each row, as far as it has one.
        readings: Further numbers of each row by name.
        cut: Number of prompts that lost their start, as they do not fit the model.
        sizes: Rows of a batch, each time memory ran out, in order.
    """

    items: list[float]
    texts: list[str]
    readings: Mapping[str, list[float]] = field(default_factory=dict)
    cut: int = 0
    sizes: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Question:
    """A row as the model chooses among its answers.

    Args:
        pairs: Tokens of prompt and continuation of each answer.
        texts: The answers as text.
        gold: Index of the right one.
        characters: Characters of each answer, without the space that joins it to the prompt.
    """

    pairs: list[tuple[list[int], list[int]]]
    texts: list[str]
    gold: int
    characters: list[int]


def choose(
    runtime: "Runtime",
    task: TaskData,
    rows: Sequence[Row],
    prompts: Sequence[list[int]],
    options: Mapping[str, Any],
    progress: Callable[[int], None],
) -> Items:
    """Score rows by which answer is most likely: of a row's own choices, or of the answers that the task's rows have.

    Readings are `p_gold`, the probability of the right answer among the choices, and `nats` of the right answer a token.

    Args:
        runtime: Holds the model.
        task: The task.
        rows: The rows to score.
        prompts: Their prompts as tokens.
        options: Options of the scorer.
        progress: Called with the number of rows that are done.

    Raises:
        BadInput: Rows have no choices, or a task too many answers to be choices.
    """
    from perdure.model.decode import choice_log_likelihoods, fitted

    base = runtime.base
    questions = _own(runtime, task, rows) if any(map(options_of, rows)) else _of_task(runtime, task, rows, prompts)
    longest = max(len(answer) for question in questions for _, answer in question.pairs)
    # answers after one prompt share what the model reads of it; contexts are prompts of their own
    asked: list[tuple[int, list[int], list[list[int]]]] = []
    for number, question in enumerate(questions):
        if rows[number].contexts:
            asked += [(number, prompt, [answer]) for prompt, answer in question.pairs]
        else:
            asked.append((number, question.pairs[0][0], [answer for _, answer in question.pairs]))
    whole = [prompt or list(base.stops[:1]) for _, prompt, _ in asked]
    short, room, cut = fitted(whole, longest, base.positions)
    sizes: list[int] = []
    done = len(rows) / len(asked)
    values = choice_log_likelihoods(
        runtime.model,
        short,
        [[answer[:room] for answer in answers] for _, _, answers in asked],
        pad=base.pad,
        precision=runtime.precision,
        tick=lambda finished: progress(int(finished * done)),
        on_smaller=sizes.append,
    )
    found: list[list[float]] = [[] for _ in rows]
    for (number, _, _), likelihoods in zip(asked, values, strict=True):
        found[number] += likelihoods
    return _items(questions, found, room, str(options.get("normalise", "none")), cut, sizes)


def _items(
    questions: Sequence[_Question],
    found: Sequence[list[float]],
    room: int,
    normalise: str,
    cut: int,
    sizes: list[int],
) -> Items:
    """Return the items of questions whose answers have these log-likelihoods."""
    items, texts = [], []
    readings: dict[str, list[float]] = {"p_gold": [], "nats": []}
    for question, likelihoods in zip(questions, found, strict=True):
        tokens = [min(len(answer), room) for _, answer in question.pairs]
        lengths = question.characters if normalise == "characters" else tokens
        item, chosen = choice_score(likelihoods, lengths, question.gold, normalise)
        items.append(item)
        texts.append(question.texts[chosen].strip())
        readings["p_gold"].append(probability_of(question.gold, likelihoods))
        readings["nats"].append(-likelihoods[question.gold] / tokens[question.gold])
    return Items(items, texts, readings, cut, sizes)


def _own(runtime: "Runtime", task: TaskData, rows: Sequence[Row]) -> list[_Question]:
    """Return rows that have choices of their own."""
    from perdure.data.continuations import choice_tokens

    questions = []
    for row in rows:
        if options_of(row) < 2 or row.gold is None:
            raise BadInput(
                f"task {task.name!r} scores by choice, and {row.source or 'a row'} has no choices or no right one, as others "
                "have; give every row choices and gold, or none"
            )
        pairs = choice_tokens(row, runtime.base.tokenizer)
        texts = list(row.contexts or row.choices)
        ends = [row.choices[0]] * len(texts) if row.contexts else texts
        questions.append(_Question(pairs, texts, row.gold, [_characters(text) for text in ends]))
    return questions


def _of_task(runtime: "Runtime", task: TaskData, rows: Sequence[Row], prompts: Sequence[list[int]]) -> list[_Question]:
    """Return rows that choose among the answers that the rows of their task have, each with its end."""
    from perdure.data.answers import Choices

    choices = Choices.of(task.choices, runtime.base.tokenizer)
    texts = list(choices.texts)
    if len(texts) < 2 or (task.format != "text_label" and len(texts) > MOST_ANSWERS):
        raise BadInput(
            f"task {task.name!r} scores by choice, but its rows have {len(texts)} answers; choices need 2 to {MOST_ANSWERS}"
        )
    characters = [_characters(text) for text in texts]
    return [
        _Question([(prompt, ids) for ids in choices.ids(row)], texts, texts.index(choices.text(row)), characters)
        for row, prompt in zip(rows, prompts, strict=True)
    ]


def _characters(text: str) -> int:
    """Return the characters of an answer, without the space that joins it to the prompt."""
    return max(len(text.removeprefix(" ")), 1)


def likely(
    runtime: "Runtime", rows: Sequence[Row], options: Mapping[str, Any], progress: Callable[[int], None]
) -> Items:
    """Score plain texts by how likely the model finds them, see `evaluate.scorers.text_score`.

    Readings are `nats` a token and the number of `tokens`.

    Args:
        runtime: Holds the model.
        rows: The rows; of a row with a prompt only the completion counts.
        options: Of the scorer: `scale`.
        progress: Called with the number of rows that are done.

    Raises:
        BadInput: A row is a conversation, or has no token to predict.
    """
    from perdure.data.continuations import text_tokens
    from perdure.model.likelihoods import Text, text_nats

    base = runtime.base
    sizes: list[int] = []
    found = text_nats(
        runtime.model,
        [Text(*text_tokens(row, base.tokenizer)) for row in rows],
        pad=base.pad,
        positions=base.positions,
        precision=runtime.precision,
        tick=progress,
        on_smaller=sizes.append,
    )
    nats = [total / tokens for total, tokens in found]
    counts = [float(tokens) for _, tokens in found]
    scale, vocabulary = options.get("scale", SCALES[0]), len(base.tokenizer)
    items = [text_score(value, scale, vocabulary) for value in nats]
    return Items(items, [""] * len(rows), {"nats": nats, "tokens": counts}, sizes=sizes)
