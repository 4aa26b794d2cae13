"""A score over some of its test rows."""

from collections.abc import Iterable

from perdure.ledger.records import Score


def over_rows(score: Score, rows: Iterable[str]) -> Score | None:
    """Return a score over those of its test rows that are among `rows`; None where none is."""
    wanted = set(rows)
    if wanted >= set(score.rows):
        return score
    from perdure.evaluate.scorers import score_record  # only here: it loads numpy

    shared = [i for i, row in enumerate(score.rows) if row in wanted]
    if not shared:
        return None
    items, predictions = [score.items[i] for i in shared], [score.predictions[i] for i in shared]
    readings = {name: [values[i] for i in shared] for name, values in score.readings.items()}
    rows_left = [score.rows[i] for i in shared]
    return score_record(score.scorer, items, predictions, rows_left, score.seconds, readings)
