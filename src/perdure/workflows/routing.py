"""The task of a request, found from its text: by moments that the method `color` stored of each task.

A verb that wants the decision of many test rows at once calls `routed_rows(session, entry, task)` with each task. The router
reads the base model, so that the features of a row never change: they are stored (`row_features`), and a further entry costs two
products of small matrices.

A router knows the tasks that were learned with one. Where an entry knows other tasks too, requests are sent to a task only if the
router has a limit above which a request is near none of its tasks; else all of them would be sent to its tasks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isinf
from typing import TYPE_CHECKING

from perdure.core.canonical import content_hash
from perdure.core.progress import Tick
from perdure.core.records import Record
from perdure.core.slots import ROUTE, measured_tasks
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger
from perdure.workflows.row_features import features_of_tests
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from torch import Tensor

    from perdure.maths.routing import Gaussian

SHOWN = 1e-3  # smallest probability that is shown


@dataclass(frozen=True)
class Routing(Record):
    """What the router says of a text.

    Args:
        task: The task that it belongs to; None where no task is near.
        posterior: Probability of each task, the largest first, those below 0.001 left out. They sum to 1 over the tasks that the
            router knows, however far the text is from all of them.
    """

    task: str | None
    posterior: Mapping[str, float]


def routes(ledger: Ledger, entry: Entry) -> dict[str, str]:
    """Return the object with the moments of each task that requests can be sent to at an entry; none without a router."""
    slots = ledger.slots(entry)
    return {task: slots[name] for task, name in measured_tasks(slots, ROUTE).items() if task in entry.tasks}


def router_at(session: Session, entry: Entry) -> "Gaussian | None":
    """Return the router at an entry, which the session holds; None where no task was learned with one.

    Cost: it reads the moments of each task once for each set of tasks, and inverts two matrices (d, d).
    """
    from perdure.maths.routing import Gaussian, Moments

    named = routes(session.ledger, entry)
    if not named:
        return None
    key = content_hash(named)
    if key not in session.routers:
        objects = session.ledger.objects
        session.routers.clear()
        session.routers[key] = Gaussian.of(
            {task: Moments.from_tensors(objects.get(name)) for task, name in named.items()}
        )
    return session.routers[key]


def routed(session: Session, entry: Entry, texts: Sequence[str], tick: Tick | None = None) -> list[Routing]:
    """Return what the router at an entry says of plain texts; each is read alone.

    Args:
        session: The session.
        entry: An entry with a router.
        texts: The texts, without a template.
        tick: Called with (what, texts done, texts in all).

    Raises:
        ValueError: The entry has no router.

    Cost: a third of a forward per text, of at most 257 tokens.
    """
    session.uncover_base()
    ids = [session.runtime.base.text_ids(text) for text in texts]
    return _decided(router_at(session, entry), entry, session.runtime.features(ids, _shown(tick)))


def routed_rows(session: Session, entry: Entry, task: TaskData, tick: Tick | None = None) -> list[Routing]:
    """Return what the router at an entry says of the test rows of a task, in order.

    A row is read without what the prompts of all the task's test rows have in common at both ends, as a user would write it.

    Raises:
        ValueError: The entry has no router.

    Cost: a third of a forward per row, the first time that the workspace reads the task; then two small products.
    """
    session.uncover_base()
    prompts = session.tasks.prompts(task, session.tokenizer)
    features = features_of_tests(session.runtime, session.ledger, task, prompts, _shown(tick))
    return _decided(router_at(session, entry), entry, features)


def _decided(router: "Gaussian | None", entry: Entry, features: "Tensor") -> list[Routing]:
    if router is None:
        raise ValueError("no task was learned with a router at this entry")
    decision = router.decide(features)
    if isinf(router.limit) and not set(entry.tasks) <= set(router.tasks):  # nothing would be left for the other tasks
        decision = decision._replace(tasks=[None] * len(decision.tasks))
    shown = [
        dict(
            sorted(
                ((name, round(value, 6)) for name, value in row.items() if value >= SHOWN),
                key=lambda pair: (-pair[1], pair[0]),
            )
        )
        for row in decision.posterior
    ]
    return [Routing(task, posterior) for task, posterior in zip(decision.tasks, shown, strict=True)]


def _shown(tick: Tick | None) -> Callable[[int, int], None] | None:
    return partial(tick, "reading the texts") if tick else None
