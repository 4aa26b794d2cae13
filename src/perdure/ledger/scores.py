"""Scores by (state, task version, scoring version): measured once, appended, never changed."""

import math
from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import delete, insert, select

from perdure.core.errors import BadInput
from perdure.core.records import from_store
from perdure.data.scoring import FIRST
from perdure.ledger.database import now, scores, tasks
from perdure.ledger.records import Score
from perdure.ledger.row_upkeep import RowUpkeep
from perdure.ledger.tasks import read_task, scoring_of


class ScoreBook(RowUpkeep):
    """The measured cells of the matrix; two entries with the same state share them.

    A cell with an earlier scoring version than its task's stays in the table, but is not read any more. A cell may have scores
    of samples of its test rows too; the score with most rows is read.
    """

    def put_score(
        self, state: str, task_version: str, score: Score, scoring: int = FIRST, *, sample: bool = False
    ) -> None:
        """Append the score of a cell. Appending the same items again changes nothing.

        Args:
            state: Hash of the state.
            task_version: The task's version.
            score: The measured score.
            scoring: The task's scoring version, `TaskData.scoring`.
            sample: Only some test rows were scored: the score is stored beside that of all rows, and not as it.

        Raises:
            BadInput: The cell already has a score with other items.
        """
        key = _key(task_version, scoring, score.n if sample else None)
        with self.changing() as connection:
            query = select(scores.c.record).where(scores.c.state == state, scores.c.version == key)
            old = connection.execute(query).scalar()
            if old is None:
                values = {"state": state, "version": key, "time": now(), "record": score.to_json()}
                connection.execute(insert(scores).values(values))
            elif _score(old, state, key).items != score.items:
                raise BadInput(
                    f"state {state[:12]} has a score on task version {task_version[:12]} with other items; scores are "
                    "never replaced: if scorer or test rows changed, give the task a new version"
                )

    def extend_score(self, state: str, task_version: str, score: Score, scoring: int = FIRST, *, rows: int) -> None:
        """Replace the score of a cell by one of more rows, which has the same items for the rows that both have.

        Args:
            state: Hash of the state.
            task_version: The task's version.
            score: The score over the earlier rows and more.
            scoring: The task's scoring version.
            rows: Number of the task's test rows; the score of fewer is that of a sample.

        Raises:
            BadInput: The earlier score has other items, or a row that the new one does not have.
        """
        old = self.score(state, task_version, scoring)
        if old is not None and score.n < old.n:
            return
        self._refuse_other_items(state, task_version, old, score)
        key = _key(task_version, scoring, score.n if score.n < rows else None)
        with self.changing() as connection:
            for earlier in connection.execute(select(scores.c.version).where(scores.c.state == state)).scalars().all():
                if _parts(earlier)[:2] == (task_version, scoring):
                    cell = (scores.c.state == state, scores.c.version == earlier)
                    connection.execute(delete(scores).where(*cell))
            values = {"state": state, "version": key, "time": now(), "record": score.to_json()}
            connection.execute(insert(scores).values(values))

    def _refuse_other_items(self, state: str, task_version: str, old: Score | None, new: Score) -> None:
        """Refuse a score that does not have every row of an earlier one with the same item."""
        items = dict(zip(new.rows, new.items, strict=True))
        before = zip(old.rows, old.items, strict=True) if old else ()
        if differing := [row for row, item in before if items.get(row) != item]:
            raise BadInput(
                f"state {state[:12]} has a score on task version {task_version[:12]} with another item for row "
                f"{differing[0][:12]}; scores are never replaced: if scorer or test rows changed, give the task a new version"
            )

    def score(self, state: str, task_version: str, scoring: int | None = None) -> Score | None:
        """Return the score of a cell, None if it was not measured; see `scores`."""
        known = None if scoring is None else {task_version: scoring}
        return self.scores([state], [task_version], known).get((state, task_version))

    def scores(
        self, states: Iterable[str], task_versions: Iterable[str], scoring: Mapping[str, int] | None = None
    ) -> dict[tuple[str, str], Score]:
        """Return the measured cells among these states and task versions, by (state, task version).

        Args:
            states: Hashes of states.
            task_versions: Versions of tasks.
            scoring: The scoring version of each; None reads them from the stored tasks.
        """
        known = self.scoring(task_versions) if scoring is None else scoring
        with self.reading() as connection:
            query = select(scores.c.state, scores.c.version).where(scores.c.state.in_(set(states)))
            keys = _most_rows([(state, key) for state, key in connection.execute(query)], known)
            read = select(scores.c.state, scores.c.version, scores.c.record).where(
                scores.c.state.in_({state for state, _ in keys}), scores.c.version.in_(set(keys.values()))
            )
            cells = connection.execute(read).all()
        return {
            (state, version): _score(record, state, key)
            for state, key, record in cells
            if keys.get((state, version := _parts(key)[0])) == key
        }

    def scoring(self, task_versions: Iterable[str]) -> dict[str, int]:
        """Return the scoring version of each task version; of an old task without one it follows from the test rows."""
        wanted = set(task_versions)
        query = select(tasks.c.version, tasks.c.name, tasks.c.spec).where(tasks.c.version.in_(wanted))
        with self.reading() as connection:
            stored = {version: (name, spec) for version, name, spec in connection.execute(query)}
        numbers = dict.fromkeys(wanted, FIRST)
        for version, (name, spec) in stored.items():
            number = scoring_of(name, version, spec)
            if number is None:  # only here, as today's tasks need no rows for it
                number = read_task(name, version, spec, {"test": self.task_rows(version, "test")}).scoring
            numbers[version] = number
        return numbers

    def drop_scores(self, states: Collection[str], versions: Collection[str]) -> int:
        """Delete the cells of all other states and task versions, and return their number."""
        with self.reading() as connection:
            cells = connection.execute(select(scores.c.state, scores.c.version)).all()
        lost = [(s, v) for s, v in cells if s not in states or v.partition(":")[0] not in versions]
        if not lost:
            return 0
        with self.changing() as connection:
            for state, version in lost:
                connection.execute(delete(scores).where(scores.c.state == state, scores.c.version == version))
        return len(lost)


def _score(record: object, state: str, key: str) -> Score:
    return from_store(Score, record, f"the score of state {state[:12]} on task version {key[:12]}")


def _key(task_version: str, scoring: int, sample: int | None = None) -> str:
    """Return the value of the table's column `version`: the task version alone for the first scoring version.

    Args:
        task_version: The version.
        scoring: The scoring version.
        sample: Number of rows of the sample; None where all rows were scored.
    """
    if sample is not None:
        return f"{task_version}:{scoring}:{sample}"
    return task_version if scoring == FIRST else f"{task_version}:{scoring}"


def _parts(key: str) -> tuple[str, int, float]:
    """Return task version, scoring version and number of rows of a key; infinity stands for all rows."""
    version, *numbers = key.split(":")
    return version, int(numbers[0]) if numbers else FIRST, int(numbers[1]) if len(numbers) > 1 else math.inf


def _most_rows(cells: Iterable[tuple[str, str]], scoring: Mapping[str, int]) -> dict[tuple[str, str], str]:
    """Return the key with most rows by (state, task version), of the scoring version of each task version."""
    found: dict[tuple[str, str], str] = {}
    for state, key in cells:
        version, number, rows = _parts(key)
        if scoring.get(version) != number:
            continue
        best = found.get((state, version))
        if best is None or rows > _parts(best)[2]:
            found[state, version] = key
    return found
