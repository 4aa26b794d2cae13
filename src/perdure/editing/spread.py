"""Facts spread over several layers. Each layer adds its share of the change that the layers below have not reached yet."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from perdure.editing.edit_set import EditSet
from perdure.editing.overlay import overlaid
from perdure.editing.prompts import Context, Line, shares, usable
from perdure.editing.site import Site
from perdure.editing.solve import Factors
from perdure.model.batch import padded
from perdure.model.head import attention_for, only_at
from perdure.model.hooks import StopForward, hidden_of, hooked

ROWS = 64  # lines in a forward


def spread(
    site: Site, edit_set: EditSet, contexts: Sequence[Context], reaches: Mapping[int, Callable[[Tensor], Tensor]]
) -> EditSet:
    """Return the set with keys and residuals of all live facts read again, layer by layer, under the updates of lower layers.

    The keys of dropped facts are read again too, so that the update stays zero at their prompts.

    At each layer:  residual = (change - (output now - output before)) / (layers left, this one included).

    Args:
        site: The model, without the set's update.
        edit_set: Facts with their `change` of the last layer's output.
        contexts: The texts around the prompts that the changes were optimised in.
        reaches: By layer, the function from keys to their reach.

    Cost: a forward over all lines up to the last layer, for each layer and once before.
    Source: Meng et al. 2023, arXiv 2210.07229, algorithm 1. Deviation: all live facts are spread together.
    """
    updates: dict[str, Factors] = {}
    known: set[tuple[int, ...]] = set()  # layers of the facts that are spread; the other facts have no residuals yet
    for layers in sorted({w.layers for w in edit_set.live}, key=lambda layers: layers[-1]):
        known.add(layers)
        mine = [w for w in edit_set.live if w.layers == layers]
        lines_of = [usable(contexts, site.tokenizer, w.fact) for w in mine]
        change = torch.stack([w.change for w in mine])
        _, before = _read(site, lines_of, contexts, layers[0], layers[-1], {})
        for depth, layer in enumerate(layers):
            keys, now = _read(site, lines_of, contexts, layer, layers[-1], updates)
            residuals = (change - (now - before)) / (len(layers) - depth)
            reached = reaches[layer](keys.T).T.float()
            fresh = {
                w.id: replace(
                    w,
                    keys=_with_row(w.keys, depth, keys[n]),
                    reaches=_with_row(w.reaches, depth, reached[n]),
                    residuals=_with_row(w.residuals, depth, residuals[n]),
                )
                for n, w in enumerate(mine)
            }
            mine = [fresh[w.id] for w in mine]
            edit_set = replace(edit_set, written=tuple(fresh.get(w.id, w) for w in edit_set.written))
            edit_set = _pinned_at(site, edit_set, contexts, layer, reaches[layer], updates)
            ready = tuple(w for w in edit_set.written if w.dropped or w.layers in known)
            updates[edit_set.modules[layer]] = replace(edit_set, written=ready).factors_at(layer)
    return edit_set


def pinned(
    site: Site, edit_set: EditSet, contexts: Sequence[Context], reaches: Mapping[int, Callable[[Tensor], Tensor]]
) -> EditSet:
    """Return the set with the keys of its dropped facts read again, layer by layer, under the updates of lower layers.

    Args:
        site: The model, without the set's update.
        edit_set: A set with dropped facts.
        contexts: The texts around the prompts.
        reaches: By layer, the function from keys to their reach.

    Cost: a forward over the dropped facts' lines up to each layer.
    """
    updates: dict[str, Factors] = {}
    live = {layer for w in edit_set.live for layer in w.layers}
    for layer in sorted({layer for w in edit_set.written for layer in w.layers}):
        edit_set = _pinned_at(site, edit_set, contexts, layer, reaches[layer], updates)
        if layer in live:
            updates[edit_set.modules[layer]] = edit_set.factors_at(layer)
    return edit_set


def _pinned_at(
    site: Site,
    edit_set: EditSet,
    contexts: Sequence[Context],
    layer: int,
    reach: Callable[[Tensor], Tensor],
    updates: Mapping[str, Factors],
) -> EditSet:
    """Return the set with the keys of its dropped facts in one layer read again under the updates of lower layers."""
    mine = [w for w in edit_set.dropped if layer in w.layers]
    if not mine:
        return edit_set
    lines_of = [usable(contexts, site.tokenizer, w.fact) for w in mine]
    keys, _ = _read(site, lines_of, contexts, layer, layer, updates)
    reached = reach(keys.T).T.float()
    fresh = {}
    for n, w in enumerate(mine):
        row = w.layers.index(layer)
        fresh[w.id] = replace(w, keys=_with_row(w.keys, row, keys[n]), reaches=_with_row(w.reaches, row, reached[n]))
    return replace(edit_set, written=tuple(fresh.get(w.id, w) for w in edit_set.written))


@torch.no_grad()
def _read(
    site: Site,
    lines_of: Sequence[Sequence[Line]],
    contexts: Sequence[Context],
    layer: int,
    last: int,
    updates: Mapping[str, Factors],
) -> tuple[Tensor, Tensor]:
    """Return the key at `layer` (facts, in) and the output of block `last` (facts, hidden), as weighted means over lines."""
    lines = [line for own in lines_of for line in own]
    weights = torch.tensor([share for own in lines_of for share in shares(own, contexts)])
    read: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * len(lines)
    order = sorted(range(len(lines)), key=lambda i: lines[i].last)
    for start in range(0, len(order), ROWS):
        live = order[start : start + ROWS]
        width = lines[live[-1]].last + 1  # tokens to the right of a subject do not influence its state
        ids, _ = padded([lines[i].ids[:width] for i in live], site.pad)  # the mask is left out: padding is to the right
        at = torch.tensor([lines[i].last for i in live], device=site.device)
        context = (
            site.precision(),
            attention_for(width, site.device),
            only_at(site.model, None),
            overlaid(site, updates),
        )
        with (
            context[0],
            context[1],
            context[2],
            context[3],
            _watching(site, layer, last) as seen,
            suppress(StopForward),
        ):
            site.model(input_ids=ids.to(site.device), use_cache=False)
        rows = torch.arange(len(live), device=site.device)
        keys, outputs = seen["key"][rows, at].float().cpu(), seen["output"][rows, at].float().cpu()
        for n, i in enumerate(live):
            read[i] = (keys[n], outputs[n])
    sizes = [len(own) for own in lines_of]
    parts = [(torch.stack(values) * weights[:, None]).split(sizes) for values in zip(*read, strict=True)]
    return torch.stack([p.sum(0) for p in parts[0]]), torch.stack([p.sum(0) for p in parts[1]])


@contextmanager
def _watching(site: Site, layer: int, last: int) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that a forward fills: the input of a down-projection and the output of block `last`, where it stops."""
    seen: dict[str, Tensor] = {}

    def key(_: nn.Module, args: tuple) -> None:
        seen["key"] = args[0]

    def output(_: nn.Module, __: tuple, result: Tensor) -> None:
        seen["output"] = hidden_of(result)
        raise StopForward

    down = site.layout.module(site.model, site.layout.down[layer])
    with hooked(down.register_forward_pre_hook(key), site.layout.blocks[last].register_forward_hook(output)):
        yield seen


def _with_row(values: Tensor, row: int, value: Tensor) -> Tensor:
    values = values.clone()
    values[row] = value
    return values
