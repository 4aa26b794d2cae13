"""What installed packages bring through entry points: found by group, loaded when wanted, named where it is wrong."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from perdure.core.errors import BadSpec


@dataclass(frozen=True)
class Brought:
    """An entry point of an installed package.

    Args:
        point: The entry point.
    """

    point: EntryPoint

    @property
    def name(self) -> str:
        """Name of the entry point."""
        return self.point.name

    @property
    def package(self) -> str:
        """Name and version of the package."""
        return f"{self.point.dist.name} {self.point.dist.version}" if self.point.dist else "a package without a name"

    @property
    def where(self) -> str:
        """Package and entry point, for an error."""
        return f"package {self.package}, entry point {self.name} = {self.point.value} of {self.point.group}"

    def load(self) -> Any:
        """Return what the entry point names. The package's own code is run.

        Raises:
            BadSpec: It cannot be loaded.
        """
        try:
            return self.point.load()
        except Exception as error:  # the package's own code runs here, which may raise anything
            raise BadSpec(f"{self.where} cannot be loaded: {raised(error)}; repair or uninstall the package") from error


def brought(group: str) -> list[Brought]:
    """Return the entry points of a group, as the packages were found."""
    return [Brought(point) for point in entry_points(group=group)]


def raised(error: Exception) -> str:
    """Return an error of code that is not perdure's, with its kind."""
    return f"{type(error).__name__}: {error}"
