"""Tokens of texts whose likelihood is measured: the choices of a row after its prompt, and whole texts."""

from typing import Any

from perdure.core.errors import BadInput
from perdure.core.rows import Row
from perdure.data.chat import chat_text
from perdure.data.encode import behind, plain_ids, prompt_ids


def choice_tokens(row: Row, tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Return prompt and continuation of each choice of a row as tokens: of each context with the ending, where it has contexts.

    A choice follows its prompt as a completion does in training, without an end of turn: what is compared are the texts.

    Args:
        row: A row with choices.
        tokenizer: The model's tokenizer.

    Deviation from lm-evaluation-harness: white space at the end of a prompt stays in the prompt, where it is in training; the
    harness moves it into every choice.
    """
    if row.messages:
        prompt = chat_text(row.messages[:-1], tokenizer, prompt=True, given=row.given, source=row.source)
        tokens = prompt_ids(row, tokenizer)
        return [(tokens, behind(text.strip(), prompt, tokens, tokenizer)) for text in row.choices]
    if row.contexts:
        read = [(context, plain_ids(context, tokenizer)) for context in row.contexts]
        return [(tokens, behind(row.choices[0], context, tokens, tokenizer, plain_ids)) for context, tokens in read]
    tokens = plain_ids(row.prompt, tokenizer)
    return [(tokens, behind(text, row.prompt, tokens, tokenizer, plain_ids)) for text in row.choices]


def text_tokens(row: Row, tokenizer: Any) -> tuple[list[int], int]:
    """Return the tokens of a plain text, and the position of the first one that is predicted.

    That is the first token of the completion, but never the first of all: nothing precedes it, unless the tokenizer opens
    every text with a special token.

    Raises:
        BadInput: The row is a conversation, or has no token to predict.
    """
    if row.messages:
        raise BadInput(
            f"{row.source or 'a row'} is a conversation, and scorer 'likelihood' reads plain text (the column text, or prompt "
            "and completion); choose another scorer"
        )
    before = plain_ids(row.prompt, tokenizer) if row.prompt else []
    ids = [*before, *(behind(row.completion, row.prompt, before, tokenizer, plain_ids) if before else [])]
    ids = ids or plain_ids(row.completion, tokenizer)
    first = max(len(before), 1)
    if len(ids) <= first:
        raise BadInput(f"{row.source or 'a row'} has no token to predict; give it a longer text, or remove it")
    return ids, first
