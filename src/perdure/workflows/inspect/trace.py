"""Trace: where a state of the workspace keeps what it says, for one prompt and on average over facts."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from perdure.core.errors import BadInput, BadSpec, Busy
from perdure.core.progress import Tick
from perdure.editing.facts import HOLE, Fact
from perdure.editing.traces import ROLES, Average, Kind, Trace, average, mean_over
from perdure.ledger import Entry, writing
from perdure.workflows.edit.request import Facts, facts_of
from perdure.workflows.session import Session

Json = dict[str, Any]
KINDS: tuple[Kind, ...] = get_args(Kind)
NOTE = "traces"
MOST_SAMPLES = 10_000
KEPT = 8  # prompts whose traces stand beside an entry, newest first: some 25 KB each for 30 layers


@dataclass(frozen=True)
class TraceSpec:
    """Settings of a trace; what they mean is said in `editing.tracing.trace`."""

    kinds: tuple[Kind, ...] = KINDS
    window: int | None = None
    noise: float = 3.0
    samples: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not self.kinds or (wrong := set(self.kinds) - set(KINDS)):
            raise BadSpec(
                f"cannot restore {sorted(wrong) if self.kinds else 'nothing'}; choose from {', '.join(KINDS)}"
            )
        if wrong_type := [name for name in ("window", "samples", "seed") if not _is_count(getattr(self, name))]:
            raise BadSpec(f"{wrong_type[0]} is {getattr(self, wrong_type[0])!r}; it is a whole number")
        if self.window is not None and (self.window < 1 or self.kinds == ("block",)):
            raise BadSpec("a window is a number of layers, 1 or more, whose mlp or attention is restored together")
        if not 0 <= self.noise < float("inf") or self.samples < 1:
            raise BadSpec(f"noise is {self.noise} and samples {self.samples}; give 0 or more, and 1 or more")
        if self.samples > MOST_SAMPLES:
            raise BadSpec(f"samples is {self.samples:,}, each a forward a layer; take {MOST_SAMPLES:,} at most")


def _is_count(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


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

    traces = _traced(session, fact, spec, told)
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
        **_settings(spec),
        "kinds": {kind: _kind(trace) for kind, trace in traces.items()},
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

        found.append(_traced(session, fact, spec, told))
    traced, reason = {fact.id for fact in chosen}, "the model does not say its ground truth"
    left = [{"fact": f.id, "subject": f.subject, "reason": reason} for f in asked if f.id not in traced]
    return {"entry": entry.id, "facts": len(asked), **_averaged(chosen, found, spec), "left_out": left}


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


def keep(session: Session, entry: Entry, what: str, found: Json) -> bool:
    """Note a result beside a recorded entry, for the report; return whether it could be noted.

    Of "prompts" the newest are kept, one for each prompt and subject; of anything else the newest one.
    """
    if entry.id not in {known.id for known in session.ledger.entries()}:
        return False
    try:
        with writing(session.ledger.root):
            note = session.ledger.notes(entry.id).get(NOTE) or {}
            if what == "prompts":
                others = [old for old in note.get(what, []) if _about(old) != _about(found)]
                note[what] = [found, *others][:KEPT]
            else:
                note[what] = found
            session.ledger.annotate(entry.id, NOTE, note)
    except Busy:
        return False
    return True


def plain(values: NDArray[np.float64]) -> Any:
    """Return an array as nested lists in which None stands for NaN."""
    return np.where(np.isnan(values), np.array(None), values).tolist()


def interval(found: Average) -> Json:
    """Return an average of single numbers as {"value", "low", "high", "n"}."""
    return {"value": plain(found.mean), "low": plain(found.low), "high": plain(found.high), "n": int(found.n)}


def _traced(session: Session, fact: Fact, spec: TraceSpec, tick: Callable[[int, int, int], None]) -> dict[Kind, Trace]:
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


def _kind(trace: Trace) -> Json:
    roles = zip(ROLES, plain(trace.by_role()), strict=True)
    return {
        "window": trace.window,
        "restored": trace.restored.tolist(),
        "strongest": _strongest(trace, 0, len(trace.tokens)),
        "strongest_subject": _strongest(trace, *trace.subject),
        "by_role": {role: None if effects[0] is None else effects for role, effects in roles},
    }


def _strongest(trace: Trace, first: int, stop: int) -> Json:
    """Return the token of a span, and the layer, whose restoration brings back most."""
    token, layer = np.unravel_index(int(trace.restored[first:stop].argmax()), trace.restored[first:stop].shape)
    position = first + int(token)
    told = {"token": trace.tokens[position], "position": position, "layer": int(layer)}
    return {**told, "restored": float(trace.restored[position, layer])}


def _averaged(facts: Sequence[Fact], found: Sequence[dict[Kind, Trace]], spec: TraceSpec) -> Json:
    ones = [next(iter(traces.values())) for traces in found]
    means = {kind: average([traces[kind] for traces in found]) for kind in spec.kinds}
    return {
        "n": len(facts),
        "clean": interval(mean_over(np.array([one.clean for one in ones]))),
        "corrupted": interval(mean_over(np.array([one.corrupted for one in ones]))),
        "total_effect": interval(mean_over(np.array([one.total_effect for one in ones]))),
        **_settings(spec),
        "roles": list(ROLES),
        "kinds": {
            kind: {
                "window": found[0][kind].window,
                **{name: plain(getattr(mean, name)) for name in ("mean", "low", "high")},
                "n": mean.n[:, 0].tolist(),
            }
            for kind, mean in means.items()
        },
        "traced": [
            {
                "fact": fact.id,
                "subject": fact.subject,
                "prompt": fact.question,
                "answer": one.answer,
                "clean": one.clean,
                "corrupted": one.corrupted,
            }
            for fact, one in zip(facts, ones, strict=True)
        ],
    }


def _settings(spec: TraceSpec) -> Json:
    return {name: value for name, value in asdict(spec).items() if name in ("noise", "samples", "seed")}


def _about(found: Json) -> tuple[str, str]:
    return found["prompt"], found["subject"]
