"""Bench: recipes x seeds on a suite, each run in a process of its own, none of them twice."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from perdure.core.canonical import canonical_json, content_hash
from perdure.core.errors import BadInput, BadSpec
from perdure.core.files import make_folder, write_text
from perdure.core.outputs import BENCH_RESULT, write_output
from perdure.core.plain_yaml import read_yaml
from perdure.core.progress import Tick
from perdure.workflows.bench.suite import Suite, check_files, check_tasks

Json = dict[str, Any]
Name = tuple[str, int]  # an arm's label and a seed


@dataclass(frozen=True)
class Arm:
    """What is compared: a recipe with settings changed, under a label.

    Args:
        label: What tables call it.
        written: The recipe as its file and the changes write it, without defaults.
        recipe: The recipe whole, as `Recipe.to_json` gives it.
    """

    label: str
    written: Json
    recipe: Json


@dataclass(frozen=True)
class Job:
    """One run that is wanted.

    Args:
        suite: What is learned.
        arm: How.
        seed: Of the rows and of everything random.
    """

    suite: Suite
    arm: Arm
    seed: int

    @cached_property
    def key(self) -> str:
        """Identity of suite, recipe as written, and seed."""
        return content_hash([self.suite.hash, self.arm.written, self.seed])

    @property
    def name(self) -> Name:
        """What tells it from the other runs of a call."""
        return self.arm.label, self.seed

    @property
    def told(self) -> Json:
        """The same for people and tools."""
        return {"arm": self.arm.label, "seed": self.seed}

    def path(self, out: Path) -> Path:
        """Return where its result is kept."""
        name = re.sub(r"[^\w.+=,-]+", "_", self.arm.label)
        return out / self.suite.name / f"{name}-{self.seed}.json"

    def finished(self, result: Json | None) -> bool:
        """Say whether `result` is one of this very run.

        What was written must be the same, and so must what came of it, but for settings that did not exist then: a
        new one is at its default here, or it would have been written.
        """
        if result is None or result.get("error") or result.get("key") != self.key:
            return False
        return _agrees(result["recipe"], self.arm.recipe)


def read_arm(text: str, settings: Json | None = None) -> Arm:
    """Return the arm that a word of the command line names: [LABEL=]RECIPE[:KEY=VALUE,KEY=VALUE...].

    Args:
        text: RECIPE is a name or a YAML file, keys are dotted as with `learn --set`, values are YAML.
        settings: Of the suite; they stand above the recipe's and below those in `text`.

    Raises:
        BadInput: No such recipe.
        BadSpec: It cannot be read, or makes no valid recipe.
    """
    from perdure.bridges.trackers import refuse_missing
    from perdure.core.recipe import build_recipe
    from perdure.methods.registry import all_methods, recipe_spec

    before, _, changes = text.partition(":")
    label, named, name = before.rpartition("=")
    pairs = [pair.partition("=") for pair in re.split(r",(?=[\w.]+=)", changes) if pair]
    if wrong := [key for key, equals, value in pairs if not (key and equals and value.strip())]:
        raise BadSpec(f"arm {text!r}: {wrong[0]!r} is no KEY=VALUE; write RECIPE:KEY=VALUE,KEY=VALUE")
    if len({key for key, _, _ in pairs}) < len(pairs):
        raise BadSpec(f"arm {text!r} sets a key twice; set it once")
    try:
        overrides = {key: read_yaml(value) for key, _, value in pairs}
    except (yaml.YAMLError, ValueError) as error:
        raise BadSpec(f"arm {text!r}: a value is no YAML: {error}") from None
    written = recipe_spec(name, {**(settings or {}), **overrides})
    built = build_recipe(written, all_methods())
    refuse_missing(built.settings.trackers)
    recipe = built.to_json()
    stem = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    return Arm(label if named else f"{stem}:{changes}" if changes else stem, _plain(written), _plain(recipe))


def bench(
    suite: Suite,
    arms: Sequence[Arm],
    seeds: Iterable[int],
    *,
    data: Path,
    out: Path,
    workers: int = 1,
    tick: Tick | None = None,
) -> Json:
    """Run what is not finished, seed by seed, and leave a JSON file for each run in OUT/<suite>/.

    A failed run leaves its error in its file and all it said beside it (.log); the others go on, and it is tried again
    next time.

    Args:
        suite: What is learned.
        arms: The recipes.
        seeds: Each arm runs with each.
        data: Folder of the data files.
        out: Folder of results.
        workers: Processes at once; more than one makes each single-threaded.
        tick: Called with (what, tasks learned, of how many).

    Returns:
        Labels and seeds of the runs: "ran", "kept" (finished before) and "failed".

    Raises:
        BadInput: Two arms have one label, or a data file is missing (told only if something has to run).
    """
    wanted = [Job(suite, arm, seed) for seed in dict.fromkeys(seeds) for arm in arms]
    if len({job.path(out) for job in wanted}) < len(wanted):
        raise BadInput(f"two arms have the same label: {[arm.label for arm in arms]}; name one as LABEL=RECIPE")
    missing = [job for job in wanted if not job.finished(read_result(job.path(out)))]
    if missing:
        check_tasks(suite)
        check_files(suite, data)
        make_folder(out / suite.name)
    errors = _Runner(data.resolve(), out, workers, tick, len(missing) * len(suite.tasks)).run(missing)
    begun = {job.name for job in missing}
    return {
        "ran": [job.told for job in missing if job.name not in errors],
        "kept": [job.told for job in wanted if job.name not in begun],
        "failed": [{**job.told, "error": errors[job.name]} for job in missing if job.name in errors],
    }


def read_result(path: Path) -> Json | None:
    """Return a run's result file, None where there is none, or none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def results(suite: Suite, out: Path) -> tuple[list[Json], int]:
    """Return the results of a suite as it is now, failed runs among them, and how many files are of another version of it."""
    found = [read_result(path) for path in sorted((out / suite.name).glob("*.json"))]
    own = [result for result in found if result and result.get("suite_hash") == suite.hash]
    return own, len(found) - len(own)


class _Runner:
    """Runs jobs, `workers` at once, each in a process that is ended with us."""

    def __init__(self, data: Path, out: Path, workers: int, tick: Tick | None, total: int):
        self.data, self.out, self.workers, self.tick, self.total = data, out, workers, tick, total
        self.lock = threading.Lock()
        self.running: set[subprocess.Popen[str]] = set()
        self.stopping = False
        self.done = 0  # tasks learned, or given up

    def run(self, jobs: Sequence[Job]) -> dict[Name, str]:
        """Run all jobs; return the errors of those that failed."""
        with ThreadPoolExecutor(self.workers) as pool:
            futures = {pool.submit(self._one, job): job for job in jobs}
            try:
                ended = {futures[future].name: future.result() for future in as_completed(futures)}
            finally:  # Ctrl-C, a full disk: nothing is left running
                self._stop()
                pool.shutdown(wait=True, cancel_futures=True)
        return {name: error for name, error in ended.items() if error}

    def _one(self, job: Job) -> str | None:
        """Do a job in a process of its own and write its result; return its error, if it failed."""
        began, learned = time.perf_counter(), 0
        with tempfile.TemporaryDirectory(prefix="perdure-bench-") as scratch:
            folder = Path(scratch)
            asked = {"suite": job.suite.model_dump(mode="json"), "recipe": job.arm.recipe, "seed": job.seed}
            (folder / "job.json").write_text(json.dumps({**asked, "data": str(self.data)}), encoding="utf-8")
            process = self._start(folder)
            for line in process.stdout or ():
                learned += 1
                self._tell(f"{job.arm.label} seed {job.seed} learned {line.strip()}", 1)
            code = process.wait()
            with self.lock:
                self.running.discard(process)
            if self.stopping:
                return None
            talk = (folder / "stderr").read_text(encoding="utf-8", errors="replace")
            found = read_result(folder / "result.json") if code == 0 else None
        log = job.path(self.out).with_suffix(".log")
        log.unlink(missing_ok=True)
        if found is None:
            found = {"error": _reason(code, talk)}
            write_text(log, talk)
            self._tell(f"{job.arm.label} seed {job.seed} FAILED", len(job.suite.tasks) - learned)
        about = {
            "suite": job.suite.name,
            "suite_hash": job.suite.hash,
            "model": job.suite.model,
            "arm": job.arm.label,
            "arm_hash": content_hash(job.arm.written),
            "seed": job.seed,
            "key": job.key,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "workers": self.workers,
            "wall_seconds": round(time.perf_counter() - began, 1),
            "written": job.arm.written,
            "recipe": job.arm.recipe,
        }
        make_folder(job.path(self.out).parent)
        write_output(job.path(self.out), json.dumps({**about, **found}, ensure_ascii=False) + "\n", BENCH_RESULT)
        return found.get("error")

    def _start(self, folder: Path) -> "subprocess.Popen[str]":
        own = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} | ({"OMP_NUM_THREADS": "1"} if self.workers > 1 else {})
        with self.lock, (folder / "stderr").open("w", encoding="utf-8") as talk:
            process = subprocess.Popen(
                [sys.executable, "-m", "perdure.workflows.bench.run", str(folder)],
                stdout=subprocess.PIPE,
                stderr=talk,
                text=True,
                env={**os.environ, **own},
                start_new_session=True,  # Ctrl-C is ours to handle; a run that it hit would look like one that failed
            )
            self.running.add(process)
            if self.stopping:
                process.terminate()
        return process

    def _stop(self) -> None:
        with self.lock:
            self.stopping = True
            for process in self.running:
                process.terminate()

    def _tell(self, what: str, tasks: int) -> None:
        with self.lock:
            self.done += tasks
            if self.tick:
                self.tick(f"benchmark, {what}", self.done, self.total)


def _reason(code: int, talk: str) -> str:
    """Return why a process failed: its signal, or what stands after the last frame of its traceback."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (the machine may have run out of memory)" if name == "SIGKILL" else "")
    lines = talk.strip().splitlines() or [f"exit code {code}, and not a word why"]
    frames = [i for i, line in enumerate(lines) if line.startswith("  ")]
    said = "\n".join(lines[frames[-1] + 1 :] if frames else lines[-1:]).strip() or lines[-1]
    return said.removeprefix("perdure.core.errors.")


def _agrees(then: Any, now: Any) -> bool:
    """Say whether everything in `then` stands in `now` too; what is new in `now` is not asked."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(key in now and _agrees(value, now[key]) for key, value in then.items())
    return bool(then == now)


def _plain(value: Json) -> Json:
    """Return `value` as it comes back from a JSON file."""
    plain: Json = json.loads(canonical_json(value))
    return plain
