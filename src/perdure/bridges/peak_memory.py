"""The most memory that some work took, on the device that it ran on."""

import sys
from pathlib import Path

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux


class PeakMemory:
    """The peak since this object was made.

    On a CUDA device it is what torch allocated there; on a CPU what this process had in memory, the libraries, the mapped files
    and whatever the process held before included: that is what has to fit. On another accelerator it is what torch holds there
    when it is read, as those count no peak.

    Args:
        device: Where the model runs.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif RESET.exists():
            try:
                RESET.write_text("5")  # begins the count of the peak anew
            except OSError:  # a container may forbid it: the peak is then that of the whole process so far
                return

    @property
    def mib(self) -> int:
        """The peak in MiB."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) >> 20
        if self.device.type == "mps":
            return torch.mps.driver_allocated_memory() >> 20
        return _resident_peak() >> 20

    @property
    def of(self) -> str:
        """Which memory it is."""
        if self.device.type in ("cuda", "mps"):
            return f"torch on {self.device}"
        return "the process"


def _resident_peak() -> int:
    """Return the most bytes that this process had in memory."""
    if STATUS.exists():
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) << 10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10
