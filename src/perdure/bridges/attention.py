"""Which implementation of attention a model runs, under the names that transformers has for them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from perdure.core.errors import BadInput, BadSpec

WHERE = "choose eager or sdpa, or leave it out for transformers' choice; a workspace has it in its perdure.json, and in no id"


def check_name(name: str | None) -> str | None:
    """Return the name of an implementation, or None for transformers' own choice.

    Raises:
        BadInput: It is empty, or names a kernel on the hub: code that would be fetched and run.
    """
    if name is not None and (not name.strip() or "/" in name):
        raise BadInput(
            f"attn_implementation {name!r} is no implementation that is installed here, and perdure fetches no code; "
            "choose eager, sdpa, flash_attention_2 or flex_attention"
        )
    return name


@contextmanager
def in_words_of(options: Mapping[str, Any]) -> Iterator[None]:
    """Name the implementation, and what to do, in the error of a model that cannot be loaded with it.

    Args:
        options: What `from_pretrained` is given.

    Raises:
        BadInput: The model cannot be loaded.
    """
    try:
        yield
    except BadInput as error:
        if name := options.get("attn_implementation"):
            raise BadInput(f"attn_implementation {name}: {str(error).rstrip('.')}; {WHERE}") from error
        raise


def refuse_other(model: Any, name: str | None) -> None:
    """Refuse a model for which transformers took another implementation than the one that was named.

    Raises:
        BadInput: It did.
    """
    taken = model.config._attn_implementation
    if name is not None and taken != name:
        raise BadInput(f"attn_implementation {name}: {type(model).__name__} runs {taken} in its place; {WHERE}")


def refuse_every_weight(name: str | None) -> None:
    """Refuse to train every weight, which is done in float32, with an implementation that computes in 16 bits alone.

    Raises:
        BadSpec: It does.
    """
    if name is not None and name.startswith("flash"):
        raise BadSpec(
            f"train: full computes in float32, and {name} in 16 bits alone; use a LoRA recipe, or a workspace without "
            "--attn-implementation"
        )
