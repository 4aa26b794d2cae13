"""Seconds that scoring takes, measured on one batch of the longest prompts with short answers."""

import time
from collections.abc import Callable
from functools import partial

from perdure.data.task import TaskData
from perdure.evaluate.scorers import BY_LIKELIHOOD, SAME
from perdure.workflows.guards.drift import NEW_TOKENS, compared, reference_answers
from perdure.workflows.scoring import answer_length, answers, measure
from perdure.workflows.session import Session

TOKENS = 9  # of a measured answer, at most


def scoring_seconds(session: Session, task: TaskData, scored: int) -> float:
    """Return the seconds in which the state that is loaded is scored on some of a task's test rows.

    For the rows of a drift guard it is the time that its reference takes, which is that of any other state: a generation, and a
    forward over prompts and answers.

    Args:
        session: Of the workspace.
        task: The task, or a guard's rows as one.
        scored: Number of its test rows that are scored.
    """
    from perdure.model.decode import BATCH, MOST

    runtime, prompts = session.runtime, session.tasks.prompts(task, session.tokenizer)
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    longest = max(len(prompts[order[0]]), 1)
    picked = order[: min(BATCH, max(MOST // longest, 1))]
    part = scored / len(prompts)
    times = part * len(prompts) / len(picked)
    name = task.scorer["name"]
    if name in BY_LIKELIHOOD:
        return _seconds(lambda: measure(runtime, task, prompts=prompts, only=picked)) * times
    rows, given = [task.test[i] for i in picked], [prompts[i] for i in picked]

    def answer(new: int) -> object:
        if name == SAME:
            return reference_answers(runtime, compared(runtime, task, picked, prompts, most=new))
        return answers(runtime, rows, new, prompts=given)

    wanted = task.spec.max_new_tokens or NEW_TOKENS if name == SAME else answer_length(runtime, task)
    few = min(wanted, TOKENS)
    read, both = (_seconds(partial(answer, new)) for new in (1, few))
    more = (both - read) / (few - 1) * (wanted - 1) if few > 1 else 0.0
    share = part * sum(map(len, prompts)) / (longest * len(picked))  # of tokens to read
    return read * share + max(more, 0.0) * times


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
