"""Add guards to a workspace, list and remove them, and move their reference. No id of an entry depends on any of it."""

import os
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.core.records import Record, omitted
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import Guard, GuardBudget, Selection
from perdure.workflows.guards.columns import blind_at
from perdure.workflows.guards.measured import forget_measured
from perdure.workflows.guards.read import ReadGuard, read_guard
from perdure.workflows.session import Session

Mode = Literal["warn", "enforce", "none"]
DEFAULTS = ("drift", "instructions")  # guards of a new workspace
SAME = "same"  # scorer that compares with what the reference answered


@dataclass(frozen=True)
class ListedGuard(Record):
    """A guard of a workspace.

    Args:
        name: Its name.
        ability: What it measures.
        items: Number of its rows.
        blind: Whether the reference scores no better than chance, so that a fall cannot be seen; None before it was scored.
        budgets: Number of items by budget.
        chance: Expected score by chance; None where chance has no part.
        scorer: Name of its scorer.
        reference: Id of the entry that later entries are compared with.
        score: Score of the reference, over the items scored so far; None before.
        n: Number of these items.
        source: Origin of its rows.
        selection: How its rows were selected at the base, so that its score is that of no benchmark; None where they were not.
    """

    name: str
    ability: str
    items: int
    blind: bool | None
    budgets: GuardBudget
    chance: float | None
    scorer: str
    reference: str
    score: float | None
    n: int
    source: str
    selection: Selection | None = omitted(None)


def add_guard(
    session: Session,
    what: str,
    *,
    data: Path | None = None,
    name: str | None = None,
    learn: int | None = None,
    tick: Tick | None = None,
) -> ListedGuard:
    """Add a guard to a workspace. Its rows are stored; nothing is scored before the first learn, edit or checkup needs it.

    With `informative: true` the base scores a pool of rows now, some of which make the guard; others that were not scored are
    added as a guard of their own, which checkups alone score. See `guards.select`.

    Args:
        session: Of the workspace.
        what: Name of a shipped guard, path of a guard file, or `harness:NAME`.
        data: Folder of data files.
        name: Name of the guard; None takes the one in its file.
        learn: Number of items that each learn scores; None takes the one in its file.
        tick: Called with (what, done, total) while a pool is scored.

    Raises:
        BadInput: There is no such guard, its data are missing, a guard or a task has its name, or no row can be selected.
        BadSpec: A setting in its file is not valid.
        Busy: Another process writes to the workspace.
    """
    ledger = session.ledger
    read = read_guard(what, ledger.root, data, name=name, has_template=partial(has_template, session))
    with session.writing():
        if read.spec.informative:
            guards = _selected(session, read, learn, tick)
        else:
            refuse_taken(ledger, read.spec.name)
            guards = [_guard_with(session, read, learn)]
        for guard in guards:
            ledger.add_guard(guard)
    return listed(session, guards[0])


def _selected(session: Session, read: ReadGuard, learn: int | None, tick: Tick | None) -> list[Guard]:
    """Return the guard of rows that are selected at the base, and that of rows which no selection saw."""
    from perdure.workflows.guards.select import names_of, select

    for name in names_of(read.spec.name):
        refuse_taken(session.ledger, name)
    parts = select(session, read, tick)
    selected = replace(_guard_with(session, parts.selected, learn), selection=parts.selection)
    return [selected, guard_of(session, parts.check)]


def _guard_with(session: Session, read: ReadGuard, learn: int | None) -> Guard:
    items = read.items if learn is None else _with_learn(read.items, learn)
    return replace(guard_of(session, read), items=items)


def guard_of(session: Session, read: ReadGuard) -> Guard:
    """Store the rows of a guard that was read, and return it with the base model as its reference; it is not added yet."""
    ledger, task = session.ledger, read.task
    ledger.put_task(task.name, task.version, task.to_json(), {"test": task.test})
    return Guard(
        name=task.name,
        version=task.version,
        ability=read.spec.ability,
        items=read.items,
        chance=read.chance,
        reference=ledger.resolve("base").id,
        source=read.source,
    )


def has_template(session: Session) -> bool:
    """Return whether the base model has a chat template; its weights are not loaded for that."""
    from perdure.bridges.models import load_tokenizer

    return bool(load_tokenizer(session.base_folder).chat_template)


def add_default_guards(session: Session, wanted: str | None = None) -> None:
    """Add the guards of a new workspace, which are made by perdure and need no data.

    Args:
        session: Of the workspace.
        wanted: "default", or "none" for none; None takes what the environment variable PERDURE_GUARDS says, else "default".

    Raises:
        BadInput: It is something else.
    """
    chosen = check_new(wanted)
    for name in DEFAULTS if chosen == "default" else ():
        add_guard(session, name)


def check_new(wanted: str | None) -> str:
    """Return which guards a new workspace has: "default" or "none"; see `add_default_guards`.

    Raises:
        BadInput: It is something else.
    """
    chosen = wanted or os.environ.get("PERDURE_GUARDS") or "default"
    if chosen not in ("default", "none"):
        raise BadInput(f"guards of a new workspace are {chosen!r}; write default ({', '.join(DEFAULTS)}) or none")
    return chosen


def _with_learn(items: GuardBudget, learn: int) -> GuardBudget:
    """Return the budgets with another number of items at each learn."""
    if learn < 0:
        raise BadInput(f"a learn cannot score {learn} items; give 0 or more")
    least = min(learn, items.full)
    return GuardBudget(least, max(items.quick, least), max(items.standard, least), items.full)


def refuse_taken(ledger: Ledger, name: str) -> None:
    """Refuse the name of a guard that a guard, a task or a ref has.

    Raises:
        BadInput: The name is taken.
    """
    if any(guard.name == name for guard in ledger.guards()):
        raise BadInput(f"guard {name} is there already; remove it first ('perdure guard remove {name}'), or add --name")
    if (task := ledger.task_name(name)) in ledger.every_task():
        alias = f" (the alias of {task})" if task != name else ""
        raise BadInput(f"{name} is the name of a task{alias}; give the guard another with --name")
    if name in ledger.refs() or name == "candidate":
        raise BadInput(f"{name} is a ref; give the guard another name with --name")


def refuse_guard_name(ledger: Ledger, task: str) -> None:
    """Refuse to learn a task by the name of a guard.

    Raises:
        BadInput: A guard has the name.
    """
    if any(guard.name == task for guard in ledger.guards()):
        raise BadInput(
            f"{task} is the name of a guard, which is scored and never learned; learn the task by another name, or take the "
            f"guard away with 'perdure guard remove {task}'"
        )


def remove_guard(session: Session, name: str) -> ListedGuard:
    """Remove a guard from a workspace and return it. `gc` deletes its rows and scores.

    A guard that only checkups measured is removed from what these noted.

    Raises:
        NotFound: No guard has this name.
        Busy: Another process writes to the workspace.
    """
    with session.writing():
        measured = forget_measured(session.ledger, name)
        own = next((guard for guard in session.ledger.guards() if guard.name == name), None)
        gone = own or measured or session.ledger.guard(name)  # which raises the error
        found = listed(session, gone)
        if own is not None:
            session.ledger.remove_guard(name)
        return found


def accept_guard(session: Session, name: str, at: str = "head") -> tuple[Guard, Entry]:
    """Compare a guard from now on with an entry instead of the base, and return the guard and the entry.

    Args:
        session: Of the workspace.
        name: Name of the guard.
        at: Ref or entry; "base" goes back to the base model.

    Raises:
        NotFound: No guard, or no entry, has this name.
        BadInput: The entry is a candidate.
        Busy: Another process writes to the workspace.
    """
    with session.writing():
        ledger = session.ledger
        guard, entry = ledger.guard(name), ledger.resolve(at)
        if (waiting := ledger.candidate()) is not None and waiting.id == entry.id:
            raise BadInput(
                "a candidate is not recorded yet, so that no guard can refer to it; 'perdure accept' it first"
            )
        if guard.reference == entry.id:
            return guard, entry
        moved = referring_to(session, guard, entry)
        ledger.change_guard(moved, f"guard accept {name} --at {at}")
        return moved, entry


def referring_to(session: Session, guard: Guard, entry: Entry) -> Guard:
    """Return a guard that is compared with an entry; nothing is stored."""
    moved = replace(guard, reference=entry.id)
    if guard.reference == entry.id or session.tasks.get(guard.name, guard.version).scorer["name"] != SAME:
        return moved
    ledger = session.ledger  # what it scores depends on the reference too
    is_base = entry.id == ledger.resolve("base").id
    scored = "" if is_base else content_hash([guard.version, ledger.seen(entry, None)])
    return replace(moved, columns=None, scored=scored)


def guards(session: Session) -> tuple[ListedGuard, ...]:
    """Return the guards of a workspace, in the order in which they were added."""
    return tuple(listed(session, guard) for guard in session.ledger.guards())


def listed(session: Session, guard: Guard) -> ListedGuard:
    """Return what is known of a guard, with the score of its reference where that was measured."""
    ledger, task = session.ledger, session.tasks.get(guard.name, guard.version)
    state = ledger.seen(ledger.entry(guard.reference), None)
    score = ledger.score(state, guard.score_version, task.scoring)
    blind = None if score is None else blind_at(ledger, guard, score)
    return ListedGuard(
        name=guard.name,
        ability=guard.ability,
        items=guard.items.full,
        blind=blind,
        budgets=guard.items,
        chance=guard.chance,
        scorer=str(task.scorer["name"]),
        reference=guard.reference,
        score=score.score if score else None,
        n=score.n if score else 0,
        source=guard.source,
        selection=guard.selection,
    )


def mode_of(ledger: Ledger, wanted: Mode | None = None) -> Mode:
    """Return what a guard that fell does: as wanted for one command, else as the workspace has it, else "warn"."""
    if wanted is not None and wanted not in get_args(Mode):
        raise BadInput(f"guards is {wanted!r}; it is {', '.join(get_args(Mode))}")
    chosen: Mode = wanted or ("enforce" if ledger.config.get("guards") == "enforce" else "warn")
    return chosen


def set_mode(session: Session, mode: Mode) -> None:
    """Set for the workspace whether a guard that fell warns or refuses the entry.

    Raises:
        BadInput: The mode is neither "warn" nor "enforce".
        Busy: Another process writes to the workspace.
    """
    if mode not in ("warn", "enforce"):
        raise BadInput(f"guards is {mode!r}; it is warn or enforce")
    with session.writing():
        session.ledger.configure(guards=mode)
