"""Output files that a user names. They replace files of perdure, and other files only with `--force`.

The files of a workspace and of a model are never written this way. An existing file is replaced if its first line is
one of perdure's, and any other file only with `--force`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.core.errors import BadInput
from perdure.core.files import write_text
from perdure.core.plain_json import read_json

MARKER, DATABASE = "perdure.json", "ledger.sqlite"
OWN = (
    MARKER,
    "objects",
    "runs",
    "lock",
)  # files of a workspace, besides those whose name begins with the database's
CONFIGURATIONS = ("config.json", "adapter_config.json")  # a folder with one of these is a model's or an adapter's
LOADED = (
    ".json",
    ".jinja",
    ".model",
    ".safetensors",
    ".tiktoken",
    ".txt",
)  # suffixes of files that are loaded from such a folder
LONGEST = 65_536  # bytes of a first line that are read


@dataclass(frozen=True)
class Kind:
    """One kind of file that perdure writes for users.

    Args:
        name: Its name in messages.
        is_first_line: Returns whether a line is the first line that perdure writes in this kind.
    """

    name: str
    is_first_line: Callable[[str], bool]


def _begins(*marks: str) -> Callable[[str], bool]:
    return lambda line: line.startswith(marks)


def _is_memory_row(line: str) -> bool:
    try:
        row = read_json(line or "{}")
    except ValueError:
        return False
    return line == "" or (isinstance(row, dict) and row.get("pool") in ("replay", "general") and "task" in row)


REPORT_LINE = "<!doctype html><!-- perdure report -->"
BENCH_LINE = "<!-- perdure bench -->"
EVIDENCE_LINE = '{"perdure": "gate evidence",'
RECIPE_LINE = "# A recipe of 'perdure recipe advise'"
REPORT = Kind("report", _begins(REPORT_LINE))
EVIDENCE = Kind("gate evidence", _begins(EVIDENCE_LINE))
RECIPE = Kind("advised recipe", _begins(RECIPE_LINE))
MEMORY = Kind("memory export", _is_memory_row)  # an empty memory makes an empty file
CONVERSATIONS = Kind("file of conversations", _begins('{"messages":'))
BENCH_TABLE = Kind("benchmark's table", _begins("| arm | seeds | ACC |"))
BENCH_PAGE = Kind("benchmark's page", _begins(f"<!doctype html>{BENCH_LINE}"))
CHECKUP = Kind("checkup", _begins('{"ref": '))
BENCH_RESULT = Kind("benchmark's result", _begins('{"suite": '))


def write_output(path: Path, text: str, kind: Kind, *, force: bool = False, workspaces: Sequence[Path] = ()) -> None:
    """Write a text atomically to a file that a user named. A symbolic link stays, and its target is written.

    Args:
        path: The file; its folder exists.
        text: The content.
        kind: Kind of the file.
        force: Replace a file that perdure did not write.
        workspaces: Folders of the workspaces in use, so that hard links to their files are recognised too.

    Raises:
        BadInput: See `check_output`.
        PerdureError: The disk is full or not writable; the old file is not changed.
    """
    path = Path(path)
    check_output(path, kind, force=force, workspaces=workspaces)
    if path.exists() and not path.is_file():  # a pipe or a device, which must not be replaced by a file
        with path.open("w", encoding="utf-8") as stream:  # /dev/stdout may lead to a pipe without a name
            stream.write(text)
    else:
        write_text(path.resolve(), text)


def check_output(path: Path, kind: Kind, *, force: bool = False, workspaces: Sequence[Path] = ()) -> None:
    """Refuse a file that must not be written, before anything is computed for it.

    Raises:
        BadInput: It belongs to a workspace or a model, is a folder, is in no folder, or is not perdure's and `force` is off.
    """
    path = Path(path)
    refuse_own(path, workspaces)
    if path.is_dir():
        raise BadInput(f"{path} is a folder; name a file in it")
    if not path.resolve().parent.is_dir():
        raise BadInput(f"there is no folder {path.parent}; make it first, or check the path")
    ours = is_output(path, kind)
    if not ours:
        _refuse_model_file(path)
    if path.is_file() and not force and not ours:
        raise BadInput(f"{path} is there already and is no {kind.name} of perdure; choose another file, or add --force")


def is_output(path: Path, kind: Kind) -> bool:
    """Return whether a file exists and is of a kind that perdure writes."""
    return path.is_file() and kind.is_first_line(_first_line(path))


def refuse_own(path: Path, workspaces: Sequence[Path] = ()) -> None:
    """Refuse a path that is, or would be, one of the files of a workspace.

    Raises:
        BadInput: It is one of them, whatever `force` is.
    """
    place = Path(path).resolve()
    for folder in place.parents:
        if not ((folder / MARKER).exists() or (folder / DATABASE).exists()):
            continue
        first = place.relative_to(folder).parts[0].casefold()
        if first in OWN or first.startswith(DATABASE) or first.startswith((f".{MARKER}.", f".{DATABASE}")):
            raise BadInput(f"{path} belongs to the workspace {folder}; choose another place")
    if place.is_file() and place.stat().st_nlink > 1:
        same = next((file for root in workspaces for file in _own_files(Path(root)) if file.samefile(place)), None)
        if same is not None:
            raise BadInput(f"{path} is a link to {same}, which belongs to the workspace; choose another place")


def _refuse_model_file(path: Path) -> None:
    """Refuse a file of a model's or an adapter's folder, or one that would be loaded as such a file."""
    for place in dict.fromkeys((path.absolute(), path.resolve())):  # the files of the hub's cache are links
        folder = place.parent
        if not any((folder / name).is_file() for name in CONFIGURATIONS) or not any(folder.glob("*.safetensors*")):
            continue
        if place.exists() or place.suffix.casefold() in LOADED:
            raise BadInput(
                f"{path} belongs to the model in {folder}, or would be taken for its file; choose another place"
            )


def _own_files(root: Path) -> Iterator[Path]:
    yield from (file for file in root.glob(f"{DATABASE}*") if file.is_file())
    for name in OWN:
        place = root / name
        yield from (file for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file())


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.readline(LONGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return "\0"  # a file that cannot be read as text has no first line of perdure
