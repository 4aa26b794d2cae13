"""The next version of a task that is learned again with more data."""

from collections.abc import Collection
from dataclasses import replace

from perdure.core.errors import BadInput, BadSpec
from perdure.data.formats import label_text
from perdure.data.sources import shown_data
from perdure.data.split import distinct
from perdure.data.task import TaskData


def update_task(known: TaskData, new: TaskData, taught: Collection[str] = ()) -> TaskData:
    """Return the next version of `known`: the train rows of `new`, and the test rows of both, those of `known` first.

    If the test part of `new` was made, a question that is on one side in an earlier version stays there, because new
    data may repeat the old. A test part that the user named is used as it is, and `leaks.refuse_leaks` checks it.

    Args:
        known: The version in force.
        new: What `load_task` returned, given `known`.
        taught: Questions of the train rows of versions before `known`, which were learned too.

    Raises:
        BadSpec: The two differ in name, format, template, scorer or text of a label: their rows do not belong together.
        BadInput: Every row of `new` is a known test row, so there is nothing to learn.
    """
    changed = [key for key in ("name", "template", "system") if getattr(known.spec, key) != getattr(new.spec, key)]
    changed += [key for key in ("format", "scorer") if getattr(known, key) != getattr(new, key)]
    shared = sorted({*known.labels, *known.spec.labels})
    changed += [f"labels.{k}" for k in shared if label_text(k, known.spec.labels) != label_text(k, new.spec.labels)]
    if changed:
        raise BadSpec(
            f"task {known.name!r} was learned with another {' and '.join(changed)}; "
            "keep it as it was, or learn under another name"
        )
    train, test = new.train, new.test
    if new.test_made:
        tested = {row.question for row in known.test}
        taught = {*taught, *(row.question for row in known.taught)}
        drawn = {row.question for row in test}
        train = tuple(
            r for r in (*train, *test) if r.question not in tested and (r.question in taught or r.question not in drawn)
        )
        test = tuple(r for r in test if r.question not in tested and r.question not in taught)
    if not train:
        raise BadInput(
            f"every row of {shown_data(new.spec.train)} is a test row of task {known.name!r} already; there is nothing to learn"
        )
    test = distinct((*known.test, *test))
    return replace(new, train=train, test=test, fingerprint="", version="", default="", choices=())
