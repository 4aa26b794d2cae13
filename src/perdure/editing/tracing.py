"""Causal tracing: add noise to the subject, and measure which restored state recovers the answer."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from perdure.core.errors import BadInput
from perdure.core.keyed import keyed
from perdure.editing.prompts import BARE, Line, encode, too_long
from perdure.editing.site import Site, Tokenizer, open_site
from perdure.editing.traces import Kind, Trace
from perdure.model.hooks import hidden_of, hooked, with_hidden
from perdure.model.layers import positions_of
from perdure.model.layout import Precision

ROWS = 64  # noisy copies in a forward


@torch.no_grad()
def trace(
    model: Any,
    tokenizer: Tokenizer,
    prompt: str,
    subject: str,
    *,
    kind: Kind = "block",
    window: int | None = None,
    noise: float = 3.0,
    samples: int = 10,
    seed: int = 0,
    at: int | None = None,
    precision: Precision = nullcontext,
    tick: Callable[[int, int], None] | None = None,
) -> Trace:
    """Return how far restoring one state, or a window of module outputs, recovers the answer under noise on the subject.

    Every (token, layer) is tried with the same `samples` noises, which are added to the embeddings of the subject's tokens. The
    answer is the model's own most likely next token.

    Args:
        model: The causal language model; it is not changed.
        tokenizer: Its tokenizer, a fast one.
        prompt: A prompt that names the subject.
        subject: The name whose tokens get the noise.
        kind: "block" restores the output of one block; "mlp" and "attention" those of these modules in a window of layers.
        window: Layers restored together under "mlp" and "attention", centred; None takes a fifth of the model's layers.
        noise: Standard deviation of the noise, in standard deviations of all the embeddings' entries.
        samples: Number of noises.
        seed: Of the noises.
        at: Where the subject begins in the prompt; None takes its last occurrence as a word.
        precision: Context of the forwards.
        tick: Called with the number of tokens done and the total.

    Raises:
        BadInput: The prompt does not name the subject or is longer than the model's positions, or the model cannot be traced.

    Cost: tokens x layers x samples rows of the prompt's length.
    Source: Meng et al. 2022, arXiv 2202.05262, section 2.
    Deviation: sigma is that of the whole embedding matrix, not of the subjects of a file of facts; MLP and attention are
        restored at their last linear layer, which is their output where no norm follows it.
    """
    if why := too_long(tokenizer, [prompt], positions_of(model.config)):
        raise BadInput(f"the prompt cannot be traced: {why}; shorten it")
    with open_site(model, tokenizer, precision) as site:
        line = encode(tokenizer, BARE, prompt, subject, at=at)
        depth, width = site.layout.depth, len(line.ids)
        reach = 1 if kind == "block" else min(window or max(1, depth // 5), depth)
        noises = _noises(site, line, noise, samples, seed)
        places = _places(site, kind)
        clean = _clean(site, line, places)
        answer = int(clean[-1].argmax())
        high = clean[-1].softmax(-1)[answer].item()
        run = _NoisyRun(site, line, places, noises, clean, answer)
        low = run.chance([[]], 0).mean().item()
        restored = torch.zeros(width, depth)
        centres = [list(range(max(0, n - reach // 2), min(depth, n - reach // 2 + reach))) for n in range(depth)]
        at_once = max(1, ROWS // samples)
        for token in range(width):
            for start in range(0, depth, at_once):
                some = centres[start : start + at_once]
                restored[token, start : start + len(some)] = run.chance(some, token)
            if tick:
                tick(token + 1, width)
        words = tuple(tokenizer.decode([i]) for i in line.ids)
        span = (line.first, line.last + 1)
        return Trace(kind, words, span, tokenizer.decode([answer]), high, low, restored.double().numpy(), reach)


def _noises(site: Site, line: Line, noise: float, samples: int, seed: int) -> Tensor:
    """Return (samples, subject tokens, hidden) noises of `noise` standard deviations of the embeddings' entries."""
    weight: Tensor = site.layout.embedding.weight  # type: ignore[assignment]
    drawn = keyed(seed, "tracing").standard_normal((samples, line.last + 1 - line.first, weight.shape[1]))
    return torch.from_numpy(drawn).to(site.device, torch.float32) * (noise * weight.float().std())


def _places(site: Site, kind: Kind) -> list[nn.Module]:
    if kind == "block":
        return list(site.layout.blocks)
    names = site.layout.down if kind == "mlp" else site.layout.mixed
    return [site.layout.module(site.model, name) for name in names]


def _clean(site: Site, line: Line, places: Sequence[nn.Module]) -> list[Tensor]:
    """Return the output of each place (tokens, hidden) without noise, followed by the logits of the next token."""
    seen: list[Tensor] = []

    def record(_: nn.Module, __: tuple, output: Any) -> None:
        seen.append(hidden_of(output)[0].clone())

    with hooked(*[place.register_forward_hook(record) for place in places]):
        logits = site.logits([line.ids], torch.tensor([[0], [len(line.ids) - 1]]))
    return [*seen, logits[0]]


@dataclass(frozen=True, eq=False)
class _NoisyRun:
    """A prompt that runs with noise on its subject.

    Args:
        site: The model.
        line: The prompt.
        places: The modules whose outputs can be restored, by layer.
        noises: (samples, subject tokens, hidden).
        clean: The output of each place without noise.
        answer: Token of the answer.
    """

    site: Site
    line: Line
    places: Sequence[nn.Module]
    noises: Tensor
    clean: Sequence[Tensor]
    answer: int

    def chance(self, centres: Sequence[Sequence[int]], token: int) -> Tensor:
        """Return for each set of layers the mean probability of the answer over the noises, these places restored at `token`."""
        line, samples = self.line, len(self.noises)
        rows = samples * len(centres)
        last = torch.stack([torch.arange(rows), torch.full((rows,), len(line.ids) - 1)])
        noisy = _noisy(self.site, line, self.noises.repeat(len(centres), 1, 1))
        with noisy, _restoring(self.places, centres, self.clean, token, samples):
            chances = self.site.logits([line.ids] * rows, last).softmax(-1)[:, self.answer]
        return chances.view(len(centres), samples).mean(1).cpu()


@contextmanager
def _noisy(site: Site, line: Line, noises: Tensor) -> Iterator[None]:
    def add(_: nn.Module, __: tuple, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, line.first : line.last + 1] += noises.to(output.dtype)
        return output

    with hooked(site.layout.embedding.register_forward_hook(add)):
        yield


@contextmanager
def _restoring(
    places: Sequence[nn.Module], centres: Sequence[Sequence[int]], clean: Sequence[Tensor], token: int, samples: int
) -> Iterator[None]:
    """Restore the noise-free output of each place at `token`, in the rows whose set of layers contains it."""

    def hook(layer: int, rows: list[int]) -> Callable[[nn.Module, tuple, Any], Any]:
        def restore(_: nn.Module, __: tuple, output: Any) -> Any:
            hidden = hidden_of(output).clone()
            hidden[rows, token] = clean[layer][token]
            return with_hidden(output, hidden)

        return restore

    with ExitStack() as stack:
        for layer, place in enumerate(places):
            rows = [n * samples + i for n, layers in enumerate(centres) if layer in layers for i in range(samples)]
            if rows:
                stack.enter_context(hooked(place.register_forward_hook(hook(layer, rows))))
        yield
