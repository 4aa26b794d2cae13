"""Trace: where a state of the workspace stores what it says, for one prompt and on average over facts."""

from collections.abc import Callable, Sequence

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.editing.facts import HOLE, Fact
from perdure.editing.traces import Kind, Trace
from perdure.ledger import Entry
from perdure.workflows.edit.request import Facts, facts_of
from perdure.workflows.inspect.trace_json import about_kind, averaged, settings_of
from perdure.workflows.inspect.trace_notes import Json, keep
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
) -> Json:
    """Trace one prompt on the state at a ref, the facts in force among it, and keep the result beside its entry.

    Args:
        session: Of the workspace; no entry is made.
        prompt: Beginning of a sentence that names the subject, or has "{}" in its place.
        subject: What the noise is put on.
        spec: Settings.
        at: Ref or entry.
        tick: Called with (what, done, total) as work goes on.

    Returns:
        "entry", "prompt", "subject", "tokens", "span" (first token of the subject, and the one behind its last), "answer",
        "clean" and "corrupted" (its chance without and with noise), "noise", "samples", "seed", "kept" (False if it could not be
        kept because another process writes, or the entry is a candidate), and "kinds": by kind "window", "restored" (tokens,
        layers), "strongest" and "strongest_subject" ({"token", "position", "layer", "restored"} each), and "by_role": the
        indirect effect by layer, None where the prompt has no such token.

    Raises:
        BadInput: The prompt does not name the subject or is longer than the model's positions, or the model cannot be traced.
        NotFound: The ref is not known.
    """
    fact = Fact(subject.strip(), prompt, "")
    if not fact.subject or fact.subject not in fact.question:
        raise BadInput(
            f"the prompt {prompt!r} does not name the subject {fact.subject!r}; spell it as it stands there, or write {HOLE}"
        )
    session.refuse_editing()
    entry = session.ledger.resolve(at)
    session.load(entry)

    def told(kind: int, done: int, width: int) -> None:
        if tick:
            tick(f"tracing, {spec.kinds[kind]}", kind * width + done, len(spec.kinds) * width)

    traces = traces_of(session, fact, spec, told)
    one = next(iter(traces.values()))
    found = {
        "entry": entry.id,
        "prompt": fact.question,
        "subject": fact.subject,
        "tokens": list(one.tokens),
        "span": list(one.subject),
        "answer": one.answer,
        "clean": one.clean,
        "corrupted": one.corrupted,
        **settings_of(spec),
        "kinds": {kind: about_kind(trace) for kind, trace in traces.items()},
    }
    return {**found, "kept": keep(session, entry, "prompts", found)}


def trace_facts(
    session: Session, facts: Facts, spec: TraceSpec = TraceSpec(), *, at: str = "head", tick: Tick | None = None
) -> Json:
    """Trace the facts that the model says, and keep the average by role of a token beside the entry.

    A fact with a `ground_truth` counts if that is what the model says, each of its tokens the likeliest; a fact without one
    always counts.

    Returns:
        "entry", "facts" (how many were given), "n" (how many were traced), "left_out" ({"fact", "subject", "reason"} each),
        "clean", "corrupted" and "total_effect" ({"value", "low", "high", "n"}), "noise", "samples", "seed", "roles", "kept",
        "traced" ({"fact", "subject", "prompt", "answer", "clean", "corrupted"} each), and "kinds": by kind "window", and "mean",
        "low", "high" and "n" of the indirect effect (roles, layers). Intervals are Student's over facts, 95%; None where there
        is none.

    Raises:
        BadInput: No fact is left, one is longer than the model's positions, or the model cannot be traced.
        NotFound: The ref is not known.

    Cost: see `editing.tracing.trace`, for each fact and kind.
    """
    asked = facts_of(facts)
    entry = session.ledger.resolve(at)
    found = average_facts(session, asked, entry, spec, tick)
    return {**found, "kept": keep(session, entry, "average", found)}


def average_facts(session: Session, asked: Sequence[Fact], entry: Entry, spec: TraceSpec, tick: Tick | None) -> Json:
    """Return what `trace_facts` returns, but for "kept"; nothing is kept."""
    from perdure.editing.prompts import refuse_long

    session.refuse_editing()
    for fact in asked:
        refuse_long(
            session.tokenizer, fact, [f"{fact.question} {fact.ground_truth or ''}"], session.runtime.base.positions
        )
    session.load(entry)
    chosen = said(session, asked)
    if not chosen:
        raise BadInput(
            f"none of {len(asked)} facts is left to trace: the model says the ground truth of none; "
            "leave ground_truth out to trace what it says instead"
        )
    kinds = len(spec.kinds)
    found: list[dict[Kind, Trace]] = []
    for number, fact in enumerate(chosen):

        def told(kind: int, done: int, width: int, number: int = number) -> None:
            if tick and done == width:
                tick("tracing facts", number * kinds + kind + 1, len(chosen) * kinds)

        found.append(traces_of(session, fact, spec, told))
    traced, reason = {fact.id for fact in chosen}, "the model does not say its ground truth"
    left = [{"fact": f.id, "subject": f.subject, "reason": reason} for f in asked if f.id not in traced]
    return {"entry": entry.id, "facts": len(asked), **averaged(chosen, found, spec), "left_out": left}


def said(session: Session, facts: Sequence[Fact]) -> list[Fact]:
    """Return the facts whose ground truth, where there is one, is what the model that is laid now says."""
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
