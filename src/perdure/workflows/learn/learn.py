"""Learn: from a data file to a new entry, or to nothing at all."""

import platform
import shutil
import time
from collections.abc import Iterable
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.core.canonical import content_hash
from perdure.core.clock import Clock
from perdure.core.errors import BadInput, BadSpec, Interrupted
from perdure.core.progress import Tick
from perdure.core.recipe import nearest
from perdure.core.rows import Row
from perdure.core.words import counted
from perdure.data.split import distinct, held_out
from perdure.data.task import TaskData
from perdure.evaluate.evidence import make_evidence
from perdure.evaluate.gate import Gate
from perdure.ledger import Entry, row_key, writing
from perdure.ledger.runs import CHECKPOINT, note
from perdure.workflows.edit.carry import Carried, carry
from perdure.workflows.edit.records import NOTE
from perdure.workflows.edit.state import SLOT
from perdure.workflows.inspect.views import brief
from perdure.workflows.learn import remember
from perdure.workflows.learn.kept_rows import parts_to_keep
from perdure.workflows.learn.plan import Plan
from perdure.workflows.signals import asked_to_stop

if TYPE_CHECKING:
    from perdure.train.checkpoint import Keeper
    from perdure.train.learner import Learner
    from perdure.workflows.workspace import Workspace

EFFECTS = ("pull", "moved", "masked", "turned")  # heartbeats that show an effect
FEW = 50  # updates; fewer rarely teach a task
CLOSE_OFF = 20.0  # seconds of training from which the end is checkpointed too: scoring may take as long


def learn(ws: "Workspace", planned: Plan, *, gate: Gate | None, tick: Tick | None = None) -> dict[str, Any]:
    """Carry out `planned`: train, score, gate, and record one entry; return what `learn --json` prints.

    That is "entry", "task", "train_seconds", "train_cpu_seconds", "eval_seconds" (of all processes together, where it went on
    from a checkpoint), "tokens", "gate", "scores" (of every task
    now), "before" (of this task, at "base" and at "head"), "moved" (whether head is the new entry) and "warnings".
    With a gate that fails, head stays and the entry is kept aside as the candidate. Whatever stops this half-way leaves
    ledger and memory as they were; called again it goes on from its checkpoint, to the same final bits.

    Raises:
        Busy: Another process writes to the workspace.
        Interrupted: A signal came; a checkpoint is on disk.
        BadInput: A candidate is waiting to be accepted or discarded, or head moved since `plan`.
    """
    with writing(ws.ledger.root), asked_to_stop() as stop:
        if ws.ledger.candidate() is not None:
            raise BadInput("a candidate is waiting; 'perdure accept' or 'perdure discard' it first")
        if ws.ledger.resolve("head").id != planned.parent.id:
            raise BadInput("head moved while this learn was prepared; run it again")
        if gate:
            _check_tolerances(gate, {*planned.parent.tasks, planned.task.name})
        return _Learn(ws, planned, gate, tick, stop).run()


class _Learn:
    """The steps of one learn, in the order `run` names them."""

    def __init__(self, ws: "Workspace", planned: Plan, gate: Gate | None, tick: Tick | None, stop: Any):
        self.ws, self.ledger, self.runtime = ws, ws.ledger, ws.runtime
        self.plan, self.task, self.recipe, self.parent = planned, planned.task, planned.recipe, planned.parent
        self.gate, self.tick, self.stop = gate, tick, stop
        self.seed = ws.ledger.config.get("seed", 0)
        self.clock = Clock()
        self.carried: Carried | None = None
        self.notices = list(planned.notices)

    def run(self) -> dict[str, Any]:
        self.runtime.notices.clear()
        before = self._score_before()
        memory, learner = self._train()
        took = self.clock.read()
        spent = {
            "train_seconds": round(took["seconds"], 3),
            "train_cpu_seconds": round(took["cpu_seconds"], 3),
        }
        entry, memory = self._draft(memory, learner)
        scores = self._score_after(entry)
        facts = self.carried.facts if self.carried else ()
        evidence = None
        if self.gate:
            guarded = self._guarded(entry, scores)
            unguarded = [name for name in self.parent.tasks if name not in guarded]
            evidence = make_evidence(self.gate, self.task.name, guarded, facts, unguarded)
        verdict = (
            evidence["verdict"] if evidence else {"verdict": "off", "reason": "the gate was switched off", "tasks": []}
        )
        record = {
            **spent,
            "eval_seconds": round(self.clock.scored, 3),
            "updates": learner.total,
            **learner.record.to_json(),
            "gate": verdict,
            "settings": self.recipe.to_json(),
            "warnings": [
                *self.notices,
                *self.runtime.notices,
                *(self.carried.warnings if self.carried else ()),
                *self._idle(learner),
                *learner.unused.values(),
                *_unmoved(self.task.name, before["head"], scores[self.task.name], learner.total),
            ],
        }
        notes = {
            "record": record,
            "evidence": evidence,
            "memory": {"rows": len(memory.items), "tasks": _count(row.task for _, row in memory.items)},
            "software": {name: version(name) for name in ("perdure", "torch", "transformers", "peft")},
            "machine": {"python": platform.python_version(), "processor": platform.machine()},
            **({NOTE: self.carried.note} if self.carried else {}),
        }
        failed = verdict["verdict"] == "fail"
        if failed:
            self.ledger.hold(entry, notes)
        else:
            self.ledger.record(entry, notes, why=f"learn {self.task.name}")
        shutil.rmtree(self._folder(), ignore_errors=True)
        return {
            "entry": entry.id,
            "task": self.task.name,
            **spent,
            "eval_seconds": round(self.clock.scored, 3),
            "tokens": learner.record.tokens,
            "gate": verdict,
            "scores": {name: brief(record) for name, record in scores.items()},
            "before": {name: brief(record) for name, record in before.items()},
            "moved": not failed,
            "warnings": record["warnings"],
        }

    def _score_before(self) -> dict[str, Any]:
        """Score the new task on the base and on the parent: transfer needs both."""
        base = self.ledger.resolve("base")
        return {
            "base": self._cell(base, self.task),
            "head": self._cell(self.parent, self.task),
        }

    def _train(self) -> tuple[remember.Memory, "Learner"]:
        """Train under the recipe's host; return the memory drawn from, and the settled learner."""
        from perdure.data.encode import encode
        from perdure.train.checkpoint import Keeper
        from perdure.train.learner import Learner
        from perdure.train.task import TaskInputs

        self.clock.start()
        runtime, settings = self.runtime, self.recipe.settings
        slots = {} if settings.start == "base" else self.ledger.slots(self.parent)
        self.ws.lay_slots({name: found for name, found in slots.items() if name != SLOT})  # edits come back in `carry`
        began = time.perf_counter()
        rows, validation = self._rows()
        tokenizer = runtime.base.tokenizer
        known = dict(zip((row.hash for row in self.task.train), self.plan.encoded, strict=True))
        encoded = [known.get(row.hash) or encode(row, tokenizer, settings.max_length) for row in rows]
        cut = sum(row.cut > 0 for row in encoded)
        if cut:
            self.notices.append(
                f"longer than {settings.max_length} tokens, and cut: {cut:,} of {counted(len(rows), 'train row')}"
            )
        memory = remember.Memory.at(self.ledger, self.parent)
        memory = remember.with_general(
            memory, self.plan.general, self.recipe, runtime, encoded, seed=self.seed, held_out=self.tests
        )
        said = {
            column.name: remember.ask(column, encoded, runtime)
            for column in self.recipe.columns("new")
            if column.teacher != "start"
        }
        dense = settings.train == "full"
        params = runtime.start_dense() if dense else runtime.start_adapter(settings, self.seed, self.task.name)
        inputs = TaskInputs(
            self.task.name,
            encoded,
            validation=[encode(row, tokenizer, settings.max_length) for row in validation],
            pools=memory.pools(tokenizer, settings.max_length) if self.recipe.owners("draw") else {},
            columns=said,
            state=remember.states_at(self.ledger, self._continued(), runtime.base.device),
            first=self._first(),
            seed=self.seed,
        )
        learner = Learner(runtime.trainable(params), self.recipe, inputs)
        self.nll_before = None
        if self.recipe.needs("nll_before"):
            self.nll_before = learner.inference.nll(self.plan.encoded)
        path = self._folder() / CHECKPOINT
        note(path.parent, self.task.name, self.parent.id)
        keeper = Keeper(path, learner, stop=self.stop, clock=self.clock)
        logs = {"logs": self.ledger.root / "trackers"} if settings.trackers else {}
        _host(settings.host)(learner, keeper, self._progress(keeper), **logs)
        runtime.freeze()
        if time.perf_counter() - began > CLOSE_OFF:
            keeper.save(None, learner.total)
        return memory, learner

    @cached_property
    def tests(self) -> set[str]:
        """Questions of every test row in head's history and of the new task, which its memory may not hold."""
        return {row.question for task in [self.task, *self.ws.history(self.parent)] for row in task.test}

    def _continued(self) -> Entry | None:
        """Return the entry whose adapter, and so whose method state, goes on; None where training starts from the base."""
        return None if self.recipe.settings.start == "base" else self.parent

    def _first(self) -> bool:
        """Say whether no task went before, as far as the weights know."""
        return self._continued() is None or not self.parent.tasks

    def _rows(self) -> tuple[list[Row], list[Row]]:
        """Return the rows to train on and those that choose the weights; a hold-out is drawn where none is given."""
        rows, validation = [*self.task.train], [*self.task.validation]
        settings = self.recipe.settings
        chosen_by = settings.keep == "best" or (self.recipe.needs("validation") and not self._first())
        if chosen_by and not validation:
            rows, validation = held_out(rows, settings.validation_share, self.seed, self.task.name)
            if not validation:
                self.notices.append("one train row is too few to hold any out: no validation row chooses the weights")
        if settings.data == "all":
            rows += self.plan.old
            kept_out = {row.question for row in validation}
            rows = [row for row in distinct(rows) if row.question not in kept_out]
        return rows, validation

    def _draft(self, memory: remember.Memory, learner: "Learner") -> tuple[Entry, remember.Memory]:
        """Store objects, rows and manifest, and return the entry that would be recorded."""
        stage = len(self.ledger.ancestors(self.parent))
        if (tested := sum(row.question in self.tests for row in self.task.train)) and self.recipe.remembers:
            self.notices.append(
                f"trained on, and not remembered, as a test row asks the same: {counted(tested, 'train row')}"
            )
        memory = remember.after(
            memory,
            self.task,
            self.recipe,
            learner,
            self.runtime,
            stage=stage,
            seed=self.seed,
            nll_before=self.nll_before,
            held_out=self.tests,
        )
        # objects first: a full disk then leaves no row behind
        full = self.recipe.settings.train == "full"
        written = self.ledger.objects.put(self.runtime.weights() if full else self.runtime.skill())
        slots: dict[str, str | None] = {}
        if self._continued() is None:  # what was trained from the base has nothing else under it, or over it
            slots = dict.fromkeys(self.ledger.slots(self.parent).keys() - {SLOT})
        slots["dense" if full else "skill"] = written
        self.carried = carry(self.ws, self.parent, slots, self.tick)
        if self.carried and self.carried.slot:
            slots[SLOT] = self.carried.slot
        parts = parts_to_keep(self.ledger, self.task)
        self.ledger.put_task(self.task.name, self.task.version, self.task.to_json(), parts)
        manifest, columns = memory.save(self.ledger)
        entry = Entry(
            parent=self.parent.id,
            kind="learn",
            base=self.parent.base,
            task=self.task.name,
            recipe=self.recipe.to_json(),
            tasks={**self.parent.tasks, self.task.name: self.task.version},
            data={"train": self.task.fingerprint, "general": content_hash([row_key(row) for row in self.plan.general])},
            seed=self.seed,
            slots=slots,
            memory=manifest,
            columns=columns,
            state=remember.keep_states(self.ledger, self._continued(), learner.kept),
        )
        if self.carried is None:  # else the edits lie over it as well, in the slots of the draft
            self.runtime.laid = self.ledger.state(entry)
        return entry, memory

    def _score_after(self, entry: Entry) -> dict[str, Any]:
        tasks = {name: self.ws.task(name, entry) for name in entry.tasks}
        self.notices += [
            f"task {name} has no test rows left, as they were deleted; it is neither scored nor guarded"
            for name, task in tasks.items()
            if not task.test
        ]
        return {name: self._cell(entry, task) for name, task in tasks.items() if task.test}

    def _guarded(self, entry: Entry, scores: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Return for each guarded task its score when it was learned and now; the new task has nothing to lose yet."""
        line = self.ledger.ancestors(self.parent)
        wanted = self.task.spec.guard
        guarded: dict[str, dict[str, Any]] = {
            self.task.name: {"version": self.task.version, "learned": None, "now": scores[self.task.name]}
        }
        for name in self.parent.tasks:
            if name not in scores or (wanted is not None and name not in wanted and name != self.task.name):
                continue
            learned = next(e for e in line if e.kind == "learn" and e.task == name)  # the newest learn of it
            record = self._cell(learned, self.ws.task(name, learned))
            guarded[name] = {"version": entry.tasks[name], "learned": record, "now": scores[name]}
        return guarded

    def _cell(self, entry: Entry, task: TaskData) -> dict[str, Any]:
        record, seconds = self.ws.cell(entry, task, self._scoring)
        self.clock.scored += seconds
        return record

    def _scoring(self, what: str, done: int, total: int) -> None:
        """Tell how far the scoring is, and end it if a stop was asked for: what is not scored yet has no record."""
        if signal := self.stop():
            raise Interrupted(f"stopped by {signal} while {what}; run the same command again to go on")
        if self.tick:
            self.tick(what, done, total)

    def _progress(self, keeper: "Keeper") -> Any:
        def told(done: int, total: int, loss: float) -> None:
            if self.tick:
                what = f"learning {self.task.name}, loss {loss:.3f}, {keeper.speed:,.0f} tokens/s"
                self.tick(what, done, total)

        return told

    def _idle(self, learner: "Learner") -> list[str]:
        """Name the methods that had something to act on, or were meant to, and did nothing over the whole task."""
        idle = []
        anew = self._continued() is None and bool(self.parent.tasks)
        for method in learner.recipe.methods:
            beats = learner.record.heartbeats.get(method.name, [])
            told = any(abs(value) > 0 for _, beat in beats for key, value in beat.items() if key in EFFECTS)
            acted = told or method.name in learner.record.acted
            could = method.name in learner.record.fed if "draw" in method.seams else bool(beats) or anew
            if could and not acted and {"loss", "settle", "mask", "gradient"} & set(method.seams):
                why = "start: base leaves it no task before" if anew else "check its fields"
                idle.append(f"method {method.name} had no effect over the whole task; {why}, or leave it out")
        return idle

    def _folder(self) -> Path:
        data = [self.task.version, self.task.fingerprint, *map(row_key, self.plan.general)]
        key = content_hash([self.parent.id, self.recipe.to_json(), *data, self.seed])
        return self.ledger.root / "runs" / key[:16]


def _check_tolerances(gate: Gate, tasks: set[str]) -> None:
    """Refuse a tolerance of a task that is neither learned now nor known to head: it would hold for nothing."""
    for name in gate.tolerances:
        if name not in tasks:
            raise BadSpec(f"gate tolerances name {name!r}, which head does not know{nearest(name, sorted(tasks))}")


def _host(name: str) -> Any:
    if name == "loop":
        from perdure.train.loop import train
    else:
        from perdure.bridges.transformers_host import train
    return train


def _unmoved(task: str, before: dict[str, Any], now: dict[str, Any], updates: int) -> list[str]:
    """Say that a task was not learned: its score did not rise, though it could."""
    if now["score"] > before["score"] or before["score"] >= 1:
        return []
    few = f"fewer than {FEW} updates (here {updates}) rarely teach a task: " if updates < FEW else ""
    return [
        f"the score of {task} did not rise ({before['score']:.1%} before, {now['score']:.1%} now); {few}train longer "
        "(num_train_epochs), in smaller batches, or at another learning_rate"
    ]


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
