"""Records: frozen values with a JSON form. All JSON of the ledger, of files and of `--json` is written and read with them.

A record is a frozen dataclass that derives from `Record`; its fields are the keys of its JSON, in their order. Own code instead
of pydantic, because numbers stay as they were written (1 is not read as 1.0) and a field can be left out of the JSON.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import JsonValue

from perdure.core.errors import BadSpec, BrokenStore
from perdure.core.plain_text import quoted

JsonObject = dict[str, JsonValue]
Reader = Callable[[Any], Any]
T = TypeVar("T")
R = TypeVar("R", bound="Record")

OMIT, KEY = "omit", "key"
SCALARS: dict[type, tuple[str, tuple[type, ...]]] = {
    str: ("a text", (str,)),
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    NoneType: ("null", (NoneType,)),
}


class BadRecord(ValueError):
    """A JSON value that does not fit a record.

    Args:
        problem: The problem, as text.
        where: Path of the value in the JSON, as "tasks[0].drop"; empty for the whole value.
    """

    def __init__(self, problem: str, where: str = "") -> None:
        super().__init__(f"{where} {problem}" if where else f"it {problem}")
        self.problem, self.where = problem, where

    def inside(self, name: str) -> "BadRecord":
        """Return the error with the path of the enclosing value added."""
        return BadRecord(self.problem, name + ("." if self.where and self.where[0] != "[" else "") + self.where)


def omitted(default: T) -> T:
    """Declare a field that the JSON leaves out where it has its default."""
    made: T = field(default=default, metadata={OMIT: True})
    return made


def omitted_mapping() -> Any:
    """Declare a field that holds a mapping, and that the JSON leaves out where it is empty."""
    return field(default_factory=dict, metadata={OMIT: True})


def written_as(key: str) -> dict[str, str]:
    """Return the metadata of a field whose JSON key is a reserved word of Python, such as "from"."""
    return {KEY: key}


@dataclass(frozen=True)
class Record:
    """A frozen value with a JSON form.

    A field with a default may be missing in the JSON, since an earlier version may not have written it.
    """

    def to_json(self) -> JsonObject:
        """Return the record as plain JSON; `from_json` restores an equal one."""
        values = {one: getattr(self, one.name) for one in fields(self)}
        return {
            one.metadata.get(KEY, one.name): plain(value)
            for one, value in values.items()
            if not (OMIT in one.metadata and (value == one.default or value == {}))
        }

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Return the record that `to_json` wrote as this JSON.

        Raises:
            BadRecord: A field is missing, unknown or of another type; the message names it.
        """
        if not isinstance(data, Mapping):
            raise BadRecord(f"is {quoted(data)}, not an object")
        known = _readers(cls)  # type: ignore[arg-type]  # a class can be hashed
        if unknown := [key for key in data if key not in known]:
            raise BadRecord("is not known", str(unknown[0]))
        if missing := [key for key, (_, _, needed) in known.items() if needed and key not in data]:
            raise BadRecord("is missing", missing[0])
        return cls(**{known[key][0]: _read(known[key][1], value, key) for key, value in data.items()})


def plain(value: Any) -> JsonValue:
    """Return a value of records, sequences, mappings and scalars as plain JSON."""
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    scalar: JsonValue = value
    return scalar


def in_stored_order(value: JsonValue) -> JsonValue:
    """Return JSON with the keys of its objects sorted, as the ledger stores them."""
    if isinstance(value, dict):
        return {key: in_stored_order(value[key]) for key in sorted(value)}
    return [in_stored_order(one) for one in value] if isinstance(value, list) else value


def from_store(kind: type[R], data: object, where: str) -> R:
    """Return a stored record.

    Args:
        kind: The type of the record.
        data: Its JSON.
        where: Its name in the store, such as "the note 'record' of entry 1234".

    Raises:
        BrokenStore: The JSON does not fit the record; the message names the place and what to do.
    """
    try:
        return kind.from_json(data)
    except (BadRecord, BadSpec) as error:
        raise BrokenStore(
            f"{where} was written by another version of perdure, or damaged ({error}); upgrade perdure, or restore the "
            "workspace from a backup"
        ) from error


@cache
def _readers(kind: "type[Record]") -> dict[str, tuple[str, Reader, bool]]:
    """Return for each key of a record's JSON: the field, the function that reads it, and whether it is required."""
    hints = get_type_hints(kind)
    return {
        one.metadata.get(KEY, one.name): (
            one.name,
            _reader(hints[one.name]),
            one.default is MISSING and one.default_factory is MISSING,
        )
        for one in fields(kind)
    }


def _reader(hint: Any) -> Reader:
    """Return the function that makes a value of a type from JSON."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint in SCALARS:
        return _scalar(hint)
    if isinstance(hint, type) and issubclass(hint, Record):
        return hint.from_json
    if origin is Literal:
        return _one_of(inner)
    if origin in (Union, UnionType):
        return _union([_reader(one) for one in inner])
    if origin is tuple:
        return _sequence([_reader(one) for one in inner if one is not ...], inner[-1] is ...)
    if hint is JsonValue:
        return lambda value: value  # passed on as it is
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(_reader(inner[1]))
    raise TypeError(f"a field of a record cannot be of type {hint}")


def _read(reader: Reader, value: object, name: str) -> Any:
    try:
        return reader(value)
    except BadRecord as error:
        raise error.inside(name) from None


def _scalar(kind: type) -> Reader:
    name, types = SCALARS[kind]

    def read(value: object) -> object:
        if not isinstance(value, types) or (isinstance(value, bool) and kind is not bool):
            raise BadRecord(f"is {quoted(value)}, not {name}")
        return value

    return read


def _one_of(choices: tuple[object, ...]) -> Reader:
    def read(value: object) -> object:
        if value not in choices:
            raise BadRecord(f"is {quoted(value)}, not one of {', '.join(map(str, choices))}")
        return value

    return read


def _union(readers: list[Reader]) -> Reader:
    def read(value: object) -> object:
        problems = []
        for reader in readers:
            try:
                return reader(value)
            except BadRecord as error:
                problems.append(error)
        raise max(problems, key=lambda error: len(error.where))  # the error of the type that fitted best

    return read


def _sequence(readers: list[Reader], repeats: bool) -> Reader:
    def read(value: object) -> object:
        if not isinstance(value, list | tuple) or (not repeats and len(value) != len(readers)):
            raise BadRecord(f"is {quoted(value)}, not a list{'' if repeats else f' of {len(readers)}'}")
        each = readers * len(value) if repeats else readers
        return tuple(_read(reader, one, f"[{i}]") for i, (reader, one) in enumerate(zip(each, value, strict=True)))

    return read


def _mapping(reader: Reader) -> Reader:
    def read(value: object) -> object:
        if not isinstance(value, Mapping):
            raise BadRecord(f"is {quoted(value)}, not an object")
        return {key: _read(reader, one, str(key)) for key, one in value.items()}

    return read
