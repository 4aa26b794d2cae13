"""Notices about changes that a model's tokenizer and chat template make to rows, and that the user may not expect."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perdure.core.canonical import canonical_json
from perdure.core.errors import BadInput
from perdure.core.rows import Message, Row
from perdure.core.words import counted
from perdure.data.chat import MARK, Chat, chat_text, frame
from perdure.data.encode import conversation_of, end_markers, without_markers
from perdure.data.thoughts import knows_thoughts, split
from perdure.data.turns import REASONING

FOREIGN = (
    "</s>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|end_of_text|>",
    "<eos>",
    "[EOS]",
)


@dataclass
class _Remarks:
    """The rows that each remark applies to, by their sources."""

    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, source: str) -> None:
        self.places.setdefault(what, []).append(source)

    def count(self, what: str) -> int:
        return len(self.places.get(what, ()))

    def times(self, what: str, word: str) -> str:
        """Return "3 answers (the first f.jsonl:2)"."""
        places = self.places[what]
        first = f" (the first {places[0]})" if places[0] else ""
        return f"{counted(len(places), word)}{first}"


def examine(
    rows: Sequence[Row], tokenizer: Any, written: Callable[[Row, Any], Chat | None] = conversation_of
) -> list[str]:
    """Return notices about text that is read as control tokens, left out by the template, or trained in another form.

    Args:
        rows: Rows that are trained or scored.
        tokenizer: The model's tokenizer.
        written: Returns the conversation of a row and a tokenizer as `conversation_of` does.

    Raises:
        BadInput: The template refuses a row.
    """
    seen, ends, control = _Remarks(), end_markers(tokenizer), _control(tokenizer)
    for row in rows:
        plain = without_markers(row, tokenizer)
        _markers(row, plain, ends, control, seen)
        if conversation := written(row, tokenizer):
            _conversation(plain, conversation, tokenizer, seen)
        elif not (split(row.completion)[0] or "").strip():
            seen.add("no thought", row.source)
    return [*_about_markers(seen), *_about_thoughts(seen, len(rows), tokenizer), *_about_fields(seen)]


def _control(tokenizer: Any) -> tuple[str, ...]:
    """Return the control tokens of this model: those in its template, and those that open, end or pad a text."""
    around = frame(tokenizer)
    written = around.prompt + around.before + around.end
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    own = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, around.end)
    return tuple(dict.fromkeys(text for text in (*own, *(t for t in special if t in written)) if text))


def _markers(row: Row, plain: Row, ends: Sequence[str], control: Sequence[str], seen: _Remarks) -> None:
    if plain != row:
        seen.add("ended", row.source)
    answers = [turn.content for turn in plain.messages if turn.role == "assistant"] or [plain.completion]
    others = [turn.content for turn in plain.messages if turn.role != "assistant"] or [plain.prompt]
    for what, texts in (("answer", answers), ("prompt", others)):
        for name in {name for name in control for text in texts if name in text}:
            seen.add(f"{what} holds {name}", row.source)
    last = answers[-1].rstrip()
    for name in FOREIGN:
        if name not in ends and name not in control and last.endswith(name):
            seen.add(f"foreign {name}", row.source)


def _conversation(row: Row, written: Chat, tokenizer: Any, seen: _Remarks) -> None:
    """Add remarks about the template's version of a conversation."""
    if written.thought in ("", "empty"):
        seen.add("no thought", row.source)
    if written.thought:
        seen.add(f"thought {written.thought}", row.source)
    for _ in range(written.left):
        seen.add("left", row.source)
    answer = split(row.messages[-1].content)[1].strip()
    if answer and answer not in written.answer:
        seen.add("changed", row.source)
    for n, turn in enumerate(row.messages[:-1]):
        text = split(turn.content)[1].strip() if turn.role == "assistant" else turn.content.strip()
        if text and text not in written.prompt and not _shown(row, n, tokenizer):
            seen.add(f"turn {turn.role}", row.source)
    for name in dict.fromkeys(key for turn in row.messages for key in turn.fields if key not in _ALWAYS):
        if _drops(written, replace(row, messages=tuple(_without(turn, name) for turn in row.messages)), tokenizer):
            seen.add(f"field {name}", row.source)
    for name in row.given:
        rest = {key: value for key, value in row.given.items() if key != name}
        if _drops(written, replace(row, extra=canonical_json(rest) if rest else ""), tokenizer):
            seen.add(f"field {name}", row.source)


_ALWAYS = ("role", "content", *REASONING)  # other notices cover these


def _without(turn: Message, name: str) -> Message:
    extra = {key: value for key, value in turn.fields.items() if key not in ("role", "content", name)}
    if turn.fields["content"] is None and name != "tool_calls":
        extra["content"] = None
    return replace(turn, extra=canonical_json(extra) if extra else "")


def _drops(written: Chat, other: Row, tokenizer: Any) -> bool:
    """Return whether the template renders a conversation without one part exactly as it renders the whole."""
    try:
        text = chat_text(other.messages, tokenizer, prompt=False, given=other.given, source=other.source)
    except BadInput:  # it needs the removed part
        return False
    return text == written.whole


def _shown(row: Row, number: int, tokenizer: Any) -> bool:
    """Return whether the template renders the text of a turn in some form."""
    turns = list(row.messages[:-1])
    turns[number] = replace(turns[number], content=MARK)
    try:
        return MARK in chat_text(turns, tokenizer, prompt=True, given=row.given, source=row.source)
    except BadInput:  # it reads the text, since it refuses the placeholder
        return True


def _about_markers(seen: _Remarks) -> list[str]:
    notices = []
    if seen.count("ended"):
        notices.append(
            f"{seen.times('ended', 'answer')} end in a marker that the model or the template adds itself; it is removed, so that "
            "the end is trained once and never scored"
        )
    for what in seen.places:
        kind, _, name = what.partition(" holds ")
        if kind == "answer" and name:
            notices.append(
                f"{seen.times(what, 'answer')} hold the control token {name}, which is trained as such: the model may end or "
                "turn there; remove it if it is meant as text"
            )
        elif kind == "prompt" and name:
            notices.append(
                f"{seen.times(what, 'prompt')} hold the text of the control token {name}, which the model reads as such; remove "
                "it if it is meant as text"
            )
        elif what.startswith("foreign "):
            notices.append(
                f"{seen.times(what, 'answer')} end in {what.removeprefix('foreign ')}, which ends nothing for this model and is "
                "trained as text; remove it"
            )
    return notices


def _about_thoughts(seen: _Remarks, total: int, tokenizer: Any) -> list[str]:
    notices = []
    if seen.count("thought cut"):
        notices.append(
            f"the model's chat template drops the thought of {seen.times('thought cut', 'answer')}: none of it is trained"
        )
    if seen.count("thought opened"):
        notices.append(
            f"the model's chat template drops the thought of {seen.times('thought opened', 'answer')} and opens a thought block "
            "in its prompt: the thought is trained in that block, and the answer after it is scored"
        )
    if seen.count("no thought") and knows_thoughts(str(getattr(tokenizer, "chat_template", None) or "")):
        empty = "; an empty thought block is trained before the answer" if seen.count("thought empty") else ""
        notices.append(
            f"this is a reasoning model, and {seen.count('no thought')} of {counted(total, 'row')} have no reasoning{empty}: it "
            "may learn to answer without thinking"
        )
    if seen.count("left"):
        notices.append(
            f"{seen.times('left', 'earlier answer')} of conversations are read and not trained, as the model's chat template or "
            "tokenizer writes an old answer differently from a new one; to train all of them, write one row per answer"
        )
    return notices


def _about_fields(seen: _Remarks) -> list[str]:
    notices = []
    if seen.count("changed"):
        notices.append(
            f"the model's chat template changes the text of {seen.times('changed', 'answer')}; it is trained as written"
        )
    for what in seen.places:
        kind, _, name = what.partition(" ")
        if kind == "turn":
            notices.append(
                f"the model's chat template drops the {name} turn of {seen.times(what, 'row')}: the model never sees it"
            )
        elif kind == "field":
            notices.append(
                f"the model's chat template drops {name} of {seen.times(what, 'row')}: the model never sees it"
            )
    return notices
