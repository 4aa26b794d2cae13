"""How a prompt becomes a row: in the template of a task, as a user turn of the chat template, or as plain text."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal, get_args

from perdure.core.errors import BadInput
from perdure.core.plain_text import quoted
from perdure.core.rows import Message, Row
from perdure.core.words import some
from perdure.data.formats import names_in
from perdure.data.systems import SYSTEM_ROLES
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger
from perdure.workflows.inspect.score_views import task_order
from perdure.workflows.predict.prompt import Prompt

CHAT, PLAIN = "chat", "plain"
"""What `Answer.format` is where no task's template was used: the model's chat template, and none."""

Route = Literal["single", "soft", "vote", "none"]
ENSEMBLES = ("soft", "vote")  # routes by which several tasks may answer one prompt

ANSWER = Message("assistant", "")  # stands for the answer that is not known yet


@dataclass(frozen=True)
class Request:
    """Template and settings of generation.

    Args:
        task: Task whose template and adapter are used; None for none.
        system: System turn.
        raw: Continue the text as it is, in no template.
        max_new_tokens: Most tokens of an answer; None for as many as the task needs, or `LONGEST`.
        temperature: 0 takes the most likely token; above it, tokens are drawn.
        seed: Key of what is drawn.
        batch_size: Most prompts that are answered together; None for 64, or 1 where tokens are drawn: rounding depends
            on the size of a batch, and drawn tokens shall depend on prompt and seed alone.
        route: How a prompt without a task finds one, where tasks were learned with a router: "single" (the most likely task
            answers), "soft" (probabilities of the tasks' answers are averaged), "vote" (the answer with the most weight wins),
            "none" (what all tasks share answers).
    """

    task: str | None = None
    system: str | None = None
    raw: bool = False
    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int = 0
    batch_size: int | None = None
    route: Route = "single"

    def named(self, ledger: Ledger) -> "Request":
        """Return the request with the name under which its task was learned, in the place of an alias."""
        return replace(self, task=ledger.task_name(self.task)) if self.task else self

    @property
    def batch(self) -> int | None:
        """Most prompts of a batch; None for as many as the decoder takes."""
        return self.batch_size or (1 if self.temperature else None)

    def check(self) -> None:
        """Refuse what cannot be done.

        Raises:
            BadInput: A value is out of range, or there is no template for the system turn.
        """
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise BadInput(f"max_new_tokens is {self.max_new_tokens}; an answer has one token at least")
        if self.batch_size is not None and self.batch_size < 1:
            raise BadInput(f"batch_size is {self.batch_size}; a batch has one prompt at least")
        if not 0 <= self.temperature < inf:
            raise BadInput(f"temperature is {self.temperature}; give 0 (the most likely answer) or more")
        if self.system is not None and not self.system.strip():
            raise BadInput("the system turn is empty; leave it out")
        if self.route not in get_args(Route):
            raise BadInput(f"route is {quoted(self.route)}; give {', '.join(get_args(Route))}")
        if self.route in ENSEMBLES and (self.task or self.raw):
            raise BadInput(
                f"route {self.route} asks the models of several tasks, and a prompt with a task, or in no template, has one; "
                "leave one of the two out"
            )
        if self.route == "soft" and self.temperature:
            raise BadInput("route soft takes the most likely answer; leave the temperature out, or take route vote")
        if self.system is not None and self.raw:
            raise BadInput("raw text has no template, so it has no system turn; leave one of the two out")


def row_of(prompt: Prompt, request: Request, task: TaskData | None, *, chat: bool) -> Row:
    """Return the row of a prompt; its answer is empty.

    Args:
        prompt: The prompt; not blank.
        request: Template and settings.
        task: The task whose template is used; None for none.
        chat: Whether the model has a chat template.

    Raises:
        BadInput: The prompt does not fit the template.
    """
    if request.raw:
        if not prompt.text:
            raise BadInput(f"{prompt.source} is no plain text, and raw text is continued as it is; leave --raw out")
        return Row(prompt=prompt.text)
    if task is not None:
        return _with_system(_task_row(prompt, task), request.system, task.name)
    if prompt.text and not chat and request.system is None:
        return Row(prompt=prompt.text)
    if not chat:
        what = f"{prompt.source} is a conversation" if prompt.turns else "the system turn has no place"
        raise BadInput(
            f"{what}, and this model's tokenizer has no chat template; give plain text alone, or use a model made for chat"
        )
    if not (prompt.turns or prompt.text):
        columns = ", ".join(prompt.record.fields) if prompt.record else ""
        raise BadInput(
            f"{prompt.source} has columns {columns}; without a task, the prompt must be in prompt, text or messages"
        )
    turns = prompt.turns or (Message("user", prompt.text),)
    return _with_system(Row(messages=(*turns, ANSWER), extra=prompt.extra, source=prompt.source), request.system)


def in_words(request: Request, row: Row, ledger: Ledger, entry: Entry) -> str:
    """Return in words which template was used, and how to use that of a task."""
    task = request.task
    if request.raw:
        return f"continued as plain text{f', by the model of task {ledger.shown_name(task)}' if task else ''}"
    isolated = isolated_tasks(ledger, entry)
    if task is not None:
        if ledger.labelled_by(entry, [task]):
            return (
                f"answered with one of the labels of task {ledger.shown_name(task)}, by the untrained model's features"
            )
        own = " and with its own adapter" if task in isolated else ""
        return f"prompted in the template of task {ledger.shown_name(task)}{own}"
    how = (
        "prompted as a user turn of the chat template"
        if row.messages
        else "prompted as plain text: there is no chat template"
    )
    names = [ledger.shown_name(name) for name in task_order(ledger, entry)]
    own = " and its own adapter" if isolated else ""
    return f"{how}; --task NAME takes a task's template{own} ({some(names)})" if names else how


def isolated_tasks(ledger: Ledger, entry: Entry) -> list[str]:
    """Return the tasks that have an adapter of their own, which only a request that names the task uses."""
    seen, labelled = ledger.seen_by(entry, [None, *entry.tasks]), ledger.labelled_by(entry)
    return [name for name in task_order(ledger, entry) if seen[name] != seen[None] and name not in labelled]


def fits_template(prompt: Prompt, request: Request, task: TaskData) -> bool:
    """Return whether a prompt that was sent to a task can be written in the task's template: one text, in a template for one."""
    if not prompt.text or (request.system is not None and not _is_conversation(task)):
        return False
    return len(names_in(task.spec.template)) <= 1 if task.spec.template else True


def oldest_left_out(row: Row, fits: Callable[[Row], bool]) -> tuple[Row, int]:
    """Return a conversation without as many of its oldest turns as it takes for it to fit, and their number.

    A system turn stays. What is left begins with a user turn; the last one stays in any case.
    """
    first = next((n for n, turn in enumerate(row.messages) if turn.role not in ("system", "developer")), 0)
    head, turns = row.messages[:first], row.messages[first:]
    starts = [0, *(n for n, turn in enumerate(turns) if turn.role == "user" and n)]

    def shorter(start: int) -> Row:
        return replace(row, messages=(*head, *turns[start:]))

    if len(starts) == 1 or fits(row):
        return row, 0
    start = starts[min(bisect_left(starts, True, lo=1, key=lambda n: fits(shorter(n))), len(starts) - 1)]
    return shorter(start), start


def _task_row(prompt: Prompt, task: TaskData) -> Row:
    if prompt.turns:
        row = task.prompt_row(prompt.turns[-1].content) if _is_conversation(task) else None
        if row is None:
            raise BadInput(
                f"{prompt.source} is a conversation, and task {task.name!r} takes one text in its own template; give the text "
                "alone, or no task"
            )
        own = row.messages[:-2] if prompt.turns[0].role != "system" else ()  # the system turn of the task's rows
        return replace(row, messages=(*own, *prompt.turns, ANSWER), extra=prompt.extra or row.extra)
    if prompt.record is not None:
        return task.request(prompt.record)
    return task.prompt_row(prompt.text)


def _with_system(row: Row, system: str | None, task: str = "") -> Row:
    if system is None:
        return row
    if not row.messages:
        raise BadInput(f"task {task!r} has a template without a system turn; leave --system or --task out")
    turns = row.messages[1:] if row.messages[0].role in SYSTEM_ROLES else row.messages
    return replace(row, messages=(Message("system", system), *turns))


def replaced_systems(prompts: Sequence[Prompt], request: Request) -> list[str]:
    """Return a notice where the system turn of a request takes the place of one of a prompt's own."""
    own = [prompt for prompt in prompts if prompt.turns and prompt.turns[0].role in SYSTEM_ROLES]
    if request.system is None or not (lost := [one for one in own if one.turns[0].content != request.system]):
        return []
    which = f"that of {lost[0].source}" if len(lost) == 1 else f"those of {len(lost)} conversations"
    return [f"the system turn given with --system (system=) is used in the place of {which}"]


def _is_conversation(task: TaskData) -> bool:
    return any(row.messages for row in task.test)
