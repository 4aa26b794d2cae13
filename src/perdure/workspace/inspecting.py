"""The verbs that show what a workspace has and what was measured."""

from collections.abc import Collection, Sequence
from pathlib import Path

from perdure.core.outputs import MEMORY, write_output
from perdure.core.progress import Tick
from perdure.core.tables import Records
from perdure.evaluate.evidence import Checked, check_evidence
from perdure.evaluate.matrix import Matrix
from perdure.ledger.records import LogEntry
from perdure.workflows.checkup.checkup import CheckupRequest, checkup
from perdure.workflows.checkup_records import Checkup
from perdure.workflows.inspect import memory_views, views
from perdure.workflows.inspect.disk import DiskView, disk
from perdure.workflows.inspect.evaluate import Evaluation, evaluate
from perdure.workflows.inspect.log import log
from perdure.workflows.inspect.matrix import matrix
from perdure.workflows.inspect.memory_views import MemoryStats, RememberedRow, StoredRow
from perdure.workflows.inspect.view_records import DiffView, EntryView, GateView, StatusView
from perdure.workspace.opened import AnyPath, Opened, warn


class InspectVerbs(Opened):
    """Measure and inspect."""

    def evaluate(
        self,
        tasks: Sequence[str] = (),
        at: str = "head",
        tick: Tick | None = None,
        *,
        every: bool = False,
        routed: bool = False,
    ) -> Evaluation:
        """Score tasks at a ref, or look their scores up.

        With `every`, all test rows of a task are scored, and not a sample where there are more than its `test_rows`. With
        `routed`, no row names its task; see `workflows.routed_scores`.

        What the user should know of the prompts, such as prompts that had to be cut, is a Python warning.

        Raises:
            NotFound: A task or ref is not known.
        """
        found = evaluate(self.session, tasks, at, tick, every=every, routed=routed)
        warn(found.notices)
        return found

    def checkup(
        self,
        at: str = "head",
        *,
        against: str | None = None,
        budget: str | float = "quick",
        only: Collection[str] = (),
        data: AnyPath | None = None,
        strict: bool = False,
        judge: str | None = None,
        embedding: bool = False,
        tick: Tick | None = None,
    ) -> Checkup:
        """Return what the model at a ref can do, compared with the base model: tasks, abilities, facts, drift, and a verdict.

        What the user should know of the rows is a Python warning.

        Args:
            at: Ref or entry.
            against: Ref that guards are compared with; None takes the reference of each, which is the base model unless it was
                moved.
            budget: "quick", "standard" or "full"; "grow" for each in turn until it is decided; or seconds for the guards.
            only: Abilities, names of guards, or tasks of lm-evaluation-harness as `harness:NAME`, and no task; empty takes all.
            data: Folder of the data files of public sets; None takes the one that PERDURE_DATA names.
            strict: An undecided gate counts as failed.
            judge: Compares answers with the reference's: `http(s)://HOST/v1#MODEL`, or a command of JSON lines.
            embedding: Compare what answers mean with the reference's, by hidden states of the base.
            tick: Called with (what, done, total).

        Raises:
            NotFound: A ref, a guard or an ability is not known.
            BadInput: The budget is not valid, there is nothing to measure, or the judge gives no verdicts.
        """
        request = CheckupRequest(at, against, budget, only, Path(data) if data else None, strict, judge, embedding)
        found = checkup(self.session, request, tick)
        warn(found.warnings)
        return found

    def matrix(self, at: str = "head", *, parts: bool = False, routed: bool = False) -> Matrix:
        """Return stage x task with its metrics, from what was measured; see `workflows.inspect.matrix`."""
        return matrix(self.ledger, at, parts=parts, routed=routed)

    def gate(self, at: str | None = None) -> GateView:
        """Return what a learn's gate decided: at a ref, else the candidate's, else head's.

        Raises:
            NotFound: The ref is not known.
            BadInput: The entry has been through no gate.
        """
        return views.gate(self.ledger, at)

    def save_evidence(self, file: AnyPath, at: str | None = None, *, force: bool = False) -> Path:
        """Write a gate's evidence, which `check_evidence` judges again without model or ledger, and return the file."""
        views.save_evidence(self.ledger, Path(file), at, force=force)
        return Path(file)

    @staticmethod
    def check_evidence(file: AnyPath) -> Checked:
        """Judge the evidence in a file again; see `evaluate.evidence.check_evidence`."""
        return check_evidence(Path(file))

    def status(self) -> StatusView:
        """Return where the workspace is: model, head, what head knows and remembers, and what waits for a decision."""
        return views.status(self.ledger)

    def disk(self) -> DiskView:
        """Return the bytes that the workspace and its base model take on disk, by kind, and what `gc` would free."""
        return disk(self.ledger)

    def log(self, *, every: bool = False) -> Records[LogEntry]:
        """Return the entries, newest first; with `every` also the candidate, and candidates that were discarded."""
        return Records(log(self.ledger, every=every))

    def show(self, ref: str = "head") -> EntryView:
        """Return all that is known of an entry or of the candidate, but for test items and row texts.

        Raises:
            NotFound: Nothing has this name.
        """
        return views.show(self.ledger, ref)

    def diff(self, a: str, b: str) -> DiffView:
        """Return how entry `b` differs from entry `a`: tasks, recipe, scores paired over test rows, memory and slots.

        Raises:
            NotFound: One of the refs is not known.
        """
        return views.diff(self.ledger, a, b)

    def memory(self, at: str = "head") -> Records[RememberedRow]:
        """Return the rows in the memory of an entry.

        Raises:
            NotFound: The ref is not known.
        """
        return Records(memory_views.remembered(self.ledger, at))

    def stored_rows(self, text: str = "") -> Records[StoredRow]:
        """Return every row whose text is stored and contains `text`, in upper or lower case."""
        return Records(memory_views.kept(self.ledger, text))

    def memory_stats(self, at: str = "head") -> MemoryStats:
        """Return the number of rows in the memory of an entry, by pool, task and label, and the rows that are stored.

        Raises:
            NotFound: The ref is not known.
        """
        return memory_views.memory_stats(self.ledger, at)

    def export_memory(self, file: AnyPath, at: str = "head", *, force: bool = False) -> Path:
        """Write the rows in the memory of an entry as JSONL, in a format that `learn` reads, and return the file."""
        lines = "".join(f"{line}\n" for line in memory_views.memory_lines(self.ledger, at))
        write_output(Path(file), lines, MEMORY, force=force, workspaces=[self.ledger.root])
        return Path(file)
