"""What a learn will take, measured by a probe and stored by what decides it."""

import json
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from perdure.core.canonical import content_hash
from perdure.core.errors import OutOfMemory
from perdure.core.files import write_text
from perdure.core.progress import Tick
from perdure.core.records import BadRecord, Record, omitted
from perdure.ledger import row_key
from perdure.workflows.cached import cached
from perdure.workflows.guards.attach import Mode
from perdure.workflows.learn.guard_time import guard_time
from perdure.workflows.learn.plan import Plan
from perdure.workflows.session import Session

FORM = 3  # of the probe; another one measures anew


@dataclass(frozen=True)
class LearnEstimate(Record):
    """What a learn takes.

    Args:
        seconds: Seconds of training and scoring, guards included.
        peak_mib: Most memory in MiB: on a CUDA device what torch allocates there, else what the process has in memory.
        tokens: Tokens that run forward in training, rows from memory included. Exact unless methods draw by what training
            finds, or draw from more than `probe.GENERAL` general rows.
        guard_items: Items of guards that are scored, at the new entry and at references that were not scored yet.
        guard_seconds: Seconds of these.
    """

    seconds: float
    peak_mib: int
    tokens: int
    guard_items: int = omitted(0)
    guard_seconds: float = omitted(0.0)


@dataclass(frozen=True)
class Estimated:
    """An estimate, or why there is none.

    Args:
        estimate: What the learn takes; None where its updates do not fit.
        notices: What the user should know.
    """

    estimate: LearnEstimate | None
    notices: tuple[str, ...] = ()


def estimated(session: Session, planned: Plan, tick: Tick | None = None, guards: Mode = "warn") -> Estimated:
    """Return what a learn takes: as a probe of it measured before, else as one measures now. The ledger stays as it is.

    Args:
        session: Of the workspace.
        planned: The learn.
        tick: Called with (what, done, total).
        guards: What a guard that falls does; "none" scores none.
    """
    import torch

    file = cached(session, "estimates") / f"{_key(session, planned)}.json"
    try:
        estimate = LearnEstimate.from_json(json.loads(file.read_text()))
    except (OSError, ValueError, BadRecord):  # not measured yet, or cut off
        try:
            estimate = _measured(session, planned, tick)
        except (OutOfMemory, torch.OutOfMemoryError) as error:
            return Estimated(None, (_too_large(session, str(error).partition(". ")[0]),))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(estimate.to_json()) + "\n")
    added = guard_time(session, planned, guards, _machine(session), tick)
    estimate = replace(
        estimate,
        seconds=round(estimate.seconds + added.seconds, 1),
        guard_items=added.items,
        guard_seconds=added.seconds,
    )
    from perdure.bridges.sizes import memory_bytes

    there = memory_bytes(session.device) >> 20
    if estimate.peak_mib > there:
        return Estimated(
            estimate, (_too_large(session, f"it takes {estimate.peak_mib:,} MiB, and there are {there:,}"),)
        )
    return Estimated(estimate)


def _measured(session: Session, planned: Plan, tick: Tick | None) -> LearnEstimate:
    from perdure.workflows.learn.probe import probe

    probed = probe(session, planned, tick)
    return LearnEstimate(round(probed.train_seconds + probed.eval_seconds, 1), probed.peak_mib, probed.tokens)


def _too_large(session: Session, what: str) -> str:
    return (
        f"this learn does not fit into the memory of {session.device}: {what}; lower per_device_train_batch_size "
        "(gradient_accumulation_steps makes up for it) or max_length, or set gradient_checkpointing: true"
    )


def _key(session: Session, planned: Plan) -> str:
    """Return the hash of everything that decides what a probe measures."""
    task = planned.task
    parts = [*_machine(session), planned.parent.id, planned.recipe.to_json(), session.seed]
    parts += [task.version, task.fingerprint, [row_key(row) for row in planned.general], bool(session.ledger.guards())]
    return content_hash([*parts, [row.hash for row in planned.training.rows]])


def _machine(session: Session) -> list[Any]:
    """Return what decides the time that a model takes, besides its input."""
    import torch

    from perdure.bridges.models import choose_device

    device, config = choose_device(session.device), session.ledger.config
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    software = map(version, ("perdure", "torch", "transformers"))
    return [
        FORM,
        name,
        torch.get_num_threads(),
        *software,
        config["base"],
        config["dtype"],
        config.get("attn_implementation"),
    ]
