"""Generate answers with the model of an entry, and compare the answers of two entries."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.core.records import Record, omitted
from perdure.core.rows import Row
from perdure.workflows.inspect.evaluate import gone_notice
from perdure.workflows.predict.generate import Batch, OnText, Reply, Stopped, answered, fitted_batch, rows_of
from perdure.workflows.predict.prompt import Prompt
from perdure.workflows.predict.request import CHAT, PLAIN, Request, in_words, replaced_systems
from perdure.workflows.predict.views import Asked, asked_of, groups_of, routed_in_words
from perdure.workflows.routing import Routing
from perdure.workflows.session import Session


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
        routed: The task that the router found, and the probability of each; None where no router was asked.
        compared: The answer of another entry, where two were compared.
    """

    prompt: JsonValue
    answer: str
    task: str | None
    format: str
    tokens: int
    stopped: Stopped
    at: str
    routed: Routing | None = None
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

    With a task, the model of its view answers, in the task's template. Without one, a router finds the task of each prompt, where
    tasks were learned with it (`Request.route`); a conversation is answered in the chat template then. What the router does not
    know, and everything without a router, the model that all tasks share answers, in its chat template, or from the plain text
    where it has no chat template.

    Args:
        session: The session.
        prompts: The prompts; a blank one gets an empty answer.
        request: Template and settings of generation.
        at: Ref or entry.
        compare: Ref or entry that gets the same prompts, each in the view of the task that the router found at `at`.
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
    if request.raw and session.ledger.labelled_by(entry, [request.task]):
        raise BadInput(
            f"task {request.task} is answered with one of its labels, and continues no text; leave --raw or --task out"
        )
    asked = asked_of(session, entry, some, request, tick)
    groups = groups_of(session, entry, asked, request)
    rows = [rows_of(session, group, some, request) for group in groups]  # refused before a model is loaded
    batches = [fitted_batch(session, group, own, request) for group, own in zip(groups, rows, strict=True)]
    index = [n for n, prompt in enumerate(prompts) if not prompt.blank]
    streamed = (lambda n, piece: on_text(index[n], piece)) if on_text else None
    replies, notices = answered(session, entry, asked, batches, request, tick=tick, on_text=streamed)
    gone = [gone_notice(session.ledger, entry, group.view) for group in groups if group.view is not None]
    all_notices = [*dict.fromkeys(filter(None, gone)), *replaced_systems(some, request)]
    all_notices += [*dict.fromkeys(notice for batch in batches for notice in batch.notices), *notices]
    others: list[Reply | None] = [None] * len(some)
    if other is not None:
        single = [replace(one, weights={one.first: 1.0}) for one in asked]
        second, notices = answered(session, other, single, batches, request)
        others = list(second)
        all_notices += [f"{other.id[:12]}: {text}" for text in notices]
    homes = [_home(batches, n, one) for n, one in enumerate(asked)]
    made = {
        place: Answer(
            prompt=one.prompt.as_json,
            answer=reply.answer,
            task=batch.group.view if batch.group.task or request.raw else None,
            format=_format(batch, row),
            tokens=reply.tokens,
            stopped=reply.stopped,
            at=reply.at,
            compared=second,
            routed=one.routing,
        )
        for place, one, (batch, row), reply, second in zip(index, asked, homes, replies, others, strict=True)
    }
    found = [one.routing for one in asked if one.routing is not None]
    shared = CHAT if session.tokenizer.chat_template else PLAIN
    blank = Answer("", "", request.task, shared if found else _format(*homes[0]), 0, "blank", entry.id)
    how = routed_in_words(session.ledger, asked) if found else in_words(request, homes[0][1], session.ledger, entry)
    return Predictions(tuple(made.get(n, blank) for n in range(len(prompts))), how, tuple(all_notices))


def _home(batches: Sequence[Batch], n: int, asked: Asked) -> tuple[Batch, Row]:
    """Return the batch in which the first task of prompt `n` answers it, and its row there."""
    batch = next(one for one in batches if one.group.view == asked.first and n in one.group.members)
    return batch, batch.rows[batch.group.members.index(n)]


def _format(batch: Batch, row: Row) -> str:
    """Return the format of an answer: that of the task in whose template it was asked, or the model's own."""
    if batch.group.task is not None:
        return batch.group.task.format
    return CHAT if row.messages else PLAIN
