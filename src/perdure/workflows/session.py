"""The session: what every verb is given. One ledger, one base model in memory, decoded tasks; load a state, score a task."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perdure.core.config import CapabilitiesJson
from perdure.core.device import ANY
from perdure.core.errors import BadInput, BrokenStore
from perdure.core.plain_text import quoted
from perdure.core.progress import Tick
from perdure.core.slots import INITIAL
from perdure.data.sample import sample_of
from perdure.data.task import TaskData
from perdure.evaluate.run_code import RunCode
from perdure.ledger import Entry, Ledger, writing
from perdure.ledger.records import Score
from perdure.workflows.labelling import measure_labels
from perdure.workflows.scoring import Measured, measure
from perdure.workflows.slots import tensors_of
from perdure.workflows.task_cache import TaskCache
from perdure.workflows.trust import trusted_text

if TYPE_CHECKING:
    from perdure.bridges.harness_items import ScoredTask
    from perdure.bridges.runtime import Runtime
    from perdure.maths.low_rank import Patches
    from perdure.maths.routing import Gaussian
    from perdure.model.reference import ReferenceAnswer


@dataclass(frozen=True)
class Scored:
    """A task scored at an entry.

    Args:
        score: What it scores, as the ledger stores it.
        seconds: What scoring took now; 0 where the score was stored before.
        notices: Notices about prompts and answers, such as cut prompts.
    """

    score: Score
    seconds: float = 0.0
    notices: tuple[str, ...] = ()


class Session:
    """A ledger with the model that it was made for. Nothing is loaded before it is needed.

    Args:
        ledger: The ledger of the workspace.
        device: Where the model is loaded: "auto", "cpu", "cuda", "cuda:N" or "mps". No id depends on it.

    Attributes:
        run_code: Whether programs that the model writes run where they are scored; see `evaluate.run_code`.

    Raises:
        BadInput: No device is named so, or it is not here.
    """

    def __init__(self, ledger: Ledger, device: str = ANY):
        if device != ANY:  # which needs no torch, and nothing to be checked
            from perdure.bridges.models import choose_device

            choose_device(device)
        self.ledger, self.device = ledger, device
        self.run_code: RunCode = "no"
        self.tasks = TaskCache(ledger)
        # answers of the references of guards that the workspace does not have, by (version, reference)
        self.references: dict[tuple[str, str], dict[str, ReferenceAnswer]] = {}
        self.harness_tasks: dict[str, ScoredTask] = {}  # loaded ones, by their scorer as canonical JSON
        self.routers: dict[str, Gaussian] = {}  # the last one, by the moments that it was made of

    @cached_property
    def runtime(self) -> "Runtime":
        """The base model in memory; refused if it changed on disk since the workspace was made."""
        from perdure.bridges import identity, models
        from perdure.bridges.capabilities import stored_batching
        from perdure.bridges.quantization import KINDS
        from perdure.bridges.runtime import Runtime

        config, folder = self.ledger.config, self.base_folder
        if config["dtype"] not in models.DTYPES:
            raise BrokenStore(
                f"{self.ledger.root / 'perdure.json'} says dtype {quoted(config['dtype'])}, which is none of "
                f"{', '.join(models.DTYPES)}; restore it from a backup"
            )
        if (kind := config.get("quantization")) is not None and kind not in KINDS:
            raise BrokenStore(
                f"{self.ledger.root / 'perdure.json'} says quantization {quoted(kind)}, which is none of {', '.join(KINDS)}; "
                "restore it from a backup"
            )
        if identity.stamp(folder) != config.get("stamp"):
            identity.check_unchanged(folder, config["weights"])
        return Runtime(
            folder,
            config["dtype"],
            self.device,
            batching=stored_batching(self.capabilities),
            quantization=config.get("quantization"),
            attn_implementation=config.get("attn_implementation"),
            initial=self._initial(),
        )

    def _initial(self) -> "Patches":
        """Return the adapter that the workspace was made with; nothing without one."""
        from perdure.maths.low_rank import from_tensors

        slot = self.ledger.slots(self.ledger.resolve("base")).get(INITIAL)
        return {} if slot is None else from_tensors(self.ledger.objects.get(slot))

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return self.runtime.base.tokenizer

    @property
    def seed(self) -> int:
        """The seed of everything random in this workspace."""
        return int(self.ledger.config.get("seed", 0))

    @property
    def capabilities(self) -> CapabilitiesJson:
        """What can be done with the base model, as `init` determined; empty in a workspace that is older than that."""
        return self.ledger.config.get("capabilities", {})

    @property
    def base_folder(self) -> Path:
        """Local folder of the base model.

        Raises:
            BadInput: It is not where it was when the workspace was made; the message has the command that sets another place.
        """
        from perdure.bridges.identity import has_sizes
        from perdure.bridges.models import find_model

        config, here = self.ledger.config, self.ledger.model_folder
        if here and has_sizes(
            here, config.get("stamp")
        ):  # else another model may have come to lie next to a copied workspace
            return here
        try:
            return find_model(config["model"], config.get("revision"))
        except BadInput as error:
            if here:
                return here
            raise BadInput(
                f"{error}; this workspace was made with it. Put it back, or give its new place with "
                f"'perdure relocate -w {self.ledger.root} --model PATH' (its weights are checked)"
            ) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the workspace's write lock; decoded tasks are valid throughout, as nobody else writes.

        Raises:
            Busy: Another process writes to the workspace.
        """
        with writing(self.ledger.root):
            self.tasks.refresh()
            self.tasks.locked = True
            try:
                yield
            finally:
                self.tasks.unlock()

    def load(self, entry: Entry, task: str | None = None) -> None:
        """Load the slots that requests for `task` use at `entry`; None for the slots that all tasks share.

        For a task that is answered with labels that is the base model.
        """
        if self.ledger.labelled_by(entry, [task]):
            entry, task = self.ledger.resolve("base"), None
        state = self.ledger.seen(entry, task)
        if self.runtime.loaded != state:
            self.runtime.load(tensors_of(self.ledger, self.ledger.view(entry, task)), state)

    def uncover_base(self) -> None:
        """Load the base where other weights replaced its own, so that features of it can be read; an adapter stays loaded."""
        if self.runtime.dense:
            self.load(self.ledger.resolve("base"))

    def load_slots(self, slots: Mapping[str, str]) -> None:
        """Load these slot objects. The state gets no name, since it is not loaded again."""
        self.runtime.load(tensors_of(self.ledger, slots))

    def score(
        self,
        entry: Entry,
        task: TaskData,
        tick: Tick | None = None,
        most: int | None = None,
        *,
        every: bool = False,
        shared: bool = False,
    ) -> Scored:
        """Return the score of `task` at `entry`, its name known: the stored one, else the one measured and stored now.

        A task is scored on `TaskData.scored_rows` of its test rows. The score of a sample is stored next to that of all rows.

        Args:
            entry: An entry or a draft.
            task: The task.
            tick: Called with (what, done, total) as work goes on.
            most: A smaller number of test rows.
            every: Score every test row.
            shared: Score what all tasks share, also where the task has an adapter of its own.
        """
        view = None if shared else task.name
        state, n = self.ledger.seen(entry, view), len(task.test)
        if not every:
            n = min(task.scored_rows, most or task.scored_rows)
        stored = self.ledger.score(state, task.version, task.scoring)
        if stored is not None and stored.n >= n:
            return Scored(stored)
        chosen = sample_of(task.test, n, task.spec.seed) if n < len(task.test) else None
        measured = self.measure_under(entry, view, task, chosen, tick)
        self.runtime.release()
        self.ledger.put_score(state, task.version, measured.score, task.scoring, sample=chosen is not None)
        return Scored(measured.score, measured.score.seconds, measured.notices)

    def measure_under(
        self,
        entry: Entry,
        view: str | None,
        task: TaskData,
        chosen: Sequence[int] | None = None,
        tick: Tick | None = None,
    ) -> Measured:
        """Return the score of a task's test rows where the view of some task answers them, measured now.

        Args:
            entry: An entry or a draft.
            view: Name of the task whose view it is; None for what all tasks share.
            task: The task.
            chosen: Indices of the test rows; None takes all.
            tick: Called with (what, done, total) as work goes on.
        """
        prompts, code = self.tasks.prompts(task, self.tokenizer), partial(trusted_text, self.ledger.root)
        called = self.ledger.shown_name(task.name)
        if view is not None and self.ledger.labelled_by(entry, [view]):
            self.uncover_base()
            on_rows = partial(tick, f"features of {called}") if tick else None
            return measure_labels(
                self.runtime, self.ledger, entry, task, prompts, by=view, only=chosen, on_rows=on_rows
            )
        self.load(entry, view)
        return measure(
            self.runtime,
            task,
            tick,
            prompts=prompts,
            only=chosen,
            code=code,
            called=called,
            run_code=self.run_code,
        )

    def task(self, name: str, entry: Entry) -> TaskData:
        """Return the version of a task that `entry` knows."""
        return self.tasks.get(name, entry.tasks[name])

    def history(self, entry: Entry) -> list[TaskData]:
        """Return every version of every task that an entry or one before it knows, oldest first."""
        return self.tasks.versions(reversed(self.ledger.ancestors(entry)))

    def refuse_editing(self) -> None:
        """Refuse to edit or trace a model that `init` determined cannot be edited, before it is loaded.

        Raises:
            BadInput: It cannot; the message has the reason.
        """
        if reason := self.capabilities.get("no_editing"):
            raise BadInput(reason)

    def refuse_candidate(self) -> None:
        """Refuse to change head while a candidate waits, which was made on it.

        Raises:
            BadInput: One waits.
        """
        if self.ledger.candidate() is not None:
            raise BadInput("a candidate is waiting; 'perdure accept' or 'perdure discard' it first")
