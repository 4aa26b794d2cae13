"""Push an export to a model repository on the hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.core.errors import PerdureError
from perdure.core.records import Record
from perdure.workflows.export.result import Export

if TYPE_CHECKING:
    from perdure.bridges.hub_push import Repository


@dataclass(frozen=True)
class PushedFile(Record):
    """A file, by its path in the folder, and its size."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Pushed(Record):
    """An export that was pushed.

    Args:
        repo: ORG/NAME.
        private: Whether the repository is private.
        commit: The commit that has the files.
        url: Address of the repository.
        files: What was pushed.
    """

    repo: str
    private: bool
    commit: str
    url: str
    files: tuple[PushedFile, ...]


def files_of(folder: Path) -> tuple[PushedFile, ...]:
    """Return the files that a push of a folder would send, by name."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return tuple(PushedFile(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths)


def push(export: Export, repository: "Repository") -> Pushed:
    """Push the files of an export as one commit. They stay where they are, also where the hub refuses them.

    Args:
        export: What was written.
        repository: As `bridges.hub_push.find_repository` found it.

    Raises:
        PerdureError: The hub refuses or cannot be reached; the message names the command that pushes the folder again.
    """
    from perdure.bridges.hub_push import push_folder

    folder = Path(export.folder)
    files = files_of(folder)
    message = f"perdure: entry {export.entry[:12]}" + (f", task {export.task}" if export.task else "")
    try:
        commit, url = push_folder(folder, repository, message)
    except PerdureError as error:
        again = f"hf upload {repository.name} {folder}{' --private' if repository.private else ''}"
        raise type(error)(f"{error}. The export is whole in {folder}; '{again}' pushes it") from error
    return Pushed(repository.name, repository.private, commit, url, files)
