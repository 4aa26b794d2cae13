"""Rows as token ids, with the tokens that are trained; rows that are too long are cut.

The tokenizer is any Hugging Face tokenizer; it is passed in, so this room imports none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.rows import Row
from perdure.data.chat import Chat, chat, chat_text, frame
from perdure.data.thoughts import split


@dataclass(frozen=True)
class Encoded:
    """One row as tokens.

    Args:
        ids: Token ids of the whole row.
        trained: For each token whether the loss counts its prediction.
        cut: Number of tokens removed to respect the maximum length.
        prompt: Number of tokens before the last answer; None where it is not known.
        label: Class name, where the row has one.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    cut: int = 0
    prompt: int | None = field(default=None, compare=False)
    label: str | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def first(self) -> int:
        """Position of the first trained token that has a predecessor; `len(self)` where there is none."""
        return next((t for t in range(1, len(self.ids)) if self.trained[t]), len(self.ids))

    @property
    def last(self) -> int:
        """Position of the last trained token; the model need not read it or what follows. `len(self)` where there is none."""
        return next((t for t in reversed(range(1, len(self.ids))) if self.trained[t]), len(self.ids))

    @property
    def targets(self) -> int:
        """Number of tokens that are predicted with a loss."""
        return sum(self.trained[1:])


def prompt_ids(row: Row, tokenizer: Any, conversation: Chat | None = None) -> list[int]:
    """Return the tokens of the prompt of `row`: its prompt, or the turns before the last.

    Args:
        row: The row.
        tokenizer: The model's tokenizer.
        conversation: What `conversation_of` returns for the row, where the caller has it.
    """
    if conversation and without_markers(row, tokenizer).messages[:-1] == row.messages[:-1]:
        return _chat_ids(conversation.prompt, tokenizer)
    if row.messages:
        prompt = chat_text(row.messages[:-1], tokenizer, prompt=True, given=row.given, source=row.source)
        return _chat_ids(prompt, tokenizer)
    return plain_ids(row.prompt, tokenizer)


def conversation_of(row: Row, tokenizer: Any) -> Chat | None:
    """Return the conversation of a row in the model's template, without its own end markers; None for a row of plain text.

    Raises:
        BadInput: The template refuses it; see `data.chat.chat`.
    """
    return chat(without_markers(row, tokenizer), tokenizer) if row.messages else None


def encode(
    row: Row, tokenizer: Any, max_length: int, conversation: Chat | None = None, train_on: str = "completion"
) -> Encoded:
    """Return the tokens of `row` with its answer marked as trained, the end of turn included.

    They begin with `prompt_ids(row)`, so that training and generation read the same tokens. Earlier answers of a conversation are
    trained too, if the same tokens precede them as when the model generated them and none says `train: false`. A row longer than
    `max_length` loses its later turns first. If the first answer still does not fit, its prompt loses its start, down to a
    quarter of `max_length`. Then the answer loses its end.

    Args:
        row: The row to train.
        tokenizer: The model's tokenizer.
        max_length: Largest number of tokens.
        conversation: What `conversation_of` returns for the row, where the caller has it.
        train_on: "completion" trains every answer, "last_turn" the last one alone, "all" the prompt too, without turns that say
            `train: false`.

    Raises:
        BadInput: Nothing would be trained, or the answer cannot be ended.
    """
    if written := conversation or conversation_of(row, tokenizer):
        ids, trained, opening = _chat_row(row, written, tokenizer, train_on)
    else:
        ids, trained, opening = _text_row(row, tokenizer, train_on)
    cut, front = max(0, len(ids) - max_length), 0
    if cut:
        first = trained.index(True) if True in trained else 0
        end = trained.index(False, first) if False in trained[first:] else len(ids)  # of the first answer
        front = min(max(end - max_length, 0), max(first - max(max_length // 4, 1), 0))
        ids, trained = ids[front : front + max_length], trained[front : front + max_length]
    encoded = Encoded(tuple(ids), tuple(trained), cut, min(max(opening - front, 0), len(ids)), row.label)
    if not encoded.targets:
        raise BadInput(f"{row.source or 'a row'}: nothing to train in it after tokenisation; give it an answer")
    return encoded


def answer_ids(row: Row, tokenizer: Any, conversation: Chat | None = None) -> list[int]:
    """Return the tokens that training puts after `prompt_ids(row)`, with the end of turn.

    Args:
        row: Prompt and answer.
        tokenizer: The model's tokenizer.
        conversation: What `conversation_of` returns for the row, where the caller has it.

    Raises:
        BadInput: There is no answer, or it cannot be ended.
    """
    if written := conversation or conversation_of(row, tokenizer):
        return _chat_answer(written, _chat_ids(written.prompt, tokenizer), tokenizer, row)
    ids = behind(
        without_markers(row, tokenizer).completion, row.prompt, prompt_ids(row, tokenizer), tokenizer, plain_ids
    )
    if not ids:
        raise BadInput(f"{row.source or 'a row'}: nothing to train in it; give it an answer")
    if tokenizer.eos_token_id is None:
        raise _endless(row)
    return [*ids, tokenizer.eos_token_id]


def end_markers(tokenizer: Any) -> tuple[str, ...]:
    """Return the texts that end an answer of this model: its end-of-sequence token, and its template's end of turn."""
    return tuple(dict.fromkeys(text for text in (tokenizer.eos_token, frame(tokenizer).end) if text))


def without_end(text: str, markers: Sequence[str]) -> str:
    """Return an answer without the markers at its end, which the encoder or the template adds itself."""
    while ending := next((mark for mark in markers if text.rstrip().endswith(mark)), None):
        text = text.rstrip().removesuffix(ending)
    return text


def stop_ids(tokenizer: Any) -> set[int]:
    """Return the tokens that end an answer: end of sequence, and the template's end of turn where that is one token."""
    turn = frame(tokenizer).end
    ids = _chat_ids(turn, tokenizer) if turn else []
    return {i for i in (tokenizer.eos_token_id, *(ids if len(ids) == 1 else ())) if i is not None}


def without_markers(row: Row, tokenizer: Any) -> Row:
    """Return a row whose answers do not end in markers that the encoder or the template adds."""
    markers = end_markers(tokenizer)
    turns = tuple(
        replace(turn, content=without_end(turn.content, markers)) if turn.role == "assistant" else turn
        for turn in row.messages
    )
    answer = without_end(row.completion, markers)
    return row if (turns, answer) == (row.messages, row.completion) else replace(row, messages=turns, completion=answer)


def _chat_ids(text: str, tokenizer: Any) -> list[int]:
    """Return the tokens of a text that already contains its special tokens."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def plain_ids(text: str, tokenizer: Any) -> list[int]:
    """Return the tokens of `text` with the tokenizer's opening special tokens once, without a closing one."""
    ids = tokenizer(text)["input_ids"]
    if ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token or "\0"):
        ids = ids[:-1]
    begin = getattr(tokenizer, "bos_token_id", None)  # not every tokenizer of a training script has one
    return ids[1:] if begin is not None and ids[:2] == [begin, begin] else ids


def _text_row(row: Row, tokenizer: Any, train_on: str) -> tuple[list[int], list[bool], int]:
    """Return the tokens of a row, whether each is trained, and the number of tokens of its prompt."""
    before, answer = prompt_ids(row, tokenizer), answer_ids(row, tokenizer)
    return before + answer, [train_on == "all"] * len(before) + [True] * len(answer), len(before)


def _chat_row(row: Row, conversation: Chat, tokenizer: Any, train_on: str) -> tuple[list[int], list[bool], int]:
    """Return the tokens of a conversation, whether each is trained, and the number of tokens before its last answer."""
    prompt_tokens = _chat_ids(conversation.prompt, tokenizer)
    answer = _chat_answer(conversation, prompt_tokens, tokenizer, row)
    everything = train_on == "all"
    trained = [everything] * len(prompt_tokens) + [True] * len(answer)
    marked = {"completion": conversation.earlier, "last_turn": (), "all": conversation.excluded}[train_on]
    for before, turn in marked:
        start, ids = _chat_ids(before, tokenizer), _chat_ids(turn, tokenizer)
        if prompt_tokens[: len(ids)] == ids and ids[: len(start)] == start:
            trained[len(start) : len(ids)] = [not everything] * (len(ids) - len(start))
        elif everything:  # the turns do not part at a token: nothing before the answer is trained
            trained[: len(prompt_tokens)] = [False] * len(prompt_tokens)
    ids = prompt_tokens + answer
    whole = (
        _chat_ids(conversation.prompt + conversation.answer + conversation.tail, tokenizer) if conversation.tail else []
    )
    if whole[: len(ids)] == ids:
        ids, trained = whole, trained + [False] * (len(whole) - len(ids))
    return ids, trained, len(prompt_tokens)


def _chat_answer(conversation: Chat, prompt_tokens: list[int], tokenizer: Any, row: Row) -> list[int]:
    """Return the tokens of an answer after those of its prompt: up to the template's end of turn, then the end of sequence."""
    text = split(conversation.answer, conversation.tag)[1]
    if not row.messages[-1].content.strip() and not without_end(text, end_markers(tokenizer)).strip():
        raise BadInput(
            f"{row.source or 'a row'}: nothing to train in it, as the model's chat template writes nothing of its last "
            "turn; give it a text"
        )
    ids, end = behind(conversation.answer, conversation.prompt, prompt_tokens, tokenizer), tokenizer.eos_token_id
    if not ids or ids[-1] == end:
        return ids
    if end is None and ids[-1] not in stop_ids(tokenizer):
        raise _endless(row)
    return ids if end is None else [*ids, end]


def _endless(row: Row) -> BadInput:
    return BadInput(
        f"{row.source or 'a row'}: this model's tokenizer names no end-of-sequence token, so no answer would ever end; "
        'name one ("eos_token") in its tokenizer_config.json'
    )


def behind(
    text: str,
    prompt: str,
    prompt_tokens: list[int],
    tokenizer: Any,
    tokenise: Callable[[str, Any], list[int]] | None = None,
) -> list[int]:
    """Return the tokens of `text` after a prompt that is tokenised alone, as it is when the model generates."""
    joint = (tokenise or _chat_ids)(prompt + text, tokenizer)
    if joint[: len(prompt_tokens)] == prompt_tokens:
        return joint[len(prompt_tokens) :]
    # A token covers the end of the prompt and the start of the text. Some tokenizers also add a mark before every text.
    leads = [(_chat_ids(lead, tokenizer), _chat_ids(lead + text, tokenizer)) for lead in ("", "\n", ":", "a")]
    alone = [ids[len(front) :] for front, ids in leads if ids[: len(front)] == front]
    wanted = _decoded(joint, tokenizer)
    return next((ids for ids in alone if _decoded(prompt_tokens + ids, tokenizer) == wanted), alone[0])


def _decoded(ids: list[int], tokenizer: Any) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
