"""Work that goes on in smaller parts where the memory of the device runs out."""

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch

from perdure.core.errors import OutOfMemory
from perdure.core.words import counted

T = TypeVar("T")

ADVICE = "give shorter texts (max_length), or more memory: end other programs that use it, or choose another --device"
PHRASES = (  # in what allocators raise, other than torch.OutOfMemoryError: of the CPU, of Apple's GPUs
    "can't allocate memory",
    "not enough memory",
    "DefaultCPUAllocator",
    "out of memory",
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error says that an allocator has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or any(phrase in str(error) for phrase in PHRASES)


def attempt(run: Callable[[], T]) -> T | None:
    """Return what `run` returns, never None; None where memory ran out, with the tensors of the failed run gone."""
    try:
        return run()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    gc.collect()  # after the handler: its traceback holds the tensors of every frame
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def in_batches(
    batches: Sequence[list[int]],
    lengths: Sequence[int],
    work: Callable[[list[int]], T],
    on_smaller: Callable[[int], None] | None = None,
    *,
    may_repeat: bool = True,
) -> Iterator[tuple[list[int], T]]:
    """Yield each batch with what `work` returns for it; where memory runs out, it and all others go on at half the size.

    Args:
        batches: Row indices of each batch.
        lengths: Tokens of each row.
        work: Does one batch, and leaves nothing half done where it fails; it never returns None.
        on_smaller: Called with the rows that a batch has from here on.
        may_repeat: Whether a batch that failed may begin again.

    Raises:
        OutOfMemory: One row alone does not fit, or a batch may not begin again.
    """
    waiting, most = list(reversed(batches)), 0

    def tokens(batch: Sequence[int]) -> int:
        return len(batch) * max(lengths[i] for i in batch)

    while waiting:
        batch = waiting.pop()
        if most and tokens(batch) > most and len(batch) > 1:
            half = (len(batch) + 1) // 2
            waiting += [batch[half:], batch[:half]]
            continue
        made = attempt(partial(work, batch))
        if made is not None:
            yield batch, made
            continue
        if len(batch) == 1 or not may_repeat:
            longest = max(lengths[i] for i in batch)
            raise OutOfMemory(
                f"memory ran out with {counted(len(batch), 'row')} of {longest:,} tokens at most; {ADVICE}"
            )
        waiting.append(batch)
        most = (min(tokens(batch), most or tokens(batch)) + 1) // 2
        if on_smaller:
            on_smaller((len(batch) + 1) // 2)
