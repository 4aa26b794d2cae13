"""Advice of the literature by situation, with sources. Advice that no method here covers yet is named as missing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Similarity = Literal["alike", "mixed", "different"]

FEW_ROWS, LITTLE_TIME, FEW_MB = 100, 1.25, 5.0  # at most this much memory or time is "limited"
MANY_TASKS = 15  # the length of what the literature calls a long stream
LARGE = 3e9  # parameters; what the papers call large begins at 7e9, what one consumer card trains ends near here


@dataclass(frozen=True)
class Needs:
    """A user's description of the work ahead. None is "does not matter" or "not known".

    Args:
        tasks: How many tasks, in all.
        keep_rows: Whether rows of older tasks may be stored in memory and trained on again.
        memory_rows: Most rows in memory.
        memory_mb: Most megabytes of memory: rows, their columns, and what methods keep.
        time: Most training time, in multiples of naive fine-tuning's.
        parameters: Size of the model.
        similarity: Whether the tasks ask alike (one kind of answer, other topics) or are of different kinds.
        instructions: Whether the model must still follow general instructions.
        task_known: Whether it is known at use which task a question belongs to.
        removable: Whether a task must be removable later, with what the weights learned of it.
        one_adapter: Whether one adapter is to serve all tasks.
    """

    tasks: int | None = None
    keep_rows: bool = True
    memory_rows: int | None = None
    memory_mb: float | None = None
    time: float | None = None
    parameters: float | None = None
    similarity: Similarity | None = None
    instructions: bool = False
    task_known: bool = False
    removable: bool = False
    one_adapter: bool = False

    @property
    def rows_allowed(self) -> bool:
        """Whether any row of an older task can be in memory."""
        return self.keep_rows and self.memory_rows != 0 and self.memory_mb != 0


@dataclass(frozen=True)
class Rule:
    """One piece of advice.

    Args:
        situation: When it is given, in words.
        holds: The same, of needs.
        says: What is advised, and why.
        parts: What it takes: name of the method, and what it is.
        source: The paper.
        arm: The measured arm that is most like it, where several have its methods.
    """

    situation: str
    holds: Callable[[Needs], bool]
    says: str
    parts: dict[str, str]
    source: str
    arm: str | None = None


def limited(needs: Needs) -> bool:
    """Return whether memory or time is short."""
    few = needs.memory_rows is not None and needs.memory_rows <= FEW_ROWS
    small = needs.memory_mb is not None and needs.memory_mb <= FEW_MB
    return few or small or (needs.time is not None and needs.time <= LITTLE_TIME)


def many(needs: Needs) -> bool:
    """Return whether there are many tasks."""
    return needs.tasks is not None and needs.tasks >= MANY_TASKS


def plentiful(needs: Needs) -> bool:
    """Return whether neither memory nor time was bounded."""
    return needs.memory_rows is None and needs.memory_mb is None and needs.time is None


FIELD = (
    Rule(
        "with limited resources",
        limited,
        "EWC with LwF: no memory of rows, and no forward an update beyond that of the new rows. They protect important weights, "
        "and the old model's outputs on the new rows",
        {"ewc": "EWC", "lwf": "LwF"},
        "Kirkpatrick et al. 2017, arXiv 1612.00796; Li & Hoiem 2016, arXiv 1606.09282",
    ),
    Rule(
        "where rows may not be stored",
        lambda needs: not needs.rows_allowed,
        "DER with distillation on samples that the model itself generates, in place of the rows",
        {"der": "DER", "distill": "distillation", "generated_replay": "replay of generated samples"},
        "Buzzega et al. 2020, arXiv 2004.07211; Sun et al. 2020 (LAMOL), arXiv 1909.03329",
    ),
    Rule(
        "where rows may not be stored",
        lambda needs: not needs.rows_allowed,
        "EWC with LwF, which need no row of an older task, stored or generated. They protect important weights, and the old "
        "model's outputs on the new rows",
        {"ewc": "EWC", "lwf": "LwF"},
        "Kirkpatrick et al. 2017, arXiv 1612.00796; Li & Hoiem 2016, arXiv 1606.09282",
    ),
    Rule(
        "for a large model",
        lambda needs: needs.parameters is not None and needs.parameters >= LARGE,
        "I-LoRA: a fast and a slow adapter, the slow one an average that is used and that steadies the fast one on replayed rows",
        {"i_lora": "I-LoRA"},
        "Ren et al. 2024, arXiv 2402.18865",
    ),
    Rule(
        "for a large model",
        lambda needs: needs.parameters is not None and needs.parameters >= LARGE and needs.rows_allowed,
        "the parts of I-LoRA that are here: replay, feature distillation on replayed rows, and a slow average of the weights",
        {"replay": "replay", "feature_distill": "feature distillation", "ema": "an average of the weights"},
        "Ren et al. 2024, arXiv 2402.18865",
    ),
    Rule(
        "where a task must be removable and one adapter is to serve all tasks",
        lambda needs: needs.removable and needs.one_adapter,
        "a sum of adapters, one a task, of which each can be taken out",
        {"incremental": "a sum of adapters"},
        "Wang et al. 2023, arXiv 2310.14152",
    ),
    Rule(
        "where a task must be removable, and is known at use",
        lambda needs: needs.removable and needs.task_known and not needs.one_adapter,
        "isolation: an adapter for each task, trained on rows of this task alone; without it, nothing of the task is left",
        {"per_task": "an adapter for each task"},
        "Bourtoule et al. 2021 (SISA), arXiv 1912.03817",
    ),
    Rule(
        "where a task must be removable",
        lambda needs: needs.removable and not (needs.task_known or needs.one_adapter),
        "isolation with a router: an adapter for each task, trained on rows of this task alone; without it, nothing of the task "
        "is left",
        {"per_task": "an adapter for each task", "color": "a router"},
        "Bourtoule et al. 2021 (SISA), arXiv 1912.03817; Wistuba et al. 2023 (CoLoR), arXiv 2311.17601",
    ),
    Rule(
        "over many tasks",
        lambda needs: many(needs) and not (needs.removable or needs.task_known or needs.one_adapter),
        "isolation with a router: no task changes another, and a task costs the same however many there are",
        {"per_task": "an adapter for each task", "color": "a router"},
        "Wistuba et al. 2023 (CoLoR), arXiv 2311.17601",
    ),
    Rule(
        "where the task is known at use",
        lambda needs: needs.task_known and not (needs.removable or needs.one_adapter),
        "isolation: an adapter for each task, which no later task changes, so that nothing is forgotten",
        {"per_task": "an adapter for each task"},
        "Mallya & Lazebnik 2018 (PackNet), arXiv 1711.05769; Wang et al. 2023, arXiv 2310.14152",
    ),
    Rule(
        "with plentiful resources, or where rows may not be stored",
        lambda needs: (
            not (needs.task_known or needs.removable or needs.one_adapter or many(needs))
            and (plentiful(needs) or not needs.rows_allowed)
        ),
        "isolation with a router: an adapter for each task, and the task of a request found from features of the base model",
        {"per_task": "an adapter for each task", "color": "a router"},
        "Wistuba et al. 2023 (CoLoR), arXiv 2311.17601",
    ),
    Rule(
        "where rows may not be stored and one adapter is to serve all tasks",
        lambda needs: not needs.rows_allowed and (needs.one_adapter or not (needs.task_known or needs.removable)),
        "SLAO: one adapter of constant rank, started from an orthonormal basis of its rows and merged over time",
        {"slao": "SLAO"},
        "Qiao & Mahdavi 2026, arXiv 2512.23017",
    ),
    Rule(
        "where rows may be stored",
        lambda needs: needs.rows_allowed,
        "a little replay: on large models too, one row in ten of older tasks keeps most of what naive fine-tuning loses",
        {"replay": "replay"},
        "Chaudhry et al. 2019, arXiv 1902.10486; Wang et al. 2023 (TRACE), arXiv 2310.06762",
        arm="replay_0.1",
    ),
)
