"""Scores by (state, task version): measured once, appended, never changed."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import insert, select

from perdure.core.errors import BadInput
from perdure.ledger.database import Database, now, scores


class ScoreBook(Database):
    """The measured cells of the matrix; two entries with the same state share them."""

    def put_score(self, state: str, task_version: str, record: Mapping[str, Any]) -> None:
        """Append the score record of a cell. The same items again change nothing.

        Raises:
            BadInput: The cell has a record with other items.
        """
        with self.changing() as connection:
            query = select(scores.c.record).where(scores.c.state == state, scores.c.version == task_version)
            old = connection.execute(query).scalar()
            if old is None:
                values = {"state": state, "version": task_version, "time": now(), "record": dict(record)}
                connection.execute(insert(scores).values(values))
            elif old["items"] != list(record["items"]):
                raise BadInput(
                    f"state {state[:12]} has a score on task version {task_version[:12]} with other items; scores are "
                    "never replaced: if scorer or test rows changed, give the task a new version"
                )

    def score(self, state: str, task_version: str) -> dict[str, Any] | None:
        """Return the score record of a cell, None if it was not measured."""
        return self.scores([state], [task_version]).get((state, task_version))

    def scores(self, states: Iterable[str], task_versions: Iterable[str]) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the measured cells among these states and task versions, by (state, task version), in one query."""
        query = select(scores.c.state, scores.c.version, scores.c.record).where(
            scores.c.state.in_(set(states)), scores.c.version.in_(set(task_versions))
        )
        with self.reading() as connection:
            return {(state, version): record for state, version, record in connection.execute(query)}
