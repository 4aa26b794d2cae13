"""Key and value of a fact: the key is read from the model, the change of the layer's answer is found by gradient descent."""

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

TINY = 1e-8  # smallest norm to divide by
DRIFT = "{} is a"  # the next token after this text must not change: it gives the subject's kind
FORWARD = 64  # the fixed cost of a forward, in tokens (measured in bfloat16 on a CPU)


@dataclass(frozen=True)
class Value:
    """The result of the optimisation for one fact, or for several that share a key.

    Args:
        key: Input of the down-projection at the subject's last token (in,), weighted mean over contexts, float32.
        change: The vector to add to the answer (hidden,), float32: of the MLP, or of the block for methods that spread.
        loss: Mean loss of the target in nats a token, over the contexts, with the change.
        steps: Optimisation steps taken.
        size: Norm of the change, divided by the norm of the answer that it is added to.
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
        facts: The facts, all different.
        contexts: The texts around their prompts.
        spec: Settings.
        layer: The block whose answer is changed.
        tick: Called with the number of facts done.
    """
    known = {fact.id: fact for fact in facts}
    values_of: dict[str, Value] = {}
    for batch in batches(list(known), spec.batch):
        values = find_values(site, [(known[one],) for one in batch], contexts, spec, layer)
        values_of |= zip(batch, values, strict=True)
        if tick:
            tick(len(values_of))
    return [values_of[fact.id] for fact in facts]


def find_values(
    site: Site, units: Sequence[Sequence[Fact]], contexts: Sequence[Context], spec: EditSpec, layer: int
) -> list[Value]:
    """Return key and change of every unit, optimised together in the same forwards.

    A unit is one fact, or several facts with one common change (MEMIT-Merge, 2025, arXiv 2502.07322). The loss per unit is

    mean over contexts of NLL(target) + kl KL("SUBJECT is a", after || before) + decay |d|^2 / |a|^2,  |d| <= clamp |a|,

    where d is the change and a the mean answer before it.

    Args:
        site: The model.
        units: The facts.
        contexts: The texts around their prompts; key and change are means over all of them.
        spec: Settings.
        layer: The block whose MLP's answer is changed; for methods that spread, the block's whole answer.

    Raises:
        Diverged: A loss is not finite.

    Cost: a forward over all lines, then at most `spec.steps` forwards and backwards from block `layer` on, over the tokens from
        the subject's last one on.
    Source: Meng et al. 2022, arXiv 2202.05262, eq. 4; Gupta et al. 2024, arXiv 2403.07175, for the key.
    Deviation: the decay is of the squared norm, and lr and clamp are relative to |a|. Each fact stops by its own loss, at `until`
        nats (official code: .05). The answers before the change are weighted means over contexts, for methods that spread too
        (official code: the answer to the bare prompt). The KL is computed at the end of "SUBJECT is a", as in the paper (official
        code: at the subject).
    """
    place, parts = _place(site, spec, layer), _parts(site, _fact_lines(site, units, contexts), layer)
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
        optimizer.zero_grad()  # a fact below `until` has no gradient, so Adam skips it
        total[going].sum().backward(inputs=[changes[n] for n in going])
        optimizer.step()
        _shorten([changes[n] for n in going], spec.limit * size[going])
        if going != live:
            live, running = going, [some for part in parts if (some := part.of(going))]
    final = torch.stack(changes).detach()
    sizes = (final.norm(dim=1) / size).tolist()
    return [Value(keys[n].cpu(), final[n].cpu(), losses[n], steps[n], sizes[n]) for n in range(len(units))]


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
class _FactLine:
    """A line of a fact, with its weight in the fact's key and in its loss; both are 0 if its continuation must not change."""

    line: Line
    owner: int
    share: float
    weight: float


@dataclass(frozen=True)
class _Part:
    """Lines that run in one forward, and the tokens to predict.

    Args:
        lines: The lines.
        tails: The same lines as tails.
        rows: The fact of each line.
        at: (2, tokens) where each token of an answer is predicted, or the last token of a line with a fixed continuation.
        tokens: The tokens of the answers.
        owner: The fact of each token.
        weight: Weight of its loss in the fact's mean; 0 in a line with a fixed continuation.
    """

    lines: tuple[_FactLine, ...]
    tails: Tails
    rows: Tensor
    at: Tensor
    tokens: Tensor
    owner: Tensor
    weight: Tensor

    def of(self, live: Sequence[int]) -> "_Part | None":
        """Return the lines of these facts alone."""
        chosen = [row for row, line in enumerate(self.lines) if line.owner in set(live)]
        return _part([self.lines[row] for row in chosen], self.tails.rows(chosen)) if chosen else None


_Run = tuple[
    _Part, Tensor, dict[str, Tensor]
]  # a part, its log-probabilities (tokens, vocab), the vectors read in the forward


def _run(site: Site, place: nn.Module, layer: int, parts: Sequence[_Part], change: Tensor) -> list[_Run]:
    """Return the log-probabilities of all parts with each fact's change (facts, hidden) added to the answer of `place`."""
    runs = []
    for part in parts:
        with adding(place, change[part.rows]), _reading(site, place, layer) as read:
            runs.append((part, run(site, part.tails, part.at).log_softmax(-1), read))
    return runs


def _fact_lines(site: Site, units: Sequence[Sequence[Fact]], contexts: Sequence[Context]) -> list[_FactLine]:
    """Return the lines of all facts in all contexts, and for each unit one line with a fixed continuation, "SUBJECT is a"."""
    made = []
    for n, facts in enumerate(units):
        for fact in facts:
            lines = usable(contexts, site.tokenizer, fact)
            weighed = zip(lines, shares(lines, contexts), strict=True)
            made += [_FactLine(line, n, share / len(facts), 1 / len(lines) / len(facts)) for line, share in weighed]
        drift = [encode(site.tokenizer, c, DRIFT.format(facts[0].subject), facts[0].subject) for c in contexts]
        made.append(_FactLine(next((line for line in drift if line.last > 0), drift[0]), n, 0.0, 0.0))
    return made


def _place(site: Site, spec: EditSpec, layer: int) -> nn.Module:
    """Return the module whose answer is changed."""
    if spec.method in SPREAD:
        return site.layout.blocks[layer]
    return site.layout.module(site.model, site.layout.down[layer])


def _parts(site: Site, lines: Sequence[_FactLine], layer: int) -> list[_Part]:
    """Return the lines in one part, or in a short and a long one where padding to one width costs more than a second forward."""
    order = sorted(lines, key=lambda one: len(one.line.ids) - one.line.last)
    widths = [len(one.line.ids) - one.line.last for one in order]
    padded = [widths[n - 1] * n + widths[-1] * (len(order) - n) + FORWARD for n in range(1, len(order))]
    short = padded.index(min(padded)) + 1 if padded and min(padded) < widths[-1] * len(order) else 0
    groups = [order[:short], order[short:]] if short else [order]
    return [_part(group, raise_to(site, cut(site, [one.line for one in group]), layer)) for group in groups]


def _part(lines: Sequence[_FactLine], tails: Tails) -> _Part:
    device = tails.ids.device
    predicted = []
    for row, (one, answer) in enumerate(zip(lines, tails.answers, strict=True)):
        for position, token in answer or ((len(one.line.ids) - 1 - one.line.last, 0),):
            predicted.append((row, position, token, one.owner))
    row_of, at, tokens, owner = torch.tensor(predicted, device=device).T
    weights = [one.weight / max(1, len(answer)) for one, answer in zip(lines, tails.answers, strict=True)]
    rows = torch.tensor([one.owner for one in lines], device=device)
    weight = torch.tensor(weights, device=device)[row_of]
    return _Part(tuple(lines), tails, rows, torch.stack([row_of, at]), tokens, owner, weight)


def _continuations(runs: Sequence[_Run], count: int) -> Tensor:
    """Return the log-probabilities of the token after each fact's line with a fixed continuation (facts, vocab)."""
    before = torch.zeros(count, runs[0][1].shape[-1], device=runs[0][1].device)
    for part, logp, _ in runs:
        fixed = part.weight == 0
        before[part.owner[fixed]] = logp[fixed].detach()
    return before


def _losses(runs: Sequence[_Run], before: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean loss of the target and the drift of the subject, each (facts,); 0 for facts that did not run."""
    nll = torch.zeros(len(before), device=before.device)
    kl = nll.clone()
    for part, logp, _ in runs:
        nll = nll.index_add(0, part.owner, -part.weight * logp.gather(-1, part.tokens[:, None])[:, 0])
        fixed = part.weight == 0
        owner, now = part.owner[fixed], logp[fixed]
        kl = kl.index_add(0, owner, (now.exp() * (now - before[owner])).sum(-1))
    return nll, kl


def _means(runs: Sequence[_Run], what: str, count: int) -> Tensor:
    """Return the mean over each fact's contexts, weighted by their shares, (facts, width) in float32."""
    total = torch.zeros(count, runs[0][2][what].shape[1], device=runs[0][1].device)
    for part, _, read in runs:
        share = torch.tensor([line.share for line in part.lines], device=total.device)
        total = total.index_add(0, part.rows, read[what].float() * share[:, None])
    return total


@contextmanager
def _reading(site: Site, place: nn.Module, layer: int) -> Iterator[dict[str, Tensor]]:
    """Yield a dict that a forward fills at position 0: "key" (input of the down-projection), "answer" (output of `place`)."""
    read: dict[str, Tensor] = {}

    def key(_: nn.Module, args: tuple) -> None:
        read["key"] = args[0][:, 0].detach()

    def answer(_: nn.Module, __: tuple, output: Tensor) -> None:
        read["answer"] = hidden_of(output)[:, 0].detach()

    down = site.layout.module(site.model, site.layout.down[layer])
    with hooked(down.register_forward_pre_hook(key), place.register_forward_hook(answer)):
        yield read
