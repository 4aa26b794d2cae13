"""Knowledge editing of a model in memory: from facts to an edit set. The model is not changed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor

from perdure.core.errors import BadInput, BadSpec
from perdure.core.progress import Tick
from perdure.editing.batches import batch_name
from perdure.editing.contexts import contexts_of
from perdure.editing.edit_set import EditSet
from perdure.editing.facts import Fact, refuse_repeats
from perdure.editing.moments import Statistics, weights_hash
from perdure.editing.prompts import Context
from perdure.editing.site import Site, Tokenizer, open_site
from perdure.editing.spec import SPREAD, EditSpec
from perdure.editing.spread import pinned, spread
from perdure.editing.values import Value, find_each, find_values
from perdure.editing.written import Written
from perdure.model.layout import Precision


def edit(
    model: Any,
    tokenizer: Tokenizer,
    facts: Sequence[Fact],
    spec: EditSpec | None = None,
    *,
    onto: EditSet | None = None,
    precision: Precision = nullcontext,
    statistics: Statistics = Statistics(),
    tick: Tick | None = None,
) -> EditSet:
    """Return the edit set of the facts, added to those of `onto`. The model is not changed.

    Args:
        model: The causal language model to edit, without the update of `onto`: base, or base with its skill adapter.
        tokenizer: Its tokenizer, a fast one.
        facts: The facts to write.
        spec: Settings; the default method is emmet.
        onto: The facts in force. They must have been written on the same model.
        precision: Context of every forward.
        statistics: The model that the keys' second moments are computed on, and the folder that caches them.
        tick: Called with the progress.

    Raises:
        BadSpec: The method has no edit set, or a layer does not fit.
        BadInput: Facts that repeat or contradict each other, or are in force already; a model that cannot be edited; or `onto`
            belongs to another model.

    Cost: see `find_values`, `Statistics` and `spread`.
    """
    spec = spec or EditSpec()
    if spec.method == "lora":
        raise BadSpec("method lora has no edit set; choose emmet, rome, memit or alphaedit, or train with train_facts")
    refuse_repeats(facts)
    if onto is not None:
        onto.check(facts, spec)
    with open_site(model, tokenizer, precision) as site:
        state = weights_hash(model)
        if onto is not None and onto.written and onto.state != state:
            raise BadInput(
                "the facts in force were written on another state of the model; write them again on this one"
            )
        layers = spec.at(site.layout.depth)
        modules = {**(onto.modules if onto else {}), **{layer: site.layout.down[layer] for layer in layers}}
        current = replace(onto or EditSet(), modules=modules, state=state)
        contexts = contexts_of(site, spec)
        needed = (
            sorted({layer for w in current.live for layer in w.layers} | set(layers))
            if spec.method in SPREAD
            else layers
        )
        reaches = statistics.reaches(site, spec, needed, state=state, tick=tick)
        done = (lambda n: tick("values", n, len(facts))) if tick else None
        values = find_each(site, facts, contexts, spec, layers[-1], done)
        request = tuple(fact.core for fact in facts) if len(facts) > 1 < spec.batch else ()
        written = [
            _written(fact, value, spec, layers, reaches, request) for fact, value in zip(facts, values, strict=True)
        ]
        return _settled(site, current.add(written), contexts, reaches)


def settle(
    model: Any,
    tokenizer: Tokenizer,
    edit_set: EditSet,
    *,
    precision: Precision = nullcontext,
    statistics: Statistics = Statistics(),
    tick: Tick | None = None,
) -> EditSet:
    """Return the set after `resolve` as if the removed facts had never been written: dependent vectors are recomputed.

    These are the vectors of facts that were optimised in one batch with a removed fact, the change of facts that shared its key,
    and all vectors of a method that spreads facts over layers. Other sets are returned unchanged, since their vectors do not
    depend on each other.

    Cost: the values of these facts, and of those that are optimised in one batch with them; see `find_values`.
    """
    if not edit_set.unfinished:
        return edit_set
    spec, stale = edit_set.live[0].spec, edit_set.stale()
    with open_site(model, tokenizer, precision) as site:
        layers = sorted({layer for w in (edit_set.written if spec.method in SPREAD else stale) for layer in w.layers})
        reaches = statistics.reaches(site, spec, layers, tick=tick) if layers else {}
        contexts = {one: contexts_of(site, one) for one in {spec, *(w.spec for w in stale)}}
        return _settled(site, _refreshed(site, edit_set, stale, contexts, reaches), contexts[spec], reaches)


def pin(
    model: Any,
    tokenizer: Tokenizer,
    edit_set: EditSet,
    *,
    precision: Precision = nullcontext,
    statistics: Statistics = Statistics(),
    tick: Tick | None = None,
) -> EditSet:
    """Return the set with the current keys of its dropped facts, so that the update is zero at their prompts.

    A key may have been read with the fact's own update in the layers below it, or on another state of the model. It then differs
    from the key that the model has without the fact. Sets that are neither spread over layers nor from another state are
    returned unchanged.

    Cost: forwards over the dropped facts' lines.
    """
    spec = edit_set.live[0].spec
    if not edit_set.dropped:
        return edit_set
    with open_site(model, tokenizer, precision) as site:
        if spec.method not in SPREAD and edit_set.state == weights_hash(model):
            return edit_set
        layers = sorted({layer for w in edit_set.written for layer in w.layers})
        return pinned(site, edit_set, contexts_of(site, spec), statistics.reaches(site, spec, layers, tick=tick))


def rewrite(
    model: Any,
    tokenizer: Tokenizer,
    edit_set: EditSet,
    *,
    precision: Precision = nullcontext,
    statistics: Statistics = Statistics(),
    tick: Tick | None = None,
) -> EditSet:
    """Return the live facts, written again on another state of the model with their own settings. Dropped facts are left out."""
    made: EditSet | None = None
    waiting = list(edit_set.live)
    while waiting:
        same = [w for w in waiting if w.spec == waiting[0].spec]
        made = edit(
            model,
            tokenizer,
            [w.fact for w in same],
            same[0].spec,
            onto=made,
            precision=precision,
            statistics=statistics,
            tick=tick,
        )
        waiting = [w for w in waiting if w.spec != same[0].spec]
    return made or EditSet()


def _refreshed(
    site: Site,
    edit_set: EditSet,
    stale: Sequence[Written],
    contexts: Mapping[EditSpec, Sequence[Context]],
    reaches: dict[int, Callable[[Tensor], Tensor]],
) -> EditSet:
    """Return the set with the vectors of its stale facts optimised again, in the batches that they belong to now."""
    fresh: dict[str, Written] = {}
    for w in stale:
        if w.id not in fresh:
            batch, facts = w.companions, {fact.id: fact for fact in (*w.request, w.fact)}
            units = [(facts[one],) for one in batch]
            computed = find_values(site, units, contexts[w.spec], w.spec, w.layers[-1])
            values = dict(zip(batch, computed, strict=True))
            for old in edit_set.written:
                if old.id in values and old.request == w.request:
                    again = _written(old.fact, values[old.id], w.spec, w.layers, reaches, w.request)
                    fresh[old.id] = replace(again, dropped=old.dropped)
    return replace(edit_set, written=tuple(fresh.get(w.id, w) for w in edit_set.written))


def _settled(
    site: Site,
    edit_set: EditSet,
    contexts: Sequence[Context],
    reaches: dict[int, Callable[[Tensor], Tensor]],
) -> EditSet:
    """Return the set with one change for facts that share a key, and with facts spread over layers where the method does so."""
    fresh = {}
    for group in edit_set.unsettled():
        spec, layers = group[-1].spec, group[-1].layers
        (value,) = find_values(site, [[w.fact for w in group]], contexts, spec, layers[-1])
        shared = tuple(sorted(w.id for w in group)) if len(group) > 1 else ()
        optimised = {"loss": value.loss, "steps": value.steps, "size": value.size}
        for w in group:
            residuals = value.change.repeat(len(layers), 1)
            fresh[w.id] = replace(w, change=value.change, residuals=residuals, optimised=optimised, shared=shared)
    made = replace(edit_set, written=tuple(fresh.get(w.id, w) for w in edit_set.written))
    return spread(site, made, contexts, reaches) if made.live[0].spec.method in SPREAD else made


def _written(
    fact: Fact,
    value: Value,
    spec: EditSpec,
    layers: tuple[int, ...],
    reaches: dict[int, Callable[[Tensor], Tensor]],
    request: tuple[Fact, ...],
) -> Written:
    """Return a fact with its vectors. Every layer gets the vectors of the last one; `spread` replaces them where it applies."""
    reach = reaches[layers[-1]](value.key[:, None])[:, 0].float()
    rows = len(layers)
    made = Written(
        fact=fact,
        layers=layers,
        keys=value.key.repeat(rows, 1),
        reaches=reach.repeat(rows, 1),
        residuals=value.change.repeat(rows, 1),
        change=value.change,
        spec=spec,
        optimised={"loss": value.loss, "steps": value.steps, "size": value.size},
        request=request,
    )
    return replace(made, batch=batch_name(made.companions))
