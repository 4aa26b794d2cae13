"""Conversations as a model's chat template writes them: what the model is given, and what it is to answer.

The template comes from the model's folder: it may raise, drop what it is given, write what nobody said, or never end.
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

SECONDS, MEMORY = 5.0, 2**31  # that writing one conversation may take
LONGEST = 10_000_000  # characters of one
DATE = datetime(2024, 7, 26)  # that templates write which ask for today's: Llama 3's own, where it is not told one
MARK = "\u241eanswer\u241e"  # stands for an answer


@dataclass(frozen=True)
class Chat:
    """A conversation as text.

    Args:
        asked: What the model is given: the turns before the last, opened for its answer.
        answer: What is trained behind it, the end of turn included.
        tail: White space that the template writes behind; read, and not trained.
        earlier: Of each earlier answer, the text up to it and the text up to its end, where `asked` holds them as they are.
        left: Number of earlier answers that `asked` holds otherwise than the model was asked; they are not trained.
        thought: What became of a thought: "" (there is none, and no place for one), "written" (by the template), "opened" (the
            prompt opens a block, and the thought is trained in it), "empty" (the prompt opens a block that is closed at once),
            "cut" (the template leaves it out).
    """

    asked: str
    answer: str
    tail: str = ""
    earlier: tuple[tuple[str, str], ...] = ()
    left: int = 0
    thought: str = ""

    @property
    def tag(self) -> str | None:
        """The tag of the thought that the prompt opens and the answer closes; None where it does not."""
        block = opening(self.asked)
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
        tokenizer: Whose template it is.
        prompt: End with the generation prompt.
        given: What the template is given beside the turns (`Row.given`).
        source: Where the conversation stands, for errors.

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


# A macro, since a template is given plain data alone, no function. It has the name of the function that it stands for.
_CODES = ["%d", "%e", "%m", "%b", "%B", "%y", "%Y", "%a", "%A", "%j", "%H", "%I", "%M", "%S", "%p"]
_DATED = (
    "{%- macro strftime_now(form) -%}{{ form"
    + "".join(f" | replace('{code}', '{DATE.strftime(code)}')" for code in _CODES)
    + " }}{%- endmacro -%}"
)


def writes_date(tokenizer: Any) -> bool:
    """Say whether the chat template asks for today's date: what is trained and scored then has `DATE`, on any day."""
    return "strftime_now" in str(getattr(tokenizer, "chat_template", None) or "")


def chat(row: Row, tokenizer: Any) -> Chat:
    """Return the conversation of `row`, whose last turn is the answer, as text.

    The answer stands behind what the model is given when it is asked, whatever the template makes of it once it is written. If
    the generation prompt opens a thought block that the template leaves out of answers, the row's own thought is trained in it,
    or, where it has none, its end.

    Raises:
        BadInput: The last turn is no answer, or the template writes the turns before it otherwise once it is there.
    """
    messages, place = row.messages, row.source or "a row"
    if not messages or messages[-1].role != "assistant":
        raise BadInput(f"{place}: nothing to train in it, as its last turn is no answer; give it one")

    def text(turns: Sequence[Message], prompt: bool) -> str:
        return chat_text(turns, tokenizer, prompt=prompt, given=row.given, source=row.source)

    asked, whole = text(messages[:-1], True), text(messages, False)
    body = whole.rstrip()
    found = Chat(asked, body[len(asked) :], whole[len(body) :]) if body.startswith(asked) else None
    found = (
        _closed(found, messages[-1])
        if found
        else _opened(asked, body, messages[-1], lambda: text(messages[:-1], False))
    )
    if found is None:
        raise BadInput(
            f"{place}: the model's chat template rewrites earlier turns once the answer is there, so that the model would "
            "never be asked as it is trained; split the conversation into one row an answer"
        )
    earlier = [i for i, turn in enumerate(messages[:-1]) if turn.role == "assistant"]
    pairs = [(text(messages[:i], True), text(messages[: i + 1], False).rstrip()) for i in earlier]
    kept = tuple((a, b) for a, b in pairs if b.startswith(a) and asked.startswith(b))
    return replace(found, earlier=kept, left=len(pairs) - len(kept))


@dataclass(frozen=True)
class Frame:
    """What a chat template writes around an answer.

    Args:
        prompt: The generation prompt behind a question, with the question's own turn.
        before: What stands between the generation prompt and the answer, such as an empty thought block.
        end: What stands behind the answer, its end of turn.
    """

    prompt: str = ""
    before: str = ""
    end: str = ""


def frame(tokenizer: Any) -> Frame:
    """Return what the chat template of a tokenizer writes around an answer; nothing where it has none, or wants other turns."""
    template = getattr(tokenizer, "chat_template", None)  # not every tokenizer of a training script has one
    return _frame(tokenizer, str(template)) if template else Frame()


@lru_cache(maxsize=4)  # every row asks, and the answer is the template's
def _frame(tokenizer: Any, _: str) -> Frame:
    try:
        found = chat(Row(messages=(Message("user", "Hello"), Message("assistant", MARK))), tokenizer)
    except BadInput:  # it says so when it gets rows
        return Frame()
    before, mark, end = found.answer.partition(MARK)
    return Frame(found.asked, before, end.strip()) if mark else Frame(found.asked)


def _thought_of(turn: Message) -> tuple[str | None, str]:
    """Return (thought, answer) of an assistant turn, the thought from its own field or from its text."""
    thought, answer = split(turn.content)
    fields = turn.fields
    own = next((fields[name] for name in REASONING if fields.get(name)), None)
    return (own if own is not None else thought), answer


def _closed(found: Chat, turn: Message) -> Chat:
    """Return a conversation whose answer goes on from the prompt, with what became of the thought."""
    thought = _thought_of(turn)[0]
    written, _ = split(found.answer, tag[1] if (tag := opening(found.asked)) else None)
    if written is not None and written.strip():
        return replace(found, thought="written")
    if thought is not None and thought.strip():
        return replace(found, thought="written" if thought.strip() in found.answer else "cut")
    return replace(found, thought="empty") if written is not None else found


def _opened(asked: str, body: str, turn: Message, before: Any) -> Chat | None:
    """Return a conversation whose prompt opens what the written answer does not have; None if the turns before it differ."""
    block, thought_answer = opening(asked) or empty_block(asked), _thought_of(turn)
    base = asked[: block.start()] if block else asked.rstrip()
    if not body.startswith(base):
        base = before()
        if not (asked.startswith(base) and body.startswith(base)):
            return None
        opened, rest = asked[len(base) :], body[len(base) :]
        same = next(
            (k for k, (a, b) in enumerate(zip(opened, rest, strict=False)) if a != b), min(len(opened), len(rest))
        )
        at = rest.rfind(turn.content.strip())
        return Chat(asked, rest[min(same, at) if at >= 0 else same :])
    rest = body[len(base) :]
    if block is None:
        return Chat(asked, rest.lstrip())
    thought, answer = thought_answer
    end = _behind(split(rest)[1], answer)
    if opening(asked) is None:  # the block is closed: the answer alone goes on from it
        return Chat(asked, answer.strip() + end, thought="cut" if thought and thought.strip() else "")
    close = CLOSING[block[1]]
    if thought and thought.strip():
        inner = thought.strip() if block[2] else thought.rstrip()
        return Chat(asked, f"{inner}\n{close}\n\n{answer.strip()}{end}", thought="opened")
    gap = "" if block[2] else "\n"
    return Chat(asked, f"{gap}\n{close}\n\n{answer.strip()}{end}", thought="empty")


def _behind(rest: str, answer: str) -> str:
    """Return what stands behind `answer` in `rest`; all of it where there is no answer."""
    wanted = answer.strip()
    at = rest.rfind(wanted) if wanted else 0
    return rest[at + len(wanted) :] if at >= 0 else ""


def _what(turns: Sequence[Mapping[str, Any]]) -> str:
    return f"its turns are {', '.join(str(turn['role']) for turn in turns[:12])}{', ...' if len(turns) > 12 else ''}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:199] + "\u2026"
