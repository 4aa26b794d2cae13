"""One run of a benchmark, in a process of its own: `python -m perdure.workflows.bench.run FOLDER`.

FOLDER holds job.json, written by `workflows.bench.runner`, and gets result.json. Each learned task is told on stdout, a line a
task. Whatever goes wrong is raised as it is: it costs this run alone, and the parent reads what it says.
"""

import json
import sys
from pathlib import Path

from perdure.workflows.bench.kept import KeptPlace
from perdure.workflows.bench.suite import Suite


def main(folder: Path) -> None:
    """Do the job that lies in `folder`, and leave its result there."""
    from perdure.core.recipe import build_recipe
    from perdure.methods.registry import all_methods

    def told(task: str) -> None:
        sys.stdout.write(f"{task}\n")
        sys.stdout.flush()

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    suite, recipe = Suite.model_validate(job["suite"]), build_recipe(job["recipe"], all_methods())
    if suite.kind == "features":
        from perdure.workflows.bench.features import run_features

        result = run_features(suite, recipe, job["seed"], Path(job["data"]), folder, told)
    else:
        from perdure.workflows.bench.text import run_text

        keep = KeptPlace(Path(job["keep"]["folder"]), job["keep"]["key"]) if "keep" in job else None
        result = run_text(suite, recipe, job["seed"], Path(job["data"]), folder, told, job["device"], keep)
    (folder / "result.json").write_text(json.dumps(result.to_json()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
