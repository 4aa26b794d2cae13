"""The second moment of a layer's keys on ordinary text, measured once per model and cached on disk.

The model itself generates the text, each text from a random first token. So no corpus is needed, the text has the languages and
styles of the model, and the same model always gives the same text.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from perdure.core.canonical import content_hash
from perdure.core.errors import Unsolvable
from perdure.core.files import save_tensors, write_atomically
from perdure.core.keyed import keyed
from perdure.core.progress import Tick
from perdure.editing.site import Site
from perdure.editing.solve import metric
from perdure.editing.spec import EditSpec
from perdure.maths.precision import without_autocast
from perdure.model.decode import continued
from perdure.model.head import only_at
from perdure.model.hooks import StopForward, hooked

TOKENS_PER_WIDTH = 10  # tokens per dimension of the key: the error of the moment is then smaller than the ridge
LENGTH = 128  # tokens of a text, or fewer where the model has fewer positions
ROWS = 128  # texts generated in a forward
STRETCH = 32  # tokens generated between two saves; after each the prefix is read anew, for the same bits after a kill
READ = 16  # texts read in a forward
SAVED = 20.0  # seconds between two saves while texts are read
CHOICES = 50  # the next token is sampled from the 50 most likely ones
FORMAT = 3  # 1 was summed in bfloat16 where the model ran in it; 2 used text that was generated without saves

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Statistics:
    """The model that second moments are computed on, and the folder that caches them.

    Args:
        cache: The folder; None caches nothing.
        model: A name that identifies this model; the hash of its weights if None.
        bare: Context in which the loaded model is the one to compute them on.
    """

    cache: Path | None = None
    model: str | None = None
    bare: Callable[[], AbstractContextManager] = nullcontext

    def moments(
        self, site: Site, layers: Sequence[int], *, seed: int = 0, state: str | None = None, tick: Tick | None = None
    ) -> dict[int, Tensor]:
        """Return the second moment of the keys of each layer; see `second_moments`."""
        with self.bare():
            return second_moments(site, layers, seed=seed, cache=self.cache, model=self.model or state, tick=tick)

    def reaches(
        self, site: Site, spec: EditSpec, layers: Sequence[int], *, state: str | None = None, tick: Tick | None = None
    ) -> dict[int, Callable[[Tensor], Tensor]]:
        """Return the metric of the keys of each layer; see `solve.metric`.

        Raises:
            Unsolvable: A layer's statistics give no metric; the message names the layer.
        """
        metrics = {}
        for layer, moment in self.moments(site, layers, seed=spec.seed, state=state, tick=tick).items():
            try:
                metrics[layer] = metric(moment, spec.method, spec.ridge, spec.energy)
            except Unsolvable as error:
                raise Unsolvable(f"layer {layer} cannot be edited: {error}") from error
        return metrics


def second_moments(
    site: Site,
    layers: Sequence[int],
    *,
    seed: int = 0,
    cache: Path | None = None,
    model: str | None = None,
    tick: Tick | None = None,
) -> dict[int, Tensor]:
    """Return C = E[k k^T] (in, in), float32, of the inputs of the down-projections of `layers`, by layer.

    Position 0 of a text is left out: its state is an attention sink, so large that it would dominate the sum. A run that was
    stopped resumes from the cache and gives the same bits.

    Args:
        site: The model.
        layers: Numbers of the blocks.
        seed: Of the model's own texts.
        cache: Folder for text and results. Each file is named by the hash of everything that its content depends on.
        model: A name that identifies the model; the hash of its weights if None.
        tick: Called with the progress.

    Raises:
        Unsolvable: The model's logits are not finite.

    Cost: about 10 x in tokens generated once per model, and a forward over them up to the last missing layer; nothing where the
        cache has all. On disk 4 x in^2 bytes per layer and 8 bytes per token.

    Source: Meng et al. 2022, section 3.1 for the statistic; arXiv 2506.04226 for the small number of tokens.
    Deviation: the model's own text; position 0 is left out.
    """
    store = Store.of(site, seed, cache, model)
    cached = {layer: store.get("moment", layer) for layer in layers}
    moments = {layer: tensors["moment"] for layer, tensors in cached.items() if tensors}
    if missing := [layer for layer in layers if layer not in moments]:
        texts = own_texts(site, seed, store, tick)
        moments |= measured(site, missing, texts, store, tick)
        for layer in missing:
            store.put({"moment": moments[layer]}, "moment", layer)
    return {layer: moments[layer] for layer in layers}


def weights_hash(model: nn.Module) -> str:
    """Return the SHA-256 over all weights and buffers of a model. Cost: reads each once."""
    digest = hashlib.sha256()
    for name, value in sorted((*model.named_parameters(), *model.named_buffers())):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Store:
    """Cached tensors in the files of a folder, each named by the hash of everything that it depends on; no folder, no cache."""

    folder: Path | None
    about: Sequence[object]

    @classmethod
    def of(cls, site: Site, seed: int, folder: Path | None, model: str | None) -> "Store":
        """Return the files of one model and seed."""
        if folder is None:
            return cls(None, ())
        vocabulary = content_hash(sorted(site.tokenizer.get_vocab().items()))
        name = model or weights_hash(site.model)
        return cls(folder, (FORMAT, name, vocabulary, seed, TOKENS_PER_WIDTH, LENGTH, STRETCH, CHOICES))

    def get(self, *what: object) -> Tensors | None:
        """Return the cached tensors; None where there is no file or it is damaged, and is to be written again."""
        if self.folder is None or not (path := self._path(*what)).is_file():
            return None
        try:
            return load_file(path)
        except (SafetensorError, OSError):
            return None

    def put(self, tensors: Tensors, *what: object) -> None:
        """Write tensors to the cache."""
        if self.folder is not None:
            whole = {name: value.contiguous() for name, value in tensors.items()}
            write_atomically(self._path(*what), lambda path: save_tensors(whole, path))

    def drop(self, *what: object) -> None:
        """Remove a file from the cache."""
        if self.folder is not None:
            self._path(*what).unlink(missing_ok=True)

    def _path(self, *what: object) -> Path:
        return self.folder / f"{content_hash([*self.about, *what])}.safetensors"  # type: ignore[operator]


@torch.no_grad()
def own_texts(site: Site, seed: int, store: Store, tick: Tick | None = None) -> Tensor:
    """Return token ids (texts, tokens) of texts that the model generates, each from one random token."""
    wanted = TOKENS_PER_WIDTH * site.layout.inner
    length = min(LENGTH, getattr(site.model.config, "max_position_embeddings", LENGTH))
    cached = store.get("text")
    texts = cached["ids"] if cached else _openings(site, -(-wanted // (length - 1)), length, seed)
    for start in range(0, len(texts), ROWS):
        live = texts[start : start + ROWS]
        for begin in range(1, length, STRETCH):
            end = min(begin + STRETCH, length)
            if (live[:, begin:end] < 0).any():
                generator = torch.Generator().manual_seed(int(keyed(seed, "own texts", start, begin).integers(2**62)))

                def report(at: int, start: int = start, live: Tensor = live) -> None:
                    if tick:
                        tick(
                            "measuring the model once for edits: its text",
                            start * (length - 1) + len(live) * at,
                            len(texts) * (length - 1),
                        )

                _generate(site, live, range(begin, end), generator, report)
                store.put({"ids": texts}, "text")
    return texts


def _openings(site: Site, count: int, length: int, seed: int) -> Tensor:
    """Return texts (count, length) with a random first token; the other tokens are -1."""
    special = set(site.tokenizer.all_special_ids)
    plain = torch.tensor([i for i in range(len(site.tokenizer)) if i not in special])
    texts = torch.full((count, length), -1)
    texts[:, 0] = plain[torch.from_numpy(keyed(seed, "own texts").integers(len(plain), size=count))]
    return texts


def _generate(
    site: Site, texts: Tensor, positions: range, generator: torch.Generator, tick: Callable[[int], None]
) -> None:
    """Fill the texts at `positions`, given the tokens before these."""
    at = iter(positions)

    def choose(logits: Tensor) -> Tensor:
        chances, tokens = logits.topk(min(CHOICES, logits.shape[-1]))
        if not torch.isfinite(chances).all():
            raise Unsolvable(
                "the model's logits are not finite on its own text, so the statistics of its keys cannot be measured; "
                "load it in float32"
            )
        picks = torch.multinomial(chances.softmax(-1).cpu(), 1, generator=generator)
        tick(next(at))
        return tokens.cpu().gather(1, picks)[:, 0]

    with site.precision():
        before = texts[:, : positions.start].tolist()
        texts[:, positions.start : positions.stop] = continued(site.model, before, len(positions), choose, pad=site.pad)


@torch.no_grad()
def measured(
    site: Site, layers: Sequence[int], texts: Tensor, store: Store, tick: Tick | None = None
) -> dict[int, Tensor]:
    """Return the second moment by layer over all positions but the first of each text."""
    inner, part = site.layout.inner, ("sums", *sorted(layers))
    cached = store.get(*part) or {}
    done = int(cached.get("done", 0))
    sums = {layer: cached.get(str(layer), torch.zeros(inner, inner, dtype=torch.float64)) for layer in layers}
    saved = time.monotonic()
    for start in range(done, len(texts), READ):
        with site.precision(), _summing(site, sums), only_at(site.model, None), suppress(StopForward):
            site.model(input_ids=texts[start : start + READ].to(site.device), use_cache=False)
        done = min(start + READ, len(texts))
        if tick:
            tick("measuring the model once for edits: its keys", done, len(texts))
        if time.monotonic() - saved > SAVED and done < len(texts):
            store.put({"done": torch.tensor(done), **{str(layer): value for layer, value in sums.items()}}, *part)
            saved = time.monotonic()
    store.drop(*part)
    return {layer: (value / (len(texts) * (texts.shape[1] - 1))).float() for layer, value in sums.items()}


@contextmanager
def _summing(site: Site, sums: dict[int, Tensor]) -> Iterator[None]:
    """Add k k^T of every position but the first to `sums`, and stop the forward after the last layer of `sums`.

    Products are in float32, whatever the precision of the forward; sums over forwards are in float64.
    """
    last = max(sums)

    def hook(layer: int) -> Callable[[nn.Module, tuple], None]:
        def add(_: nn.Module, args: tuple) -> None:
            keys = args[0][:, 1:].flatten(0, 1).float()
            with without_autocast(site.device):  # a sum rounded to bfloat16 has negative eigenvalues
                product = keys.T @ keys
            sums[layer] += product.cpu().double()
            if layer == last:
                raise StopForward

        return add

    with ExitStack() as stack:
        for layer in sums:
            module = site.layout.module(site.model, site.layout.down[layer])
            stack.enter_context(hooked(module.register_forward_pre_hook(hook(layer))))
        yield
