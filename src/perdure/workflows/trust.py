"""Files of code that the user trusts, such as own scorers: their text is stored in the workspace under its hash.

Only what was trusted here is run: an archive of the workspace holds none of these texts.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.files import write_text
from perdure.evaluate.own_scorers import in_file

FOLDER = "trusted"


def trust(root: Path, file: Path) -> str:
    """Store the text of a file as trusted, and return its hash.

    Args:
        root: Folder of the workspace.
        file: The file.

    Raises:
        BadInput: The file cannot be read.
    """
    text = _text(file)
    (root / FOLDER).mkdir(exist_ok=True)
    write_text(root / FOLDER / f"{_hash(text)}.py", text)
    return _hash(text)


def with_hash(root: Path, scorer: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
    """Return the settings of a scorer; one in a file gets the hash of the file's text, which is part of the task's version.

    Args:
        root: Folder of the workspace.
        scorer: Name of the scorer, or its settings.

    Raises:
        BadInput: The file cannot be read, or was not trusted as it is.
    """
    settings = {"name": scorer} if isinstance(scorer, str) else dict(scorer)
    found = in_file(str(settings.get("name")))
    if found is None or "sha256" in settings:
        return scorer
    path, function = Path(found[0]), found[1]
    digest = _hash(_text(path))
    if not _place(root, digest).exists():
        raise BadInput(
            f"the scorer runs the code of {path}, which is not trusted as it is now; read the file, and add --trust-file {path} "
            "(Workspace.trust) to allow that"
        )
    return {**settings, "name": f"python:{path.name}:{function}", "sha256": digest}


def trusted_text(root: Path, name: str, digest: str) -> str:
    """Return the text of a file that was trusted.

    Args:
        root: Folder of the workspace.
        name: The scorer, as `python:FILE.py:NAME`.
        digest: Hash of the text.

    Raises:
        BadInput: It was not trusted here, or its text changed since.
    """
    found = in_file(name)
    file, place = found[0] if found else name, _place(root, digest)
    if not place.exists():
        raise BadInput(
            f"the scorer {name} runs the code of {file} (sha256 {digest[:12]}...), which is not trusted in this workspace; read "
            f"the file, and add --trust-file {file} to 'perdure eval'"
        )
    text = _text(place)
    if _hash(text) != digest:
        raise BadInput(
            f"{place} was changed since it was trusted as {file} (sha256 {digest[:12]}...); give the file as it was with "
            f"'perdure eval --trust-file {file}', or learn the task under another name with the new scorer"
        )
    return text


def trust_tasks(root: Path, folder: Path) -> str:
    """Note the task files of lm-evaluation-harness in a folder as trusted, and return their hash.

    Args:
        root: Folder of the workspace.
        folder: The folder; its YAML and Python files count, those in its folders too.
    """
    digest = _hash_of_tasks(folder)
    (root / FOLDER).mkdir(exist_ok=True)
    write_text(root / FOLDER / f"{digest}.tasks", f"{folder}\n")
    return digest


def check_tasks(root: Path, folder: Path, digest: str) -> None:
    """Refuse task files that were not trusted in this workspace, or changed since: loading them runs their code.

    Args:
        root: Folder of the workspace.
        folder: The folder.
        digest: Hash of its files when the guard was added.

    Raises:
        BadInput: They were not trusted, or changed, or are gone.
    """
    if not folder.is_dir():
        raise BadInput(
            f"the folder {folder} with tasks of lm-evaluation-harness is gone; put it back, or remove the guard"
        )
    if _hash_of_tasks(folder) != digest:
        raise BadInput(
            f"the task files in {folder} changed since the guard was added; remove the guard and add it again (it is scored anew)"
        )
    if not (root / FOLDER / f"{digest}.tasks").exists():
        raise BadInput(
            f"the guard runs the task files in {folder}, which are not trusted in this workspace; read them, remove the guard "
            "and add it again to allow that"
        )


def _hash_of_tasks(folder: Path) -> str:
    files = sorted(one for one in folder.rglob("*") if one.suffix in (".yaml", ".yml", ".py") and one.is_file())
    parts = [(one.relative_to(folder).as_posix(), hashlib.sha256(one.read_bytes()).hexdigest()) for one in files]
    return _hash("\n".join(f"{name} {digest}" for name, digest in parts))


def _place(root: Path, digest: str) -> Path:
    return root / FOLDER / f"{digest}.py"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {file}: {error}; give a Python file in UTF-8") from error


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
