"""Single edits tried in several layers."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from perdure.core.errors import BadSpec
from perdure.core.progress import Tick
from perdure.editing.contexts import contexts_of
from perdure.editing.facts import Fact
from perdure.editing.measures import Verdict
from perdure.editing.moments import Statistics
from perdure.editing.overlay import one_each
from perdure.editing.site import Tokenizer, open_site
from perdure.editing.solve import Factors
from perdure.editing.spec import SPREAD, EditSpec
from perdure.editing.values import Value, find_each
from perdure.editing.verification import verify
from perdure.model.layout import Precision


def sweep_layers(
    model: Any,
    tokenizer: Tokenizer,
    facts: Sequence[Fact],
    layers: Sequence[int],
    spec: EditSpec | None = None,
    *,
    generation: bool = False,
    precision: Precision = nullcontext,
    statistics: Statistics = Statistics(),
    tick: Tick | None = None,
) -> dict[int, list[Verdict]]:
    """Return the verdicts of single edits of each fact in each layer, since causal tracing does not predict where to edit.

    Every fact is written alone. The facts of one layer are verified in the same forwards, each under its own update. With
    `generation` the model also generates text from each prompt, one after the other.

    Raises:
        BadSpec: The method spreads facts over layers; sweep with emmet.

    Source: Hase et al., "Does Localization Inform Editing?", 2023, arXiv 2301.04213, which shows that it does not.
    """
    spec = spec or EditSpec()
    if spec.method in SPREAD:
        raise BadSpec(f"{spec.method} spreads facts over layers; sweep with method emmet")
    verdicts = {}
    with open_site(model, tokenizer, precision) as site:
        contexts = contexts_of(site, spec)
        reaches = statistics.reaches(site, spec, layers, tick=tick)
        for n, layer in enumerate(layers):

            def done(written: int, n: int = n, layer: int = layer) -> None:
                if tick:
                    tick(f"single edits, layer {layer}", n * len(facts) + written, len(layers) * len(facts))

            values = find_each(site, facts, contexts, spec, layer, done)
            alone = single_edits(values, reaches[layer])
            verdicts[layer] = verify(
                site, facts, one_each(site, {site.layout.down[layer]: alone}), generation=generation
            )
    return verdicts


def single_edits(values: Sequence[Value], reach: Callable[[Tensor], Tensor]) -> Factors:
    """Return each fact's own rank-one update, row by row: r (C^-1 k)^T / (k^T C^-1 k), as if it were the only one."""
    keys = torch.stack([value.key for value in values], 1).double()
    reaches = reach(keys)
    return Factors((reaches / (keys * reaches).sum(0)).T, torch.stack([value.change for value in values], 1).double())
