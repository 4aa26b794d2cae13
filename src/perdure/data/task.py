"""One version of a task: its rows, its settings, and what follows from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput
from perdure.core.rows import Message, Row, RowName
from perdure.core.script import count_words
from perdure.data.columns import CHECKED, CHOOSING, LABELLED
from perdure.data.formats import DEFAULT_TEMPLATE, FORMATS, alpaca_prompt, fill, names_in, to_rows
from perdure.data.label_sets import names_in_sets
from perdure.data.read import Record
from perdure.data.sample import MOST
from perdure.data.scoring import scoring_version
from perdure.data.spec import STORED, TaskSpec
from perdure.data.systems import with_system
from perdure.data.thoughts import split

_SHORT_ANSWER = 8  # words; up to this length two good answers rarely differ


@dataclass(frozen=True)
class TaskData:
    """One version of a task.

    Args:
        spec: What the user set.
        train: Rows to learn from.
        validation: Rows that may choose between checkpoints.
        test: Rows that score.
        format: The format the rows were written in.
        test_made: Whether the test part was drawn from the train data because no file named one.
        fingerprint: Hash of the train rows in order; computed where left empty.
        version: Hash of everything that decides what is trained and how it is scored; computed where left empty.
        default: Name of the scorer where the settings name none; computed where left empty.
        notices: What the user should know about the data as they were read; not part of the task.
        unread: Columns of the data that nothing read; likewise.
        names: Train and validation rows that are known by name alone, as their text is not stored.
        choices: Answers of all rows, where the scorer chooses among them and rows have no choices of their own; computed where
            left empty.
    """

    spec: TaskSpec
    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    format: str
    test_made: bool = False
    fingerprint: str = ""
    version: str = ""
    default: str = ""
    notices: tuple[str, ...] = field(default=(), compare=False)
    unread: tuple[str, ...] = field(default=(), compare=False)
    names: tuple[RowName, ...] = field(default=(), compare=False)
    choices: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        # Stored, not computed on demand: rows can be deleted later, and a version must outlive them.
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", content_hash([row.hash for row in self.train]))
        if not self.default:
            object.__setattr__(self, "default", default_scorer(self.test, self.format))
        if not self.version:
            object.__setattr__(self, "version", self._version())
        rows = (*self.train, *self.test)
        if not self.choices and self.scorer["name"] == "choice" and not any(row.choices for row in rows):
            object.__setattr__(self, "choices", tuple(sorted({row.completion or row.answer for row in rows})))

    def _version(self) -> str:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return version_hash(self, {name: [(row.hash, row.label) for row in part] for name, part in parts.items()})

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.spec.name

    @property
    def labels(self) -> list[str]:
        """Names of the labels that occur, sorted; empty where the rows have none."""
        rows: tuple[Row | RowName, ...] = (*self.train, *self.validation, *self.test, *self.names)
        return names_of_labels(rows, self.format)

    @property
    def learned(self) -> tuple[Row | RowName, ...]:
        """The rows that decide the weights: train and validation rows, with their text or by name."""
        return (*self.train, *self.validation, *self.names)

    @property
    def taught(self) -> tuple[Row | RowName, ...]:
        """The train rows, with their text or by name."""
        return (*self.train, *(name for name in self.names if name.part == "train"))

    @property
    def held_out(self) -> tuple[Row | RowName, ...]:
        """The rows that are not trained on: validation and test rows, with their text or by name."""
        return (*self.validation, *self.test, *(name for name in self.names if name.part == "validation"))

    @property
    def answers_are_labels(self) -> bool:
        """Whether the labels decide the answers, so that they are names of classes and not text of single rows."""
        return self.format in LABELLED or labels_decide((*self.train, *self.test))

    @property
    def scorer(self) -> dict[str, Any]:
        """The scorer with its options, as {"name": ..., option: ...}; if none is set, the default for the test rows."""
        chosen = self.spec.scorer or self.default
        return {"name": chosen} if isinstance(chosen, str) else dict(chosen)

    @cached_property
    def scoring(self) -> int:
        """Version of scoring of its scores; see `scoring.scoring_version`."""
        return scoring_version(str(self.scorer["name"]), self.format, self.test)

    @property
    def scored_rows(self) -> int:
        """Number of test rows that are scored at each learn: all of them, or a sample; see `sample.sample_of`."""
        return min(len(self.test), self.spec.test_rows or MOST)

    def prompt_row(self, question: str | Mapping[str, str]) -> Row:
        """Return a row with `question` in the form of the task's own rows, and an empty answer.

        Args:
            question: The text; or values by column, for a template that names several.

        Raises:
            BadInput: The template names several columns and `question` is a text, or lacks one of them.
        """
        system = self.spec.system
        if self.format in LABELLED or self.spec.template:
            row = Row(prompt=_filled(self.spec.template or DEFAULT_TEMPLATE, question), task=self.name)
            return with_system(row, system, self.format)
        if not isinstance(question, str):
            raise BadInput(f"a question of task {self.name!r} is one text, not several columns; give the text alone")
        if self.format == "alpaca":
            return Row(prompt=alpaca_prompt(question, system=system or ""), task=self.name)
        if any(row.messages for row in self.test):
            own = (Message("system", system),) if system is not None else ()
            turns = (*(_shared_system(self.test) or own), Message("user", question), Message("assistant", ""))
            given = {row.extra for row in self.test}  # tools and the like that every row is given
            return Row(messages=turns, task=self.name, extra=given.pop() if len(given) == 1 else "")
        return with_system(Row(prompt=question, task=self.name), system, self.format)

    def request(self, record: Record) -> Row:
        """Return a row with the question of a record, in the form of the task's own rows, and an empty answer.

        Args:
            record: The columns that the task reads, under their names in the task's own files; or a text in "prompt" or "text".

        Raises:
            BadInput: A column is missing or holds no text; the message names the place.
        """
        taken = {role: record.fields[name] for role, name in self.spec.columns.items() if name in record.fields}
        fields = {**record.fields, **taken}
        if self.format in CHOOSING:
            return self._asked(Record(fields, record.source))
        *reads, answer = FORMATS[self.format]
        reads = names_in(self.spec.template) if self.spec.template else reads or [answer]
        text = fields.get("prompt", fields.get("text"))
        if isinstance(text, str) and (
            self.format in CHECKED or answer in reads or not all(fields.get(name) is not None for name in reads)
        ):
            return self.prompt_row(text)
        unread = {} if answer in reads else {answer: "-"}  # placeholder of the answer, which is not read
        question = Record({**fields, **unread}, record.source)
        spec = self.spec
        (row,) = to_rows(
            [question], self.format, task=self.name, template=spec.template, mapped=spec.columns, system=spec.system
        )
        return replace(row, completion="", label=None)

    def _asked(self, record: Record) -> Row:
        """Return a row with the question of a record in a format with choices; without choices the record has a text alone."""
        fields, question = record.fields, FORMATS[self.format][0]
        text = fields.get("prompt", fields.get("text"))
        if isinstance(text, str) and fields.get("choices") is None and not self.spec.template:
            return self.prompt_row(text)
        given = {"choices": "-" if self.format == "contexts" else ["-", "-"], "gold": 0, question: text}
        whole = Record({**given, **{name: value for name, value in fields.items() if value is not None}}, record.source)
        spec = self.spec
        (row,) = to_rows(
            [whole], self.format, task=self.name, template=spec.template, mapped=spec.columns, system=spec.system
        )
        return replace(row, completion="", label=None, choices=(), contexts=(), gold=None)

    def to_json(self) -> dict[str, Any]:
        """Return all but the rows as plain JSON; the ledger stores the rows."""
        spec = self.spec.model_dump(mode="json", exclude_unset=True)
        fields = ("format", "test_made", "fingerprint", "version", "default")
        choices = {"choices": list(self.choices)} if self.choices else {}
        return {"spec": spec, **{key: getattr(self, key) for key in fields}, "scoring": self.scoring, **choices}

    @classmethod
    def from_json(
        cls,
        data: dict[str, Any],
        train: Sequence[Row] = (),
        validation: Sequence[Row] = (),
        test: Sequence[Row] = (),
        names: Sequence[RowName] = (),
    ) -> "TaskData":
        """Restore a task written by `to_json`, with the rows that are still there."""
        spec = TaskSpec.model_validate(data["spec"], context=STORED)
        parts: dict[str, Any] = {"train": tuple(train), "validation": tuple(validation), "test": tuple(test)}
        parts["names"] = tuple(names)
        # a task from before there were scoring versions stays with the scorer it had
        old = {"default": default_scorer(parts["test"], data["format"], count=lambda text: len(text.split()))}
        known = {key: value for key, value in data.items() if key != "scoring"}
        known["choices"] = tuple(data.get("choices", ()))
        task = cls(**{**({} if "default" in data else old), **known, **parts, "spec": spec})
        if "scoring" in data:  # as it was when all its test rows were there
            task.__dict__["scoring"] = data["scoring"]
        return task


def version_hash(task: TaskData, rows: Mapping[str, Sequence[tuple[str, str | None]]]) -> str:
    """Return the version of a task by the hash and label of each of its rows, which outlive the text.

    Args:
        task: Its settings; what rows it has does not count.
        rows: Hash and label of every row by part ("train", "validation", "test"), in order.
    """
    spec = task.spec
    settings = [spec.name, task.format, spec.template, spec.labels, task.scorer, spec.max_new_tokens]
    parts = (rows[part] for part in ("train", "validation", "test"))
    return content_hash([*settings, *([list(pair) for pair in part] for part in parts)])


def _answer_words(text: str) -> int:
    return count_words(split(text)[1])


def default_scorer(rows: Sequence[Row], format: str, count: Callable[[str], int] = _answer_words) -> str:
    """Return "exact" where labels decide the answers, or every answer has at most 8 words; else "rouge_l".

    Rows with choices have "choice", rows with checks "checks", programs "programs".

    Of several labels a row it is "set_f1", and "tool_calls" where an answer among short ones is a tool call.

    A letter of a script without spaces (Chinese, Japanese, Thai, ...) counts as a word; a thought before an answer counts not.
    A label with free text (the number at the end of a worked solution) decides nothing: answers outnumber labels.
    """
    if format in CHOOSING or format in CHECKED:
        return "choice" if format in CHOOSING else CHECKED[format]
    if format == "text_labels":
        return "set_f1"
    short = format != "text" and all(count(row.answer) <= _SHORT_ANSWER for row in rows)
    if not (labels_decide(rows) or short):
        return "rouge_l"
    return "tool_calls" if any(row.messages and "tool_calls" in row.messages[-1].fields for row in rows) else "exact"


def labels_decide(rows: Sequence[Row]) -> bool:
    """Return whether every row has a label and there are no more answers than labels."""
    labels = {row.label for row in rows}
    return bool(labels) and None not in labels and len({row.answer for row in rows}) <= len(labels)


def names_of_labels(rows: Sequence[Row | RowName], format: str) -> list[str]:
    """Return the names of the labels of rows, sorted."""
    labels = {row.label for row in rows if row.label is not None}
    return names_in_sets(labels) if format == "text_labels" else sorted(labels)


def _filled(template: str, question: str | Mapping[str, str]) -> str:
    names = names_in(template)
    if isinstance(question, str):
        question = dict.fromkeys(names[:1], question)
    missing = [name for name in names if name not in question]
    if missing:
        raise BadInput(f"the task's prompt also needs {', '.join(missing)}; give every column: {', '.join(names)}")
    return fill(template, question)


def _shared_system(rows: Sequence[Row]) -> tuple[Message, ...]:
    """Return the system turn that every row opens with, if it is the same one."""
    first = {row.messages[0] for row in rows if row.messages}
    return tuple(first) if len(first) == 1 and next(iter(first)).role == "system" else ()
