"""The errors perdure raises. Each names what is wrong, where, and what to do; the command line prints them as they are."""


class PerdureError(Exception):
    """Root of every error raised on purpose. `exit_code` is what the command line returns."""

    exit_code = 1


class BadInput(PerdureError):
    """Data, a file or an argument the user gave cannot be used."""


class Unsolvable(BadInput):
    """The statistics or the equations of an edit have no solution in floating point."""


class BadSpec(PerdureError):
    """A recipe, task file or setting is not valid."""


class Conflict(BadSpec):
    """Two methods want the same exclusive seam."""


class NotFound(PerdureError):
    """A name (ref, entry, task, workspace) that does not exist."""


class BrokenStore(PerdureError):
    """The content of the disk differs from what the ledger recorded."""


class Busy(PerdureError):
    """Another process holds the workspace's write lock."""


class Diverged(PerdureError):
    """A loss term became NaN or infinite."""


class OutOfMemory(PerdureError):
    """One row alone needs more memory than the device has."""


class Interrupted(PerdureError):
    """Training was stopped by a signal; a checkpoint is on disk and the same command resumes."""

    exit_code = 130


class GateFailed(PerdureError):
    """The new entry lost something that is guarded; head did not move."""

    exit_code = 3
