"""Tasks and rows read from data, with the settings of a task."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.rows import Row
from perdure.data.columns import IN_FILE, IN_TASK, Unread, check, listed, read_by, take
from perdure.data.doubts import doubts
from perdure.data.formats import detect, names_in, to_rows
from perdure.data.own_formats import converted
from perdure.data.read import Record
from perdure.data.sources import Data, HubReader, SourceRows, paths_of, read_sources, shown_data
from perdure.data.spec import TaskSpec, make_spec, read_settings
from perdure.data.split import distinct, make_test_part, named_parts
from perdure.data.systems import about_systems
from perdure.data.task import TaskData, names_of_labels
from perdure.data.turns import unread_fields


def load_task(
    name: str,
    data: Data,
    *,
    test: Data | None = None,
    overrides: dict[str, Any] | None = None,
    known: TaskData | None = None,
    selected: SourceRows | None = None,
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
        selected: The rows to take, of those that `read_data` returned; None takes all.
        hub: Reads data sets from the hub.

    Raises:
        BadInput: A file is missing or broken, a row has nothing to train, a column that carries the task is not read, or a
            part that is needed is empty.
        BadSpec: A setting is not valid.
    """
    spec = task_settings(name, data, test=test, overrides=overrides, known=known)
    rows_read = selected if selected is not None else read_data(spec, spec.train, hub)
    spec = spec.model_copy(update={"train": rows_read.data})  # with the commit of a data set on the hub
    records, notices = rows_read.records, list(rows_read.notices)
    format = spec.known_format or detect(records, spec.template, spec.columns, how=IN_TASK)
    rows, unread = _rows(records, spec, format, facts=selected is not None)
    parts = named_parts(records, rows)
    if spec.test is not None:
        if parts["test"]:
            raise BadInput(
                f"{parts['test'][0].source} is marked test, and a test file is given too; drop one of the two"
            )
        tests = read_data(spec, spec.test, hub)
        spec = spec.model_copy(update={"test": tests.data})
        parts["test"], more = _rows(tests.records, spec, format, facts=selected is not None)
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
    rows_read = read_sources(data, hub=hub)
    records, renamed = take(rows_read.records, {}, shown_data(data, short=True))
    format = detect(records)
    made = to_rows(records, format, task=task)
    unread = check(records, format, read_by(format, None, (), chat=bool(made[0].messages)), how=IN_FILE)
    rows = distinct(named_parts(records, made)["train"])
    return rows, [*rows_read.notices, *renamed, *(f"{shown_data(data, short=True)}: {text}" for text in unread.notices)]


def read_data(spec: TaskSpec, data: Data, hub: HubReader | None = None) -> SourceRows:
    """Return the rows of data read with the settings of a task, with their columns under the names that are read.

    Raises:
        BadInput: A file is missing or broken.
        BadSpec: The data have no column that the settings name.
    """
    rows_read = read_sources(data, documents=spec.documents, most=spec.max_rows, hub=hub)
    rows = converted(rows_read.records, spec.own_format) if spec.own_format else rows_read.records
    lists = spec.format in (None, "text_labels")
    records, renamed = take(rows, spec.columns, shown_data(data, short=True), lists=lists)
    return replace(rows_read, records=records, notices=[*rows_read.notices, *renamed])


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


def load_probe(
    name: str,
    data: Data,
    settings: Mapping[str, Any] | None = None,
    *,
    where: Mapping[str, Sequence[str]] | None = None,
    group: str | None = None,
) -> TaskData:
    """Return a task that is only ever scored: every row of the file is a test row.

    Args:
        name: Name of the task.
        data: The files.
        settings: Settings as in a task file.
        where: Take only rows with one of these values in a column, by column.
        group: Column with the name of the group of a row.

    Raises:
        BadInput: The file is missing or broken, has no such column, or no row is left.
        BadSpec: A setting is not valid.
    """
    spec = task_settings(name, data, overrides=dict(settings or {}))
    records = _narrowed(read_data(spec, spec.train).records, where or {}, shown_data(data))
    format = spec.known_format or detect(records, spec.template, spec.columns, how=IN_TASK)
    made = _rows(records, spec, format)[0]
    if group is not None:
        _refuse_missing_column(records, group, "group", shown_data(data))
        groups = [record.fields.get(group) for record in records]
        made = [replace(row, group="" if own is None else str(own)) for row, own in zip(made, groups, strict=True)]
    rows = distinct(made)
    return TaskData(spec.model_copy(update={"test_rows": spec.test_rows or len(rows)}), (), (), rows, format)


def _narrowed(records: list[Record], where: Mapping[str, Sequence[str]], file: str) -> list[Record]:
    """Return the records with one of the given values in each of these columns."""
    left = records
    for column, values in where.items():
        _refuse_missing_column(records, column, "where", file)
        left = [record for record in left if str(record.fields.get(column)) in values]
    if not left:
        raise BadInput(f"`where` leaves no row of {file}; check its values")
    return left


def _refuse_missing_column(records: Sequence[Record], column: str, key: str, file: str) -> None:
    names = dict.fromkeys(name for record in records for name in record.fields)
    if column not in names:
        raise BadInput(f"`{key}` names the column {column!r}, which {file} does not have; it has {listed(names)}")


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


def _unmatched(spec: TaskSpec, parts: Mapping[str, Sequence[Row]], format: str) -> list[str]:
    """Return a notice if the settings give texts of labels and no row has such a label: the names probably differ."""
    labels = names_of_labels([row for rows in parts.values() for row in rows], format)
    if not spec.labels or spec.labels.keys() & set(labels):
        return []
    return [f"`labels` gives texts for {listed(spec.labels)}, and no row has such a label; they are {listed(labels)}"]
