"""Decoding in batches: greedy and sampled continuations, and the log-likelihood of choices, without repeated computation."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from perdure.model.batch import padded
from perdure.model.grouping import of_like_length
from perdure.model.likelihoods import token_log_likelihoods
from perdure.model.probing import batching_of
from perdure.model.prompts import CachedPrompts
from perdure.model.sample import Choose, greedy
from perdure.model.within_memory import in_batches

BATCH = 64  # prompts per batch; fixed, so that two states are compared with the same padding
MOST = 4096  # padded tokens of a batch of prompts, since one long prompt pads all others


def fitted(
    prompts: Sequence[Sequence[int]], max_new_tokens: int, positions: int | None
) -> tuple[list[list[int]], int, int]:
    """Return the prompts and the number of new tokens that fit a model, and the number of prompts that lost their start.

    An answer gets the positions that the longest prompt leaves, or half of all positions if that is more. Prompts get the rest.

    Args:
        prompts: Token ids of each prompt.
        max_new_tokens: Largest number of tokens of an answer.
        positions: Most tokens that the model takes, prompt and answer together; None where there is no limit.
    """
    whole = [list(prompt) for prompt in prompts]
    if positions is None:
        return whole, max_new_tokens, 0
    longest = max(map(len, whole), default=0)
    new = min(max_new_tokens, max(positions - longest, positions // 2))
    room = positions - new
    return [prompt[-room:] for prompt in whole], new, sum(len(prompt) > room for prompt in whole)


def read_prompts(model: Any, prompts: Sequence[Sequence[int]], pad: int, more: int | None = None) -> CachedPrompts:
    """Return prompts that the model has read, in a kind of batch that is exact for this model.

    Args:
        model: A causal language model.
        prompts: Token ids of each prompt, none empty.
        pad: Token id for padding.
        more: Most tokens that will be appended to a prompt; None where that is not known.
    """
    return CachedPrompts(model, prompts, pad, batching_of(model), more)


@torch.no_grad()
def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int | Sequence[int],
    stops: Sequence[int],
    pad: int,
    precision: Callable[[], AbstractContextManager] = nullcontext,
    tick: Callable[[int], None] | None = None,
    choose: Choose = greedy,
    batch: int | None = None,
    on_token: Callable[[int, int], None] | None = None,
    on_smaller: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Return the continuation of each prompt, greedy unless `choose` is another, without the token that ended it.

    Prompts are sorted by length into batches; a finished row leaves its batch. Where memory runs out, batches become smaller
    and their rows begin again, unless tokens are drawn or were passed on already.

    Args:
        model: A causal language model in eval mode.
        prompts: Token ids of each prompt, none empty.
        max_new_tokens: Most tokens a continuation may have, of all prompts or of each.
        stops: Token ids that end an answer.
        pad: Token id for padding.
        precision: Context of the forwards.
        tick: Called with the number of prompts finished, batch by batch.
        choose: Chooses the next token of each prompt.
        batch: Largest number of prompts per batch, 64 by default. In bfloat16 the rounding of logits depends on the batch.
        on_token: Called with prompt and token when a token is chosen, except for tokens that end an answer.
        on_smaller: Called with the prompts that a batch has from here on, where memory ran out.

    Raises:
        OutOfMemory: One prompt alone does not fit.
    """
    most = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    answers: list[list[int]] = [[] for _ in prompts]
    ends = torch.tensor(list(stops))
    finished, lengths = 0, [len(prompt) for prompt in prompts]

    def run(members: list[int]) -> bool:
        """Continue the prompts of a batch; True when all are done."""
        live = list(members)
        for i in live:
            answers[i].clear()
        with precision():
            state = read_prompts(model, [prompts[i] for i in live], pad, max(most[i] for i in live))
            logits = state.logits
            while True:
                token = choose(logits, live).to(state.device)
                chosen = token.cpu()
                for row in (~torch.isin(chosen, ends)).nonzero()[:, 0].tolist():
                    answers[live[row]].append(int(chosen[row]))
                    if on_token:
                        on_token(live[row], int(chosen[row]))
                going = ~torch.isin(chosen, ends) & torch.tensor([len(answers[i]) < most[i] for i in live])
                if not going.any():
                    break
                if not going.all():
                    rows = going.nonzero()[:, 0].to(state.device)
                    state.select(rows)
                    token, live = token[rows], [live[i] for i in rows.tolist()]
                logits = state.append(token[:, None])
        return True

    batches = of_like_length(lengths, batch or BATCH, MOST)
    may_repeat = choose is greedy and on_token is None
    for members, _ in in_batches(batches, lengths, run, on_smaller, may_repeat=may_repeat):
        finished += len(members)
        if tick:
            tick(finished)
    return answers


@torch.no_grad()
def continued(
    model: Any, prompts: Sequence[Sequence[int]], count: int, choose: Callable[[Tensor], Tensor], *, pad: int
) -> Tensor:
    """Return the next `count` tokens of each prompt (prompts, count), on the CPU.

    Args:
        model: A causal language model in eval mode.
        prompts: Token ids of each prompt, none empty; they run in one batch.
        count: Tokens of each continuation; no token ends it.
        choose: Returns the next token of each prompt (prompts,) from the logits (prompts, vocab).
        pad: Token id for padding.
    """
    state = read_prompts(model, prompts, pad, count)
    tokens = [choose(state.logits)]
    for _ in range(count - 1):
        tokens.append(choose(state.append(tokens[-1][:, None].to(state.device))))
    return torch.stack(tokens, 1).cpu()


@torch.no_grad()
def choice_log_likelihoods(
    model: Any,
    prompts: Sequence[Sequence[int]],
    choices: Sequence[Sequence[Sequence[int]]],
    *,
    pad: int,
    precision: Callable[[], AbstractContextManager] = nullcontext,
    tick: Callable[[int], None] | None = None,
    on_smaller: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Return log p(choice | prompt) in nats for each choice of each prompt; the prompt is computed once.

    Prompts of a batch are of like length, or their choices are where those have more tokens. The batches depend on prompts and
    choices alone, so that two states are compared with the same padding.

    Args:
        model: A causal language model in eval mode.
        prompts: Token ids of each prompt.
        choices: For each prompt, the token ids of each of its choices, none empty.
        pad: Token id for padding.
        precision: Context of the forwards.
        tick: Called with the number of prompts finished.
        on_smaller: Called with the prompts that a batch has from here on, where memory ran out.

    Raises:
        OutOfMemory: One prompt alone does not fit.
    """
    result: list[list[float]] = [[] for _ in prompts]
    batches = _choice_batches(list(map(len, prompts)), [list(map(len, options)) for options in choices])

    def run(live: list[int]) -> list[list[float]]:
        """Return the log-likelihoods of the choices of each prompt of a batch."""
        with precision():
            longest = max(len(choice) for i in live for choice in choices[i])
            state = read_prompts(model, [prompts[i] for i in live], pad, longest)
            owner = torch.tensor([n for n, i in enumerate(live) for _ in choices[i]])
            options = [list(choice) for i in live for choice in choices[i]]
            begins = torch.tensor([choice[0] for choice in options], device=state.device)
            scores = token_log_likelihoods(state.logits, begins, owner.to(state.device)).cpu()
            at = [(row, t) for row, c in enumerate(options) for t in range(len(c) - 1)]
            if at:
                state.select(owner.to(state.device))
                ids, mask = padded([c[:-1] for c in options], pad)
                where = torch.tensor(at).T
                logits = state.append(ids.to(state.device), mask.to(state.device), where.to(state.device))
                target = torch.tensor([options[row][t + 1] for row, t in at], device=state.device)
                scores = scores.index_add(0, where[0], token_log_likelihoods(logits, target).cpu())
        return [scores[owner == n].tolist() for n in range(len(live))]

    finished = 0
    for live, found in in_batches(batches, [len(prompt) for prompt in prompts], run, on_smaller):
        for i, likelihoods in zip(live, found, strict=True):
            result[i] = likelihoods
        finished += len(live)
        if tick:
            tick(finished)
    return result


def _choice_batches(prompts: Sequence[int], choices: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the prompts of each batch, the shortest first.

    Args:
        prompts: Tokens of each prompt.
        choices: Tokens of each choice of each prompt.
    """
    longest = [max(lengths) for lengths in choices]
    answered = [len(lengths) * most for lengths, most in zip(choices, longest, strict=True)]
    by_prompt = sum(prompts) >= sum(answered)
    order = sorted(
        range(len(prompts)), key=lambda i: (prompts[i], longest[i]) if by_prompt else (longest[i], prompts[i])
    )
    batches: list[list[int]] = []
    for i in order:
        live = batches[-1] if batches else []
        many = sum(len(choices[j]) for j in live)
        width = max(longest[j] for j in (*live, i))
        full = (len(live) + 1) * max(prompts[j] for j in (*live, i)) > MOST
        if not live or many >= BATCH or full or (many + len(choices[i])) * width > MOST:
            batches.append([])
        batches[-1].append(i)
    return batches
