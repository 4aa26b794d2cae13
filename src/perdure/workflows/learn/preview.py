"""A learn that is not begun, as a dry run shows it."""

from itertools import groupby
from typing import Any

from perdure.workflows.learn.plan import Plan


def preview(planned: Plan) -> dict[str, Any]:
    """Return what a learn would do: rows by part, one example as the model meets it, rows cut, and the recipe.

    "example" is a list of {"text", "trained"} in order.
    """
    task, settings, rows = planned.task, planned.recipe.settings, planned.encoded
    tokens = zip(rows[0].ids, rows[0].trained, strict=True)
    parts = [(trained, [i for i, _ in run]) for trained, run in groupby(tokens, key=lambda token: token[1])]
    return {
        "task": task.name,
        "update": planned.known is not None,
        "format": task.format,
        "rows": {part: len(getattr(task, part)) for part in ("train", "validation", "test")},
        "test_made": task.test_made,
        "general": len(planned.general),
        "labels": len(task.labels),
        "unread": list(task.unread),
        "scorer": task.scorer,
        "tokens": {"longest": max(len(row) + row.cut for row in rows), "trained": sum(row.targets for row in rows)},
        "cut": sum(row.cut > 0 for row in rows),
        "max_length": settings.max_length,
        "example": [{"text": planned.encoder.tokenizer.decode(ids), "trained": trained} for trained, ids in parts],
        "recipe": planned.recipe.to_json(),
        "notices": list(planned.notices),
    }
