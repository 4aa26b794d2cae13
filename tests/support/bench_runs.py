"""Results of benchmark runs, as tests of tables and of advice need them."""

from perdure.workflows.bench.records import FailedRun, FinishedRun

INFO = {
    "suite": "two",
    "suite_hash": "of two",
    "model": "none",
    "arm": "naive",
    "arm_hash": "naive",
    "seed": 0,
    "key": "of this run",
    "time": "2026-01-01",
    "workers": 1,
    "wall_seconds": 1.0,
    "written": {},
    "recipe": {},
}


def task_cost(seconds: float, task: str = "one") -> dict:
    """Return what a learn cost, without the processor's seconds, as a result of an earlier version has it."""
    return {
        "task": task,
        "train_seconds": seconds,
        "eval_seconds": 1.0,
        "tokens": 1,
        "warnings": [],
        "updates": 1,
        "heartbeats": {},
    }


def machine(**more) -> dict:
    """Return a machine."""
    return {"device": "cpu", "threads": 1, "dtype": "float32", "processor": "x86_64", "python": "3.11", **more}


def finished(**values) -> FinishedRun:
    """Return a run that finished; `values` are keys of its JSON."""
    measures = {"software": {}, "machine": machine(), "peak_mib": 1000.0, "cpu_seconds": 1.0}
    stored = {"weights": 0, "memory_rows": 0, "memory_columns": 0, "method_state": 0, **values.pop("stored", {})}
    return FinishedRun.from_json({**INFO, **measures, **values, "stored": stored})


def failed(arm: str, seed: int, error: str, **values) -> FailedRun:
    """Return a run that failed."""
    return FailedRun.from_json({**INFO, "arm": arm, "seed": seed, "error": error, **values})
