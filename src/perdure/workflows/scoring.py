"""Answers of the loaded model to rows, and its score on a task."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.core.rows import Row
from perdure.core.words import counted
from perdure.data.task import TaskData
from perdure.evaluate.run_code import RunCode, check_run_code, program_outcome
from perdure.evaluate.scorers import BY_LIKELIHOOD, PROGRAMS, checks_hold, get_scorer, read_scorer, score_record
from perdure.ledger.records import Score
from perdure.workflows.likelihoods import Items, choose, likely

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime

LONGEST = 256  # tokens of an answer where the task sets no limit


@dataclass(frozen=True)
class Answers:
    """What a model answers.

    Args:
        texts: An answer for each row.
        notices: What the user should know, such as prompts that had to be cut.
        tokens: How many tokens were generated for each row, a thought included; empty where answers were chosen.
    """

    texts: list[str]
    notices: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A task scored now.

    Args:
        score: What it scores.
        notices: Notices about prompts and answers, such as cut prompts.
    """

    score: Score
    notices: tuple[str, ...] = ()


def measure(
    runtime: "Runtime",
    task: TaskData,
    tick: Tick | None = None,
    *,
    prompts: Sequence[list[int]] | None = None,
    only: Sequence[int] | None = None,
    code: Callable[[str, str], str] | None = None,
    called: str = "",
    run_code: RunCode = "no",
) -> Measured:
    """Score the model that is loaded on the task's test rows.

    Args:
        runtime: Holds the model.
        task: The task.
        tick: Called with (what, rows done, rows in all).
        prompts: The test rows as tokens, where the caller has them.
        only: Indices of the test rows that are scored; None scores all.
        code: Returns the text of a trusted file; see `evaluate.scorers.get_scorer`.
        called: Name of the task for people; its own where left empty.
        run_code: Whether programs that the model writes run, and how; see `evaluate.run_code`.

    Raises:
        BadInput: The task has no test rows, scores by choice and has no choices, or scores programs that may not run.
        BadSpec: The scorer is not known.
    """
    if not task.test:
        raise BadInput(f"task {task.name!r} has no test rows; its scores would mean nothing")
    name, _ = read_scorer(task.scorer)
    began = time.perf_counter()

    prompt_tokens = prompts if prompts is not None else prompts_of(runtime, task.test)
    rows = task.test
    if only is not None:
        rows, prompt_tokens = tuple(rows[i] for i in only), [prompt_tokens[i] for i in only]

    def progress(done: int) -> None:
        if tick:
            tick(f"scoring {called or task.name}", done, len(rows))

    readings: Mapping[str, Sequence[float]] = {}
    if name == PROGRAMS:
        check_run_code(run_code)  # before the model writes for minutes
    if name in BY_LIKELIHOOD:
        scored, given = _by_likelihood(runtime, task, rows, prompt_tokens, progress)
        items, readings = scored.items, scored.readings
    else:
        items, given = _answered(runtime, task, rows, prompt_tokens, code, run_code, progress)
    seconds = time.perf_counter() - began
    hashes = [row.hash for row in rows]
    return Measured(score_record(name, items, given.texts, hashes, seconds, readings), given.notices)


def prompts_of(runtime: "Runtime", rows: Sequence[Row]) -> list[list[int]]:
    """Return the tokens of each row's prompt."""
    from perdure.data.encode import prompt_ids

    return [prompt_ids(row, runtime.base.tokenizer) for row in rows]


def answers(
    runtime: "Runtime",
    rows: Sequence[Row],
    max_new_tokens: int,
    tick: Callable[[int], None] | None = None,
    known: Sequence[Row] = (),
    prompts: Sequence[list[int]] | None = None,
) -> Answers:
    """Return what the model that is loaded answers to each row, by greedy decoding. Cut prompts give a notice.

    A thought before an answer is left out. An answer whose thought did not end is empty, and gives a notice.

    Args:
        runtime: Holds the model.
        rows: The rows.
        max_new_tokens: Most tokens of an answer, its thought included.
        tick: Called with the number of answers finished.
        known: Rows that show what answers look like, where `rows` have none.
        prompts: The rows as tokens, where the caller has them.
    """
    base = runtime.base
    prompt_tokens = prompts if prompts is not None else prompts_of(runtime, rows)
    short, new, notices = _fitted(runtime, [ids or base.stops[:1] for ids in prompt_tokens], max_new_tokens)
    return generated(runtime, rows, short, new, Decoding(tick=tick), known=known, notices=notices)


@dataclass(frozen=True)
class Decoding:
    """How tokens are chosen, and callbacks for them.

    Args:
        temperature: 0 takes the most likely token; above it, tokens are drawn.
        seed: Key of what is drawn.
        tick: Called with the number of answers finished.
        batch: Most rows of a batch; None for the batches in which tasks are scored.
        on_text: Called with the index of a row and the next piece of its answer.
    """

    temperature: float = 0.0
    seed: int = 0
    tick: Callable[[int], None] | None = None
    batch: int | None = None
    on_text: Callable[[int, str], None] | None = None


def generated(
    runtime: "Runtime",
    rows: Sequence[Row],
    prompts: Sequence[Sequence[int]],
    most: int | Sequence[int],
    decoding: Decoding,
    *,
    known: Sequence[Row] = (),
    notices: Sequence[str] = (),
) -> Answers:
    """Return the loaded model's answers to prompts that fit it. Thoughts that did not end give a notice.

    Args:
        runtime: Holds the model.
        rows: The rows.
        prompts: The rows as tokens, none empty.
        most: Most tokens of an answer, of all rows or of each.
        decoding: How tokens are chosen.
        known: Rows that show what answers look like, where `rows` have none.
        notices: What the user should know so far.
    """
    from perdure.data.answers import Reader
    from perdure.data.streaming import TextStream
    from perdure.model.decode import generate
    from perdure.model.sample import chooser

    base = runtime.base
    reader = Reader.of(base.tokenizer, known or rows)
    tags = [reader.tag(row) for row in rows]
    streams = []
    if decoding.on_text:
        streams = [TextStream(reader, tag, partial(decoding.on_text, i)) for i, tag in enumerate(tags)]
    sizes: list[int] = []
    tokens = generate(
        runtime.model,
        prompts,
        max_new_tokens=most,
        stops=base.stops,
        pad=base.pad,
        precision=runtime.precision,
        tick=decoding.tick,
        choose=chooser(decoding.temperature, decoding.seed, prompts),
        batch=decoding.batch,
        on_token=(lambda row, token: streams[row].add(token)) if streams else None,
        on_smaller=sizes.append,
    )
    for stream in streams:
        stream.end()
    texts = [reader.text(ids, tag) for ids, tag in zip(tokens, tags, strict=True)]
    lost = sum(not text and bool(reader.whole(ids).strip()) for text, ids in zip(texts, tokens, strict=True))
    all_notices = [*notices, *_smaller_batches(sizes)]
    if lost:
        what, new = "answer was" if lost == 1 else "answers were", most if isinstance(most, int) else max(most)
        all_notices.append(f"{lost} {what} still a thought after {new} tokens, and left empty; raise max_new_tokens")
    return Answers(texts, tuple(all_notices), tuple(map(len, tokens)))


def answer_length(runtime: "Runtime", task: TaskData) -> int:
    """Return how many tokens an answer to `task` may have.

    That is the task's own limit. Without one it is the length of the longest test answer and 4 tokens more, and of the
    longest thought before an answer.
    """
    if task.spec.max_new_tokens:
        return task.spec.max_new_tokens
    from perdure.data.answers import Reader

    reader = Reader.of(runtime.base.tokenizer, task.test)
    sizes = [reader.lengths(row) for row in task.test if row.answer.strip()]
    longest = max((answer for _, answer in sizes), default=LONGEST)
    return min(longest + 4, LONGEST) + max((thought for thought, _ in sizes), default=0)


def _fitted(runtime: "Runtime", prompts: list[list[int]], new: int) -> tuple[list[list[int]], int, list[str]]:
    """Return prompts and number of new tokens that the model has positions for, and notices of what was cut."""
    from perdure.model.decode import fitted

    positions = runtime.base.positions
    prompts, room, cut = fitted(prompts, new, positions)
    return prompts, room, cut_notices(cut, room, new, positions)


def _smaller_batches(sizes: Sequence[int]) -> list[str]:
    """Return a notice where memory ran out and batches went on with these sizes, in order."""
    if not sizes:
        return []
    return [f"memory ran out, and the rest was answered in batches of {counted(sizes[-1], 'row')} at most"]


def cut_notices(cut: int, room: int, new: int, positions: int | None) -> list[str]:
    """Return notices of what had to be cut to fit a model.

    Args:
        cut: Number of prompts that lost their start.
        room: Most new tokens that fit.
        new: Most new tokens that were wanted.
        positions: Positions of the model; None where it has no limit, and nothing is cut.
    """
    notices = []
    if cut:
        what = "prompt was" if cut == 1 else "prompts were"
        notices.append(f"{cut} {what} longer than the model's {positions} positions allow and lost the start")
    if room < new:
        notices.append(f"answers have at most {room} tokens, not {new}: the model has {positions} positions")
    return notices


def _answered(
    runtime: "Runtime",
    task: TaskData,
    rows: Sequence[Row],
    prompts: Sequence[list[int]],
    code: Callable[[str, str], str] | None,
    run_code: RunCode,
    progress: Callable[[int], None],
) -> tuple[list[float], Answers]:
    """Return the score of the model's answer to each row, and the answers."""
    from perdure.data.answers import Reader

    given = answers(runtime, rows, answer_length(runtime, task), progress, known=task.test, prompts=prompts)
    name, options = read_scorer(task.scorer)
    if name == "checks":
        return [checks_hold(row, text, **options) for text, row in zip(given.texts, rows, strict=True)], given
    if name == PROGRAMS:
        return [
            float(program_outcome(row, text, run_code).passed) for row, text in zip(rows, given.texts, strict=True)
        ], given
    score, reader = get_scorer(task.scorer, code), Reader.of(runtime.base.tokenizer, task.test)
    return [score(text, reader.reference(row)) for text, row in zip(given.texts, rows, strict=True)], given


def _by_likelihood(
    runtime: "Runtime",
    task: TaskData,
    rows: Sequence[Row],
    prompts: Sequence[list[int]],
    progress: Callable[[int], None],
) -> tuple[Items, Answers]:
    """Return what the rows of a task score whose scorer compares likelihoods, and the answers that were chosen."""
    name, options = read_scorer(task.scorer)
    chosen = name == "choice"
    scored = (
        choose(runtime, task, rows, prompts, options, progress) if chosen else likely(runtime, rows, options, progress)
    )
    notices = [*cut_notices(scored.cut, 0, 0, runtime.base.positions), *_smaller_batches(scored.sizes)]
    return scored, Answers(scored.texts, tuple(notices))
