"""Features of rows under the bare base. Those of test rows are stored in the workspace's folder: no learn changes them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.core.canonical import content_hash
from perdure.core.files import save_tensors, write_atomically
from perdure.data.task import TaskData
from perdure.ledger import Ledger

if TYPE_CHECKING:
    from torch import Tensor

    from perdure.bridges.runtime import Runtime

FOLDER = "features"
OnRows = Callable[[int, int], None]


def features_of_tests(
    runtime: "Runtime", ledger: Ledger, task: TaskData, prompts: Sequence[list[int]], on_rows: OnRows | None = None
) -> "Tensor":
    """Return the features of a task's test rows (rows, d), in order; a row that was read before costs no forward.

    Args:
        runtime: Holds the model; an adapter over the base is off while it reads.
        ledger: Of the workspace.
        task: The task.
        prompts: Its test rows as tokens.
        on_rows: Called with the number of rows that are done, and of all rows that are read.
    """
    import torch

    texts = own_texts(prompts, prompts)
    names = [content_hash([runtime.layer, *text]) for text in texts]
    file = ledger.root / FOLDER / f"{task.version}.safetensors"
    known = _read(file)
    missing = dict.fromkeys(name for name in names if name not in known)
    if missing:
        unknown = [texts[names.index(name)] for name in missing]
        known |= dict(zip(missing, runtime.features(unknown, on_rows), strict=True))
        _write(file, {name: known[name] for name in dict.fromkeys(names)})
    return torch.stack([known[name] for name in names])


def own_texts(prompts: Sequence[list[int]], tests: Sequence[list[int]]) -> list[tuple[int, ...]]:
    """Return the tokens of prompts in a task's template without the template, as its test rows show it.

    Args:
        prompts: The prompts as tokens.
        tests: The prompts of its test rows.
    """
    from perdure.model.text_features import own_tokens, template_of

    template = template_of(tests)
    return [own_tokens(prompt, template) for prompt in prompts]


def forget_features(ledger: Ledger) -> None:
    """Delete all stored features, as when the text of a row is deleted: they are computed from it."""
    for file in (ledger.root / FOLDER).glob("*"):
        file.unlink()


def _read(file: Path) -> "dict[str, Tensor]":
    """Return stored features by name; nothing where there are none, or the file is cut off."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError):
        return {}


def _write(file: Path, features: "dict[str, Tensor]") -> None:
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, lambda aside: save_tensors({name: value.clone() for name, value in features.items()}, aside))
