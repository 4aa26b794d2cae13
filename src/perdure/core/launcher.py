"""Environment variables that launchers of several processes (torchrun, accelerate, mpirun) set for their processes.

perdure trains as one process. If an earlier launch or an outer job left these variables set, the libraries below would
wait for processes that do not exist, or train in another precision than the recipe's.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = frozenset(
    {"WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"}
)
PREFIXES = (
    "ACCELERATE_",
    "TORCHELASTIC_",
    "FSDP_",
    "PARALLELISM_CONFIG_",
    "MEGATRON_LM_",
    "PMI_",
    "OMPI_COMM_WORLD_",
    "MV2_COMM_WORLD_",
    "MPI_LOCAL",
    "SM_HP_MP_",
)


def launcher_variables() -> dict[str, str]:
    """Return the variables of launchers that are set."""
    return {name: value for name, value in os.environ.items() if name in NAMES or name.startswith(PREFIXES)}


def forget_launcher() -> list[str]:
    """Remove the variables of launchers from the environment, and return their names."""
    names = sorted(launcher_variables())
    for name in names:
        del os.environ[name]
    return names


@contextmanager
def without_launcher() -> Iterator[None]:
    """Inside, no variable of a launcher is set."""
    before = launcher_variables()
    forget_launcher()
    try:
        yield
    finally:
        os.environ.update(before)
