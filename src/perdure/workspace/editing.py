"""The verbs that edit facts and look for them in the model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from perdure.core.progress import Tick
from perdure.core.tables import Records
from perdure.ledger.records import FactLine, ListedFact, SweepResult, TracedAverage, TracedPrompt, WrittenFact
from perdure.workflows.edit.carry import verify_edits
from perdure.workflows.edit.edit import edit
from perdure.workflows.edit.gate import EditGate
from perdure.workflows.edit.records import listed, shown
from perdure.workflows.edit.request import Facts
from perdure.workflows.edit.results import EditResult, VerifyResult
from perdure.workflows.guards.attach import Mode
from perdure.workflows.inspect.sweep import sweep
from perdure.workflows.inspect.trace import trace_facts, trace_prompt
from perdure.workflows.inspect.trace_spec import TraceSpec
from perdure.workflows.rescore import Rescore, Rows
from perdure.workspace.opened import Opened

if TYPE_CHECKING:
    from perdure.editing.spec import EditSpec


class EditVerbs(Opened):
    """Edit facts."""

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
        guards: Mode | None = None,
    ) -> EditResult:
        """Write facts into the model and record an entry with those that pass; see `workflows.edit.edit`.

        Args:
            facts: A file of facts, one fact, or several.
            spec: Settings; those of the facts in force, where there are some, else the defaults.
            gate: What a fact must show; None records whatever comes.
            tick: Called with (what, done, total) as work goes on.
            message: What to note with the entry, in addition to its author.
            score: Test rows of the tasks that are scored afterwards: "all", "quick" for a sample of each task, or "none".
            strict: Refuse the edit if a task lost more than 3 points, or if the test rows do not decide that.
            guards: What a guard that fell does: "warn", "enforce" to refuse the edit, or "none" to score no guard; None takes
                what the workspace says. With `score` "none" no guard is scored.
        """
        rescoring = Rescore(score, strict, guards)
        return edit(self.session, facts, spec=spec, gate=gate, tick=tick, message=message, rescoring=rescoring)

    def edits(self, at: str = "head") -> Records[ListedFact]:
        """Return the facts in force at a ref, as last verified.

        Raises:
            NotFound: The ref is not known.
        """
        return Records(listed(self.ledger, at))

    def show_fact(self, fact: str, at: str = "head") -> FactLine | WrittenFact:
        """Return a fact at a ref, by its id or the beginning of it.

        Raises:
            NotFound: No such fact, or the ref is not known.
        """
        return shown(self.ledger, fact, at)

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
