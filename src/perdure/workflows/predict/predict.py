"""Generate answers with the model of an entry, and compare the answers of two entries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.core.records import Record, omitted
from perdure.core.rows import Row
from perdure.core.words import counted
from perdure.data.task import TaskData
from perdure.ledger import Entry
from perdure.workflows.inspect.evaluate import gone_notice, task_at
from perdure.workflows.labelling import labels_of
from perdure.workflows.predict.prompt import Prompt
from perdure.workflows.predict.request import (
    CHAT,
    PLAIN,
    Request,
    in_words,
    oldest_left_out,
    replaced_systems,
    row_of,
)
from perdure.workflows.row_features import own_texts
from perdure.workflows.scoring import LONGEST, Decoding, answer_length, cut_notices, generated, prompts_of
from perdure.workflows.session import Session

Stopped = Literal["stop", "length", "blank"]
OnText = Callable[[int, str], None]


@dataclass(frozen=True)
class Reply(Record):
    """What the model of one entry answers to a prompt.

    Args:
        answer: The answer.
        tokens: How many tokens were generated, a thought included.
        stopped: Why it ends; see `Answer`.
        at: Id of the entry.
    """

    answer: str
    tokens: int
    stopped: Stopped
    at: str


@dataclass(frozen=True)
class Answer(Record):
    """What the model answers to one prompt.

    Args:
        prompt: The prompt: a text, turns, or values by column.
        answer: The answer, without a thought before it.
        task: Task whose template was used; None for none.
        format: Format of the task; else "chat" (the model's chat template) or "plain" (no template).
        tokens: How many tokens were generated, a thought included.
        stopped: Why it ends: "stop" (the model ended it), "length" (it may have no more tokens), "blank" (the prompt is blank).
        at: Id of the entry that answered.
        compared: The answer of another entry, where two were compared.
    """

    prompt: JsonValue
    answer: str
    task: str | None
    format: str
    tokens: int
    stopped: Stopped
    at: str
    compared: Reply | None = omitted(None)

    def __str__(self) -> str:
        """Return the answer alone."""
        return self.answer


@dataclass(frozen=True)
class Predictions:
    """What the model answers to some prompts.

    Args:
        answers: One for each prompt, in order.
        how: Which template was used, in words.
        notices: What the user should know, such as prompts that had to be cut.
    """

    answers: tuple[Answer, ...]
    how: str
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Encoded:
    """Prompts as rows and tokens, for the model that is loaded.

    Args:
        rows: One for each prompt.
        ids: Their tokens, cut to what the model has positions for.
        most: Most tokens of the answer to each.
        known: Rows that show what answers look like.
        notices: What had to be cut.
    """

    rows: list[Row]
    ids: list[list[int]]
    most: list[int]
    known: tuple[Row, ...]
    notices: list[str]


def predict(
    session: Session,
    prompts: Sequence[Prompt],
    request: Request = Request(),
    at: str = "head",
    *,
    compare: str | None = None,
    tick: Tick | None = None,
    on_text: OnText | None = None,
) -> Predictions:
    """Return what the model answers at a ref, and at a second one where `compare` names it.

    With a task, the model of its view answers, in the task's template. Without a task, the model that all tasks share answers,
    in its chat template, or from the plain text where it has no chat template.

    Args:
        session: The session.
        prompts: The prompts; a blank one gets an empty answer.
        request: Template and settings of generation.
        at: Ref or entry.
        compare: Ref or entry that gets the same prompts.
        tick: Called with (what, prompts done, prompts in all).
        on_text: Called with the index of a prompt and the next piece of its answer as it comes, those of `at` alone.

    Raises:
        BadInput: There is no prompt, a setting is out of range, or a prompt does not fit the template.
        NotFound: The task or a ref is not known.
    """
    request.check()
    request = request.named(session.ledger)
    some = [prompt for prompt in prompts if not prompt.blank]
    if not some:
        raise BadInput("there is no prompt; give a text, or lines on stdin")
    entry = session.ledger.resolve(at)
    other = session.ledger.resolve(compare) if compare else None
    task = task_at(session, request.task, entry) if request.task else None
    if request.raw and session.ledger.labelled_by(entry, [request.task]):
        raise BadInput(
            f"task {request.task} is answered with one of its labels, and continues no text; leave --raw or --task out"
        )
    if task is not None or request.raw:  # refused before the model is loaded
        rows = [row_of(prompt, request, task, chat=True) for prompt in some]
        session.load(entry, request.task)
    else:
        session.load(entry, None)
        rows = [row_of(prompt, request, None, chat=bool(session.tokenizer.chat_template)) for prompt in some]
    encoded = _fitted(session, rows, request, task)
    index = [n for n, prompt in enumerate(prompts) if not prompt.blank]
    streamed = (lambda n, piece: on_text(index[n], piece)) if on_text else None
    replies, notices = _answers(session, entry, request, encoded, tick, streamed)
    gone = gone_notice(session.ledger, entry, request.task) if request.task else None
    all_notices = [*([gone] if gone else []), *replaced_systems(some, request), *encoded.notices, *notices]
    others: list[Reply | None] = [None] * len(rows)
    if other is not None:
        session.load(other, request.task)
        second, notices = _answers(session, other, request, encoded, tick)
        others = list(second)
        all_notices += [f"{other.id[:12]}: {text}" for text in notices]
    format = task.format if task and not request.raw else (CHAT if rows[0].messages else PLAIN)
    made = {
        n: Answer(prompts[n].as_json, one.answer, request.task, format, one.tokens, one.stopped, one.at, two)
        for n, one, two in zip(index, replies, others, strict=True)
    }
    blank = Answer("", "", request.task, format, 0, "blank", entry.id)
    how = in_words(request, task, rows[0], session.ledger, entry)
    return Predictions(tuple(made.get(n, blank) for n in range(len(prompts))), how, tuple(all_notices))


def _fitted(session: Session, rows: list[Row], request: Request, task: TaskData | None) -> _Encoded:
    """Return rows as tokens, each cut to the positions of the model. No prompt depends on the others."""
    from perdure.model.decode import fitted

    runtime = session.runtime
    known = task.test if task and not request.raw else ()
    most = request.max_new_tokens or (answer_length(runtime, task) if task and not request.raw else LONGEST)
    positions, notices = runtime.base.positions, []
    if positions is not None:
        room = positions - min(most, positions // 2)
        shorter = [
            oldest_left_out(row, lambda one: len(prompts_of(runtime, [one])[0]) <= room) if row.messages else (row, 0)
            for row in rows
        ]
        rows = [row for row, _ in shorter]
        notices = [
            f"the oldest {counted(n, 'turn')} left out: no room among {positions} positions" for _, n in shorter if n
        ]
    whole = [ids or runtime.base.stops[:1] for ids in prompts_of(runtime, rows)]
    each = [fitted([ids], most, positions) for ids in whole]
    notices += cut_notices(sum(cut for _, _, cut in each), min(new for _, new, _ in each), most, positions)
    return _Encoded(rows, [ids for (ids,), _, _ in each], [new for _, new, _ in each], known, notices)


def _answers(
    session: Session,
    entry: Entry,
    request: Request,
    encoded: _Encoded,
    tick: Tick | None,
    on_text: OnText | None = None,
) -> tuple[list[Reply], list[str]]:
    """Return the answers of the loaded model, that of `entry`, and notices."""
    if session.ledger.labelled_by(entry, [request.task]):
        return _labels(session, entry, request, encoded, on_text)

    def done(count: int) -> None:
        if tick:
            tick("answering", count, len(encoded.rows))

    decoding = Decoding(request.temperature, request.seed, done, request.batch, on_text)
    generation = generated(session.runtime, encoded.rows, encoded.ids, encoded.most, decoding, known=encoded.known)
    ends: list[Stopped] = [
        "stop" if n < most else "length" for n, most in zip(generation.tokens, encoded.most, strict=True)
    ]
    notices = list(generation.notices)
    reached = [
        end for end, most in zip(ends, encoded.most, strict=True) if most == LONGEST
    ]  # a model may have room for less
    if request.max_new_tokens is None and request.task is None and (cut := reached.count("length")):
        notices.append(f"{counted(cut, 'answer')} cut after {LONGEST} tokens; raise max_new_tokens")
    made = zip(generation.texts, generation.tokens, ends, strict=True)
    return [Reply(text, tokens, end, entry.id) for text, tokens, end in made], notices


def _labels(
    session: Session, entry: Entry, request: Request, encoded: _Encoded, on_text: OnText | None
) -> tuple[list[Reply], list[str]]:
    """Return the labels of rows of a task that is answered with labels, and a notice where settings have nothing to change."""
    task = task_at(session, str(request.task), entry)
    tests = session.tasks.prompts(task, session.tokenizer)
    features = session.runtime.features(own_texts(encoded.ids, tests))
    labels = labels_of(session.ledger, entry, task.name, features).texts
    for n, text in enumerate(labels if on_text else ()):
        on_text(n, text)  # type: ignore[misc]
    unused = request.temperature > 0 or request.max_new_tokens is not None
    notices = (
        [f"{task.name} is answered with one of its labels: no token is drawn, and none is counted"] if unused else []
    )
    return [Reply(text, 0, "stop", entry.id) for text in labels], notices
