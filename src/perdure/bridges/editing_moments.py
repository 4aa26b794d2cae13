"""The second moment of a layer's keys on ordinary text, measured once and kept on disk under the hash of all it depends on.

The text is, unless the caller gives some, what the model itself says when it starts from a random token: that needs no
corpus, is in the languages and styles of the model, and is the same wherever the model is the same.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from perdure.bridges.editing_tails import Enough, Site
from perdure.bridges.layout import hooked
from perdure.core.canonical import content_hash
from perdure.core.files import save_tensors, write_atomically
from perdure.core.heads import only_at
from perdure.core.keyed import keyed
from perdure.core.progress import Tick
from perdure.evaluate.decode import Asked
from perdure.maths.precision import without_autocast

TOKENS_PER_WIDTH = 10  # tokens a dimension of the key: the moment's error is then below what the ridge covers
LENGTH = 128  # tokens of a text, where the model takes so many
ROWS = 128  # texts in a forward
CHOICES = 50  # most likely tokens that a text's next one is drawn from
FORMAT = 2  # 1 was summed in bfloat16 where the model ran in it


def second_moments(
    site: Site,
    layers: Sequence[int],
    *,
    seed: int = 0,
    texts: Sequence[str] = (),
    cache: Path | None = None,
    state: str | None = None,
    tick: Tick | None = None,
) -> dict[int, Tensor]:
    """Return C = E[k k^T] (in, in), float32, of the inputs of the down-projections of `layers`, by layer.

    Position 0 of a text is left out: its state is an attention sink of a size that would drown all others.

    Args:
        site: The model.
        layers: Numbers of the blocks.
        seed: Of the model's own texts.
        texts: Text to use instead; about 10 tokens for each dimension of a key are taken.
        cache: Folder to keep results in; a file is named by the hash of weights up to that layer, tokenizer and text.
        state: The model's `weights_hash`, where it is known already.
        tick: Called as it goes on.

    Cost: about 10 x in tokens generated once a model, and read up to the last layer missing; nothing where the cache has all.
        4 x in^2 bytes a layer on disk, and 8 bytes a token.

    Source: Meng et al. 2022, section 3.1 for the statistic; arXiv 2506.04226 for so few tokens.
    Deviation: text of the model's own; position 0 left out.
    """
    wanted = TOKENS_PER_WIDTH * site.layout.inner
    names, own = dict.fromkeys(layers, ""), ""
    if cache:
        vocabulary = content_hash(sorted(site.tokenizer.get_vocab().items()))
        about = [FORMAT, vocabulary, content_hash(list(texts)) if texts else [seed, LENGTH, CHOICES], wanted]
        # The model's own text depends on all of its weights.
        weights = _hashes(site) if texts else [state or weights_hash(site.model)] * site.layout.depth
        own = content_hash([weights[-1], "own texts", about])
        names = {layer: content_hash([weights[layer], layer, about]) for layer in layers}
    found = {layer: moment for layer, name in names.items() if (moment := _kept(cache, name, "moment")) is not None}
    missing = [layer for layer in layers if layer not in found]
    if missing:
        rows = _encoded(site, texts, wanted) if texts else _said(site, wanted, seed, cache, own, tick)
        found.update(_measured(site, missing, rows, tick))
        for layer in missing if cache else ():
            _keep(cache, names[layer], "moment", found[layer])  # type: ignore[arg-type]
    return {layer: found[layer] for layer in layers}


def weights_hash(model: nn.Module) -> str:
    """Return the SHA-256 over all weights and buffers of a model. Cost: reads each once."""
    digest = hashlib.sha256()
    _feed(digest, model)
    return digest.hexdigest()


def _hashes(site: Site) -> list[str]:
    """Return for each layer the hash of the embedding and the blocks up to it."""
    digest, found = hashlib.sha256(), []
    _feed(digest, site.layout.embedding)
    for block in site.layout.blocks:
        _feed(digest, block)
        found.append(digest.hexdigest())
    return found


def _feed(digest: "hashlib._Hash", module: nn.Module) -> None:
    for name, value in sorted((*module.named_parameters(), *module.named_buffers())):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _said(site: Site, wanted: int, seed: int, cache: Path | None, name: str, tick: Tick | None) -> list[list[int]]:
    """Return texts of the model's own; they are kept, since saying them takes far longer than reading them."""
    if (kept := _kept(cache, name, "ids")) is not None:
        return kept.tolist()
    rows = _own_texts(site, wanted, seed, tick)
    if cache:
        _keep(cache, name, "ids", torch.tensor(rows))
    return rows


@torch.no_grad()
def _own_texts(site: Site, wanted: int, seed: int, tick: Tick | None) -> list[list[int]]:
    """Return token ids of texts that the model says, each from one token drawn at random."""
    length = min(LENGTH, getattr(site.model.config, "max_position_embeddings", LENGTH))
    count = -(-wanted // (length - 1))
    draw = keyed(seed, "own texts")
    special = set(site.tokenizer.all_special_ids)
    plain = [i for i in range(len(site.tokenizer)) if i not in special]
    rows = [[plain[i]] for i in draw.integers(len(plain), size=count)]
    generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
    for start in range(0, count, ROWS):
        live = rows[start : start + ROWS]
        with site.precision():
            asked = Asked(site.model, live, site.pad, length)
            logits = asked.logits
            for step in range(length - 1):
                chances, tokens = logits.topk(min(CHOICES, logits.shape[-1]))
                picks = torch.multinomial(chances.softmax(-1).cpu(), 1, generator=generator)
                chosen = tokens.cpu().gather(1, picks)
                for row, token in zip(live, chosen[:, 0].tolist(), strict=True):
                    row.append(token)
                if step < length - 2:
                    logits = asked.read(chosen.to(asked.device))
        if tick:
            tick("text", min(start + ROWS, count), count)
    return rows


def _encoded(site: Site, texts: Sequence[str], wanted: int) -> list[list[int]]:
    """Return the first tokens of the texts, in pieces of equal length."""
    rows, total = [], 0
    for text in texts:
        ids = site.tokenizer(text, add_special_tokens=False)["input_ids"]
        pieces = [ids[at : at + LENGTH] for at in range(0, len(ids), LENGTH)]
        for piece in (p for p in pieces if len(p) > 1):
            rows.append(piece)
            total += len(piece) - 1
            if total >= wanted:
                return rows
    return rows


@torch.no_grad()
def _measured(site: Site, layers: Sequence[int], rows: Sequence[Sequence[int]], tick: Tick | None) -> dict[int, Tensor]:
    """Return the second moment by layer over all positions but the first of each row."""
    sums = {layer: torch.zeros(site.layout.inner, site.layout.inner, dtype=torch.float64) for layer in layers}
    total, ordered = 0, sorted(rows, key=len)
    for start in range(0, len(ordered), ROWS):
        live = ordered[start : start + ROWS]
        width = max(map(len, live))
        ids = torch.tensor([[*row, *[site.pad] * (width - len(row))] for row in live], device=site.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in live], device=site.device)
        counted = mask.bool()
        counted[:, 0] = False
        with site.precision(), _summing(site, sums, counted), only_at(site.model, None), suppress(Enough):
            site.model(input_ids=ids, attention_mask=mask, use_cache=False)
        total += int(counted.sum())
        if tick:
            tick("keys", min(start + ROWS, len(ordered)), len(ordered))
    return {layer: (value / total).float() for layer, value in sums.items()}


@contextmanager
def _summing(site: Site, sums: dict[int, Tensor], counted: Tensor) -> Iterator[None]:
    """Add k k^T of every counted position to `sums`, and stop the forward behind the last layer wanted.

    Products are in float32, whatever the precision of the forward, and sums of forwards in float64.
    """
    last = max(sums)

    def hook(layer: int) -> Callable[[nn.Module, tuple], None]:
        def add(_: nn.Module, args: tuple) -> None:
            keys = args[0][counted].float()
            with without_autocast(site.device):  # a sum rounded to bfloat16 has negative eigenvalues
                product = keys.T @ keys
            sums[layer] += product.cpu().double()
            if layer == last:
                raise Enough

        return add

    with ExitStack() as stack:
        for layer in sums:
            module = site.layout.module(site.model, site.layout.down[layer])
            stack.enter_context(hooked(module.register_forward_pre_hook(hook(layer))))
        yield


def _kept(cache: Path | None, name: str, what: str) -> Tensor | None:
    if cache is None or not (path := cache / f"{name}.safetensors").is_file():
        return None
    try:
        return load_file(path)[what]
    except (SafetensorError, KeyError, OSError):
        return None  # not whole: it is measured again and written over


def _keep(cache: Path, name: str, what: str, value: Tensor) -> None:
    write_atomically(cache / f"{name}.safetensors", lambda aside: save_tensors({what: value.contiguous()}, aside))
