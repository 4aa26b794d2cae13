"""Asking an edited model: whether each fact is said, in other words and in a chat too, and whether anything else changed."""

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

ROWS = 64  # lines in a forward; fixed, so that padding never makes a difference between two states
MORE = 4  # tokens generated beyond the length of the target
UNSPACED = ("CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # scripts without spaces
DRIFT_ROWS = 4  # texts in a forward of which every token's distribution is compared


def verify(
    site: Site, facts: Sequence[Fact], over: Overlay = no_overlay, *, generation: bool = True, forms: bool = True
) -> list[Verdict]:
    """Return for each fact how the model answers its prompt, paraphrases, neighbours and chat form.

    Args:
        site: The model in the state to be verified.
        facts: The facts.
        over: What lies over the model for the facts of these numbers; nothing where the model carries the update itself.
        generation: Also let the model go on from each prompt, greedily.
        forms: Ask more than the prompt itself.

    Cost: one forward over each prompt with its target and, where that is longer than a token, with what competes; the head at the
        answers only. Generation costs some tokens more.
    """
    chat = chat_context(site.tokenizer) if forms and site.tokenizer.chat_template else None
    lines: list[Line] = []
    owners: list[int] = []

    def ask(n: int, context: Context, prompt: str, answer: str) -> int:
        lines.append(encode(site.tokenizer, context, prompt, None, answer))
        owners.append(n)
        return len(lines) - 1

    def pair(n: int, context: Context, prompt: str, target: str, other: str | None) -> tuple[int, int | None]:
        return ask(n, context, prompt, target), None if other is None else ask(n, context, prompt, other)

    asked = []
    for n, fact in enumerate(facts):
        truth = fact.ground_truth
        asked.append(
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

    said = _generated(site, facts, over) if generation else [None] * len(facts)
    return [
        Verdict(
            answer(prompt),
            tuple(answer(at) for at in paraphrases),
            tuple(answer(at, own=True) for at in neighbours),
            answer(form) if form else None,
            text,
            None if text is None else _begins(text, fact.target),
        )
        for fact, (prompt, paraphrases, neighbours, form), text in zip(facts, asked, said, strict=True)
    ]


@torch.no_grad()
def answers(
    site: Site, lines: Sequence[Line], owners: Sequence[int] = (), over: Overlay = no_overlay
) -> list[tuple[float, bool]]:
    """Return for each line the mean loss of its answer in nats a token, and whether each of its tokens is the likeliest.

    Lines that differ in their last token alone are run once.

    Args:
        site: The model.
        lines: With an answer each.
        owners: The fact that each line asks about.
        over: What lies over the model while facts of these numbers are asked about.
    """
    found: list[tuple[float, bool]] = [(0.0, False)] * len(lines)
    same: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for i, line in enumerate(lines):
        same.setdefault((line.ids[:-1], owners[i] if over is not no_overlay else 0), []).append(i)
    order = sorted(same, key=lambda key: (len(key[0]), key))
    for start in range(0, len(order), ROWS):
        live = order[start : start + ROWS]
        asked = [(row, i) for row, key in enumerate(live) for i in same[key]]
        at = torch.tensor([(row, t - 1) for row, i in asked for t in range(lines[i].answer, len(lines[i].ids))])
        tokens = torch.tensor([token for _, i in asked for token in lines[i].targets], device=site.device)
        with over([owner for _, owner in live]):
            logp = site.logits([ids for ids, _ in live], at.T).log_softmax(-1)
        loss, hit = -logp.gather(-1, tokens[:, None])[:, 0], logp.argmax(-1) == tokens
        sizes = [len(lines[i].targets) for _, i in asked]
        for (_, i), losses, hits in zip(asked, loss.cpu().split(sizes), hit.cpu().split(sizes), strict=True):
            found[i] = (losses.mean().item(), bool(hits.all()))
    return found


@torch.no_grad()
def drift(site: Site, texts: Sequence[Sequence[int]], over: Callable[[], AbstractContextManager]) -> Drift:
    """Return what an update does to held-out text.

    Args:
        site: The model without the update.
        texts: Token ids of the texts, two tokens at least each.
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
    """Return how the model goes on from each fact's prompt; facts that share an update are asked together."""
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
    """Say whether a text begins with the target, as whole words where both scripts put spaces between words."""
    words, target = normalize("NFC", text.strip()), normalize("NFC", target)
    edge = words[len(target) - 1 : len(target) + 1]
    inside = edge[1:].isalnum() and not any(name_of(letter, "").startswith(UNSPACED) for letter in edge)
    return words.startswith(target) and not inside


def _log_probabilities(site: Site, texts: Sequence[Sequence[int]]) -> Tensor:
    """Return the log-probabilities (tokens, vocab) in float32 at every token that has a successor."""
    at = torch.tensor([(row, t) for row, text in enumerate(texts) for t in range(len(text) - 1)]).T
    return site.logits([text[:-1] for text in texts], at).log_softmax(-1)
