"""What an export wrote, and what was checked of it."""

from dataclasses import dataclass

from perdure.core.records import Record, omitted


@dataclass(frozen=True)
class Losses(Record):
    """A mean loss in nats a token, of the workspace's state and of what was written."""

    nll_before: float
    nll: float


@dataclass(frozen=True)
class LostFact(Record):
    """A fact that the workspace says and the export does not: its id, and its subject."""

    fact: str
    subject: str


@dataclass(frozen=True)
class FactsCheck(Record):
    """How an export answers the facts in force.

    Args:
        n: How many there are.
        said_before: How many the workspace's state says.
        said: How many the export says.
        lost: The facts that it no longer says.
        nll_before: Mean loss of the targets in nats a token, of the workspace's state.
        nll: The same of the export.
    """

    n: int
    said_before: int
    said: int
    lost: tuple[LostFact, ...]
    nll_before: float
    nll: float


@dataclass(frozen=True)
class AdapterCheck:
    """How a server answers with an adapter.

    Args:
        dtype: Dtype that the server holds the factors in.
        facts: How it answers the facts in force; None where there are none.
        held_out: Its loss on held-out text; None where the rank was not cut.
    """

    dtype: str
    facts: FactsCheck | None = None
    held_out: Losses | None = None


@dataclass(frozen=True, kw_only=True)
class AdapterExport(Record):
    """An adapter that was written.

    Args:
        folder: Where.
        entry: The entry whose state it is.
        task: Whose requests it is for; None for what all tasks share.
        kind: "adapter".
        files: Names of the files.
        rank: The rank written.
        max_lora_rank: The setting with which vLLM takes it; None where it takes none so large.
        relative_error: What truncation changed of the whole adapter; left out where nothing was truncated.
        experts: How many parameters of experts have factors.
        dtype: Dtype that its server holds it in.
        facts: How it answers the facts in force; None where there are none.
        held_out: The loss of held-out text; left out where nothing was truncated.
    """

    folder: str
    entry: str
    task: str | None
    kind: str = "adapter"
    files: tuple[str, ...] = ()
    rank: int
    max_lora_rank: int | None
    relative_error: float | None = omitted(None)
    experts: int
    dtype: str
    facts: FactsCheck | None
    held_out: Losses | None = omitted(None)


@dataclass(frozen=True, kw_only=True)
class MergedExport(Record):
    """A merged model that was written.

    Args:
        folder: Where.
        entry: The entry whose state it is.
        task: Whose requests it is for; None for what all tasks share.
        kind: "merged".
        files: Names of the files.
        rank: None: it has no adapter.
        difference: Largest change of a logit by merging.
        tolerance: The largest that rounding explains.
        facts: How it answers the facts in force; None where there are none.
    """

    folder: str
    entry: str
    task: str | None
    kind: str = "merged"
    files: tuple[str, ...] = ()
    rank: int | None = None
    difference: float
    tolerance: float
    facts: FactsCheck | None


Export = AdapterExport | MergedExport
