"""Reading YAML as in version 1.2: only `true` and `false` are booleans; `on`, `off`, `yes` and `no` are texts.

A key that appears twice is an error. So is a file beyond the limits: in bytes, nesting, values (its aliases included), or the
digits of a number.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from perdure.core.errors import BadInput, BadSpec
from perdure.core.plain_text import clipped

BYTES = 2**19
DEPTH = 50  # levels of nesting
VALUES = 20_000  # scalars, lists and mappings, each alias counted with all its values
DIGITS = 100  # of a whole number
_HALF = re.compile("[\ud800-\udfff]")  # has no bytes, so a text that contains it can be neither hashed nor written


class _Loader(yaml.SafeLoader):
    """The safe loader with limits, and without YAML 1.1's other words for true and false: with them a key `on:` is True."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML has it
        first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}  # values in each finished node, by its identity

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, and count its values."""
        event = self.peek_event()
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise _problem(f"the alias *{clipped(event.anchor, 40)} is used inside its own value", event)
            self._count(self._sizes[id(node)], event)
            return node
        if isinstance(event, yaml.ScalarEvent) and _HALF.search(event.value):
            raise _problem("a text contains half of a surrogate pair (\\ud800 to \\udfff); remove it", event)
        before = self._values
        self._count(1, event)
        self._depth += 1
        if self._depth > DEPTH:
            raise _problem(f"it is nested deeper than {DEPTH} levels", event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[id(node)] = self._values - before
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Construct a value; a value that does not fit its tag is reported as a fault of the file."""
        scalar = isinstance(node, yaml.ScalarNode)
        if scalar and node.tag == "tag:yaml.org,2002:int" and len(node.value) > DIGITS:
            raise _problem(f"a number has more than {DIGITS} digits", node)
        try:
            return super().construct_object(node, deep)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError):
            kind, value = node.tag.rpartition(":")[2], clipped(node.value, 60) if scalar else "this"
            raise _problem(f"{value!r} is no {kind} value; put it in quotes", node) from None

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose a mapping in which each key appears once. A key that `<<` merges in may appear again: the other one wins."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if (name := (key.tag, key.value)) in seen:
                    raise _problem(f"the key {clipped(key.value, 60)!r} appears twice; delete one", key)
                seen.add(name)
        return node

    def _count(self, values: int, event: Any) -> None:
        self._values += values
        if self._values > VALUES:
            raise _problem(f"it has more than {VALUES:,} values, with those of its aliases", event)


def _problem(text: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=where.start_mark)


def read_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        yaml.YAMLError: It is no valid YAML, or beyond the limits; the error is short.
    """
    if len(text) > BYTES:
        raise yaml.YAMLError(f"it has {len(text):,} characters, and {BYTES:,} is the most")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        error.context, error.problem = (text and clipped(text, 200) for text in (error.context, error.problem))
        raise


def read_yaml_file(path: Path, what: str) -> Any:
    """Return the value of a YAML file; `what` ("recipe", "task file", ...) names it in errors.

    Raises:
        BadInput: The file is missing or not UTF-8.
        BadSpec: It is no valid YAML, or beyond the limits; the message has its line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(BYTES + 1)
    except OSError as error:
        raise BadInput(f"cannot read {what} {path}: {error.strerror or error}; check the path") from None
    if len(data) > BYTES:
        raise BadSpec(f"{what} {path} is larger than {BYTES:,} bytes, so it is no {what}; is it a data file?")
    try:
        return read_yaml(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{what} {path}:{line} is not UTF-8 text; save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else path
        raise BadSpec(f"{what} {place} is broken YAML: {clipped(str(error.problem), 200)}") from None
    except yaml.YAMLError as error:
        raise BadSpec(f"{what} {path} is broken YAML: {clipped(' '.join(str(error).split()), 200)}") from None
