"""Knowledge editing of a model in memory: from facts to an edit set, with the model as it was."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from perdure.core.errors import BadInput, BadSpec, Unsolvable
from perdure.core.progress import Tick
from perdure.editing.batches import batch_name
from perdure.editing.edit_set import EditSet, Written
from perdure.editing.facts import Fact, refuse_repeats
from perdure.editing.measures import Verdict
from perdure.editing.moments import Statistics, weights_hash
from perdure.editing.overlay import one_each
from perdure.editing.prompts import Context, make_contexts
from perdure.editing.site import Site
from perdure.editing.solve import Factors, metric
from perdure.editing.spec import SPREAD, EditSpec
from perdure.editing.spread import pinned, spread
from perdure.editing.values import Value, find_each, find_values
from perdure.editing.verification import verify
from perdure.model.layout import Precision, find_layout
from perdure.model.probing import batching_of


def edit(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    spec: EditSpec | None = None,
    *,
    onto: EditSet | None = None,
    precision: Precision = nullcontext,
    statistics: Statistics = Statistics(),
    tick: Tick | None = None,
) -> EditSet:
    """Return the edit set that says the facts, on top of those of `onto`; the model is as it was.

    Args:
        model: The causal language model to edit, without the update of `onto`: base, or base with its skill adapter.
        tokenizer: Its tokenizer, a fast one.
        facts: What to write.
        spec: Settings; the default method is emmet.
        onto: Facts in force, which must have been written on the same model.
        precision: Context of every forward.
        statistics: Which model the keys' second moments are taken of, and where they are kept.
        tick: Called as it goes on.

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
    with opened(model, tokenizer, precision) as site:
        state = weights_hash(model)
        if onto is not None and onto.written and onto.state != state:
            raise BadInput(
                "the facts in force were written on another state of the model; write them again on this one"
            )
        layers = spec.at(site.layout.depth)
        modules = {**(onto.modules if onto else {}), **{layer: site.layout.down[layer] for layer in layers}}
        held = replace(onto or EditSet(), modules=modules, state=state)
        contexts = contexts_of(site, spec)
        needed = (
            sorted({layer for w in held.live for layer in w.layers} | set(layers)) if spec.method in SPREAD else layers
        )
        reaches = _reaches(site, spec, needed, statistics, tick, state)
        done = (lambda n: tick("values", n, len(facts))) if tick else None
        values = find_each(site, facts, contexts, spec, layers[-1], done)
        beside = tuple(fact.core for fact in facts) if len(facts) > 1 < spec.batch else ()
        written = [
            _written(fact, value, spec, layers, reaches, beside) for fact, value in zip(facts, values, strict=True)
        ]
        return _settled(site, held.add(written), contexts, reaches)


def settle(
    model: Any,
    tokenizer: Any,
    edit_set: EditSet,
    *,
    precision: Precision = nullcontext,
    statistics: Statistics = Statistics(),
    tick: Tick | None = None,
) -> EditSet:
    """Return the set after `resolve` as if what is gone had never been: what depended on it is found again.

    That is the vectors of facts that were found in one batch with it, the change of facts that shared its key, and all of a
    method that spreads facts over layers. Other sets come back as they are, since their vectors do not depend on each other.

    Cost: the values of these facts, and of those that are found in one batch with them; see `find_values`.
    """
    if not edit_set.unfinished:
        return edit_set
    spec, stale = edit_set.live[0].spec, edit_set.stale()
    with opened(model, tokenizer, precision) as site:
        layers = sorted({layer for w in (edit_set.written if spec.method in SPREAD else stale) for layer in w.layers})
        reaches = _reaches(site, spec, layers, statistics, tick) if layers else {}
        contexts = {one: contexts_of(site, one) for one in {spec, *(w.spec for w in stale)}}
        return _settled(site, _found_again(site, edit_set, stale, contexts, reaches), contexts[spec], reaches)


def pin(
    model: Any,
    tokenizer: Any,
    edit_set: EditSet,
    *,
    precision: Precision = nullcontext,
    statistics: Statistics = Statistics(),
    tick: Tick | None = None,
) -> EditSet:
    """Return the set with the keys of its dropped facts as they are now, so that the update is zero where they are asked.

    A key that was read with the fact's own update in the layers below it, or on another state of the model, is not the one that
    the model has without the fact. Sets that are neither spread over layers nor of another state come back as they are.

    Cost: forwards over the dropped facts' lines.
    """
    spec = edit_set.live[0].spec
    if not edit_set.dropped:
        return edit_set
    with opened(model, tokenizer, precision) as site:
        if spec.method not in SPREAD and edit_set.state == weights_hash(model):
            return edit_set
        layers = sorted({layer for w in edit_set.written for layer in w.layers})
        return pinned(site, edit_set, contexts_of(site, spec), _reaches(site, spec, layers, statistics, tick))


def rewrite(
    model: Any,
    tokenizer: Any,
    edit_set: EditSet,
    *,
    precision: Precision = nullcontext,
    statistics: Statistics = Statistics(),
    tick: Tick | None = None,
) -> EditSet:
    """Return the live facts written again on another state of the model, each with its own settings; the dropped are gone."""
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


def sweep_layers(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    layers: Sequence[int],
    spec: EditSpec | None = None,
    *,
    generation: bool = False,
    precision: Precision = nullcontext,
    statistics: Statistics = Statistics(),
    tick: Tick | None = None,
) -> dict[int, list[Verdict]]:
    """Return how single edits of each fact turn out in each layer, since causal tracing does not predict where to edit.

    Every fact is written alone; facts of one layer are verified in the same forwards, each under its own update. With
    `generation` the model also goes on freely from each prompt, one after the other.

    Raises:
        BadSpec: The method spreads facts over layers; sweep with emmet.

    Source: Hase et al., "Does Localization Inform Editing?", 2023, arXiv 2301.04213, for the reason.
    """
    spec = spec or EditSpec()
    if spec.method in SPREAD:
        raise BadSpec(f"{spec.method} spreads facts over layers; sweep with method emmet")
    found = {}
    with opened(model, tokenizer, precision) as site:
        contexts = contexts_of(site, spec)
        moments = statistics.moments(site, layers, seed=spec.seed, tick=tick)
        for n, layer in enumerate(layers):

            def done(written: int, n: int = n, layer: int = layer) -> None:
                if tick:
                    tick(f"single edits, layer {layer}", n * len(facts) + written, len(layers) * len(facts))

            values = find_each(site, facts, contexts, spec, layer, done)
            alone = single_edits(values, _metric_of(layer, moments[layer], spec))
            found[layer] = verify(site, facts, one_each(site, {site.layout.down[layer]: alone}), generation=generation)
    return found


def single_edits(values: Sequence[Value], reach: Callable[[Tensor], Tensor]) -> Factors:
    """Return each fact's own rank-one update, row by row: r (C^-1 k)^T / (k^T C^-1 k), as if it were the only one."""
    keys = torch.stack([value.key for value in values], 1).double()
    reaches = reach(keys)
    return Factors((reaches / (keys * reaches).sum(0)).T, torch.stack([value.change for value in values], 1).double())


@contextmanager
def opened(model: Any, tokenizer: Any, precision: Precision = nullcontext) -> Iterator[Site]:
    """Yield the model as a site: in eval mode, with nothing trainable; both are as they were afterwards.

    Raises:
        BadInput: The model cannot be edited; see `find_layout`.
    """
    training = [module for module in model.modules() if module.training]
    trainable = [value for value in model.parameters() if value.requires_grad]
    model.eval()
    model.requires_grad_(False)
    try:
        layout = find_layout(model, precision)
        if not batching_of(model).spans:
            raise BadInput(
                "this model cannot read several tokens behind the cache of padded rows, which editing does all the time. Train "
                "the facts instead (perdure learn)"
            )
        yield Site(model, tokenizer, layout, precision)
    finally:
        for module in training:
            module.training = True
        for value in trainable:
            value.requires_grad_(True)


def contexts_of(site: Site, spec: EditSpec) -> tuple[Context, ...]:
    """Return the contexts that the settings name; the same for the same model and seed."""
    return make_contexts(
        site.model, site.tokenizer, spec.contexts, chat=spec.chat, seed=spec.seed, precision=site.precision
    )


def _found_again(
    site: Site,
    edit_set: EditSet,
    stale: Sequence[Written],
    contexts: Mapping[EditSpec, Sequence[Context]],
    reaches: dict[int, Callable[[Tensor], Tensor]],
) -> EditSet:
    """Return the set with the vectors of its stale facts found in the batches that they are in now."""
    fresh: dict[str, Written] = {}
    for w in stale:
        if w.id not in fresh:
            batch, asked = w.companions, {fact.id: fact for fact in (*w.beside, w.fact)}
            units = [(asked[one],) for one in batch]
            found = find_values(site, units, contexts[w.spec], w.spec, w.layers[-1])
            values = dict(zip(batch, found, strict=True))
            for old in edit_set.written:
                if old.id in values and old.beside == w.beside:
                    again = _written(old.fact, values[old.id], w.spec, w.layers, reaches, w.beside)
                    fresh[old.id] = replace(again, dropped=old.dropped)
    return replace(edit_set, written=tuple(fresh.get(w.id, w) for w in edit_set.written))


def _settled(
    site: Site,
    edit_set: EditSet,
    contexts: Sequence[Context],
    reaches: dict[int, Callable[[Tensor], Tensor]],
) -> EditSet:
    """Return the set with one change for facts that share a key, and with facts spread that are to be."""
    fresh = {}
    for group in edit_set.unsettled():
        spec, layers = group[-1].spec, group[-1].layers
        (value,) = find_values(site, [[w.fact for w in group]], contexts, spec, layers[-1])
        shared = tuple(sorted(w.id for w in group)) if len(group) > 1 else ()
        told = {"loss": value.loss, "steps": value.steps, "size": value.size}
        for w in group:
            residuals = value.change.repeat(len(layers), 1)
            fresh[w.id] = replace(w, change=value.change, residuals=residuals, told=told, shared=shared)
    made = replace(edit_set, written=tuple(fresh.get(w.id, w) for w in edit_set.written))
    return spread(site, made, contexts, reaches) if made.live[0].spec.method in SPREAD else made


def _reaches(
    site: Site,
    spec: EditSpec,
    layers: Sequence[int],
    statistics: Statistics,
    tick: Tick | None = None,
    state: str | None = None,
) -> dict[int, Callable[[Tensor], Tensor]]:
    moments = statistics.moments(site, layers, seed=spec.seed, state=state, tick=tick)
    return {layer: _metric_of(layer, moments[layer], spec) for layer in layers}


def _metric_of(layer: int, moment: Tensor, spec: EditSpec) -> Callable[[Tensor], Tensor]:
    """Return the metric of a layer's keys; an error names the layer."""
    try:
        return metric(moment, spec.method, spec.ridge, spec.energy)
    except Unsolvable as error:
        raise Unsolvable(f"layer {layer} cannot be edited: {error}") from error


def _written(
    fact: Fact,
    value: Value,
    spec: EditSpec,
    layers: tuple[int, ...],
    reaches: dict[int, Callable[[Tensor], Tensor]],
    beside: tuple[Fact, ...],
) -> Written:
    """Return a fact with its vectors; a fact to be spread gets those of its last layer in all of them, until it is spread."""
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
        told={"loss": value.loss, "steps": value.steps, "size": value.size},
        beside=beside,
    )
    return replace(made, batch=batch_name(made.companions))
