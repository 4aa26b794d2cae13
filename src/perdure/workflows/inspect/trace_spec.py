"""Settings of a trace."""

from dataclasses import dataclass
from typing import get_args

from perdure.core.errors import BadSpec
from perdure.editing.traces import Kind

KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_SAMPLES = 10_000


@dataclass(frozen=True)
class TraceSpec:
    """Settings of a trace; see `editing.tracing.trace` for their meaning."""

    kinds: tuple[Kind, ...] = KINDS
    window: int | None = None
    noise: float = 3.0
    samples: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if not self.kinds or (wrong := set(self.kinds) - set(KINDS)):
            raise BadSpec(
                f"cannot restore {sorted(wrong) if self.kinds else 'nothing'}; choose from {', '.join(KINDS)}"
            )
        if wrong_type := [name for name in ("window", "samples", "seed") if not _is_count(getattr(self, name))]:
            raise BadSpec(f"{wrong_type[0]} is {getattr(self, wrong_type[0])!r}; it is a whole number")
        if self.window is not None and (self.window < 1 or self.kinds == ("block",)):
            raise BadSpec("a window is a number of layers, 1 or more, whose mlp or attention is restored together")
        if not 0 <= self.noise < float("inf") or self.samples < 1:
            raise BadSpec(f"noise is {self.noise} and samples {self.samples}; give 0 or more, and 1 or more")
        if self.samples > MOST_SAMPLES:
            raise BadSpec(f"samples is {self.samples:,}, each a forward a layer; take {MOST_SAMPLES:,} at most")


def _is_count(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))
