"""Which tasks' views answer each prompt, and in which template: the task that was given, or those that the router names."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.data.task import TaskData
from perdure.ledger import Entry, Ledger
from perdure.workflows.inspect.evaluate import task_at
from perdure.workflows.predict.prompt import Prompt
from perdure.workflows.predict.request import ENSEMBLES, Request, fits_template
from perdure.workflows.routing import Routing, routed, routes
from perdure.workflows.session import Session

LEAST = 0.05  # smallest probability of a task that takes part in an ensemble


@dataclass(frozen=True)
class Asked:
    """A prompt, and the tasks that answer it.

    Args:
        prompt: The prompt.
        weights: Weight of each task that answers, the largest first; they sum to 1. The task None is what all tasks share.
        routing: What the router says; None where none was asked.
    """

    prompt: Prompt
    weights: Mapping[str | None, float]
    routing: Routing | None = None

    @property
    def first(self) -> str | None:
        """The task with the largest weight."""
        return next(iter(self.weights))


@dataclass(frozen=True)
class Group:
    """Prompts that one view answers in one template.

    Args:
        view: The task whose adapter is used; None for what all tasks share.
        task: The task whose template is used; None for the chat template, or none.
        members: Numbers of the prompts.
    """

    view: str | None
    task: TaskData | None
    members: tuple[int, ...]


def asked_of(
    session: Session, entry: Entry, prompts: Sequence[Prompt], request: Request, tick: Tick | None = None
) -> list[Asked]:
    """Return the prompts with the tasks that answer them.

    The router reads a plain text, and of a conversation what the user wrote. It is not asked where a task is given, the text is
    continued as it is, or no task at the entry was learned with it.

    Raises:
        BadInput: Several tasks are to answer, and there is no router.
    """
    texts = [text_of(prompt) for prompt in prompts]
    ways = routes(session.ledger, entry) if request.task is None and not request.raw and request.route != "none" else {}
    if request.route in ENSEMBLES and not ways:
        raise BadInput(
            f"route {request.route} needs a router, and no task here was learned with the method color, as by recipe isolated; "
            "leave the route out"
        )
    readable = [n for n, text in enumerate(texts) if text] if ways else []
    found = (
        dict(zip(readable, routed(session, entry, [texts[n] for n in readable], tick), strict=True)) if readable else {}
    )
    return [
        Asked(prompt, _weights(found[n], request.route), found[n]) if n in found else Asked(prompt, {request.task: 1.0})
        for n, prompt in enumerate(prompts)
    ]


def groups_of(session: Session, entry: Entry, asked: Sequence[Asked], request: Request) -> list[Group]:
    """Return the prompts in groups, the group of no task first; a prompt that several tasks answer is in several groups."""
    members: dict[tuple[str | None, bool], list[int]] = {}
    tasks = {view: task_at(session, view, entry) for one in asked for view in one.weights if view is not None}
    for n, one in enumerate(asked):
        for view in one.weights:
            routed = one.routing is not None
            plain = view is None or request.raw or (routed and not fits_template(one.prompt, request, tasks[view]))
            members.setdefault((view, plain), []).append(n)
    order = sorted(members, key=lambda key: (key[0] is not None, key[0] or "", key[1]))
    return [Group(view, None if plain else tasks[str(view)], tuple(members[view, plain])) for view, plain in order]


def routed_in_words(ledger: Ledger, asked: Sequence[Asked]) -> str:
    """Return in words which task the router found for prompts, and how to choose another."""
    counts = Counter(one.first for one in asked)
    other = "--task NAME names the task, and --route none asks what all tasks share"
    if len(asked) == 1:
        (one,) = asked
        posterior = one.routing.posterior if one.routing else {}
        if one.first is None:
            return f"no task is near the text, so that what all tasks share answers; {other}"
        return f"sent to task {ledger.shown_name(one.first)} (probability {posterior.get(one.first, 0.0):.2f}); {other}"
    named = [f"{counts[name]:,} to {ledger.shown_name(name)}" for name in sorted(filter(None, counts))]
    unknown = [f"{counts[None]:,} near no task, which what all tasks share answers"] if counts[None] else []
    return f"sent by their texts: {', '.join([*named, *unknown])}; {other}"


def text_of(prompt: Prompt) -> str:
    """Return the text of a prompt that the router reads: its text, or what the user wrote in a conversation."""
    return prompt.text or "\n".join(turn.content for turn in prompt.turns if turn.role == "user")


def _weights(routing: Routing, route: str) -> dict[str | None, float]:
    if routing.task is None or route not in ENSEMBLES:
        return {routing.task: 1.0}
    kept = {task: weight for task, weight in routing.posterior.items() if weight >= LEAST}
    whole = sum(kept.values())
    return {task: weight / whole for task, weight in kept.items()}
