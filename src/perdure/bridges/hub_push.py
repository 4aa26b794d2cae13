"""Pushing the files of a folder to a model repository on the hub."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from perdure.core.errors import BadInput, PerdureError
from perdure.core.plain_text import clipped

MOST = 300  # characters of what the hub answered, in an error


@dataclass(frozen=True)
class Repository:
    """A model repository, as the hub has it before a push.

    Args:
        name: ORG/NAME.
        exists: Whether it is there.
        private: Whether it is private, or will be made so.
        files: Names of the files in it.
    """

    name: str
    exists: bool
    private: bool
    files: tuple[str, ...] = ()


def find_repository(name: str, *, public: bool) -> Repository:
    """Return the repository that a push would go to; nothing is changed.

    Args:
        name: ORG/NAME.
        public: Whether the push may be public.

    Raises:
        BadInput: The name is none of a repository, the user is not logged in, or the repository is public and the push is not.
        PerdureError: The hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    _refuse_name(name)
    with _in_words(name):
        api = HfApi()
        api.whoami()
        try:
            info = api.model_info(name)
        except GatedRepoError:  # a kind of the next one, and the repository exists
            raise
        except RepositoryNotFoundError:
            return Repository(name, exists=False, private=not public)
    if not info.private and not public:
        raise BadInput(f"{name} is public on the hub; give --public to push to it, or choose a private repository")
    files = tuple(sorted(file.rfilename for file in info.siblings or ()))
    return Repository(name, exists=True, private=bool(info.private), files=files)


def push_folder(folder: Path, repository: Repository, message: str) -> tuple[str, str]:
    """Push every file of a folder as one commit, making the repository if it is not there; return commit and address.

    Raises:
        BadInput: The user may not.
        PerdureError: The hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    name = repository.name
    with _in_words(name):
        api = HfApi()
        if not repository.exists:
            api.create_repo(name, repo_type="model", private=repository.private)
        commit = api.upload_folder(repo_id=name, folder_path=folder, repo_type="model", commit_message=message)
    return str(commit.oid), f"{api.endpoint}/{name}"


def _refuse_name(name: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise BadInput(f"{name!r} is no name of a repository: {_short(error)}") from None
    if "/" not in name:
        raise BadInput(f"{name!r} is no name of a repository; write ORG/NAME")


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    """Report what the hub's client raises as one line."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError:
        raise BadInput("nobody is logged in to the hub; run 'hf auth login', or set HF_TOKEN") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status == 401:
            raise BadInput(f"the hub does not accept the token: {_short(error)}; run 'hf auth login' again") from error
        if status == 403:
            raise BadInput(f"the token may not write to {name}: {_short(error)}; use one with write access") from error
        raise PerdureError(f"the hub refused {name}: {_short(error)}") from error
    except (ConnectionError, TimeoutError, HTTPError) as error:
        raise PerdureError(f"the hub cannot be reached: {_short(error)}; go online and try again") from error
    except (OSError, ValueError) as error:
        raise PerdureError(f"pushing to {name} failed: {_short(error)}") from error


def _short(error: Exception) -> str:
    return clipped(" ".join(str(error).split()), MOST).rstrip(".")
