"""Record: one ledger entry with what came of the learn, or the candidate that its gate put aside."""

import platform
import shutil
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from perdure.workflows.edit.records import NOTE
from perdure.workflows.learn.draft import Draft
from perdure.workflows.learn.effects import idle, unmoved
from perdure.workflows.learn.judge import Judged
from perdure.workflows.learn.prepare import Prepared
from perdure.workflows.learn.run import Run
from perdure.workflows.learn.train import Trained
from perdure.workflows.session import Scored

Json = dict[str, Any]


def record(run: Run, prepared: Prepared, trained: Trained, draft: Draft, judged: Judged) -> Json:
    """Record the draft and move head to it, or put it aside where the gate refuses it; return what `learn --json` prints."""
    ledger, task = run.session.ledger, run.plan.task
    spent = {"train_seconds": trained.seconds, "train_cpu_seconds": trained.cpu_seconds}
    spent["eval_seconds"] = round(run.clock.scored, 3)
    warnings = _warnings(run, prepared, trained, draft, judged)
    notes = {
        "record": {
            **spent,
            "updates": trained.learner.total,
            **trained.learner.record.to_json(),
            "gate": judged.verdict,
            "settings": run.plan.recipe.to_json(),
            "warnings": warnings,
        },
        "evidence": judged.evidence,
        "memory": {"rows": len(draft.memory.rows), "tasks": dict(Counter(own.task for own in draft.memory.rows))},
        "software": {name: version(name) for name in ("perdure", "torch", "transformers", "peft")},
        "machine": {"python": platform.python_version(), "processor": platform.machine()},
        **({NOTE: draft.carried.note} if draft.carried else {}),
    }
    if judged.failed:
        ledger.hold(draft.entry, notes)
    else:
        ledger.record(draft.entry, notes, why=f"learn {task.name}")
    shutil.rmtree(run.folder, ignore_errors=True)
    return {
        "entry": draft.entry.id,
        "task": task.name,
        **spent,
        "tokens": trained.learner.record.tokens,
        "gate": judged.verdict,
        "scores": _briefly(judged.scores),
        "before": _briefly(prepared.before),
        "moved": not judged.failed,
        "warnings": warnings,
    }


def _warnings(run: Run, prepared: Prepared, trained: Trained, draft: Draft, judged: Judged) -> list[str]:
    """Return what the user should know of the whole learn, of how the model was asked each thing once."""
    task, learner = run.plan.task.name, trained.learner
    scored = (*prepared.before.values(), *judged.scores.values(), *judged.learned.values())
    return [
        *run.plan.notices,
        *prepared.notices,
        *draft.notices,
        *judged.notices,
        *dict.fromkeys(text for one in scored for text in one.notices),
        *(draft.carried.warnings if draft.carried else ()),
        *idle(run.plan, learner),
        *learner.unused.values(),
        *unmoved(task, prepared.before["head"].score, judged.scores[task].score, learner.total),
    ]


def _briefly(scores: Mapping[str, Scored]) -> Json:
    return {name: scored.score.summary.to_json() for name, scored in scores.items()}
