"""Data sets on the hub, read through `datasets`: streamed, a number of rows of each split, at one commit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.plain_text import clipped
from perdure.data.hub_names import HubName
from perdure.data.sources import HubData, HubSplit

INSTALL = "pip install 'perdure[datasets]'"


def read_hub(name: HubName, most: int) -> HubData:
    """Return at most `most` rows of each split of a data set on the hub, as its main branch or the named revision has them now.

    `datasets` runs no code of a data set (it has not since version 4), and pictures and sound are not decoded.

    Args:
        name: The data set.
        most: Most rows of a split, from its start.

    Raises:
        BadInput: `datasets` is not installed, the hub cannot be reached, or it has no such data set that the user can read.
    """
    if find_spec("datasets") is None:
        raise BadInput(f"{name}: data sets of the hub need the package datasets, which is not installed: {INSTALL}")
    if Path(name.repo).exists():
        raise BadInput(
            f"{name}: {name.repo} is a folder here, which datasets would read in the place of the data set on the hub; give "
            "the folder itself, or run the command in another folder"
        )
    with _in_words(name):
        commit = _commit(name)
        splits = _open(name, commit)
        read = [_read(split, rows, most) for split, rows in splits.items()]
    first = next(iter(splits.values()), None)
    features = getattr(first, "features", None)
    config = name.config or _config(first)
    return HubData(
        name=replace(name, config=config, revision=commit),
        splits=read,
        features=features.to_dict() if features is not None else {},
    )


def _commit(name: HubName) -> str:
    """Return the commit that a revision is now."""
    from huggingface_hub import HfApi

    return str(HfApi().dataset_info(name.repo, revision=name.revision).sha)


def _open(name: HubName, commit: str) -> Mapping[str, Any]:
    """Return the splits of a data set as streams."""
    import datasets

    return datasets.load_dataset(name.repo, name.config, revision=commit, streaming=True)


def _read(split: str, rows: Any, most: int) -> HubSplit:
    first = list(islice(rows.decode(False), most + 1))
    return HubSplit(split, first[:most], more=len(first) > most)


def _config(stream: Any) -> str | None:
    """Return the configuration that was read where the user named none and it is not the default one."""
    name = getattr(getattr(stream, "info", None), "config_name", None)
    return name if name and name != "default" else None


@contextmanager
def _in_words(name: HubName) -> Iterator[None]:
    """Report what the libraries raise as an error about the data set."""
    import pyarrow
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    try:
        yield
    except (HfHubHTTPError, HFValidationError) as error:
        raise BadInput(f"the hub has no data set {name} that you can read: {_short(error)}") from error
    except (ConnectionError, TimeoutError, HTTPError) as error:
        raise BadInput(
            f"{name}: the hub cannot be reached ({_short(error)}); go online, or download the data set and give its files"
        ) from error
    except (DatasetsError, OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise BadInput(
            f"{name} cannot be read: {_short(error)}; a configuration is given as hub:ORG/NAME:CONFIG, a revision behind @"
        ) from error


def _short(error: Exception) -> str:
    return clipped(" ".join(str(error).split()), 300)
