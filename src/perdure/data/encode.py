"""Rows to token ids: which tokens are trained, and what is cut when a row is too long.

The tokenizer is any Hugging Face tokenizer; it is passed in, so this room imports none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.rows import Message, Row


@dataclass(frozen=True)
class Encoded:
    """One row as tokens.

    Args:
        ids: Token ids of the whole row.
        trained: For each token whether the loss asks the model to predict it.
        cut: Number of tokens removed to respect the maximum length.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    cut: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def first(self) -> int:
        """Position of the first trained token that has a predecessor; `len(self)` where there is none."""
        return next((t for t in range(1, len(self.ids)) if self.trained[t]), len(self.ids))

    @property
    def last(self) -> int:
        """Position of the last trained token, which the model need not read, nor what follows it; `len(self)` without one."""
        return next((t for t in reversed(range(1, len(self.ids))) if self.trained[t]), len(self.ids))

    @property
    def targets(self) -> int:
        """Number of tokens that are predicted with a loss."""
        return sum(self.trained[1:])


def chat_text(messages: Sequence[Message], tokenizer: Any, *, prompt: bool) -> str:
    """Return the conversation in the model's chat template; with `prompt`, open for the assistant's next turn."""
    if not tokenizer.chat_template:
        raise BadInput(
            "the rows are conversations, but this model's tokenizer has no chat template; "
            "use prompt/completion rows, or a model made for chat"
        )
    turns = [{"role": m.role, "content": m.content} for m in messages]
    return tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt)


def prompt_ids(row: Row, tokenizer: Any) -> list[int]:
    """Return the tokens the model is given when `row` is asked: the prompt, or the turns before the last."""
    if row.messages:
        text = chat_text(row.messages[:-1], tokenizer, prompt=True)
        return tokenizer(text, add_special_tokens=False)["input_ids"]
    return _plain_ids(row.prompt, tokenizer)


def encode(row: Row, tokenizer: Any, max_length: int) -> Encoded:
    """Return the tokens of `row` with its answer marked as trained, the end of turn included.

    A row longer than `max_length` loses its later turns; if the first answer does not fit, the start of its prompt, down to a
    quarter of `max_length`; and then the answer's end. The prompt is tokenised as it will be when the model is asked, so that
    training and use meet the same tokens.

    Raises:
        BadInput: Nothing would be trained.
    """
    ids, trained = _chat_row(row, tokenizer) if row.messages else _text_row(row, tokenizer)
    cut = max(0, len(ids) - max_length)
    if cut:
        first = trained.index(True) if True in trained else 0
        end = trained.index(False, first) if False in trained[first:] else len(ids)  # of the first answer
        front = min(max(end - max_length, 0), max(first - max(max_length // 4, 1), 0))
        ids, trained = ids[front : front + max_length], trained[front : front + max_length]
    encoded = Encoded(tuple(ids), tuple(trained), cut)
    if not encoded.targets:
        raise BadInput(f"{row.source or 'a row'}: nothing to train in it after tokenisation; give it an answer")
    return encoded


def _plain_ids(text: str, tokenizer: Any) -> list[int]:
    """Tokens of `text` with the tokenizer's opening special tokens, without a closing one."""
    ids = tokenizer(text)["input_ids"]
    if ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token or "\0"):
        ids = ids[:-1]
    return ids


def _text_row(row: Row, tokenizer: Any) -> tuple[list[int], list[bool]]:
    before = _plain_ids(row.prompt, tokenizer) if row.prompt else []
    joint = _plain_ids(row.prompt + row.completion, tokenizer)
    if joint[: len(before)] == before:
        answer = joint[len(before) :]
    else:  # a token straddles the seam: keep the prompt as it will be asked, and tokenise the answer by itself
        answer = tokenizer(row.completion, add_special_tokens=False)["input_ids"]
    answer = [*answer, tokenizer.eos_token_id]
    return before + answer, [False] * len(before) + [True] * len(answer)


def _chat_row(row: Row, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """Train every assistant turn up to its end-of-turn token; offsets of one joint tokenisation say which tokens those are."""
    whole = chat_text(row.messages, tokenizer, prompt=False)
    spans = []
    for i, message in enumerate(row.messages):
        if message.role != "assistant":
            continue
        asked = chat_text(row.messages[:i], tokenizer, prompt=True)
        turn = chat_text(row.messages[: i + 1], tokenizer, prompt=False)
        if not whole.startswith(turn):
            raise BadInput(
                f"{row.source or 'a row'}: the model's chat template rewrites earlier turns, so the trained part is unclear; "
                "split the conversation into one row an answer"
            )
        # some templates open a turn with more than it will hold, so it begins where the two part
        start = next((k for k, (a, b) in enumerate(zip(asked, turn, strict=False)) if a != b), len(asked))
        spans.append((start, start + len(turn[start:].rstrip())))
    coded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    trained = [any(a <= s and e <= b for a, b in spans) and e > s for s, e in coded["offset_mapping"]]
    ids = coded["input_ids"]
    if any(trained) and ids[_last(trained)] != tokenizer.eos_token_id:  # a template without an end of turn
        end = _last(trained) + 1
        ids, trained = [*ids[:end], tokenizer.eos_token_id], [*trained[:end], True]
    return ids, trained


def _last(flags: list[bool]) -> int:
    return len(flags) - 1 - flags[::-1].index(True)
