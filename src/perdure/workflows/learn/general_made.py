"""General rows that no file has: the base model writes instructions from its own chat template, and answers them.

Source: Xu et al., "Magpie", arXiv 2406.08464.
Deviation: min-p sampling, filters of form and of near copies only, and answers of at most 64 tokens.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput
from perdure.core.files import write_text
from perdure.core.keyed import keyed
from perdure.core.progress import Tick
from perdure.core.records import BadRecord, Record
from perdure.core.rows import Message, Row
from perdure.core.words import counted
from perdure.data.chat import MARK, chat_text
from perdure.data.instructions import has_form, without_copies
from perdure.evaluate.soundness import sound
from perdure.workflows.cached import cached
from perdure.workflows.scoring import answers
from perdure.workflows.session import Session

FORM = 1  # of what is written; another one is written anew


@dataclass(frozen=True)
class Writing:
    """How general rows are written; another value gives other rows.

    Args:
        rows: Rows that are wanted.
        batch: Instructions that are sampled at once, always as many: the bits of a model depend on its batch.
        batches: Most batches.
        temperature: Of the instructions.
        min_p: Of the instructions; see `model.sample.sampler`.
        instruction_tokens: Most tokens of an instruction; one that does not end before is dropped.
        answer_tokens: Most tokens of an answer; a longer one is cut, and rehearsed up to the cut.
    """

    rows: int = 100
    batch: int = 32
    batches: int = 16
    temperature: float = 1.0
    min_p: float = 0.1
    instruction_tokens: int = 64
    answer_tokens: int = 64


@dataclass(frozen=True)
class WrittenRow(Record):
    """An instruction and its answer.

    Args:
        instruction: The user's turn.
        answer: The assistant's.
    """

    instruction: str
    answer: str


@dataclass(frozen=True)
class WrittenRows(Record):
    """General rows as a base model wrote them.

    Args:
        rows: The rows, in order.
        sampled: Instructions that were sampled.
        ended: Of them, how many ended by themselves.
        formed: Of them, how many have the form of an instruction.
        different: Of them, how many are no near copy of another.
        seconds: Seconds that it took.
    """

    rows: tuple[WrittenRow, ...]
    sampled: int
    ended: int
    formed: int
    different: int
    seconds: float

    @property
    def notice(self) -> str:
        """How the rows came about, for people."""
        return (
            f"general rows: {len(self.rows)} written by the base model in {self.seconds:.0f} s ({self.sampled} sampled, "
            f"{self.ended} ended by themselves, {self.formed} have the form of an instruction, {self.different} differ, "
            f"{len(self.rows)} with a sound answer)"
        )


def made_general(
    session: Session, writing: Writing = Writing(), tick: Tick | None = None
) -> tuple[tuple[Row, ...], list[str]]:
    """Return general rows of the base model: those written before for this model, seed and way of writing, else new ones.

    The base model is loaded where rows have to be written. The rows lie in the user's cache.

    Args:
        session: Of the workspace, whose seed decides the rows.
        writing: How they are written.
        tick: Called with (what, done, total).

    Returns:
        The rows, conversations of two turns, and notices.

    Raises:
        BadInput: The model has no chat template, or writes no instruction.

    Cost: a generation of some 100 tokens a row.
    """
    file = cached(session, "general") / f"{_key(session, writing)}.json"
    try:
        written = WrittenRows.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, BadRecord):  # not written yet, or cut off
        session.load(session.ledger.resolve("base"))
        written = write_general(session.runtime, session.seed, writing, tick)
        session.runtime.release()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(written.to_json()) + "\n")
        notices = [written.notice]
    else:
        notices = []
    if len(written.rows) < writing.rows:
        notices.append(f"the base model wrote {counted(len(written.rows), 'general row')}, fewer than {writing.rows}")
    return tuple(_row(n, one) for n, one in enumerate(written.rows, start=1)), notices


def write_general(runtime: Any, seed: int, writing: Writing, tick: Tick | None = None) -> WrittenRows:
    """Return general rows that the loaded model writes; the same model, seed and way of writing give the same rows.

    Args:
        runtime: Holds the model.
        seed: Key of the samples.
        writing: How they are written.
        tick: Called with (what, done, total).

    Raises:
        BadInput: The model has no chat template, or writes no instruction.
    """
    began, counts = time.perf_counter(), [0, 0, 0, 0]
    known: list[str] = []
    rows: list[WrittenRow] = []
    prefix, stops, marks = user_turn(runtime)
    for number in range(writing.batches):
        if len(rows) >= writing.rows:
            break
        ended = _instructions(runtime, prefix, stops, seed, number, writing)
        formed = [text for text in ended if has_form(text, marks)]
        fresh = without_copies(formed, known)
        known += fresh
        counts = [a + b for a, b in zip(counts, (writing.batch, len(ended), len(formed), len(fresh)), strict=True)]
        rows += _answered(runtime, fresh, writing)
        if tick:
            tick("writing general rows", min(len(rows), writing.rows), writing.rows)
    if not rows:
        raise BadInput(
            f"the base model wrote no instruction with a sound answer in {counts[0]} tries ({counts[1]} ended by themselves, "
            f"{counts[2]} have the form of one); name a file with general data instead of 'made'"
        )
    sampled, ended_well, formed_well, different = counts
    return WrittenRows(
        rows=tuple(rows[: writing.rows]),
        sampled=sampled,
        ended=ended_well,
        formed=formed_well,
        different=different,
        seconds=round(time.perf_counter() - began, 1),
    )


def user_turn(runtime: Any) -> tuple[list[int], list[int], list[str]]:
    """Return the tokens of a chat template up to the user's turn, the tokens that end the turn, and texts of the template alone.

    A token that holds a line break ends the turn too, as models go on to answer after one.

    Raises:
        BadInput: The model has no chat template, or one that rewrites the user's turn.
    """
    tokenizer = runtime.base.tokenizer
    if not tokenizer.chat_template:
        raise BadInput(
            "general: made needs a chat template, from which the base model writes instructions, and this model's tokenizer has "
            "none; name a file with general data"
        )
    before, mark, after = chat_text([Message("user", MARK)], tokenizer, prompt=False).partition(MARK)
    ids = tokenizer(before, add_special_tokens=False)["input_ids"]
    if not mark or not ids:
        raise BadInput(
            "general: made needs a chat template with a beginning of the user's turn, and this model's has none; name a file "
            "with general data"
        )
    special = set(tokenizer.all_special_ids)
    ends = [i for i in tokenizer(after, add_special_tokens=False)["input_ids"][:1] if i in special]
    texts = tokenizer.batch_decode([[i] for i in range(runtime.base.rows)], clean_up_tokenization_spaces=False)
    breaks = [i for i, text in enumerate(texts) if "\n" in text]
    return ids, sorted({*runtime.base.stops, *ends, *breaks}), [text for text in tokenizer.all_special_tokens if text]


def _instructions(
    runtime: Any, prefix: list[int], stops: Sequence[int], seed: int, number: int, writing: Writing
) -> list[str]:
    """Return the texts of one batch of samples that ended by themselves, in order."""
    from perdure.model.decode import generate
    from perdure.model.sample import sampler

    draws = [keyed(seed, "general", number, n) for n in range(writing.batch)]
    found = generate(
        runtime.model,
        [prefix] * writing.batch,
        max_new_tokens=writing.instruction_tokens,
        stops=stops,
        pad=runtime.base.pad,
        precision=runtime.precision,
        choose=sampler(writing.temperature, draws, writing.min_p),
        batch=writing.batch,
    )
    whole = [ids for ids in found if len(ids) < writing.instruction_tokens]
    texts = runtime.base.tokenizer.batch_decode(whole, clean_up_tokenization_spaces=False)
    return [text.strip() for text in texts]


def _answered(runtime: Any, instructions: Sequence[str], writing: Writing) -> list[WrittenRow]:
    """Return the instructions with a sound answer of the model, in order."""
    if not instructions:
        return []
    asked = [_row(0, WrittenRow(text, "")) for text in instructions]
    given = answers(runtime, asked, writing.answer_tokens)
    return [
        WrittenRow(text, answer)
        for text, answer, tokens in zip(instructions, given.texts, given.tokens, strict=True)
        if sound(text, answer, ended=tokens < writing.answer_tokens)
    ]


def _row(number: int, written: WrittenRow) -> Row:
    turns = (Message("user", written.instruction), Message("assistant", written.answer))
    return replace(Row(messages=turns), task="general", source=f"made:{number}")


def _key(session: Session, writing: Writing) -> str:
    """Return the name of what is written: by the base as it is loaded, seed, and way of writing."""
    config = session.ledger.config
    base = [config["weights"], config["dtype"], config.get("quantization"), config.get("attn_implementation")]
    base += sorted(session.ledger.slots(session.ledger.resolve("base")).values())  # an adapter it was made with
    told = {field.name: getattr(writing, field.name) for field in fields(writing)}
    return content_hash([FORM, base, session.seed, told])[:32]
