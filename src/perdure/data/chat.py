"""Conversations in a model's chat template: the prompt that the model reads, and the answer that it learns.

The template comes from the model's folder. It may raise, drop turns or fields, add text that no turn has, or never end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from perdure.core.deadline import TooLong, at_most
from perdure.core.errors import BadInput
from perdure.core.rows import Message, Row
from perdure.data.thoughts import CLOSING, empty_block, opening, split
from perdure.data.turns import REASONING

SECONDS, MEMORY = 5.0, 2**31  # limits for rendering one conversation
LONGEST = 10_000_000  # characters of a rendered conversation
DATE = datetime(2024, 7, 26)  # for templates that write today's date: the date that Llama 3 writes without one
MARK = "\u241eanswer\u241e"  # placeholder of an answer


@dataclass(frozen=True)
class Chat:
    """A conversation as text.

    Args:
        prompt: The turns before the last, with the generation prompt.
        answer: The text after it that is trained, the end of turn included.
        tail: White space that the template writes after the answer; it is read, and not trained.
        earlier: For each earlier answer that `prompt` contains unchanged: the text up to it, and the text up to its end.
        excluded: For each turn with `train: false`: the text up to it, and the text up to its end.
        left: Number of earlier answers that `prompt` writes differently from how they were generated; they are not trained.
        thought: The state of the thought: "" (there is none, and no place for one), "written" (by the template), "opened" (the
            prompt opens a block, and the thought is trained in it), "empty" (the prompt opens a block that is closed at once),
            "cut" (the template leaves it out).
        whole: The conversation with its answer as the template writes it, which need not be what is trained.
    """

    prompt: str
    answer: str
    tail: str = ""
    earlier: tuple[tuple[str, str], ...] = ()
    excluded: tuple[tuple[str, str], ...] = ()
    left: int = 0
    thought: str = ""
    whole: str = ""

    @property
    def tag(self) -> str | None:
        """The tag of the thought that the prompt opens and the answer closes; None where it does not."""
        block = opening(self.prompt)
        return block[1] if block and CLOSING[block[1]] in self.answer else None


def chat_text(
    messages: Sequence[Message],
    tokenizer: Any,
    *,
    prompt: bool,
    given: Mapping[str, Any] | None = None,
    source: str = "",
) -> str:
    """Return a conversation in the model's chat template; with `prompt`, open for the assistant's next turn.

    Args:
        messages: The turns.
        tokenizer: The tokenizer with the template.
        prompt: End with the generation prompt.
        given: Arguments of the template other than the turns (`Row.given`).
        source: File and line of the conversation, for errors.

    Raises:
        BadInput: There is no template, or it refuses the conversation, fails, or does not end.
    """
    if not tokenizer.chat_template:
        raise BadInput(
            "the rows are conversations, but this model's tokenizer has no chat template; "
            "use prompt/completion rows, or a model made for chat"
        )
    from jinja2.exceptions import TemplateError

    more = dict(given or {})
    options = {**more.pop("chat_template_kwargs", {}), **more}
    if writes_date(tokenizer):
        options["chat_template"] = _DATED + tokenizer.get_chat_template(None, options.get("tools"))
    turns = [turn.fields for turn in messages]
    place = source or "a row"
    try:
        with at_most(SECONDS, MEMORY):
            text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt, **options)
    except TooLong:
        raise BadInput(
            f"{place}: the model's chat template did not end within {SECONDS:g} s; use another model"
        ) from None
    except MemoryError:
        raise BadInput(
            f"{place}: the model's chat template needs more than {MEMORY >> 30} GiB; use another model"
        ) from None
    except TemplateError as error:
        raise BadInput(f"{place}: the model's chat template refuses it: {_one_line(error)}; {_what(turns)}") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise BadInput(
            f"{place}: the model's chat template fails: {type(error).__name__}: {_one_line(error)}; {_what(turns)}"
        ) from error
    if len(text) > LONGEST:
        raise BadInput(f"{place}: the model's chat template writes {len(text):,} characters; {LONGEST:,} are the most")
    return text


# A macro, since a template gets plain data and no functions. It has the name of the function that it replaces.
_CODES = ["%d", "%e", "%m", "%b", "%B", "%y", "%Y", "%a", "%A", "%j", "%H", "%I", "%M", "%S", "%p"]
_DATED = (
    "{%- macro strftime_now(form) -%}{{ form"
    + "".join(f" | replace('{code}', '{DATE.strftime(code)}')" for code in _CODES)
    + " }}{%- endmacro -%}"
)


def writes_date(tokenizer: Any) -> bool:
    """Return whether the chat template writes today's date: training and scoring then use `DATE`, on any day."""
    return "strftime_now" in str(getattr(tokenizer, "chat_template", None) or "")


def chat(row: Row, tokenizer: Any) -> Chat:
    """Return the conversation of `row`, whose last turn is the answer, as text.

    The answer follows the prompt that the model reads when it generates, even if the template writes a finished answer
    differently. The generation prompt may open a thought block that the template leaves out of answers. Then the row's own
    thought is trained in the block, or, where the row has no thought, the end of the block.

    Raises:
        BadInput: The last turn is no answer, or the template writes the turns before it differently once it has the answer.
    """
    messages, place = row.messages, row.source or "a row"
    if not messages or messages[-1].role != "assistant":
        raise BadInput(f"{place}: nothing to train in it, as its last turn is no answer; give it one")

    def text(turns: Sequence[Message], prompt: bool) -> str:
        return chat_text(turns, tokenizer, prompt=prompt, given=row.given, source=row.source)

    prompt, whole = text(messages[:-1], True), text(messages, False)
    body = whole.rstrip()
    conversation = Chat(prompt, body[len(prompt) :], whole[len(body) :]) if body.startswith(prompt) else None
    conversation = (
        _closed(conversation, messages[-1])
        if conversation
        else _opened(prompt, body, messages[-1], lambda: text(messages[:-1], False))
    )
    if conversation is None:
        raise BadInput(
            f"{place}: the model's chat template rewrites earlier turns once the answer is there, so the model would "
            "never get the prompt that it was trained on; split the conversation into one row per answer"
        )
    earlier = [i for i, turn in enumerate(messages[:-1]) if turn.role == "assistant" and turn.train]
    pairs = [(text(messages[:i], True), text(messages[: i + 1], False).rstrip()) for i in earlier]
    earlier_answers = tuple((a, b) for a, b in pairs if b.startswith(a) and prompt.startswith(b))
    marked = [i for i, turn in enumerate(messages[:-1]) if not turn.train]
    spans = [(text(messages[:i], False) if i else "", text(messages[: i + 1], False)) for i in marked]
    excluded = tuple((a, b) for a, b in spans if b.startswith(a) and prompt.startswith(b))
    if len(excluded) < len(marked):
        excluded = (
            ("", prompt),
        )  # the place of a turn is not known: nothing before the answer is trained by `train_on: all`
    left = len(pairs) - len(earlier_answers)
    return replace(conversation, earlier=earlier_answers, excluded=excluded, left=left, whole=whole)


@dataclass(frozen=True)
class Frame:
    """The text of a chat template around an answer.

    Args:
        prompt: The question's turn and the generation prompt after it.
        before: Text between the generation prompt and the answer, such as an empty thought block.
        end: Text after the answer, its end of turn.
    """

    prompt: str = ""
    before: str = ""
    end: str = ""


def frame(tokenizer: Any) -> Frame:
    """Return the text of a tokenizer's chat template around an answer; empty without a template, or if it needs other turns."""
    template = getattr(tokenizer, "chat_template", None)  # not every tokenizer of a training script has one
    return _frame(tokenizer, str(template)) if template else Frame()


@lru_cache(maxsize=4)  # every row needs it, and it depends only on the template
def _frame(tokenizer: Any, _: str) -> Frame:
    try:
        conversation = chat(Row(messages=(Message("user", "Hello"), Message("assistant", MARK))), tokenizer)
    except BadInput:  # the error appears when rows are encoded
        return Frame()
    before, mark, end = conversation.answer.partition(MARK)
    return Frame(conversation.prompt, before, end.strip()) if mark else Frame(conversation.prompt)


def _thought_of(turn: Message) -> tuple[str | None, str]:
    """Return (thought, answer) of an assistant turn, the thought from its own field or from its text."""
    thought, answer = split(turn.content)
    fields = turn.fields
    own = next((fields[name] for name in REASONING if fields.get(name)), None)
    return (own if own is not None else thought), answer


def _closed(conversation: Chat, turn: Message) -> Chat:
    """Return a conversation whose rendered text continues the prompt, with the state of its thought."""
    thought = _thought_of(turn)[0]
    written, _ = split(conversation.answer, tag[1] if (tag := opening(conversation.prompt)) else None)
    if written is not None and written.strip():
        return replace(conversation, thought="written")
    if thought is not None and thought.strip():
        return replace(conversation, thought="written" if thought.strip() in conversation.answer else "cut")
    return replace(conversation, thought="empty") if written is not None else conversation


def _opened(prompt: str, body: str, turn: Message, before: Any) -> Chat | None:
    """Return a conversation whose prompt opens a block that the rendered answer lacks; None if the turns before it differ."""
    block, thought_answer = opening(prompt) or empty_block(prompt), _thought_of(turn)
    base = prompt[: block.start()] if block else prompt.rstrip()
    if not body.startswith(base):
        base = before()
        if not (prompt.startswith(base) and body.startswith(base)):
            return None
        opened, rest = prompt[len(base) :], body[len(base) :]
        same = next(
            (k for k, (a, b) in enumerate(zip(opened, rest, strict=False)) if a != b), min(len(opened), len(rest))
        )
        at = rest.rfind(turn.content.strip())
        return Chat(prompt, rest[min(same, at) if at >= 0 else same :])
    rest = body[len(base) :]
    if block is None:
        return Chat(prompt, rest.lstrip())
    thought, answer = thought_answer
    end = _behind(split(rest)[1], answer)
    if opening(prompt) is None:  # the block is closed: only the answer follows it
        return Chat(prompt, answer.strip() + end, thought="cut" if thought and thought.strip() else "")
    close = CLOSING[block[1]]
    if thought and thought.strip():
        inner = thought.strip() if block[2] else thought.rstrip()
        return Chat(prompt, f"{inner}\n{close}\n\n{answer.strip()}{end}", thought="opened")
    gap = "" if block[2] else "\n"
    return Chat(prompt, f"{gap}\n{close}\n\n{answer.strip()}{end}", thought="empty")


def _behind(rest: str, answer: str) -> str:
    """Return the text after `answer` in `rest`; all of it where there is no answer."""
    wanted = answer.strip()
    at = rest.rfind(wanted) if wanted else 0
    return rest[at + len(wanted) :] if at >= 0 else ""


def _what(turns: Sequence[Mapping[str, Any]]) -> str:
    return f"its turns are {', '.join(str(turn['role']) for turn in turns[:12])}{', ...' if len(turns) > 12 else ''}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:199] + "\u2026"
