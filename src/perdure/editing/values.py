"""What a layer must answer so that the model says a fact: keys read off, and the change found by gradient descent."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perdure.core.errors import Diverged
from perdure.editing.batches import batches
from perdure.editing.facts import Fact
from perdure.editing.prompts import Context, Line, encode, shares, usable
from perdure.editing.site import Site
from perdure.editing.spec import SPREAD, EditSpec
from perdure.editing.tails import Tails, adding, cut, raise_to, run
from perdure.model.hooks import hidden_of, hooked

TINY = 1e-8  # a norm that is divided by is at least this
DRIFT = "{} is a"  # what a subject is must stay
FORWARD = 64  # tokens that cost as much as a forward does before the first one (measured on a processor's bfloat16)


@dataclass(frozen=True)
class Value:
    """What the optimisation found for one fact, or for several that share a key.

    Args:
        key: Input of the down-projection at the subject's last token (in,), weighted mean over contexts, float32.
        change: What is to be added to the answer (hidden,), float32: of the MLP, or of the block for methods that spread.
        loss: Mean loss of the target in nats a token, over the contexts, with the change.
        steps: Optimisation steps taken.
        size: Norm of the change over that of the answer it is added to.
    """

    key: Tensor
    change: Tensor
    loss: float
    steps: int
    size: float


def find_each(
    site: Site,
    facts: Sequence[Fact],
    contexts: Sequence[Context],
    spec: EditSpec,
    layer: int,
    tick: Callable[[int], None] | None = None,
) -> list[Value]:
    """Return key and change of every fact, about `spec.batch` facts at a time; see `batches` and `find_values`.

    Args:
        site: The model.
        facts: Different ones.
        contexts: The texts around their prompts.
        spec: Settings.
        layer: The block whose answer is changed.
        tick: Called with the number of facts done.
    """
    known = {fact.id: fact for fact in facts}
    found: dict[str, Value] = {}
    for batch in batches(list(known), spec.batch):
        values = find_values(site, [(known[one],) for one in batch], contexts, spec, layer)
        found |= zip(batch, values, strict=True)
        if tick:
            tick(len(found))
    return [found[fact.id] for fact in facts]


def find_values(
    site: Site, units: Sequence[Sequence[Fact]], contexts: Sequence[Context], spec: EditSpec, layer: int
) -> list[Value]:
    """Return key and change of every unit, found together in the same forwards.

    A unit is one fact, or several facts that one change is to say. Source for several: MEMIT-Merge, 2025, arXiv 2502.07322.

    Per unit, with d the change and a the mean answer before it:
    mean over contexts of NLL(target) + kl KL("SUBJECT is a", after || before) + decay |d|^2 / |a|^2,  |d| <= clamp |a|.

    Args:
        site: The model.
        units: The facts.
        contexts: The texts around their prompts; key and change are taken over the same ones.
        spec: Settings.
        layer: The block whose MLP's (or, for methods that spread, whole) answer is changed.

    Raises:
        Diverged: A loss is not finite.

    Cost: a forward over all lines, then at most `spec.steps` forwards and backwards from block `layer` on, over the tokens from
        the subject's last one on.
    Source: Meng et al. 2022, arXiv 2202.05262, eq. 4; Gupta et al. 2024, arXiv 2403.07175, for the key.
    Deviation: the decay is of the square, lr and clamp are relative to |a|, and each fact stops by its own loss, at `until` nats
        (official code: .05). The answers before are weighted means over contexts, for methods that spread too (official: the
        bare prompt's). The KL is read where "SUBJECT is a" ends, as in the paper (official code: at the subject).
    """
    place, parts = _place(site, spec, layer), _parts(site, _asks(site, units, contexts), layer)
    changes = [torch.zeros(site.layout.hidden, device=site.device, requires_grad=True) for _ in units]
    live, running = list(range(len(units))), parts
    steps, losses = [0] * len(units), [0.0] * len(units)
    for step in range(spec.steps + 1):
        change = torch.stack(changes)
        runs = _run(site, place, layer, running, change)
        if step == 0:
            keys, size = _means(runs, "key", len(units)), _means(runs, "answer", len(units)).norm(dim=1)
            before = _continuations(runs, len(units))
            optimizer = _optimizer(changes, spec, size)
        nll, kl = _losses(runs, before)
        total = nll + spec.kl * kl + spec.decay * change.square().sum(1) / size.square()
        if not torch.isfinite(total[live]).all():
            raise Diverged(f"the loss of an edit is not finite at step {step}; lower lr, or load the model in float32")
        for n in live:
            losses[n], steps[n] = nll[n].item(), step
        going = [n for n in live if losses[n] > spec.until]
        if step == spec.steps or not going:
            break
        optimizer.zero_grad()  # a fact that has arrived has no gradient, and Adam leaves it where it is
        total[going].sum().backward(inputs=[changes[n] for n in going])
        optimizer.step()
        _shorten([changes[n] for n in going], spec.limit * size[going])
        if going != live:
            live, running = going, [some for part in parts if (some := part.of(going))]
    found = torch.stack(changes).detach()
    sizes = (found.norm(dim=1) / size).tolist()
    return [Value(keys[n].cpu(), found[n].cpu(), losses[n], steps[n], sizes[n]) for n in range(len(units))]


def _optimizer(changes: Sequence[Tensor], spec: EditSpec, size: Tensor) -> torch.optim.Adam:
    """Return Adam over the changes, each with its own learning rate: a first step is `spec.pace` times the answer's norm long."""
    rates = (spec.pace * size / changes[0].numel() ** 0.5).tolist()
    return torch.optim.Adam([{"params": [change], "lr": lr} for change, lr in zip(changes, rates, strict=True)])


@torch.no_grad()
def _shorten(changes: Sequence[Tensor], limits: Tensor) -> None:
    """Scale down, in place, each change that is longer than its limit."""
    for change, limit in zip(changes, limits, strict=True):
        change *= (limit / change.norm().clamp(min=TINY)).clamp(max=1)


@dataclass(frozen=True)
class _Ask:
    """A line of a fact: what it weighs in the fact's key and in its loss; nothing where its continuation is to stay."""

    line: Line
    owner: int
    share: float
    weight: float


@dataclass(frozen=True)
class _Part:
    """Lines that run in one forward, and the tokens it is asked for.

    Args:
        asks: The lines.
        tails: The same as tails.
        rows: The fact of each line.
        at: (2, tokens) where each token of an answer is predicted, or the last token of a line whose continuation is to stay.
        tokens: The tokens of the answers.
        owner: The fact of each token.
        weight: What its loss weighs in the fact's mean; 0 where the continuation is to stay.
    """

    asks: tuple[_Ask, ...]
    tails: Tails
    rows: Tensor
    at: Tensor
    tokens: Tensor
    owner: Tensor
    weight: Tensor

    def of(self, live: Sequence[int]) -> "_Part | None":
        """Return the lines of these facts alone."""
        kept = [row for row, ask in enumerate(self.asks) if ask.owner in set(live)]
        return _part([self.asks[row] for row in kept], self.tails.rows(kept)) if kept else None


_Run = tuple[_Part, Tensor, dict[str, Tensor]]  # a part, its log-probabilities (tokens, vocab), what was read


def _run(site: Site, place: nn.Module, layer: int, parts: Sequence[_Part], change: Tensor) -> list[_Run]:
    """Return the log-probabilities of all parts with each fact's change (facts, hidden) added to the answer of `place`."""
    runs = []
    for part in parts:
        with adding(place, change[part.rows]), _reading(site, place, layer) as read:
            runs.append((part, run(site, part.tails, part.at).log_softmax(-1), read))
    return runs


def _asks(site: Site, units: Sequence[Sequence[Fact]], contexts: Sequence[Context]) -> list[_Ask]:
    """Return the lines of all facts in all contexts, and for each unit what its subject is, in the first context that serves."""
    asks = []
    for n, facts in enumerate(units):
        for fact in facts:
            lines = usable(contexts, site.tokenizer, fact)
            weighed = zip(lines, shares(lines, contexts), strict=True)
            asks += [_Ask(line, n, share / len(facts), 1 / len(lines) / len(facts)) for line, share in weighed]
        drift = [encode(site.tokenizer, c, DRIFT.format(facts[0].subject), facts[0].subject) for c in contexts]
        asks.append(_Ask(next((line for line in drift if line.last > 0), drift[0]), n, 0.0, 0.0))
    return asks


def _place(site: Site, spec: EditSpec, layer: int) -> nn.Module:
    """Return the module whose answer is changed."""
    if spec.method in SPREAD:
        return site.layout.blocks[layer]
    return site.layout.module(site.model, site.layout.down[layer])


def _parts(site: Site, asks: Sequence[_Ask], layer: int) -> list[_Part]:
    """Return the lines, short and long ones apart where padding them to one width costs more than a second forward."""
    order = sorted(asks, key=lambda ask: len(ask.line.ids) - ask.line.last)
    widths = [len(ask.line.ids) - ask.line.last for ask in order]
    padded = [widths[n - 1] * n + widths[-1] * (len(order) - n) + FORWARD for n in range(1, len(order))]
    short = padded.index(min(padded)) + 1 if padded and min(padded) < widths[-1] * len(order) else 0
    groups = [order[:short], order[short:]] if short else [order]
    return [_part(group, raise_to(site, cut(site, [ask.line for ask in group]), layer)) for group in groups]


def _part(asks: Sequence[_Ask], tails: Tails) -> _Part:
    device = tails.ids.device
    found = []
    for row, (ask, answer) in enumerate(zip(asks, tails.answers, strict=True)):
        for position, token in answer or ((len(ask.line.ids) - 1 - ask.line.last, 0),):
            found.append((row, position, token, ask.owner))
    row_of, at, tokens, owner = torch.tensor(found, device=device).T
    weights = [ask.weight / max(1, len(answer)) for ask, answer in zip(asks, tails.answers, strict=True)]
    rows = torch.tensor([ask.owner for ask in asks], device=device)
    weight = torch.tensor(weights, device=device)[row_of]
    return _Part(tuple(asks), tails, rows, torch.stack([row_of, at]), tokens, owner, weight)


def _continuations(runs: Sequence[_Run], count: int) -> Tensor:
    """Return how each fact's subject goes on (facts, vocab), as log-probabilities."""
    before = torch.zeros(count, runs[0][1].shape[-1], device=runs[0][1].device)
    for part, logp, _ in runs:
        stays = part.weight == 0
        before[part.owner[stays]] = logp[stays].detach()
    return before


def _losses(runs: Sequence[_Run], before: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean loss of the target and the drift of the subject, each (facts,); facts that are not asked get 0."""
    nll = torch.zeros(len(before), device=before.device)
    kl = nll.clone()
    for part, logp, _ in runs:
        nll = nll.index_add(0, part.owner, -part.weight * logp.gather(-1, part.tokens[:, None])[:, 0])
        stays = part.weight == 0
        whose, now = part.owner[stays], logp[stays]
        kl = kl.index_add(0, whose, (now.exp() * (now - before[whose])).sum(-1))
    return nll, kl


def _means(runs: Sequence[_Run], what: str, count: int) -> Tensor:
    """Return the mean over each fact's contexts by their shares, (facts, width) in float32."""
    total = torch.zeros(count, runs[0][2][what].shape[1], device=runs[0][1].device)
    for part, _, read in runs:
        share = torch.tensor([ask.share for ask in part.asks], device=total.device)
        total = total.index_add(0, part.rows, read[what].float() * share[:, None])
    return total


@contextmanager
def _reading(site: Site, place: nn.Module, layer: int) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that a forward fills at position 0: "key", what the down-projection got, "answer", what `place` said."""
    read: dict[str, Tensor] = {}

    def key(_: nn.Module, args: tuple) -> None:
        read["key"] = args[0][:, 0].detach()

    def answer(_: nn.Module, __: tuple, output: Tensor) -> None:
        read["answer"] = hidden_of(output)[:, 0].detach()

    down = site.layout.module(site.model, site.layout.down[layer])
    with hooked(down.register_forward_pre_hook(key), place.register_forward_hook(answer)):
        yield read
