"""A reference state's own answers with its distributions, and the distance of another state of the model from them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perdure.core.errors import BrokenStore
from perdure.data.encode import Encoded
from perdure.maths.divergence import events_of, jensen_shannon, known_kl
from perdure.maths.precision import wide
from perdure.model.forward import Tokens
from perdure.model.grouping import of_like_length
from perdure.model.within_memory import in_batches

TOP_K = (
    32  # tokens of a stored distribution: with the bucket for the rest some 90% of the KL (measured on SmolLM2-135M)
)
BATCH = 16  # rows of a forward; fixed, since the rounding of logits depends on the batch
MOST = 2048  # padded tokens of a forward
PIECE = 128  # positions whose logits are in float32 at a time, so that no such table covers a batch


@dataclass(frozen=True)
class ReferenceAnswer:
    """A state's answer to a prompt, with its distribution at each position of the answer.

    Args:
        tokens: The answer, without the token that ended it.
        ended: Whether a token ended it; its position then counts as one of the answer.
        index: The most likely tokens at each position (positions, k), int32.
        logprob: Their log-probabilities (positions, k) in nats, float32.
        tail: Log of the probability of all other tokens together (positions,), float32.
    """

    tokens: tuple[int, ...]
    ended: bool
    index: Tensor
    logprob: Tensor
    tail: Tensor

    @property
    def positions(self) -> int:
        """Number of positions at which states are compared."""
        return len(self.tokens) + self.ended


@dataclass(frozen=True)
class Distance:
    """The distance of a state from a reference, along one answer of the reference. Both numbers are lower bounds.

    Args:
        js: Mean Jensen-Shannon divergence in nats a position, in [0, ln 2].
        kl: Mean KL(reference || state) in nats a position.
    """

    js: float
    kl: float


Precision = Callable[[], AbstractContextManager]


@torch.no_grad()
def answers_with_distributions(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    ended: Sequence[bool],
    *,
    reader: Tokens,
    precision: Precision = nullcontext,
    k: int = TOP_K,
    tick: Callable[[int], None] | None = None,
) -> list[ReferenceAnswer]:
    """Return answers of the loaded state with its distributions along them.

    Args:
        model: A causal language model in eval mode.
        prompts: Token ids of each prompt, none empty.
        answers: Token ids of its answer, without the token that ended it.
        ended: Whether a token ended the answer.
        reader: Turns rows into batches, and batches into outputs.
        precision: Context of the forwards.
        k: Most likely tokens that a distribution stores; at most vocab - 1.
        tick: Called with the number of answers done.

    Raises:
        ValueError: An answer has no token and did not end.
        OutOfMemory: One answer alone does not fit.

    Cost: one forward over prompts and answers.
    """
    rows = _rows(prompts, answers, ended)

    def most_likely(logits: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        index = logits.topk(min(k, logits.shape[-1] - 1), dim=-1).indices
        return index.int(), *(part.float() for part in events_of(logits, index))

    found: dict[int, ReferenceAnswer] = {}
    for i, parts in _over_positions(model, rows, most_likely, reader, precision, tick):
        found[i] = ReferenceAnswer(tuple(answers[i]), bool(ended[i]), *parts)
    return [found[i] for i in range(len(rows))]


@torch.no_grad()
def distances(
    model: Any,
    prompts: Sequence[Sequence[int]],
    reference: Sequence[ReferenceAnswer],
    *,
    reader: Tokens,
    precision: Precision = nullcontext,
    tick: Callable[[int], None] | None = None,
) -> list[Distance]:
    """Return the distance of the loaded state from a reference on each prompt, along the reference's own answer.

    A state that is the reference has distance 0 to the bit where prompts, device and number of threads are those of
    `answers_with_distributions`: both run the same batches.

    Args:
        model: A causal language model in eval mode.
        prompts: Token ids of each prompt, those of the reference.
        reference: What `answers_with_distributions` returned for them.
        reader: Turns rows into batches, and batches into outputs.
        precision: Context of the forwards.
        tick: Called with the number of prompts done.

    Raises:
        OutOfMemory: One answer alone does not fit.

    Cost: one forward over prompts and answers.
    Source: Shenfeld et al., "RL's Razor", 2025, arXiv 2509.04259 (KL from the base as what goes with forgetting).
    Deviation: along the greedy answer of the reference instead of samples; top k tokens and one bucket for the rest.
    """
    rows = _rows(prompts, [one.tokens for one in reference], [one.ended for one in reference])
    index = torch.cat([one.index for one in reference]).long()
    starts = torch.tensor([0, *(one.positions for one in reference)]).cumsum(0)

    def of_reference(logits: Tensor, places: Tensor) -> tuple[Tensor, ...]:
        chosen = index[starts[places[:, 0]] + places[:, 1]].to(logits.device)
        return tuple(part.float() for part in events_of(logits, chosen))

    found: dict[int, Distance] = {}
    for i, (selected, rest) in _over_positions(model, rows, of_reference, reader, precision, tick):
        teacher = torch.cat([reference[i].logprob, reference[i].tail[:, None]], dim=-1)
        student = torch.cat([selected, rest[:, None]], dim=-1)
        js, kl = jensen_shannon(teacher, student).double(), known_kl(teacher, student).double()
        found[i] = Distance(js.mean().item(), kl.mean().item())
    return [found[i] for i in range(len(rows))]


def pack(reference: Mapping[str, ReferenceAnswer]) -> dict[str, Tensor]:
    """Return the answers to rows, by `Row.hash`, as named tensors; `unpack` restores them in the same order.

    `rows` (rows, 32) uint8, the hashes; `length` and `ended` (rows,) int32 and uint8; `tokens` (all tokens,) int32;
    `index` and `logprob` (all positions, k) int32 and float32; `tail` (all positions,) float32.
    """
    answers = list(reference.values())
    return {
        "rows": torch.tensor([list(bytes.fromhex(row)) for row in reference], dtype=torch.uint8).reshape(-1, 32),
        "length": torch.tensor([len(one.tokens) for one in answers], dtype=torch.int32),
        "ended": torch.tensor([one.ended for one in answers], dtype=torch.uint8),
        "tokens": torch.tensor([token for one in answers for token in one.tokens], dtype=torch.int32),
        "index": torch.cat([one.index.int() for one in answers]),
        "logprob": torch.cat([one.logprob.float() for one in answers]),
        "tail": torch.cat([one.tail.float() for one in answers]),
    }


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, ReferenceAnswer]:
    """Return the answers that `pack` wrote, by `Row.hash`.

    Raises:
        BrokenStore: The tensors are not those of `pack`.
    """
    try:
        rows = [bytes(row).hex() for row in tensors["rows"].tolist()]
        lengths, ended = tensors["length"].tolist(), [bool(one) for one in tensors["ended"].tolist()]
        tokens = [part.tolist() for part in tensors["tokens"].split(lengths)]
        positions = [length + end for length, end in zip(lengths, ended, strict=True)]
        parts = [tensors[name].split(positions) for name in ("index", "logprob", "tail")]
        stored = zip(rows, tokens, ended, *parts, strict=True)
        return {row: ReferenceAnswer(tuple(ids), end, *each) for row, ids, end, *each in stored}
    except (KeyError, RuntimeError, ValueError) as error:
        raise BrokenStore(
            f"the stored answers of a reference are damaged ({error}); restore the workspace from a backup"
        ) from error


def _rows(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], ended: Sequence[bool]) -> list[Encoded]:
    """Return prompts with their answers as rows whose labels are the positions of the answers.

    The token that ended an answer is not read: any token can stand for it.
    """
    rows = []
    for prompt, answer, end in zip(prompts, answers, ended, strict=True):
        if not answer and not end:
            raise ValueError("an answer without a token that did not end has no position to compare")
        ids = (*prompt, *answer, *([0] if end else []))
        rows.append(Encoded(ids, tuple(t >= len(prompt) for t in range(len(ids)))))
    return rows


def _over_positions(
    model: Any,
    rows: Sequence[Encoded],
    reduce: Callable[[Tensor, Tensor], tuple[Tensor, ...]],
    reader: Tokens,
    precision: Precision,
    tick: Callable[[int], None] | None,
) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Yield the index of each row with what `reduce` makes of the logits at its label positions, on the CPU.

    Args:
        model: The model.
        rows: The rows.
        reduce: Takes logits (positions, vocab) in float32 and the row and position in the answer of each (positions, 2), and
            returns tensors of a line a position.
        reader: Turns rows into batches, and batches into outputs.
        precision: Context of the forwards.
        tick: Called with the number of rows done.
    """
    lengths = [len(row) for row in rows]

    def work(members: list[int]) -> list[tuple[Tensor, ...]]:
        batch = reader.collate([rows[i] for i in members])
        with precision():
            logits = reader.forward(model, batch, widen=False).logits
        sizes = torch.bincount(batch.at[0], minlength=len(members)).tolist()
        places = torch.tensor([(i, t) for i, size in zip(members, sizes, strict=True) for t in range(size)])
        pieces = [reduce(wide(part), at) for part, at in zip(logits.split(PIECE), places.split(PIECE), strict=True)]
        whole = [torch.cat(parts).cpu().split(sizes) for parts in zip(*pieces, strict=True)]
        return list(zip(*whole, strict=True))

    done = 0
    for members, found in in_batches(of_like_length(lengths, BATCH, MOST), lengths, work):
        yield from zip(members, found, strict=True)
        done += len(members)
        if tick:
            tick(done)
