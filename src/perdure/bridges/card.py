"""Model cards in the form that the Hugging Face hub reads."""

from typing import Any


def model_card(text: str, **metadata: Any) -> str:
    """Return a Markdown text under its metadata, as the README.md of a model on the hub.

    Args:
        text: Markdown, without front matter.
        metadata: Fields of `huggingface_hub.ModelCardData`. Their characters are written as they are.
    """
    from huggingface_hub import ModelCard, ModelCardData  # not above: an export alone needs them

    return str(ModelCard(f"---\n{ModelCardData(**metadata).to_yaml()}\n---\n\n{text}"))
