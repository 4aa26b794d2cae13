"""Facts written by fine-tuning a low-rank adapter: the baseline that every closed form must beat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from perdure.core.errors import Diverged
from perdure.core.keyed import keyed, seed_of
from perdure.editing.facts import Fact
from perdure.editing.overlay import overlaid_tensors
from perdure.editing.prompts import Context, Line, usable
from perdure.editing.site import Site
from perdure.editing.solve import Factors

ROWS = 16  # lines in a forward
RANK = 8


@dataclass(frozen=True)
class FactTraining:
    """How facts are trained.

    Args:
        steps: Largest number of updates. Training stops when the mean loss of the facts in a forward is below `until`.
        lr: Learning rate of Adam.
        locality: Factor of the divergence on other text.
        rank: Of the factors.
        until: Loss in nats per token.
        seed: Of the initial weights and of the order of the lines.
    """

    steps: int = 40
    lr: float = 5e-3
    locality: float = 1.0
    rank: int = RANK
    until: float = 0.1
    seed: int = 0


def train_facts(
    site: Site,
    facts: Sequence[Fact],
    contexts: Sequence[Context],
    layers: Sequence[int],
    texts: Sequence[Sequence[int]] = (),
    training: FactTraining = FactTraining(),
    *,
    tick: Callable[[int], None] | None = None,
) -> dict[str, Factors]:
    """Return an update of the down-projections of `layers`, trained by Adam to write the facts and to preserve other text.

    The loss is NLL(targets) + locality KL(before || after) on `texts`, at every token. The update has no column per fact, so a
    single fact cannot be removed.

    Args:
        site: The model; it is not changed.
        facts: The facts to write.
        contexts: The texts around the prompts.
        layers: Blocks whose down-projection gets factors.
        texts: Token ids of text whose distribution must not change; without texts there is no locality loss.
        training: How they are trained.
        tick: Called with the number of updates done.

    Raises:
        Diverged: A loss is not finite.

    Cost: per update, a forward and backward over 16 lines and over one of the texts.
    """
    names = [site.layout.down[layer] for layer in layers]
    random = torch.Generator().manual_seed(seed_of(training.seed, "lora edit") % 2**63)
    inner, hidden = site.layout.inner, site.layout.hidden
    down = {name: (torch.randn(training.rank, inner, generator=random) / inner**0.5).to(site.device) for name in names}
    up = {name: torch.zeros(hidden, training.rank, device=site.device) for name in names}
    variables = [value.requires_grad_(True) for value in (*down.values(), *up.values())]
    optimizer = torch.optim.Adam(variables, lr=training.lr)
    lines = [line for fact in facts for line in usable(contexts, site.tokenizer, fact)]
    order = keyed(training.seed, "lora order")
    for step in range(training.steps):
        some = [lines[i] for i in order.choice(len(lines), size=min(ROWS, len(lines)), replace=False)]
        with overlaid_tensors(site, {name: (down[name], up[name].T) for name in names}):
            fact_loss = _loss(site, some)
        loss = fact_loss
        if texts:
            text = texts[step % len(texts)]
            with torch.no_grad():
                before = _distribution(site, text)
            with overlaid_tensors(site, {name: (down[name], up[name].T) for name in names}):
                after = _distribution(site, text)
            loss = loss + training.locality * (before.exp() * (before - after)).sum(-1).mean()
        if not torch.isfinite(loss):
            raise Diverged(f"the loss of a trained edit is not finite at update {step}; lower lr")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if tick:
            tick(step + 1)
        if fact_loss.item() < training.until:
            break
    return {name: Factors(down[name].detach().double().cpu(), up[name].detach().double().cpu()) for name in names}


def _loss(site: Site, lines: Sequence[Line]) -> Tensor:
    """Return the mean loss of the lines' answers, in nats per token."""
    at = torch.tensor([(row, t - 1) for row, line in enumerate(lines) for t in range(line.answer, len(line.ids))]).T
    tokens = torch.tensor([token for line in lines for token in line.targets], device=site.device)
    return torch.nn.functional.cross_entropy(site.logits([line.ids[:-1] for line in lines], at), tokens)


def _distribution(site: Site, text: Sequence[int]) -> Tensor:
    """Return the log-probabilities (tokens, vocab) after every token of a text."""
    return site.logits([text], torch.tensor([(0, t) for t in range(len(text))]).T).log_softmax(-1)
