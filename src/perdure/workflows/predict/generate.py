"""Answers to prompts in groups, each by the model of one view in one template, and one answer of several of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from perdure.core.progress import Tick
from perdure.core.records import Record
from perdure.core.rows import Row
from perdure.core.words import counted
from perdure.ledger import Entry
from perdure.workflows.inspect.evaluate import task_at
from perdure.workflows.labelling import Labels, labels_of
from perdure.workflows.predict.ensemble import averaged, known_answers, probabilities, voted
from perdure.workflows.predict.prompt import Prompt
from perdure.workflows.predict.request import Request, oldest_left_out, row_of
from perdure.workflows.predict.views import Asked, Group
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
        tokens: How many tokens were generated, a thought included; 0 where known answers were compared.
        stopped: Why it ends; see `Answer`.
        at: Id of the entry.
    """

    answer: str
    tokens: int
    stopped: Stopped
    at: str


@dataclass(frozen=True)
class Batch:
    """The prompts of a group as rows and tokens.

    Args:
        group: The group.
        rows: One for each prompt.
        ids: Their tokens, cut to what the model has positions for.
        most: Most tokens of the answer to each.
        known: Rows that show what answers look like.
        notices: What had to be cut.
    """

    group: Group
    rows: list[Row]
    ids: list[list[int]]
    most: list[int]
    known: tuple[Row, ...]
    notices: list[str]


def rows_of(session: Session, group: Group, prompts: Sequence[Prompt], request: Request) -> list[Row]:
    """Return the prompts of a group as rows.

    Raises:
        BadInput: A prompt does not fit the template.
    """
    chat = group.task is not None or request.raw or bool(session.tokenizer.chat_template)
    return [row_of(prompts[n], request, group.task, chat=chat) for n in group.members]


def fitted_batch(session: Session, group: Group, rows: list[Row], request: Request) -> Batch:
    """Return the rows of a group as tokens, each cut to the positions of the model. No prompt depends on the others."""
    from perdure.model.decode import fitted

    runtime, task = session.runtime, group.task
    known = task.test if task else ()
    most = request.max_new_tokens or (answer_length(runtime, task) if task else LONGEST)
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
    return Batch(group, rows, [ids for (ids,), _, _ in each], [new for _, new, _ in each], known, notices)


def answered(
    session: Session,
    entry: Entry,
    asked: Sequence[Asked],
    batches: Sequence[Batch],
    request: Request,
    *,
    tick: Tick | None = None,
    on_text: OnText | None = None,
) -> tuple[list[Reply], list[str]]:
    """Return the answer to each prompt of the models of an entry, and notices.

    Where a prompt has several tasks, they answer together: with route "soft" by the mean probability of their known answers, if
    all of them have such; else by vote.

    Args:
        session: The session.
        entry: The entry whose views are loaded.
        asked: The prompts, with the weight of each task.
        batches: Groups of the prompts; what `asked` gives no weight is left out.
        request: Settings of generation.
        tick: Called with (what, prompts done, prompts in all), a prompt counted once for each task that answers it.
        on_text: Called with the number of a prompt and the next piece of its answer, or all of it where several tasks answer.
    """
    by_view = {(n, batch.group.view): batch for batch in batches for n in batch.group.members}
    averaging = {
        n
        for n, one in enumerate(asked)
        if request.route == "soft"
        and len(one.weights) > 1
        and all(known_answers(by_view[n, view].group.task) for view in one.weights)
    }
    replies: dict[tuple[int, str | None], Reply] = {}
    chances: dict[tuple[int, str | None], Mapping[str, float]] = {}
    notices: list[str] = []
    done, total = 0, sum(len(one.weights) for one in asked)
    for batch in batches:
        view = batch.group.view
        mine = [(place, n) for place, n in enumerate(batch.group.members) if view in asked[n].weights]
        session.load(entry, view)
        labelled = bool(session.ledger.labelled_by(entry, [view]))
        if places := [(place, n) for place, n in mine if n in averaging]:
            rows, ids = [batch.rows[place] for place, _ in places], [batch.ids[place] for place, _ in places]
            if labelled:
                found = _label_probabilities(_labels(session, entry, str(view), ids))
            else:
                found = probabilities(session.runtime, rows, ids, known_answers(batch.group.task))
            chances |= {(n, view): values for (_, n), values in zip(places, found, strict=True)}
            done += len(places)
        if places := [(place, n) for place, n in mine if n not in averaging]:
            alone = {i for i, (_, n) in enumerate(places) if len(asked[n].weights) == 1}
            one_tick = (lambda count, done=done: tick("answering", done + count, total)) if tick else None
            streamed = _streamed(on_text, [n for _, n in places], alone)
            answer = _labelled if labelled else _generated
            made, more = answer(session, entry, batch, [place for place, _ in places], request, one_tick, streamed)
            replies |= {(n, view): reply for (_, n), reply in zip(places, made, strict=True)}
            notices += more
            done += len(places)
    result = []
    for n, one in enumerate(asked):
        own = {view: chances[n, view] if n in averaging else {} for view in one.weights}
        if n in averaging:
            reply = Reply(averaged(one.weights, own), 0, "stop", entry.id)
        else:
            reply = replies[n, voted(one.weights, {view: replies[n, view].answer for view in one.weights})]
        if on_text and len(one.weights) > 1:
            on_text(n, reply.answer)
        result.append(reply)
    return result, notices


def _streamed(on_text: OnText | None, numbers: Sequence[int], alone: set[int]) -> OnText | None:
    """Return where pieces of answers go, by the place of a prompt among those generated together."""
    if on_text is None:
        return None

    def piece(place: int, text: str) -> None:
        if place in alone:
            on_text(numbers[place], text)

    return piece


def _generated(
    session: Session,
    entry: Entry,
    batch: Batch,
    places: Sequence[int],
    request: Request,
    tick: Callable[[int], None] | None,
    on_text: OnText | None,
) -> tuple[list[Reply], list[str]]:
    """Return the answers of the loaded model, that of `entry`, to some prompts of a batch, and notices."""
    decoding = Decoding(request.temperature, request.seed, tick or (lambda _: None), request.batch, on_text)
    rows, ids, most = [batch.rows[n] for n in places], [batch.ids[n] for n in places], [batch.most[n] for n in places]
    generation = generated(session.runtime, rows, ids, most, decoding, known=batch.known)
    ends: list[Stopped] = ["stop" if n < room else "length" for n, room in zip(generation.tokens, most, strict=True)]
    notices = list(generation.notices)
    reached = [end for end, room in zip(ends, most, strict=True) if room == LONGEST]  # a model may have room for less
    if request.max_new_tokens is None and batch.group.task is None and (cut := reached.count("length")):
        notices.append(f"{counted(cut, 'answer')} cut after {LONGEST} tokens; raise max_new_tokens")
    made = zip(generation.texts, generation.tokens, ends, strict=True)
    return [Reply(text, tokens, end, entry.id) for text, tokens, end in made], notices


def _labelled(
    session: Session,
    entry: Entry,
    batch: Batch,
    places: Sequence[int],
    request: Request,
    tick: Callable[[int], None] | None,
    on_text: OnText | None,
) -> tuple[list[Reply], list[str]]:
    """Return labels as answers, of a task that is answered with labels, and a notice where settings have nothing to change."""
    texts = _labels(session, entry, str(batch.group.view), [batch.ids[place] for place in places]).texts
    for n, text in enumerate(texts if on_text else ()):
        on_text(n, text)  # type: ignore[misc]
    unused = request.temperature > 0 or request.max_new_tokens is not None
    called = session.ledger.shown_name(str(batch.group.view))
    notices = [f"{called} is answered with one of its labels: no token is drawn, and none is counted"] if unused else []
    return [Reply(text, 0, "stop", entry.id) for text in texts], notices


def _labels(session: Session, entry: Entry, view: str, ids: Sequence[list[int]]) -> Labels:
    """Return the labels of prompts, as tokens in the template of a task that is answered with labels."""
    tests = session.tasks.prompts(task_at(session, view, entry), session.tokenizer)
    return labels_of(session.ledger, entry, view, session.runtime.features(own_texts(ids, tests)))


def _label_probabilities(labels: Labels) -> list[dict[str, float]]:
    """Return the probability of each label, for each row."""
    return [dict(zip(labels.names, row, strict=True)) for row in labels.probability.tolist()]
