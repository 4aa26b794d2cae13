"""KL from the base on the new task's own prompts: what goes with forgetting, known before any other task is scored."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from perdure.core.keyed import seed_of
from perdure.data.sample import sample_of
from perdure.ledger import Entry
from perdure.ledger.records import NewTaskKl
from perdure.maths.statistics import mean_of_means
from perdure.workflows.guards.drift import Compared, compared, reference_answers
from perdure.workflows.learn.run import Run
from perdure.workflows.scoring import prompts_of

if TYPE_CHECKING:
    from perdure.model.reference import ReferenceAnswer

ROWS = 16  # test rows of the new task whose prompts the base answers
TOKENS = 8  # of an answer
MOST = 4096  # tokens of all these prompts together, so that long documents cost no more


@dataclass(frozen=True)
class OnBase:
    """What the base answers to the new task.

    Args:
        rows: The rows.
        reference: The base's answers with its distributions, in the order of the rows.
    """

    rows: Compared
    reference: "tuple[ReferenceAnswer, ...]"


def base_on_new_task(run: Run) -> OnBase | None:
    """Return what the base, which is loaded, answers to prompts of the new task; None in a workspace without guards.

    It is None, too, where nothing is trained: the model stays as it was.

    Cost: a generation of 8 tokens and a forward for 16 prompts.
    """
    session, task = run.session, run.plan.task
    if not session.ledger.guards() or not task.test or not run.plan.recipe.trains:
        return None
    chosen = sample_of(task.test, ROWS, task.spec.seed)
    prompts = prompts_of(session.runtime, [task.test[i] for i in chosen])
    fitting = [n for n in range(1, len(prompts) + 1) if sum(map(len, prompts[:n])) <= MOST]
    if not fitting:
        return None
    asked = chosen[: fitting[-1]]
    by_row = dict(zip(chosen, prompts, strict=True))
    known = [by_row.get(i, []) for i in range(len(task.test))]
    rows = compared(session.runtime, task, asked, known, most=TOKENS)
    answers = reference_answers(session.runtime, rows)
    return OnBase(rows, tuple(answers[row.hash] for row in rows.rows))


def new_task_kl(run: Run, base: OnBase | None, entry: Entry) -> NewTaskKl | None:
    """Return KL(base || entry) on the new task's prompts; None where the base was not asked.

    Args:
        run: The learn.
        base: What `base_on_new_task` returned.
        entry: The drafted entry, which is loaded here.

    Cost: a forward for 16 prompts.
    Source: Shenfeld et al., "RL's Razor", 2025, arXiv 2509.04259: forgetting goes with KL from the base on the new task's inputs.
    Deviation: along the base's greedy answers of at most 8 tokens, over its top 32 tokens and the rest: a lower bound.
    """
    import numpy as np

    from perdure.model.reference import distances

    if base is None:
        return None
    session, task = run.session, run.plan.task
    session.load(entry, task.name)
    runtime = session.runtime
    found = distances(
        runtime.model, base.rows.prompts, base.reference, reader=runtime.reader, precision=runtime.precision
    )
    items = np.array([one.kl for one in found])
    value, low, high = mean_of_means([items], (0.0, float("inf")), seed=seed_of("new task kl", task.version))
    return NewTaskKl(value, low, high, len(items))
