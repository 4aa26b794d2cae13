"""The contexts of a prompt: texts of the model's own before it, and the chat template around it."""

from typing import Any

import torch
from torch import Tensor

from perdure.core.errors import BadInput
from perdure.core.keyed import keyed
from perdure.core.rows import Message
from perdure.data.chat import chat_text, frame
from perdure.editing.prompts import BARE, Context
from perdure.editing.site import Site, Tokenizer
from perdure.editing.spec import EditSpec
from perdure.model.decode import continued
from perdure.model.layout import Precision

OPENERS = ("The", "Therefore", "Because", "I", "You")
CHOICES = 5  # a context's tokens are sampled from the 5 most likely ones, as in the official code
LENGTHS = (5, 10)  # tokens of a context, in turn
MARK = "\u241eprompt\u241e"  # stands for the prompt in a rendered chat template


def contexts_of(site: Site, spec: EditSpec) -> tuple[Context, ...]:
    """Return the contexts of the settings; the same model and seed give the same contexts."""
    return make_contexts(
        site.model, site.tokenizer, spec.contexts, chat=spec.chat, seed=spec.seed, precision=site.precision
    )


def make_contexts(
    model: Any, tokenizer: Tokenizer, count: int, *, chat: bool, seed: int, precision: Precision
) -> tuple[Context, ...]:
    """Return the bare context, `count` texts that the model generates from common openers, and the chat template.

    Args:
        model: Generates the texts; each token is sampled from the 5 most likely ones by probability.
        tokenizer: Its tokenizer.
        count: Number of texts.
        chat: Add the tokenizer's chat template, where it has one.
        seed: Of the sampling.
        precision: Context of the forwards.

    Source: Meng et al. 2022, arXiv 2202.05262, appendix E.5.
    Deviation: the texts are seeded, and the caller stores them. They start with openers instead of the end-of-text token,
        which not every model has.
    """
    made = [BARE, *_own_texts(model, tokenizer, count, seed, precision)]
    if chat and tokenizer.chat_template:
        made.append(chat_context(tokenizer))
    return tuple(made)


def chat_context(tokenizer: Tokenizer) -> Context:
    """Return the context in which the prompt is a user's turn and the answer opens the assistant's."""
    text = chat_text((Message("user", MARK),), tokenizer, prompt=True, source="an edit's chat form")
    before, mark, after = text.partition(MARK)
    if not mark:
        raise BadInput("the tokenizer's chat template does not show the user's text; edit with chat: false")
    return Context(before, after + frame(tokenizer).before, special=False)  # such as an empty block of thoughts


@torch.no_grad()
def _own_texts(model: Any, tokenizer: Tokenizer, count: int, seed: int, precision: Precision) -> list[Context]:
    if count == 0:
        return []
    starts = [OPENERS[n % len(OPENERS)] for n in range(count)]
    prompts = [tokenizer(start)["input_ids"] for start in starts]
    random = keyed(seed, "contexts")

    def choose(logits: Tensor) -> Tensor:
        chances, tokens = logits.softmax(-1).topk(CHOICES)
        scaled = (chances / chances.sum(-1, keepdim=True)).double().cpu().numpy()
        picks = [int(random.choice(CHOICES, p=row / row.sum())) for row in scaled]
        return tokens[torch.arange(count), torch.tensor(picks)]

    with precision():
        written = continued(model, prompts, max(LENGTHS), choose, pad=tokenizer.pad_token_id or 0).tolist()
    texts = []
    for number, (start, row) in enumerate(zip(starts, written, strict=True)):
        text = tokenizer.decode(row[: LENGTHS[number % len(LENGTHS)]], skip_special_tokens=True)
        texts.append(Context(before=" ".join(f"{start}{text}".split()).rstrip(".") + ". "))
    return texts
