"""One answer of several tasks' models: probabilities of known answers averaged, or a vote over generated ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from perdure.core.rows import Row
from perdure.data.task import TaskData

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime

MOST = 200  # answers of a task whose probabilities are computed; with more of them, tasks vote


def known_answers(task: TaskData | None) -> tuple[str, ...]:
    """Return the answers of a task that can be compared by probability, sorted: its choices, or those of its labels.

    None where answers are free text, rows have several labels, or there is no task.
    """
    if task is None:
        return ()
    found = set(task.choices)
    if not found and task.answers_are_labels and task.format != "text_labels":
        found = {row.answer for row in (*task.train, *task.test)}
    return tuple(sorted(found)) if len(found) <= MOST else ()


def probabilities(
    runtime: "Runtime", rows: Sequence[Row], prompts: Sequence[list[int]], answers: Sequence[str]
) -> list[dict[str, float]]:
    """Return the probability of each answer under the loaded model, given that it is one of them, for each prompt.

    Args:
        runtime: Holds the model.
        rows: Rows with an empty answer.
        prompts: The rows as tokens.
        answers: The answers, with their end of turn a part of what is compared.

    Cost: a forward per prompt, and one over the tokens of all answers.
    """
    from perdure.data.encode import answer_ids
    from perdure.model.decode import choice_log_likelihoods

    tokenizer = runtime.base.tokenizer
    choices = [[answer_ids(_with_answer(row, answer), tokenizer) for answer in answers] for row in rows]
    found = choice_log_likelihoods(runtime.model, prompts, choices, pad=runtime.base.pad, precision=runtime.precision)
    made = []
    for values in found:
        most = max(values)
        shares = [math.exp(value - most) for value in values]
        whole = math.fsum(shares)
        made.append({answer.strip(): share / whole for answer, share in zip(answers, shares, strict=True)})
    return made


def averaged(weights: Mapping[str | None, float], found: Mapping[str | None, Mapping[str, float]]) -> str:
    """Return the answer with the largest probability, averaged over tasks by weight; the first by name of equal ones.

    Args:
        weights: Weight of each task; they sum to 1.
        found: Probability of each answer, by task. An answer that a task does not have has probability 0 under it.
    """
    answers = sorted({answer for task in weights for answer in found[task]})
    return max(answers, key=lambda answer: math.fsum(w * found[task].get(answer, 0.0) for task, w in weights.items()))


def voted(weights: Mapping[str | None, float], answers: Mapping[str | None, str]) -> str | None:
    """Return the task whose answer wins: the one that tasks with the largest weight together give, white space apart.

    Args:
        weights: Weight of each task.
        answers: Answer of each task.

    Returns:
        Of the tasks that give the answer, the one with the largest weight, the first by name of equal ones.
    """
    order = sorted(weights, key=lambda task: (-weights[task], str(task)))
    total = {
        task: math.fsum(weights[o] for o in order if answers[o].strip() == answers[task].strip()) for task in order
    }
    return max(order, key=total.__getitem__)


def _with_answer(row: Row, text: str) -> Row:
    """Return a row whose answer is this text."""
    if row.messages:
        return replace(row, messages=(*row.messages[:-1], replace(row.messages[-1], content=text)))
    return replace(row, completion=text)
