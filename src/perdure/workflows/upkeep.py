"""Move head, erase rows, free space, and check that everything is as it was recorded."""

from collections.abc import Collection
from dataclasses import replace

from perdure.core.errors import BadInput, BrokenStore, NotFound
from perdure.core.plain_text import quoted
from perdure.core.progress import Tick
from perdure.core.words import some
from perdure.ledger import Entry
from perdure.ledger.records import DeletedRow, DeletedTask, Freed, Verification
from perdure.workflows.inspect.disk import MEASURED
from perdure.workflows.inspect.log import candidate_line
from perdure.workflows.learn.influence import influence, trained_on
from perdure.workflows.row_features import forget_features
from perdure.workflows.session import Session


def accept(session: Session) -> Entry:
    """Make the candidate of a failed gate the new head. If it is head already, nothing is changed."""
    with session.writing():
        return session.ledger.accepted() or session.ledger.accept()


def discard(session: Session) -> Entry | None:
    """Drop the candidate of a failed gate and return it; None without a candidate."""
    ledger = session.ledger
    with session.writing():
        candidate = ledger.candidate()
        if candidate is None:
            return None
        try:
            line = candidate_line(ledger, candidate)
        except BrokenStore:  # a candidate that is damaged can be discarded too
            line = None
        return ledger.discard(line)


def rollback(session: Session, ref: str) -> Entry:
    """Move head to `ref`: the same logits, to the bit, and the same memory, as it had then."""
    with session.writing():
        entry = session.ledger.resolve(ref)
        session.ledger.move("head", entry.id, f"rollback {ref}")
        return entry


def delete_row(session: Session, row_hash: str) -> DeletedRow:
    """Erase a row's text from every manifest and task, by its hash or the beginning of it; see `Ledger.delete_row`."""
    with session.writing():
        session.tasks.clear()
        forget_features(session.ledger)
        return session.ledger.delete_row(session.ledger.row_hash(row_hash))


def delete_task_rows(session: Session, task: str) -> DeletedTask:
    """Erase the text of every row of a task, permanently, and say what of it is left in the weights of head.

    Args:
        session: Of the workspace.
        task: Name or alias of a task that some entry or the candidate knows.

    Raises:
        NotFound: No entry knows the task.
        Busy: The text is erased, but a reader uses the log, which still has it; call this again.
    """
    with session.writing():
        ledger = session.ledger
        task, known = ledger.task_name(task), ledger.every_task()
        if task not in known:
            named = some(sorted(map(ledger.shown_name, known))) if known else "none yet"
            raise NotFound(f"no task {quoted(task)} is known in this workspace; known are {named}")
        session.tasks.clear()
        forget_features(ledger)
        rows, already = ledger.erase_task(task)
        head = ledger.resolve("head")
        left = influence(ledger, head, task)
        entries = tuple(one.id for one in ledger.entries() if one.kind == "learn" and trained_on(ledger, one, task))
        return DeletedTask(task, rows, already, entries, left.own, tuple(one.id for one in left.others))


def gc(session: Session, abandoned: Collection[str] = ()) -> Freed:
    """Delete what no entry and no candidate needs, and what can be measured again.

    The latter are statistics of edits, features of test rows, and estimates.

    Args:
        session: Of the workspace.
        abandoned: Ids of `inspect.log.abandoned` to delete first. What a ref or a candidate reaches by now stays.
    """
    ledger = session.ledger
    with session.writing():
        session.tasks.clear()
        cached = [path for what in MEASURED for path in (ledger.root / what).glob("*") if path.is_file()]
        freed = sum(path.stat().st_size for path in cached)
        for path in cached:
            path.unlink()
        result = ledger.gc(abandoned)
        return replace(result, bytes=result.bytes + freed)


def verify(session: Session, tick: Tick | None = None) -> Verification:
    """Hash everything again, the base's weights too, and load the base.

    Args:
        session: Of the workspace.
        tick: Called with (what, done, total) as objects and weights are hashed.
    """
    from perdure.bridges import identity, models

    report, config = session.ledger.verify(tick), session.ledger.config
    try:
        identity.check_unchanged(session.base_folder, config["weights"], tick)
        kind, attention = config.get("quantization"), config.get("attn_implementation")
        models.load_base(session.base_folder, config["dtype"], session.device, kind, attention)
    except (BadInput, BrokenStore) as error:
        return replace(report, ok=False, problems=(*report.problems, str(error)))
    return report
