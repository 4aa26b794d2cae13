"""Scores of states on tasks: measured once, kept by (state, task version), never computed again."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.core.rows import Row
from perdure.data.task import TaskData
from perdure.evaluate.scorers import choice_score, get_scorer, read_scorer, score_record
from perdure.ledger import Entry, Ledger

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime

LONGEST = 256  # tokens of an answer where the task does not say


def measure(runtime: "Runtime", task: TaskData, tick: Tick | None = None) -> dict[str, Any]:
    """Return the Score record of the model as it is laid now on the task's test rows.

    Raises:
        BadInput: The task has no test rows, or scores by choice and has no choices.
        BadSpec: The scorer is not known.
    """
    if not task.test:
        raise BadInput(f"task {task.name!r} has no test rows; its scores would mean nothing")
    name, options = read_scorer(task.scorer)
    began = time.perf_counter()

    def told(done: int) -> None:
        if tick:
            tick(f"scoring {task.name}", done, len(task.test))

    if name == "choice":
        items, said = _choose(runtime, task, options, told)
    else:
        from perdure.data.answers import Reader

        said = answers(runtime, task.test, answer_length(runtime, task), told)
        score, reader = get_scorer(task.scorer), Reader.of(runtime.base.tokenizer, task.test)
        items = [score(text, reader.reference(row)) for text, row in zip(said, task.test, strict=True)]
    seconds = time.perf_counter() - began
    return score_record(name, items, said, [row.hash for row in task.test], seconds)


def answers(
    runtime: "Runtime",
    rows: Sequence[Row],
    max_new_tokens: int,
    tick: Callable[[int], None] | None = None,
    known: Sequence[Row] = (),
) -> list[str]:
    """Return what the model as it is laid now answers to each row, by greedy decoding; what had to be cut is a notice.

    A thought before an answer is left out; an answer whose thought did not end is empty, and a notice.

    Args:
        runtime: Holds the model.
        rows: What is asked.
        max_new_tokens: Most tokens of an answer, its thought included.
        tick: Called with the number of answers finished.
        known: Rows that show what answers look like, where `rows` have none.
    """
    from perdure.data.answers import Reader
    from perdure.data.encode import prompt_ids
    from perdure.model.decode import generate

    base, tokenizer = runtime.base, runtime.base.tokenizer
    prompts, new = _fitted(runtime, [prompt_ids(row, tokenizer) or base.stops[:1] for row in rows], max_new_tokens)
    said = generate(
        runtime.model,
        prompts,
        max_new_tokens=new,
        stops=base.stops,
        pad=base.pad,
        precision=runtime.precision,
        tick=tick,
    )
    reader = Reader.of(tokenizer, known or rows)
    found = [reader.text(ids, reader.tag(row)) for ids, row in zip(said, rows, strict=True)]
    lost = sum(not text and bool(reader.whole(ids).strip()) for text, ids in zip(found, said, strict=True))
    if lost:
        what = "answer was" if lost == 1 else "answers were"
        runtime.notice(f"{lost} {what} still a thought after {new} tokens, and left empty; raise max_new_tokens")
    return found


def answer_length(runtime: "Runtime", task: TaskData) -> int:
    """Return how many tokens an answer to `task` may have.

    That is what the task says, else as its longest test answer has and a bit, and as the longest thought before one has.
    """
    if task.spec.max_new_tokens:
        return task.spec.max_new_tokens
    from perdure.data.answers import Reader

    reader = Reader.of(runtime.base.tokenizer, task.test)
    sizes = [reader.lengths(row) for row in task.test]
    longest = max((answer for _, answer in sizes), default=LONGEST)
    return min(longest + 4, LONGEST) + max((thought for thought, _ in sizes), default=0)


def newest_task(ledger: Ledger, entry: Entry) -> str | None:
    """Return the name of the task that was learned last at `entry`; None where it knows none."""
    return next((e.task for e in ledger.ancestors(entry) if e.kind == "learn" and e.task in entry.tasks), None)


def _fitted(runtime: "Runtime", prompts: list[list[int]], new: int) -> tuple[list[list[int]], int]:
    """Return prompts and number of new tokens that the model has positions for, with a notice of what was cut."""
    from perdure.model.decode import fitted

    positions = runtime.base.positions
    prompts, room, cut = fitted(prompts, new, positions)
    if cut:
        what = "prompt was" if cut == 1 else "prompts were"
        runtime.notice(f"{cut} {what} longer than the model's {positions} positions allow and lost the start")
    if room < new:
        runtime.notice(f"answers have at most {room} tokens, not {new}: the model has {positions} positions")
    return prompts, room


def _choose(
    runtime: "Runtime", task: TaskData, options: dict[str, Any], told: Callable[[int], None]
) -> tuple[list[float], list[str]]:
    """Score by log-likelihood over the task's answers: every answer that its rows had is a choice."""
    from perdure.data.answers import Choices
    from perdure.data.encode import prompt_ids
    from perdure.model.decode import choice_log_likelihoods

    base, tokenizer = runtime.base, runtime.base.tokenizer
    choices = Choices.of(task.choices, tokenizer)
    texts = choices.texts
    if len(texts) < 2 or (task.format != "text_label" and len(texts) > 100):
        raise BadInput(
            f"task {task.name!r} scores by choice, but its rows have {len(texts)} answers; choices need 2 to 100"
        )
    ids = [choices.ids(row) for row in task.test]
    longest = max(len(tokens) for options in ids for tokens in options)
    prompts, room = _fitted(runtime, [prompt_ids(row, tokenizer) for row in task.test], longest)
    ids = [[tokens[:room] for tokens in options] for options in ids]
    found = choice_log_likelihoods(runtime.model, prompts, ids, pad=base.pad, precision=runtime.precision, tick=told)
    items, said = [], []
    for row, likelihoods, tokens in zip(task.test, found, ids, strict=True):
        gold = texts.index(choices.text(row))
        item, chosen = choice_score(likelihoods, [len(i) for i in tokens], gold, options.get("normalise", "none"))
        items.append(item)
        said.append(texts[chosen].strip())
    return items, said
