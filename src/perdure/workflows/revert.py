"""Revert: a new entry without a fact, without the facts of an edit, or without a task."""

from perdure.core.errors import BadInput, NotFound
from perdure.core.progress import Tick
from perdure.ledger import Entry, Ledger
from perdure.ledger.history import CANDIDATE
from perdure.workflows.edit.results import RevertResult
from perdure.workflows.edit.revert import revert as revert_facts
from perdure.workflows.inspect.score_views import taken_out
from perdure.workflows.learn.revert_task import TaskRevertResult, revert_task
from perdure.workflows.rescore import Rescore
from perdure.workflows.session import Session


def revert(
    session: Session,
    what: str,
    *,
    resolve: bool = False,
    tick: Tick | None = None,
    rescoring: Rescore = Rescore(),
) -> RevertResult | TaskRevertResult:
    """Take a task or facts out of head; see `learn.revert_task` and `edit.revert`.

    The exact name of a task wins over ids that begin so.

    Args:
        session: Of the workspace.
        what: A task that head knows (or the entry that learned it), a fact, or an edit entry.
        resolve: Of facts: solve the others again as if these had never been made.
        tick: Called with (what, done, total) as work goes on.
        rescoring: What is scored afterwards.

    Raises:
        NotFound: Nothing has this name.
        BadInput: It cannot be separated from the rest, is not in head's history, is the name of a task and of an entry, or a
            candidate is waiting.
    """
    ledger = session.ledger
    head, named = ledger.resolve("head"), ledger.task_name(what)
    _refuse_two(ledger, what)
    if _is_task(ledger, head, named):
        return revert_task(session, named, tick, rescoring)
    entry = _learned_by(ledger, named)
    if entry is None:
        return revert_facts(session, what, resolve=resolve, tick=tick, rescoring=rescoring)
    if entry == ledger.candidate():
        session.refuse_candidate()
    if entry.id not in {past.id for past in ledger.ancestors(head)}:
        raise BadInput(
            f"entry {entry.id[:12]} learned task {entry.task} outside head's history, so that head has nothing of it to take "
            f"out; 'perdure rollback {entry.id[:12]}' goes to the state that has it"
        )
    return revert_task(session, str(entry.task), tick, rescoring)


def _is_task(ledger: Ledger, head: Entry, name: str) -> bool:
    return name in head.tasks or taken_out(ledger, head, name) is not None


def _refuse_two(ledger: Ledger, what: str) -> None:
    """Refuse the name of a task that is the whole name of an entry too.

    Raises:
        BadInput: It is both; the message says which.
    """
    if what not in ledger.task_names():
        return
    refs = {**ledger.refs(), **({CANDIDATE: one.id} if (one := ledger.candidate()) else {})}
    whole = {one.id: one.id for one in ledger.entries()}
    if entry := {**whole, **refs}.get(what):
        raise BadInput(
            f"'{what}' is the name of a task and of entry {entry[:12]}; give the first digits of the id for the entry, or rename "
            f"the task with 'perdure task rename {what} NEW'"
        )


def _learned_by(ledger: Ledger, what: str) -> Entry | None:
    """Return the learn that `what` names: the name of a task that head never knew, a ref, or an id."""
    learned = [one for one in (ledger.candidate(), *reversed(ledger.entries())) if one and one.kind == "learn"]
    entry = next((one for one in learned if one.task == what), None)
    try:
        entry = entry or ledger.resolve(what)
    except NotFound:
        return None
    return entry if entry is not None and entry.kind == "learn" and entry.task else None
