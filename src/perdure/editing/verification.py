"""Verification of an edited model: its answers to each fact's prompt, paraphrases and chat form, and what else changed."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import exp
from unicodedata import name as name_of
from unicodedata import normalize

import torch
from torch import Tensor

from perdure.editing.contexts import chat_context
from perdure.editing.facts import Fact
from perdure.editing.measures import Verdict
from perdure.editing.overlay import Overlay, no_overlay
from perdure.editing.prompts import BARE, Context, Line, encode
from perdure.editing.site import Site
from perdure.editing.solve import Factors, norm
from perdure.ledger.records import Answer, Drift
from perdure.model.decode import generate
from perdure.model.layers import weight_of

ROWS = 64  # lines in a forward; fixed, so that two states are compared with the same padding
MORE = 4  # tokens generated beyond the length of the target
UNSPACED = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # scripts without spaces
DRIFT_ROWS = 4  # texts in a forward that returns the distribution at every token


def verify(
    site: Site, facts: Sequence[Fact], over: Overlay = no_overlay, *, generation: bool = True, forms: bool = True
) -> list[Verdict]:
    """Return for each fact how the model answers its prompt, paraphrases, neighbours and chat form.

    Args:
        site: The model in the state to be verified.
        facts: The facts.
        over: Returns the context with the update of the facts of these numbers; no context where the model has the update itself.
        generation: Also generate text from each prompt, greedily.
        forms: Verify paraphrases, neighbours and the chat form too, not only the prompt.

    Cost: one forward over each prompt with its target, and one with the competing answer where either is longer than a token; the
        head runs at the answers only. Generation costs a forward per token more.
    """
    chat = chat_context(site.tokenizer) if forms and site.tokenizer.chat_template else None
    lines: list[Line] = []
    owners: list[int] = []

    def add(n: int, context: Context, prompt: str, answer: str) -> int:
        lines.append(encode(site.tokenizer, context, prompt, None, answer))
        owners.append(n)
        return len(lines) - 1

    def pair(n: int, context: Context, prompt: str, target: str, other: str | None) -> tuple[int, int | None]:
        return add(n, context, prompt, target), None if other is None else add(n, context, prompt, other)

    places = []
    for n, fact in enumerate(facts):
        truth = fact.ground_truth
        places.append(
            (
                pair(n, BARE, fact.question, fact.target, truth),
                [pair(n, BARE, text, fact.target, truth) for text in fact.paraphrases if forms],
                [pair(n, BARE, near.prompt, fact.target, near.answer) for near in fact.neighbours if forms],
                pair(n, chat, fact.question, fact.target, truth) if chat else None,
            )
        )
    got = answers(site, lines, owners, over)

    def answer(at: tuple[int, int | None], *, own: bool = False) -> Answer:
        target, other = at
        wanted = other if own else target
        return Answer(got[target][0], None if other is None else got[other][0], got[wanted][1])  # type: ignore[index]

    texts = _generated(site, facts, over) if generation else [None] * len(facts)
    return [
        Verdict(
            answer(prompt),
            tuple(answer(at) for at in paraphrases),
            tuple(answer(at, own=True) for at in neighbours),
            answer(form) if form else None,
            text,
            None if text is None else _begins(text, fact.target),
        )
        for fact, (prompt, paraphrases, neighbours, form), text in zip(facts, places, texts, strict=True)
    ]


@torch.no_grad()
def answers(
    site: Site, lines: Sequence[Line], owners: Sequence[int] = (), over: Overlay = no_overlay
) -> list[tuple[float, bool]]:
    """Return for each line the mean loss of its answer in nats a token, and whether each of its tokens is the likeliest.

    Lines that differ only in their last token are run once.

    Args:
        site: The model.
        lines: Lines that each have an answer.
        owners: The fact of each line.
        over: Returns the context with the update of the facts of these numbers.
    """
    results: list[tuple[float, bool]] = [(0.0, False)] * len(lines)
    same: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for i, line in enumerate(lines):
        same.setdefault((line.ids[:-1], owners[i] if over is not no_overlay else 0), []).append(i)
    order = sorted(same, key=lambda key: (len(key[0]), key))
    for start in range(0, len(order), ROWS):
        live = order[start : start + ROWS]
        pairs = [(row, i) for row, key in enumerate(live) for i in same[key]]
        at = torch.tensor([(row, t - 1) for row, i in pairs for t in range(lines[i].answer, len(lines[i].ids))])
        tokens = torch.tensor([token for _, i in pairs for token in lines[i].targets], device=site.device)
        with over([owner for _, owner in live]):
            logp = site.logits([ids for ids, _ in live], at.T).log_softmax(-1)
        loss, hit = -logp.gather(-1, tokens[:, None])[:, 0], logp.argmax(-1) == tokens
        sizes = [len(lines[i].targets) for _, i in pairs]
        for (_, i), losses, hits in zip(pairs, loss.cpu().split(sizes), hit.cpu().split(sizes), strict=True):
            results[i] = (losses.mean().item(), bool(hits.all()))
    return results


@torch.no_grad()
def drift(site: Site, texts: Sequence[Sequence[int]], over: Callable[[], AbstractContextManager]) -> Drift:
    """Return how an update changes the model on held-out text.

    Args:
        site: The model without the update.
        texts: Token ids of the texts, at least two tokens each.
        over: Returns a context in which the model has the update.

    Cost: two forwards over the texts, with the head at every token.
    """
    before, after, kl, count = 0.0, 0.0, 0.0, 0
    for start in range(0, len(texts), DRIFT_ROWS):
        batch = texts[start : start + DRIFT_ROWS]
        old = _log_probabilities(site, batch)
        with over():
            new = _log_probabilities(site, batch)
        tokens = torch.tensor([t for text in batch for t in text[1:]], device=new.device)[:, None]
        before -= old.gather(-1, tokens).sum().item()
        after -= new.gather(-1, tokens).sum().item()
        kl += (old.exp() * (old - new)).sum().item()
        count += len(tokens)
    return Drift(exp(before / count), exp(after / count), kl / count)


def relative_norms(site: Site, updates: Mapping[str, Factors]) -> dict[str, float]:
    """Return ||update|| / ||weight|| by layer name, Frobenius norms."""
    weights = {name: weight_of(site.layout.module(site.model, name)) for name in updates}
    return {name: norm(factors) / weights[name].double().norm().item() for name, factors in updates.items()}


def _generated(site: Site, facts: Sequence[Fact], over: Overlay) -> list[str]:
    """Return the text that the model generates from each fact's prompt; facts that share an update run together."""
    prompts = [list(encode(site.tokenizer, BARE, fact.question, fact.subject).ids) for fact in facts]
    most = [len(site.tokenizer(" " + fact.target, add_special_tokens=False)["input_ids"]) + MORE for fact in facts]
    groups = [list(range(len(facts)))] if over is no_overlay else [[n] for n in range(len(facts))]
    texts = [""] * len(facts)
    for group in groups:
        with over(group):
            made = generate(
                site.model,
                [prompts[n] for n in group],
                max_new_tokens=max(most[n] for n in group),
                stops=[site.tokenizer.eos_token_id] if site.tokenizer.eos_token_id is not None else [],
                pad=site.pad,
                precision=site.precision,
            )
        for n, ids in zip(group, made, strict=True):
            texts[n] = site.tokenizer.decode(ids[: most[n]], skip_special_tokens=True)
    return texts


def _begins(text: str, target: str) -> bool:
    """Return whether a text begins with the target, as whole words where both scripts put spaces between words."""
    words, target = normalize("NFC", text.strip()), normalize("NFC", target)
    edge = words[len(target) - 1 : len(target) + 1]
    inside = edge[1:].isalnum() and not any(name_of(letter, "").startswith(UNSPACED) for letter in edge)
    return words.startswith(target) and not inside


def _log_probabilities(site: Site, texts: Sequence[Sequence[int]]) -> Tensor:
    """Return the log-probabilities (tokens, vocab) in float32 at every token that has a successor."""
    at = torch.tensor([(row, t) for row, text in enumerate(texts) for t in range(len(text) - 1)]).T
    return site.logits([text[:-1] for text in texts], at).log_softmax(-1)
