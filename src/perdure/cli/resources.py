"""Time and memory of a learn, as `show` and `learn` print them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.ledger.records import Resources

LITTLE = 0.05  # seconds of a stage that is left out


def resource_pairs(resources: "Resources | None") -> dict[str, str | None]:
    """Return the lines on time and memory; none for a learn that an older perdure recorded."""
    if resources is None:
        return {}
    speed = resources.tokens_per_second
    longest_first = sorted(resources.seconds.items(), key=lambda stage: -stage[1])
    return {
        "stages": ", ".join(f"{name} {seconds:.1f} s" for name, seconds in longest_first if seconds >= LITTLE) or None,
        "peak memory": f"{resources.peak_mib:,} MiB of {resources.peak_of}",
        "speed": f"{speed:,.0f} tokens/s" if speed else None,
    }
