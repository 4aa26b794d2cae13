"""Workspaces of a benchmark's runs that are kept, so that other guards can be scored later without learning the tasks again."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from perdure.core.errors import BadInput
from perdure.core.files import make_folder, write_text
from perdure.core.records import BadRecord, Record
from perdure.workflows.bench.records import RunMeasures

WORKSPACE, MEASURES = "workspace", "measures.json"


@dataclass(frozen=True)
class KeptRun(Record):
    """A run whose workspace is kept.

    Args:
        key: Identity of what was learned: the tasks, the recipe as written, and the seed, whatever the guards.
        measures: What was measured, without guards.
    """

    key: str
    measures: RunMeasures


@dataclass(frozen=True)
class KeptPlace:
    """Where the workspace of a run is kept.

    Args:
        folder: Folder of the run.
        key: Identity of what is learned.
    """

    folder: Path
    key: str

    @property
    def workspace(self) -> Path:
        """Folder of the workspace."""
        return self.folder / WORKSPACE

    def read(self) -> RunMeasures | None:
        """Return what was measured of the kept run; None if there is none yet.

        Raises:
            BadInput: The folder holds something else.
        """
        if not self.folder.exists():
            return None
        try:
            found = KeptRun.from_json(json.loads((self.folder / MEASURES).read_text(encoding="utf-8")))
        except (OSError, ValueError, BadRecord) as error:
            raise BadInput(f"{self.folder} is not a run that was kept; remove it, or name another folder") from error
        if found.key != self.key:
            raise BadInput(
                f"{self.folder} keeps a run of other tasks, another recipe or another seed; remove it, or name another folder"
            )
        return found.measures

    def write(self, workspace: Path, measures: RunMeasures) -> None:
        """Keep a run: copy its workspace, and write what was measured."""
        make_folder(self.folder.parent)
        part = self.folder.with_name(f".{self.folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(workspace, part / WORKSPACE)
        write_text(part / MEASURES, json.dumps(KeptRun(self.key, measures).to_json()) + "\n")
        part.rename(self.folder)
