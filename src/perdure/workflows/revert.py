"""Revert: a new entry without a fact, without the facts of an edit, or without a task."""

from perdure.core.errors import BadInput, NotFound
from perdure.core.progress import Tick
from perdure.ledger import Entry, Ledger
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

    Args:
        session: Of the workspace.
        what: A task that head knows (or the entry that learned it), a fact, or an edit entry.
        resolve: Of facts: solve the others again as if these had never been made.
        tick: Called with (what, done, total) as work goes on.
        rescoring: What is scored afterwards.

    Raises:
        NotFound: Nothing has this name.
        BadInput: It cannot be separated from the rest, is not in head's history, or a candidate is waiting.
    """
    ledger = session.ledger
    head, named = ledger.resolve("head"), ledger.task_name(what)
    if _is_task(ledger, head, named):  # first, as a name may begin like an entry
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


def _learned_by(ledger: Ledger, what: str) -> Entry | None:
    """Return the learn that `what` names: a ref, an id, or the name of a task that head never knew."""
    try:
        entry: Entry | None = ledger.resolve(what)
    except NotFound:
        entry = next((e for e in reversed(ledger.entries()) if e.kind == "learn" and e.task == what), None)
    return entry if entry is not None and entry.kind == "learn" and entry.task else None
