"""A task as perdure learns it: its settings, its rows by part, and what identifies them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from perdure.core.canonical import content_hash
from perdure.core.errors import BadInput, BadSpec
from perdure.core.rows import Message, Row, RowName
from perdure.core.script import count_words
from perdure.data.columns import IN_FILE, IN_TASK, LABELLED, Unread, check, listed, read_by, take
from perdure.data.doubts import doubts
from perdure.data.formats import DEFAULT_TEMPLATE, FORMATS, alpaca_prompt, detect, fill, label_text, names_in, to_rows
from perdure.data.label_sets import names_in_sets
from perdure.data.read import Record
from perdure.data.sample import MOST
from perdure.data.scoring import scoring_version
from perdure.data.sources import Data, Found, HubReader, paths_of, read_sources, shown_data
from perdure.data.spec import TaskSpec as TaskSpec
from perdure.data.spec import load_spec as load_spec
from perdure.data.spec import make_spec, read_settings
from perdure.data.split import distinct, make_test_part, named_parts
from perdure.data.systems import about_systems, with_system
from perdure.data.thoughts import split
from perdure.data.turns import unread_fields

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
        choices: Answers of all rows, where the scorer chooses among them; computed where left empty.
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
        chosen = self.spec.scorer
        if not self.choices and chosen and (chosen if isinstance(chosen, str) else chosen["name"]) == "choice":
            rows = (*self.train, *self.test)
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
        return _names_of_labels(rows, self.format)

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
        *reads, answer = FORMATS[self.format]
        reads = names_in(self.spec.template) if self.spec.template else reads or [answer]
        text = fields.get("prompt", fields.get("text"))
        if isinstance(text, str) and (answer in reads or not all(fields.get(name) is not None for name in reads)):
            return self.prompt_row(text)
        unread = {} if answer in reads else {answer: "-"}  # placeholder of the answer, which is not read
        question = Record({**fields, **unread}, record.source)
        spec = self.spec
        (row,) = to_rows(
            [question], self.format, task=self.name, template=spec.template, mapped=spec.columns, system=spec.system
        )
        return replace(row, completion="", label=None)

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
        spec = TaskSpec.model_validate(data["spec"])
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

    Of several labels a row it is "set_f1", and "tool_calls" where an answer among short ones is a tool call.

    A letter of a script without spaces (Chinese, Japanese, Thai, ...) counts as a word; a thought before an answer counts not.
    A label with free text (the number at the end of a worked solution) decides nothing: answers outnumber labels.
    """
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


def load_task(
    name: str,
    data: Data,
    *,
    test: Data | None = None,
    overrides: dict[str, Any] | None = None,
    known: TaskData | None = None,
    found: Found | None = None,
    hub: HubReader | None = None,
) -> TaskData:
    """Return a task read from data (see `sources`), or from a task file (.yaml, .yml).

    The test part is the file `test`; else the rows with that `split`; else drawn from the train rows
    (`split.make_test_part`). Each text is in a part once.

    Args:
        name: Name of the task; overrides the one in a task file.
        data: The files, or the task file.
        test: Data with the test rows, taken whole; overrides the one in a task file.
        overrides: Settings that override those of a task file.
        known: The version in force, if the name is known: settings that no argument sets are taken from it, and no
            test part is demanded. `update_task` then joins the rows.
        found: The rows to take, of those that `read_data` returned; None takes all.
        hub: Reads data sets from the hub.

    Raises:
        BadInput: A file is missing or broken, a row has nothing to train, a column that carries the task is not read, or a
            part that is needed is empty.
        BadSpec: A setting is not valid.
    """
    spec = task_settings(name, data, test=test, overrides=overrides, known=known)
    some = found is not None
    if found is None:
        found = read_data(spec, spec.train, hub)
    spec = spec.model_copy(update={"train": found.data})  # with the commit of a data set on the hub
    records, notices = found.records, list(found.notices)
    format = spec.format or detect(records, spec.template, spec.columns, how=IN_TASK)
    rows, unread = _rows(records, spec, format, facts=some)
    parts = named_parts(records, rows)
    if spec.test is not None:
        if parts["test"]:
            raise BadInput(
                f"{parts['test'][0].source} is marked test, and a test file is given too; drop one of the two"
            )
        tests = read_data(spec, spec.test, hub)
        spec = spec.model_copy(update={"test": tests.data})
        parts["test"], more = _rows(tests.records, spec, format, facts=some)
        unread = Unread(tuple(dict.fromkeys((*unread.columns, *more.columns))), unread.notices or more.notices)
        notices += tests.notices
    notices += [*unread.notices, *unread_fields(records), *doubts(parts, format), *_unmatched(spec, parts, format)]
    notices += about_systems(spec.system, parts, records, format)
    train = distinct(parts["train"])
    if not train:
        raise BadInput(
            f"{shown_data(spec.train)} has no train rows (its `split` column names other parts); there is nothing to learn"
        )
    made = not parts["test"]
    if made:
        remaining, parts["test"] = make_test_part(train, spec.test_size, spec.seed, name)
        train = tuple(remaining)
    if not parts["test"] and known is None:
        raise BadInput(
            f"{shown_data(spec.train)} has only one question, so no test part can be made from it; "
            "give one with --test FILE or a `split` column"
        )
    others = distinct(parts["validation"]), distinct(parts["test"])
    return TaskData(spec, train, *others, format, made, notices=tuple(notices), unread=unread.columns)


def task_settings(
    name: str,
    data: Data,
    *,
    test: Data | None = None,
    overrides: dict[str, Any] | None = None,
    known: TaskData | None = None,
) -> TaskSpec:
    """Return the settings that `load_task` uses, given the same arguments; reads a task file, and no data.

    Raises:
        BadInput: The task file is missing or not UTF-8.
        BadSpec: A setting is not valid.
    """
    file = task_file(data)
    values: dict[str, Any] = {**(read_settings(file) if file else {"train": data}), **(overrides or {})}
    values |= {"name": name, **({"test": test} if test else {})}
    inherited = {**known.spec.inherited(), "scorer": known.scorer} if known else {}
    if known and isinstance(values.get("labels"), dict):
        values["labels"] = {**known.spec.labels, **values["labels"]}  # an update may add labels
    return make_spec({**inherited, **values}, str(file) if file else f"task {name!r}")


def task_file(data: Data) -> Path | None:
    """Return the task file that a source is; None where it is data.

    Raises:
        BadInput: A task file is given together with something else.
    """
    paths = paths_of(data)
    files = [path for path in paths if path.suffix.lower() in (".yaml", ".yml")]
    if files and len(paths) > 1:
        raise BadInput(f"{files[0]} is a task file, and is given alone; list the data files in it (`train: [a, b]`)")
    return files[0] if files else None


def load_rows(data: Data, task: str = "general", hub: HubReader | None = None) -> tuple[Row, ...]:
    """Return the train rows of data that is no task, such as general instruction data.

    Raises:
        BadInput: A file is missing or broken, or a row has nothing to train.
    """
    return read_rows(data, task, hub)[0]


def read_rows(data: Data, task: str = "general", hub: HubReader | None = None) -> tuple[tuple[Row, ...], list[str]]:
    """Return the rows of `load_rows`, and notices for the user."""
    found = read_sources(data, hub=hub)
    records, renamed = take(found.records, {}, shown_data(data, short=True))
    format = detect(records)
    made = to_rows(records, format, task=task)
    unread = check(records, format, read_by(format, None, (), chat=bool(made[0].messages)), how=IN_FILE)
    rows = distinct(named_parts(records, made)["train"])
    return rows, [*found.notices, *renamed, *(f"{shown_data(data, short=True)}: {text}" for text in unread.notices)]


def read_data(spec: TaskSpec, data: Data, hub: HubReader | None = None) -> Found:
    """Return the rows of data read with the settings of a task, with their columns under the names that are read.

    Raises:
        BadInput: A file is missing or broken.
        BadSpec: The data have no column that the settings name.
    """
    found = read_sources(data, documents=spec.documents, most=spec.max_rows, hub=hub)
    records, renamed = take(found.records, spec.columns, shown_data(data, short=True))
    return replace(found, records=records, notices=[*found.notices, *renamed])


def read_again(known: TaskData, data: Data, hub: HubReader | None = None) -> tuple[Row, ...]:
    """Return every row of data, of whatever part, read with the settings of a task that was learned from it.

    Args:
        known: The task.
        data: The data, or a task file that names it.
        hub: Reads data sets from the hub.

    Raises:
        BadInput: A file is missing or broken, or its rows are of another format.
    """
    if (file := task_file(data)) is not None:
        data = read_settings(file).get("train", file)
    return tuple(_rows(read_data(known.spec, data, hub).records, known.spec, known.format, facts=True)[0])


def load_probe(name: str, data: Data, settings: Mapping[str, Any] | None = None) -> TaskData:
    """Return a task that is only ever scored: every row of the file is a test row.

    Raises:
        BadInput: The file is missing or broken.
        BadSpec: A setting is not valid.
    """
    spec = task_settings(name, data, overrides=dict(settings or {}))
    records = read_data(spec, spec.train).records
    format = spec.format or detect(records, spec.template, spec.columns, how=IN_TASK)
    rows = distinct(_rows(records, spec, format)[0])
    return TaskData(spec.model_copy(update={"test_rows": spec.test_rows or len(rows)}), (), (), rows, format)


def update_task(known: TaskData, new: TaskData, taught: Collection[str] = ()) -> TaskData:
    """Return the next version of `known`: the train rows of `new`, and the test rows of both, those of `known` first.

    If the test part of `new` was made, a question that is on one side in an earlier version stays there, because new
    data may repeat the old. A test part that the user named is used as it is, and `leaks.refuse_leaks` checks it.

    Args:
        known: The version in force.
        new: What `load_task` returned, given `known`.
        taught: Questions of the train rows of versions before `known`, which were learned too.

    Raises:
        BadSpec: The two differ in name, format, template, scorer or text of a label: their rows do not belong together.
        BadInput: Every row of `new` is a known test row, so there is nothing to learn.
    """
    changed = [key for key in ("name", "template", "system") if getattr(known.spec, key) != getattr(new.spec, key)]
    changed += [key for key in ("format", "scorer") if getattr(known, key) != getattr(new, key)]
    shared = sorted({*known.labels, *known.spec.labels})
    changed += [f"labels.{k}" for k in shared if label_text(k, known.spec.labels) != label_text(k, new.spec.labels)]
    if changed:
        raise BadSpec(
            f"task {known.name!r} was learned with another {' and '.join(changed)}; "
            "keep it as it was, or learn under another name"
        )
    train, test = new.train, new.test
    if new.test_made:
        tested = {row.question for row in known.test}
        taught = {*taught, *(row.question for row in known.taught)}
        drawn = {row.question for row in test}
        train = tuple(
            r for r in (*train, *test) if r.question not in tested and (r.question in taught or r.question not in drawn)
        )
        test = tuple(r for r in test if r.question not in tested and r.question not in taught)
    if not train:
        raise BadInput(
            f"every row of {shown_data(new.spec.train)} is a test row of task {known.name!r} already; there is nothing to learn"
        )
    test = distinct((*known.test, *test))
    return replace(new, train=train, test=test, fingerprint="", version="", default="", choices=())


def _rows(records: Sequence[Record], spec: TaskSpec, format: str, *, facts: bool = False) -> tuple[list[Row], Unread]:
    """Return one row for each record, and the columns that none of them reads."""
    rows = to_rows(
        records,
        format,
        task=spec.name,
        template=spec.template,
        labels=spec.labels,
        mapped=spec.columns,
        system=spec.system,
    )
    placeholders = names_in(spec.template) if spec.template is not None else None
    read = read_by(format, placeholders, spec.columns, chat=bool(rows[0].messages))
    chosen = spec.format is not None or spec.template is not None
    return rows, check(records, format, read, columns=spec.columns, chosen=chosen, facts=facts)


def _names_of_labels(rows: Sequence[Row | RowName], format: str) -> list[str]:
    labels = {row.label for row in rows if row.label is not None}
    return names_in_sets(labels) if format == "text_labels" else sorted(labels)


def _unmatched(spec: TaskSpec, parts: Mapping[str, Sequence[Row]], format: str) -> list[str]:
    """Return a notice if the settings give texts of labels and no row has such a label: the names probably differ."""
    labels = _names_of_labels([row for rows in parts.values() for row in rows], format)
    if not spec.labels or spec.labels.keys() & set(labels):
        return []
    return [f"`labels` gives texts for {listed(spec.labels)}, and no row has such a label; they are {listed(labels)}"]


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
