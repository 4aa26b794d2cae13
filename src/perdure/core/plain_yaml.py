"""YAML as people write it: `on`, `off`, `yes` and `no` are words, and only `true` and `false` are booleans, as in YAML 1.2."""

from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """The safe loader without YAML 1.1's other words for true and false, which would make a key `on:` the boolean True."""

    yaml_implicit_resolvers = {  # noqa: RUF012  # as PyYAML has it
        first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(text: str) -> Any:
    """Return what a YAML text says.

    Raises:
        yaml.YAMLError: It is no valid YAML.
    """
    return yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
