"""The guards of a checkup: those of the workspace, and those that are shipped and can be scored here."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from perdure.core.errors import BadInput, NotFound
from perdure.core.recipe import nearest
from perdure.data.guard_spec import ABILITIES, guard_file, guard_names, load_guard_spec
from perdure.ledger import Entry
from perdure.ledger.records import Guard
from perdure.workflows.guards.attach import guard_of, has_template, referring_to
from perdure.workflows.guards.measure import left_out as not_scored
from perdure.workflows.guards.measure import may_run
from perdure.workflows.guards.read import HARNESS, data_folder, read_guard
from perdure.workflows.session import Session


@dataclass(frozen=True)
class Chosen:
    """The guards of a checkup.

    Args:
        guards: The guards.
        left_out: Names of shipped guards whose data are not here.
        not_run: Notices of the guards whose programs may not run.
    """

    guards: tuple[Guard, ...]
    left_out: tuple[str, ...] = ()
    not_run: tuple[str, ...] = ()


def choose(
    session: Session, only: Collection[str] = (), data: Path | None = None, against: Entry | None = None
) -> Chosen:
    """Return the guards of a checkup.

    These are the guards of the workspace, then the shipped ones whose rows are made or whose data files are there. A shipped
    guard is not added to the workspace: no learn scores it. `gc` keeps its rows and scores as long as the entry is there, or
    until `guard remove`.

    Args:
        session: Of the workspace.
        only: Abilities, names of guards, and tasks of lm-evaluation-harness as `harness:NAME`; empty takes all guards.
        data: Folder of data files; None takes the one that PERDURE_DATA names.
        against: The state that guards are compared with; None takes the reference of each.

    Raises:
        NotFound: `only` names neither an ability nor a guard.
        BadInput: The data of a guard that `only` names are not there, or a task of lm-evaluation-harness cannot be a guard.
    """
    ledger = session.ledger
    own = list(ledger.guards())
    taken = {guard.name for guard in own} | {name for entry in ledger.entries() for name in entry.tasks}
    shipped = [name for name in guard_names() if name not in taken]
    named = [word for word in only if word.startswith(HARNESS)]
    only = [word for word in only if word not in named]
    _check(only, [guard.name for guard in own] + shipped)
    every = not only and not named
    chosen = [guard for guard in own if every or _wanted(guard, only, named)]
    left_out: list[str] = []
    folder = data_folder(data)
    for name in shipped:
        spec = load_guard_spec(guard_file(name))
        if not every and name not in only and spec.ability not in only:
            continue
        missing = [file for file in spec.files if folder is None or not (folder / file).is_file()]
        if missing or spec.harness:
            if name in only:
                raise BadInput(
                    f"guard {name} needs {missing[0] if missing else 'lm-evaluation-harness'}, which is not there; give the "
                    "folder of the data with --data (or PERDURE_DATA)"
                )
            left_out.append(name)
            continue
        chosen.append(
            guard_of(session, read_guard(name, ledger.root, data, has_template=partial(has_template, session)))
        )
    for word in named:
        if word not in {guard.source for guard in chosen}:
            chosen.append(_of_harness(session, word, taken | {guard.name for guard in chosen}, data))
    if against is not None:
        chosen = [referring_to(session, guard, against) for guard in chosen]
    runs = tuple(guard for guard in chosen if may_run(session, guard))
    waiting = tuple(not_scored(session, guard) for guard in chosen if guard not in runs)
    return Chosen(runs, tuple(left_out), waiting)


def _wanted(guard: Guard, only: Collection[str], named: Collection[str]) -> bool:
    return guard.name in only or guard.ability in only or guard.source in named


def _of_harness(session: Session, written: str, taken: Collection[str], data: Path | None) -> Guard:
    """Return a task of lm-evaluation-harness, written as `harness:NAME`, as a guard that the workspace does not have."""
    read = read_guard(written, session.ledger.root, data, has_template=partial(has_template, session))
    if read.spec.name in taken:
        raise BadInput(
            f"{written} would be the guard {read.spec.name}, a name that a guard or a task has; add it with "
            f"'perdure guard add {written} --name OTHER', and measure it with --only OTHER"
        )
    return guard_of(session, read)


def _check(only: Collection[str], names: Sequence[str]) -> None:
    known = list(dict.fromkeys([*names, *ABILITIES]))
    for word in only:
        if word not in known:
            raise NotFound(
                f"no guard and no ability {word!r}{nearest(word, known)}; abilities are {', '.join(ABILITIES)}"
            )
