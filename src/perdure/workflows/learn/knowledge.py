"""Learn knowledge: of the rows of one file, skills are trained first, then facts are edited into what came of it."""

from dataclasses import dataclass, replace
from typing import Any

from perdure.bridges.hub_data import read_hub
from perdure.core.errors import BadInput, BadSpec, Diverged
from perdure.core.progress import Tick
from perdure.core.records import JsonObject, plain
from perdure.data.columns import check, read_by
from perdure.data.formats import detect, names_in
from perdure.data.load import read_data, task_settings
from perdure.data.sources import shown_data
from perdure.data.spec import TaskSpec
from perdure.editing.facts import Fact
from perdure.editing.routing import RouteGroup, Routing, route
from perdure.editing.spec import EditSpec
from perdure.ledger import Entry
from perdure.ledger.records import Gate, RefusedFact
from perdure.workflows.edit.edit import edit
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.edit.request import refused
from perdure.workflows.edit.results import EditResult
from perdure.workflows.guards.attach import Mode
from perdure.workflows.learn.learn import learn
from perdure.workflows.learn.plan import Plan, plan
from perdure.workflows.learn.record import LearnResult
from perdure.workflows.learn.request import Request
from perdure.workflows.rescore import Rescore
from perdure.workflows.session import Session

MANY = 1000  # facts from which a warning is due; no limit
WAITS = "the gate refused what was trained, so nothing is edited; after 'perdure accept', run the same command again"


@dataclass(frozen=True)
class Knowledge:
    """A file of facts and skills that was checked, and not begun.

    Args:
        task: Name of the task that the skills make.
        routing: Where each row goes, and why.
        skill: How the skills are learned; None if no row is one.
        learned: The entry that learned these skills with this recipe already; None if they are to be trained.
        notices: What the user should know.
    """

    task: str
    routing: Routing
    skill: Plan | None
    learned: Entry | None
    notices: tuple[str, ...]

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The facts to edit."""
        return self.routing.facts


@dataclass(frozen=True)
class KnowledgeResult:
    """What came of a file of facts and skills.

    Args:
        entry: Head's new entry; None if head did not move.
        task: Name of the task that the skills make.
        routes: Where each row went, and why; see `Routing.summary`.
        learned: What came of the skills; None if nothing was trained.
        edited: What came of the facts; see `edit.edit`. None if nothing was tried.
        left: The facts that were not tried.
        warnings: What the user should know.
    """

    entry: str | None
    task: str
    routes: tuple[RouteGroup, ...]
    learned: LearnResult | None
    edited: EditResult | None
    left: tuple[RefusedFact, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> JsonObject:
        """Return what `perdure learn --kind knowledge --json` prints, with all of "edited"."""
        return {name: plain(value) for name, value in vars(self).items()}


def plan_knowledge(session: Session, request: Request) -> Knowledge:
    """Read and route the rows, and check everything that can be checked before a model is loaded; see `learn.plan`.

    Raises:
        BadInput: The data cannot be used, the model cannot be edited, two facts contradict each other, or there is nothing for a
            test file to score.
        BadSpec: A setting is not valid.
    """
    request, parent = request.named(session.ledger), session.ledger.resolve("head")
    name = request.name
    session.refuse_candidate()
    known = session.task(name, parent) if name in parent.tasks else None
    spec = task_settings(name, request.data, test=request.test, overrides=request.settings, known=known)
    read = read_data(spec, spec.train, read_hub)
    notices = list(read.notices)
    routing = route(
        read.records, format=spec.known_format, template=spec.template, labels=spec.labels, mapped=spec.columns
    )
    if routing.facts:
        try:
            session.refuse_editing()
        except BadInput as error:
            raise BadInput(f"{len(routing.facts)} rows are facts, but {error}; --kind task trains all rows") from error
    skill = None
    if routing.skills:
        try:
            skill = plan(session, replace(request, selected=replace(read, records=routing.skills, notices=[])))
        except BadInput as error:
            some = f"{len(routing.skills)} of {len(routing.routes)} rows, the first {routing.skills[0].source}, are trained"
            raise BadInput(f"{error} ({some}; 'kind': 'fact' in a row sends it to editing)") from error
    elif spec.test is not None:
        train, test = shown_data(spec.train), shown_data(spec.test)
        raise BadInput(f"every row of {train} is a fact, so there is no task for {test} to score; leave it out")
    if skill is None:
        notices += _unread(routing, spec)
    learned = _learned(session, skill) if skill else None
    return Knowledge(name, routing, skill, learned, (*notices, *_notices(name, routing, learned)))


def learn_knowledge(
    session: Session,
    planned: Knowledge,
    *,
    gate: Gate | None,
    edit_gate: EditGate | None = EditGate(),
    spec: EditSpec | None = None,
    tick: Tick | None = None,
    message: str | None = None,
    guards: Mode | None = None,
) -> KnowledgeResult:
    """Train the skills, then edit the facts into the new head: two entries, each whole or not at all.

    If the gate refuses the trained entry, no fact is edited, since the edits were meant for the new head. If facts are refused,
    the others and the skills stay. The same command run again trains only what it did not learn before, and edits the
    missing facts.

    Args:
        session: Of the workspace.
        planned: What `plan_knowledge` returned.
        gate: What training may not lose; None accepts every entry.
        edit_gate: What a fact must show; None accepts every fact. Where conversations give facts, the chat form must
            pass as well.
        spec: Settings of the edit; None takes the usual ones.
        tick: Called with (what, done, total) as work goes on.
        message: Text to store with both entries and their author.
        guards: What a guard that fell does; see `learn.learn`.

    Raises:
        PerdureError: See `learn.learn`, and `edit.edit` where nothing was trained.
    """
    learned = edited = None
    if planned.skill is not None and planned.learned is None:
        learned = learn(session, planned.skill, gate=gate, tick=tick, message=message, guards=guards)
    stopped = learned is not None and not learned.moved
    if planned.facts and not stopped:
        if edit_gate is not None and planned.routing.chat:
            edit_gate = replace(edit_gate, chat=True)
        told: dict[str, Any] = {"message": message, "rescoring": Rescore(guards=guards if gate else "none")}
        try:
            edited = edit(session, planned.facts, spec=spec, gate=edit_gate, tick=tick, **told)
        except (BadInput, BadSpec, Diverged) as error:
            if learned is None:
                raise
            refusals = tuple(refused(fact, str(error)) for fact in planned.facts)
            edited = EditResult(refused=refusals)  # what was trained stays
    moved = (edited and edited.entry) or (learned.entry if learned and not stopped else None)
    return KnowledgeResult(
        entry=moved,
        task=planned.task,
        routes=planned.routing.summary(),
        learned=learned,
        edited=edited,
        left=tuple(refused(fact, WAITS) for fact in planned.facts) if stopped else (),
        warnings=(*planned.notices, *(learned.warnings if learned else ())),
    )


def _unread(routing: Routing, spec: TaskSpec) -> tuple[str, ...]:
    """Return notices of columns that are not read, where every row is a fact and some facts came from plain text."""
    plain = [route.record for route in routing.routes if not route.given]
    if not plain:
        return ()
    format = spec.known_format or detect(plain, spec.template, spec.columns)
    names = names_in(spec.template) if spec.template is not None else None
    read = read_by(format, names, spec.columns)
    return check(plain, format, read, columns=spec.columns, chosen=True, facts=True).notices


def _learned(session: Session, skill: Plan) -> Entry | None:
    """Return the entry that learned these very rows with this recipe, if head still knows them as it taught them."""
    name = skill.task.name
    if skill.parent.tasks.get(name) != skill.task.version:
        return None
    newest = session.ledger.last_learn(skill.parent, name)
    return newest if newest and newest.recipe == skill.recipe.to_json() else None


def _notices(name: str, routing: Routing, learned: Entry | None) -> list[str]:
    notices = []
    if learned is not None:
        notices.append(
            f"task {name!r} learned these rows already, in entry {learned.id[:12]}: nothing is trained again"
        )
    if not routing.skills:
        notices.append(f"every row is a fact: nothing is trained, and no task {name!r} is made")
    if not routing.facts:
        notices.append("no row is a fact to edit: all is trained, as with --kind task")
    if len(routing.facts) > MANY:
        notices.append(
            f"{len(routing.facts):,} facts are a large edit set, and the larger it is, the worse each fact and everything "
            "else become; training them ('kind': 'skill') may serve them better"
        )
    return notices
