"""Scores by (state, task version, scoring version): measured once, appended, never changed."""

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import delete, insert, select

from perdure.core.errors import BadInput
from perdure.core.records import from_store
from perdure.data.scoring import FIRST
from perdure.ledger.database import now, scores, tasks
from perdure.ledger.records import Score
from perdure.ledger.row_upkeep import RowUpkeep
from perdure.ledger.tasks import read_task, scoring_of

SAMPLE = ":sample"  # ends the key of a score that some of the test rows have


class ScoreBook(RowUpkeep):
    """The measured cells of the matrix; two entries with the same state share them.

    A cell with an earlier scoring version than its task's stays in the table, but is not read any more.
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
        key = _key(task_version, scoring) + SAMPLE * sample
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

    def score(
        self, state: str, task_version: str, scoring: int | None = None, *, samples: bool = False
    ) -> Score | None:
        """Return the score of a cell, None if it was not measured; see `scores`."""
        known = None if scoring is None else {task_version: scoring}
        return self.scores([state], [task_version], known, samples=samples).get((state, task_version))

    def scores(
        self,
        states: Iterable[str],
        task_versions: Iterable[str],
        scoring: Mapping[str, int] | None = None,
        *,
        samples: bool = False,
    ) -> dict[tuple[str, str], Score]:
        """Return the measured cells among these states and task versions, by (state, task version).

        Args:
            states: Hashes of states.
            task_versions: Versions of tasks.
            scoring: The scoring version of each; None reads them from the stored tasks.
            samples: Return the score of a sample of the test rows too, where all rows were not scored.
        """
        known = self.scoring(task_versions) if scoring is None else scoring
        whole = {_key(version, number): version for version, number in known.items()}
        sampled = {key + SAMPLE: version for key, version in whole.items()} if samples else {}
        versions = {**sampled, **whole}
        query = select(scores.c.state, scores.c.version, scores.c.record).where(
            scores.c.state.in_(set(states)), scores.c.version.in_(set(versions))
        )
        with self.reading() as connection:
            cells = connection.execute(query).all()
        ordered = sorted(cells, key=lambda row: row.version in whole)  # a score of all rows replaces that of a sample
        return {(state, versions[key]): _score(record, state, key) for state, key, record in ordered}

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


def _key(task_version: str, scoring: int) -> str:
    """Return the value of the table's column `version`: the task version alone for the first scoring version."""
    return task_version if scoring == FIRST else f"{task_version}:{scoring}"
