"""The guards of a workspace, in the order in which they were added."""

from collections.abc import Iterable

from sqlalchemy import delete, func, insert, select, update

from perdure.core.errors import BadInput, NotFound
from perdure.core.records import from_store
from perdure.ledger.database import Database, guards, now, reflog, version_of
from perdure.ledger.records import Guard

FIRST_VERSION = 6  # of the schema with a table of guards
REF = "guard/{}"  # name in the reflog of the reference of a guard


class GuardBook(Database):
    """The guards of a workspace. Their rows are task versions like any others, their scores lie in the score book."""

    def guards(self) -> tuple[Guard, ...]:
        """Return the guards in their order; none in a workspace from before guards existed.

        Raises:
            BrokenStore: A record of a guard is damaged.
        """
        with self.reading() as connection:
            if version_of(connection) < FIRST_VERSION:
                return ()
            lines = connection.execute(
                select(guards.c.name, guards.c.version, guards.c.record).order_by(guards.c.position)
            ).all()
        return tuple(_read(*line) for line in lines)

    @property
    def has_guards(self) -> bool:
        """Whether there are any. Plain SQL: compiling a statement takes longer than all else that `show` reads."""
        with self.reading() as connection:
            made = connection.exec_driver_sql("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'guards'")
            return bool(made.first() and connection.exec_driver_sql("SELECT 1 FROM guards LIMIT 1").first())

    def guard(self, name: str) -> Guard:
        """Return a guard by its name.

        Raises:
            NotFound: No guard has this name.
        """
        every = {guard.name: guard for guard in self.guards()}
        if name not in every:
            raise NotFound(f"no guard {name!r}; {_known(every)}")
        return every[name]

    def add_guard(self, guard: Guard) -> None:
        """Add a guard behind the others; the caller stored its task version.

        Raises:
            BadInput: A guard has this name already.
        """
        with self.changing() as connection:
            if connection.execute(select(guards.c.name).where(guards.c.name == guard.name)).first():
                raise BadInput(
                    f"guard {guard.name} is there already; 'perdure guard remove {guard.name}' takes it away"
                )
            last = connection.execute(select(func.max(guards.c.position))).scalar()
            values = {"name": guard.name, "version": guard.version, "position": 1 + (last if last is not None else -1)}
            connection.execute(insert(guards).values(**values, record=guard.to_json()))

    def remove_guard(self, name: str) -> Guard:
        """Remove a guard and return it. Its rows and scores stay until `gc`.

        Raises:
            NotFound: No guard has this name.
        """
        gone = self.guard(name)
        with self.changing() as connection:
            connection.execute(delete(guards).where(guards.c.name == name))
        return gone

    def change_guard(self, guard: Guard, why: str = "") -> None:
        """Replace the record of a guard. A reference that moves gets a line in the reflog.

        Args:
            guard: The new record, of the same name and version.
            why: Why the reference moves.

        Raises:
            NotFound: No guard has this name.
        """
        old = self.guard(guard.name)
        with self.changing() as connection:
            connection.execute(update(guards).where(guards.c.name == guard.name).values(record=guard.to_json()))
            if old.reference != guard.reference:
                values = {"ref": REF.format(guard.name), "old": old.reference, "new": guard.reference}
                connection.execute(insert(reflog).values(**values, time=now(), why=why or f"guard accept {guard.name}"))


def _read(name: str, version: str, record: object) -> Guard:
    """Restore the record of a guard, checked against the columns of the table."""
    guard = from_store(Guard, record, f"the record of guard '{name}'")
    if (guard.name, guard.version) != (name, version):
        return from_store(Guard, None, f"the record of guard '{name}'")  # raises the error of a damaged record
    return guard


def _known(names: Iterable[str]) -> str:
    found = ", ".join(names)
    return f"the guards are {found}" if found else "there are none ('perdure guard add NAME' adds one)"
