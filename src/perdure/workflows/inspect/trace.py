"""Trace: where a state of the workspace stores its answers, for one prompt and on average over facts."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.editing.facts import HOLE, Fact
from perdure.editing.traces import Kind, Trace
from perdure.ledger import Entry
from perdure.ledger.records import LeftOut, TracedAverage, TracedPrompt
from perdure.workflows.edit.request import Facts, facts_of
from perdure.workflows.inspect.trace_notes import store_note
from perdure.workflows.inspect.trace_records import traced_average, traced_kind
from perdure.workflows.inspect.trace_spec import TraceSpec
from perdure.workflows.session import Session


def trace_prompt(
    session: Session,
    prompt: str,
    subject: str,
    spec: TraceSpec = TraceSpec(),
    *,
    at: str = "head",
    tick: Tick | None = None,
) -> TracedPrompt:
    """Trace one prompt on the state at a ref, the facts in force among it, and store the result as a note of its entry.

    Args:
        session: Of the workspace; no entry is made.
        prompt: Beginning of a sentence that names the subject, or has "{}" in its place.
        subject: What the noise is put on.
        spec: Settings.
        at: Ref or entry.
        tick: Called with (what, done, total) as work goes on.

    Raises:
        BadInput: The prompt does not name the subject or is longer than the model's positions, or the model cannot be traced.
        NotFound: The ref is not known.
    """
    fact = Fact(subject.strip(), prompt, "")
    if not fact.subject or fact.subject not in fact.question:
        raise BadInput(
            f"the prompt {prompt!r} does not name the subject {fact.subject!r}; spell it as in the prompt, or write {HOLE}"
        )
    session.refuse_editing()
    entry = session.ledger.resolve(at)
    session.load(entry)

    def progress(kind: int, done: int, width: int) -> None:
        if tick:
            tick(f"tracing, {spec.kinds[kind]}", kind * width + done, len(spec.kinds) * width)

    traces = traces_of(session, fact, spec, progress)
    one = next(iter(traces.values()))
    traced = TracedPrompt(
        entry=entry.id,
        prompt=fact.question,
        subject=fact.subject,
        tokens=one.tokens,
        span=one.subject,
        answer=one.answer,
        clean=one.clean,
        corrupted=one.corrupted,
        noise=spec.noise,
        samples=spec.samples,
        seed=spec.seed,
        kinds={kind: traced_kind(trace) for kind, trace in traces.items()},
    )
    return replace(traced, kept=store_note(session, entry, traced))


def trace_facts(
    session: Session, facts: Facts, spec: TraceSpec = TraceSpec(), *, at: str = "head", tick: Tick | None = None
) -> TracedAverage:
    """Trace the facts that the model says, and store the average by role of a token as a note of the entry.

    A fact with a `ground_truth` counts if the model says it: each of its tokens is the likeliest. A fact without one always
    counts.

    Intervals are Student's over facts, 95%.

    Raises:
        BadInput: No fact is left, one is longer than the model's positions, or the model cannot be traced.
        NotFound: The ref is not known.

    Cost: see `editing.tracing.trace`, for each fact and kind.
    """
    given = facts_of(facts)
    entry = session.ledger.resolve(at)
    average = average_facts(session, given, entry, spec, tick)
    return replace(average, kept=store_note(session, entry, average))


def average_facts(
    session: Session, given: Sequence[Fact], entry: Entry, spec: TraceSpec, tick: Tick | None
) -> TracedAverage:
    """Return the average of `trace_facts` without a note."""
    from perdure.editing.prompts import refuse_long

    session.refuse_editing()
    for fact in given:
        refuse_long(
            session.tokenizer, fact, [f"{fact.question} {fact.ground_truth or ''}"], session.runtime.base.positions
        )
    session.load(entry)
    chosen = facts_that_model_says(session, given)
    if not chosen:
        raise BadInput(
            f"none of {len(given)} facts is left to trace: the model says the ground truth of none; "
            "leave ground_truth out to trace its own answer instead"
        )
    kinds = len(spec.kinds)
    traces: list[dict[Kind, Trace]] = []
    for number, fact in enumerate(chosen):

        def progress(kind: int, done: int, width: int, number: int = number) -> None:
            if tick and done == width:
                tick("tracing facts", number * kinds + kind + 1, len(chosen) * kinds)

        traces.append(traces_of(session, fact, spec, progress))
    traced, reason = {fact.id for fact in chosen}, "the model does not say its ground truth"
    left = [LeftOut(f.id, f.subject, reason) for f in given if f.id not in traced]
    return traced_average(entry, given, chosen, traces, spec, left)


def facts_that_model_says(session: Session, facts: Sequence[Fact]) -> list[Fact]:
    """Return the facts whose ground truth the loaded model says, and the facts without a ground truth."""
    from perdure.editing.prompts import BARE, encode
    from perdure.editing.site import open_site
    from perdure.editing.verification import answers

    known = [fact for fact in facts if fact.ground_truth]
    with open_site(session.runtime.model, session.tokenizer, session.runtime.precision) as site:
        lines = [encode(session.tokenizer, BARE, fact.question, None, fact.ground_truth or "") for fact in known]
        wrong = {
            fact.id
            for fact, (_, right) in zip(known, answers(site, lines, range(len(lines))), strict=True)
            if not right
        }
    return [fact for fact in facts if fact.id not in wrong]


def traces_of(
    session: Session, fact: Fact, spec: TraceSpec, tick: Callable[[int, int, int], None]
) -> dict[Kind, Trace]:
    """Return the traces of a fact's prompt by kind; `tick` is called with the kind's number and the tokens done, and of all."""
    from perdure.editing.tracing import trace

    return {
        kind: trace(
            session.runtime.model,
            session.tokenizer,
            fact.question,
            fact.subject,
            kind=kind,
            window=spec.window,
            noise=spec.noise,
            samples=spec.samples,
            seed=spec.seed,
            at=fact.at,
            precision=session.runtime.precision,
            tick=lambda done, width, number=number: tick(number, done, width),  # type: ignore[misc]
        )
        for number, kind in enumerate(spec.kinds)
    }
