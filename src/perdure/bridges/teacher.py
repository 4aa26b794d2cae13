"""Another model as teacher: its distributions are stored, so that it is not in memory while the student learns."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from perdure.bridges.models import find_model, is_fast
from perdure.core.errors import BadInput
from perdure.core.step import TopK
from perdure.data.encode import Encoded

if TYPE_CHECKING:
    from perdure.bridges.runtime import Runtime


def teacher_top_k(
    name: str,
    rows: Sequence[Encoded],
    k: int,
    student: "Runtime",
    on_rows: Callable[[int, int], None] | None = None,
    *,
    labels: bool = False,
) -> list[TopK]:
    """Return the `k` largest log-probabilities of another model at the label positions of each row.

    Args:
        name: Local folder, hub id, or name of the embedded model.
        rows: Tokens, by the student's tokenizer.
        k: Log-probabilities a label token.
        student: Whose tokenizer the teacher must share.
        on_rows: Called with the number of rows that are done, and of all rows.
        labels: The label itself is the first of the `k`, as `Column.labels` has it.

    Raises:
        BadInput: The teacher cannot be loaded, or has another tokenizer.

    Cost: the teacher is in memory together with the student, then dropped; one forward a row.
    """
    from perdure.bridges.runtime import Runtime

    place = student.base.device
    kind = "bfloat16" if is_fast(torch.bfloat16, place) else "float32"
    teacher = Runtime(find_model(name), kind, str(place))
    refuse_other_tokenizer(name, teacher.base.tokenizer, student.base.tokenizer)
    known = student.model.get_input_embeddings().num_embeddings
    if teacher.model.get_input_embeddings().num_embeddings > known:  # padded to another size: tokens that no text has
        teacher.model.resize_token_embeddings(known)
    return teacher.top_k(rows, k, on_rows, labels=labels)


def refuse_other_tokenizer(name: str, teacher: Any, student: Any) -> None:
    """Refuse a teacher whose tokenizer is not the student's.

    Raises:
        BadInput: They differ.
    """
    if teacher.get_vocab() != student.get_vocab():
        raise BadInput(
            f"the teacher {name} has another tokenizer than the base model, so that its distributions cannot be compared; "
            "choose a teacher of the same family"
        )
