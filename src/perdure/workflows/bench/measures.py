"""What every run of a benchmark measures."""

import platform
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from perdure.ledger.records import Heartbeat
from perdure.workflows.bench.records import Machine

Told = Callable[[str], None]  # called with the name of each task when it is learned


def peak_mib() -> float:
    """Return the most memory this process ever held, in MiB.

    Linux tells it of the program alone; `getrusage` would count what the parent held when it started us.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)  # bytes on macOS, KiB elsewhere


def cpu_seconds() -> float:
    """Return the processor's seconds of this process."""
    return round(time.process_time(), 1)


def mean_beats(heartbeats: Mapping[str, Sequence[tuple[int, Heartbeat]]]) -> dict[str, dict[str, float]]:
    """Return what each method did over one learn: the mean of each number of its heartbeats."""
    means = {}
    for method, beats in heartbeats.items():
        values = [beat.values for _, beat in beats]
        keys = dict.fromkeys(key for one in values for key in one)
        means[method] = {key: fmean(one[key] for one in values if key in one) for key in keys}
    return means


def short_items(items: Sequence[float]) -> tuple[float, ...]:
    """Return scores of test rows as a file has them: 1 for 1.0."""
    return tuple(int(item) if item in (0.0, 1.0) else item for item in items)


def machine(device: Any, dtype: str) -> Machine:
    """Return what times and memory depend on."""
    import torch

    gpu = device.type == "cuda"
    return Machine(
        device=str(device),
        threads=torch.get_num_threads(),
        dtype=dtype,
        gpu=torch.cuda.get_device_name() if gpu else None,
        gpu_peak_mib=torch.cuda.max_memory_allocated() / 2**20 if gpu else None,
        processor=platform.machine(),
        python=platform.python_version(),
    )
