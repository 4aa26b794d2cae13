"""Runs jobs of a benchmark, some at once, each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from perdure.core.canonical import content_hash
from perdure.core.device import ANY
from perdure.core.files import make_folder, write_text
from perdure.core.outputs import BENCH_RESULT, write_output
from perdure.core.progress import Tick
from perdure.core.records import BadRecord
from perdure.workflows.bench.jobs import Job
from perdure.workflows.bench.records import FailedRun, FinishedRun, Run, RunInfo, RunMeasures, RunName


@dataclass(frozen=True)
class BenchPlace:
    """Where a benchmark runs.

    Args:
        data: Folder of the data files.
        out: Folder of results.
        workers: Processes at once; more than one makes each single-threaded.
        device: Where models are loaded; a suite of features runs on the CPU.
        keep: Folder where the workspace of each run is kept, and from which it is taken; None keeps none.
    """

    data: Path
    out: Path
    workers: int = 1
    device: str = ANY
    keep: Path | None = None


class Runner:
    """Runs jobs, `place.workers` at once, each in a process that is ended with us."""

    def __init__(self, place: BenchPlace, tick: Tick | None, total: int):
        self.data, self.out, self.workers, self.device = place.data.resolve(), place.out, place.workers, place.device
        self.keep = place.keep.resolve() if place.keep else None
        self.tick, self.total = tick, total
        self.lock = threading.Lock()
        self.running: set[subprocess.Popen[str]] = set()
        self.stopping = False
        self.done = 0  # tasks learned, or given up

    def run(self, jobs: Sequence[Job]) -> dict[RunName, str]:
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
            asked |= {"data": str(self.data), "device": self.device}
            if self.keep:
                place = job.place(self.keep)
                asked["keep"] = {"folder": str(place.folder), "key": place.key}
            (folder / "job.json").write_text(json.dumps(asked), encoding="utf-8")
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
            found = _measures(folder / "result.json") if code == 0 else None
        log = job.path(self.out).with_suffix(".log")
        log.unlink(missing_ok=True)
        error = None
        if found is None:
            error = _reason(code, talk)
            write_text(log, talk)
            self._tell(f"{job.arm.label} seed {job.seed} FAILED", len(job.suite.tasks) - learned)
        info = RunInfo(
            suite=job.suite.name,
            suite_hash=job.suite.hash,
            model=job.suite.model,
            arm=job.arm.label,
            arm_hash=content_hash(job.arm.written),
            seed=job.seed,
            key=job.key,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            workers=self.workers,
            wall_seconds=round(time.perf_counter() - began, 1),
            written=job.arm.written,
            recipe=job.arm.recipe,
        )
        run: Run = (
            FailedRun(**vars(info), error=error or "") if found is None else FinishedRun(**vars(info), **vars(found))
        )
        make_folder(job.path(self.out).parent)
        write_output(job.path(self.out), json.dumps(run.to_json(), ensure_ascii=False) + "\n", BENCH_RESULT)
        return error

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


def _measures(path: Path) -> RunMeasures | None:
    """Return what a process measured; None if it left nothing that can be read."""
    try:
        return RunMeasures.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, BadRecord):
        return None


def _reason(code: int, talk: str) -> str:
    """Return why a process failed: its signal, or what stands after the last frame of its traceback."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (the machine may have run out of memory)" if name == "SIGKILL" else "")
    lines = talk.strip().splitlines() or [f"exit code {code}, and not a word why"]
    frames = [i for i, line in enumerate(lines) if line.startswith("  ")]
    said = "\n".join(lines[frames[-1] + 1 :] if frames else lines[-1:]).strip() or lines[-1]
    return said.removeprefix("perdure.core.errors.")
