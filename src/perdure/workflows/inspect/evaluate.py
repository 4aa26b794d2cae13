"""Score tasks at an entry, and ask the model there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perdure.core.errors import BadInput, NotFound
from perdure.core.progress import Tick
from perdure.core.rows import Message, Row
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger
from perdure.workflows.inspect.views import task_order
from perdure.workflows.scoring import Answers, answer_length, answers
from perdure.workflows.session import Scored, Session

LONGEST = 256  # tokens of an answer that no task bounds


@dataclass(frozen=True)
class Evaluation:
    """Tasks scored at an entry.

    Args:
        ref: What was asked for.
        entry: Id of the entry.
        scores: By task name.
    """

    ref: str
    entry: str
    scores: dict[str, Scored]

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should know of how the model was asked, each once."""
        return tuple(dict.fromkeys(text for found in self.scores.values() for text in found.notices))

    def to_json(self) -> dict[str, Any]:
        """Return "ref", "entry" and "tasks": score, interval, n and scorer of each."""
        tasks = {name: found.score.summary.to_json() for name, found in self.scores.items()}
        return {"ref": self.ref, "entry": self.entry, "tasks": tasks}


def evaluate(session: Session, tasks: Sequence[str] = (), at: str = "head", tick: Tick | None = None) -> Evaluation:
    """Score tasks at a ref, all that it knows unless some are named; stored scores are looked up.

    Raises:
        NotFound: A task or ref is not known.
    """
    entry = session.ledger.resolve(at)
    named = list(tasks) or task_order(session.ledger, entry)
    known = {name: task_at(session, name, entry) for name in named}  # before the first is scored
    if not tasks:  # a task whose test rows were all deleted has no score any more
        seen = session.ledger.seen_by(entry, known)
        known = {
            name: task for name, task in known.items() if task.test or session.ledger.score(seen[name], task.version)
        }
    return Evaluation(at, entry.id, {name: session.score(entry, task, tick) for name, task in known.items()})


def predict(
    session: Session,
    texts: Sequence[str],
    task: str | None = None,
    at: str = "head",
    max_new_tokens: int | None = None,
) -> Answers:
    """Return the model's answers at a ref, asked the way `task` (else the newest task) asks; else as a chat.

    Raises:
        BadInput: `max_new_tokens` is below 1, or the task's prompt asks for several columns.
        NotFound: The task or ref is not known.
    """
    if max_new_tokens is not None and max_new_tokens < 1:
        raise BadInput(f"max_new_tokens is {max_new_tokens}; an answer has one token at least")
    entry = session.ledger.resolve(at)
    name = task or newest_task(session.ledger, entry)
    data = task_at(session, name, entry) if name else None
    rows = [data.ask(text) for text in texts] if data else []  # before the model is loaded
    session.load(entry, name)
    if data is None:
        rows = [_without_task(text, chat=bool(session.tokenizer.chat_template)) for text in texts]
        return answers(session.runtime, rows, max_new_tokens or LONGEST)
    return answers(session.runtime, rows, max_new_tokens or answer_length(session.runtime, data), known=data.test)


def newest_task(ledger: Ledger, entry: Entry) -> str | None:
    """Return the name of the task that was learned last at `entry`; None where it knows none."""
    return next((e.task for e in ledger.ancestors(entry) if e.kind == "learn" and e.task in entry.tasks), None)


def task_at(session: Session, name: str, entry: Entry) -> TaskData:
    """Return a task at an entry; of a state older than the task, which head's history knows, its first version.

    Raises:
        NotFound: Neither the entry nor head's history knows the task.
    """
    if name in entry.tasks:
        return session.task(name, entry)
    ledger = session.ledger
    head = ledger.resolve("head")
    first = next((one for one in reversed(ledger.ancestors(head)) if name in one.tasks), None)
    if first is not None:
        return session.task(name, first)
    here = task_order(ledger, entry) or task_order(ledger, head)
    other = next((other for other in reversed(ledger.entries()) if name in other.tasks), None)
    hint = f"; entry {other.id[:12]}, outside head's history, does: add --at {other.id[:12]}" if other else ""
    raise NotFound(f"no task {name!r} is known here; known are {', '.join(here) or 'none yet'}{hint}")


def _without_task(text: str, *, chat: bool) -> Row:
    """Return a row that asks a text as a user turn, or as it is where the model has no chat template."""
    return Row(messages=(Message("user", text), Message("assistant", ""))) if chat else Row(prompt=text)
