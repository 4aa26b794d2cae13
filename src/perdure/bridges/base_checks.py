"""Whether a loaded model is the one its files describe: whole, finite, and of one vocabulary with its tokenizer."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from perdure.core.errors import BadInput
from perdure.core.rows import Message
from perdure.core.words import some
from perdure.data.chat import chat_text


def refuse_incomplete(folder: Path, info: Mapping[str, Any]) -> None:
    """Refuse a model of which weights are missing or have another shape: transformers draws those at random at every load.

    Args:
        folder: Its folder, for the message.
        info: What transformers reports of the load. Weights that are tied to others are not among the missing ones.

    Raises:
        BadInput: There are some; they are named.
    """
    if missing := sorted(info["missing_keys"]):
        raise BadInput(
            f"weights are missing in {folder}: {some(missing)}; they would be drawn at random at every load. Download or copy "
            "the model again; a model without a trained language head (an encoder, a classifier) cannot be used"
        )
    if wrong := sorted(info["mismatched_keys"]):
        name, stored, wanted = wrong[0]
        raise BadInput(
            f"{name} in {folder} has shape {tuple(stored)}, config.json wants {tuple(wanted)}"
            f"{f' ({len(wrong)} weights differ)' if len(wrong) > 1 else ''}; configuration and weights are of different models "
            "(or of different sizes of the vocabulary)"
        )


def refuse_left_out(folder: Path, model: Any, unexpected: set[str]) -> None:
    """Refuse stored weights that the configuration leaves out of the model although they belong in it.

    These are more layers of the kind that the model has, or further parts (biases, scales, adapters) of weights that it has.
    Other weights (heads for other uses, vision) may be next to the model.

    Raises:
        BadInput: There are some; they are named.
    """
    leaves = {name for name, m in model.named_modules() if name and next(m.parameters(recurse=False), None) is not None}
    kinds = {_numberless(name) for name, _ in model.named_parameters()}
    if left_out := sorted(n for n in unexpected if _numberless(n) in kinds or any(a in leaves for a in _ancestors(n))):
        raise BadInput(
            f"{folder} stores weights that config.json leaves out of the model: {some(left_out)}; the configuration is not that "
            "of these weights"
        )


def refuse_not_finite(folder: Path, model: Any) -> None:
    """Refuse weights that are not numbers. Cost: reads every weight once.

    Raises:
        BadInput: One contains NaN or infinity; it is named.
    """
    for name, value in model.named_parameters():
        if (
            value.is_floating_point()
            and value.numel()
            and not all(torch.isfinite(edge) for edge in torch.aminmax(value))
        ):
            raise BadInput(f"{name} in {folder} holds NaN or infinity; the model is damaged, download or copy it again")


def refuse_vocabulary(folder: Path, rows: int, tokenizer: Any) -> None:
    """Refuse a tokenizer whose tokens the model has no embedding for; added tokens that no text needs may have none.

    Args:
        folder: The model's folder, for the message.
        rows: How many tokens the model's embedding has.
        tokenizer: Its tokenizer.

    Raises:
        BadInput: The vocabulary, the end of text, or a token around every text has no embedding, or the tokenizer is empty.
    """
    added = set(tokenizer.get_added_vocab().values())
    own = [i for i in tokenizer.get_vocab().values() if i not in added]
    if not own or not tokenizer("a text", add_special_tokens=False)["input_ids"]:
        raise BadInput(
            f"the tokenizer in {folder} has no vocabulary: its file is missing; copy tokenizer.json (or the vocabulary) of "
            "the model into the folder"
        )
    if max(own) >= rows:
        raise BadInput(
            f"the tokenizer in {folder} has {max(own) + 1:,} tokens, the model's embedding {rows:,}; they are of different models"
        )
    around = [i for i in tokenizer("a text")["input_ids"] if i >= rows]
    if around or tokenizer.eos_token_id >= rows:
        token = tokenizer.convert_ids_to_tokens(around[0] if around else tokenizer.eos_token_id)
        raise BadInput(
            f"the model in {folder} has no embedding for {token!r}, which belongs to every text; its tokenizer is another "
            f"model's, or the embedding ({rows:,} tokens) was not resized when the token was added"
        )


def refuse_template(folder: Path, tokenizer: Any) -> None:
    """Refuse a chat template with a syntax error. A template that refuses some conversations is reported when data are read.

    Raises:
        BadInput: It has a mistake of syntax.
    """
    from jinja2.exceptions import TemplateSyntaxError

    try:
        if tokenizer.chat_template:
            chat_text([Message("user", "a text")], tokenizer, prompt=True)
    except BadInput as error:
        if isinstance(error.__cause__, TemplateSyntaxError):
            raise BadInput(
                f"the chat template in {folder} is broken: {error.__cause__.message} (line {error.__cause__.lineno}); mend "
                "it, or copy chat_template.jinja or tokenizer_config.json of the model again"
            ) from error


def guard_embedding(model: Any, tokenizer: Any) -> None:
    """Make a token of the tokenizer that the model has no embedding for an error in words wherever it is looked up."""
    embedding = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    if max(tokenizer.get_vocab().values()) < rows:
        return

    def refuse(_: Any, inputs: tuple[Any, ...]) -> None:
        if (outside := inputs[0][inputs[0] >= rows]).numel():
            raise BadInput(without_embedding(tokenizer, int(outside[0]), rows))

    embedding.register_forward_pre_hook(refuse)


def without_embedding(tokenizer: Any, token: int, rows: int) -> str:
    """Return what is wrong with a token that the model has no embedding for."""
    return (
        f"the model has no embedding for {tokenizer.convert_ids_to_tokens(token)!r} (token {token:,} of {rows:,}), added to "
        "its tokenizer; take it out of the text, or resize the model's embedding to the tokenizer and save it as a new model"
    )


def _numberless(name: str) -> str:
    return re.sub(r"\.\d+\.", ".#.", name)


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]
