"""A random walk over the verbs of a workspace on a tiny model that knows people, checked after every step."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

import people
from edited import SAID, SPEC
from perdure import Workspace
from perdure.core.defaults import DEFAULT_RECIPE
from perdure.evaluate.gate import Gate
from perdure.report import render
from perdure.workflows.fact_records import record_at
from perdure.workflows.inspect import memory_views, views
from perdure.workflows.inspect.report_data import report_data

SETTINGS = {"num_train_epochs": 1, "host": "loop", "lora_r": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-3}
VERBS = {
    "learn": 4,  # a new task
    "update": 2,  # more data for a known one
    "refuse": 1,  # a learn that its gate refuses, then accepted or discarded
    "edit": 3,
    "edit_file": 2,  # several facts
    "revert": 2,
    "resolve": 1,
    "rollback": 2,
    "export": 1,
    "delete": 1,  # a row that is kept
    "gc": 1,
}
NEVER = Gate(floor=1.0, tolerance=0.0)


@dataclass
class Walk:
    """One workspace and what was done in it.

    Args:
        ws: The workspace.
        folder: Where data files and exports go.
        seed: Chooses the verbs and what they are given.
        overrides: Recipe settings of every learn.
    """

    ws: Workspace
    folder: Path
    seed: int
    overrides: dict = field(default_factory=lambda: dict(SETTINGS))
    recipe: str = DEFAULT_RECIPE
    log: list[str] = field(default_factory=list)
    learned: dict[str, int] = field(default_factory=dict)  # files given to each task

    def __post_init__(self):
        self.draw = np.random.default_rng(self.seed)
        self.folder.mkdir(parents=True, exist_ok=True)

    def steps(self, verbs):
        """Take the named steps, checking the workspace after each."""
        for verb in verbs:
            self.step(verb)
            self.check()

    def chosen(self, count):
        """Return verbs at random, a learn and an edit first."""
        names, weights = list(VERBS), np.array(list(VERBS.values()), float)
        return ["learn", "edit", *self.draw.choice(names, size=max(0, count - 2), p=weights / weights.sum())]

    def step(self, verb):
        """Do one verb, or nothing where it has nothing to act on."""
        told = getattr(self, f"_{verb}")()
        self.log.append(f"{verb}: {told}")

    # ---- verbs

    def _learn(self):
        return self._teach(f"task{len(self.learned)}")

    def _update(self):
        known = sorted(self.ws.ledger.resolve("head").tasks)
        return self._teach(str(self.draw.choice(known))) if known else None

    def _refuse(self):
        done = self._teach(f"task{len(self.learned)}", gate=NEVER)
        if self.ws.ledger.candidate() is None:
            return done
        self.check()
        verb = str(self.draw.choice(["accept", "discard"]))
        return verb, getattr(self.ws, verb)().id

    def _teach(self, name, gate=Gate()):
        number = self.learned.get(name, 0)
        self.learned[name] = number + 1
        path = self.folder / f"{name}-{number}.jsonl"
        path.write_text("\n".join(map(json.dumps, self._rows(list(self.learned).index(name), number))))
        done = self.ws.learn(name, path, recipe=self.recipe, overrides=self.overrides, gate=gate, allow_leaks=True)
        return name, done.entry, done.gate.verdict

    def _rows(self, task, number):
        """Return rows in which some people live where others did; no two tasks ask alike."""
        who = self.draw.permutation(people.PEOPLE)[:6]
        place = people.CITIES[int(self.draw.integers(4))]
        start = f"{people.PEOPLE[task % 16]} lives in {people.CITIES[task // 16 % 4]} ."
        rows = [{"prompt": f"{start} {name} is at home in", "completion": f" {place}"} for name in who]
        again = [{**row, "prompt": f"a {row['prompt']}"} for row in rows[: 2 + number % 3]]
        return [{**row, "split": "train"} for row in rows] + [{**row, "split": "test"} for row in again]

    def _edit(self):
        return self._write([self._fact()])

    def _edit_file(self):
        facts = {fact.subject: fact for fact in (self._fact() for _ in range(3))}
        return self._write(list(facts.values()))

    def _fact(self):
        name = str(self.draw.choice(people.PEOPLE))
        others = [city for city in people.CITIES if city != people.HOME[name]]
        return people.fact(name, str(self.draw.choice(others)))

    def _write(self, facts):
        done = self.ws.edit(facts, spec=SPEC, gate=SAID if self.draw.random() < 0.8 else None)
        return done.entry, len(done.applied), [gone.reason for gone in done.refused]

    def _revert(self, resolve=False):
        live = record_at(self.ws.ledger, self.ws.ledger.resolve("head")).facts
        if not live:
            return None
        chosen = live[int(self.draw.integers(len(live)))]
        return self.ws.revert(chosen.entry if self.draw.random() < 0.3 else chosen.fact, resolve=resolve).entry

    def _resolve(self):
        return self._revert(resolve=True)

    def _rollback(self):
        line = self.ws.ledger.entries()
        return self.ws.rollback(line[int(self.draw.integers(len(line)))].id).id

    def _export(self):
        if not self.ws.ledger.slots(self.ws.ledger.resolve("head")):
            return None
        merged = bool(self.draw.random() < 0.3)
        target = self.folder / f"export-{len(self.log)}"
        return self.ws.export(target, merged=merged).kind

    def _delete(self):
        anywhere = self.draw.random() < 0.5  # a test row too
        rows = memory_views.kept(self.ws.ledger) if anywhere else memory_views.remembered(self.ws.ledger)
        if not rows:
            return None
        return self.ws.delete_row(rows[int(self.draw.integers(len(rows)))].row).row

    def _gc(self):
        return self.ws.gc().removed

    # ---- what holds after every step

    def check(self):
        """Assert that the store is sound, that head answers, and that it is the same, to the bit, when opened afresh."""
        ws, last = self.ws, self.log[-1] if self.log else "made"
        report = ws.verify()
        assert report.ok, (last, report.problems)
        head = ws.ledger.resolve("head")
        ws.evaluate()
        matrix = ws.matrix()
        scores = zip(matrix.tasks, matrix.score[-1], strict=True)
        missing = [name for name, score in scores if score is None and ws.session.task(name, head).test]
        assert not missing, (last, missing)
        assert set(matrix.tasks) == set(head.tasks), last
        said = ws.predict([f"{people.PEOPLE[0]} lives in"], max_new_tokens=2)
        assert len(said) == 1, last
        for view in (
            views.status(ws.ledger).to_json(),
            views.show(ws.ledger, "head").to_json(),
            memory_views.memory_stats(ws.ledger).to_json(),
        ):
            json.dumps(view)
        render(report_data(ws.ledger))
        mine = logits(ws)
        afresh = Workspace.open(ws.ledger.root)
        assert torch.equal(mine, logits(afresh)), f"head is another model when opened afresh, after {last}"
        assert torch.isfinite(mine).all(), last


@torch.no_grad()
def logits(ws):
    """Return the logits of head on what it was trained on from the start."""
    model = ws.model()
    texts = [f"{name} lives in" for name in people.PEOPLE[:6]]
    batch = ws.tokenizer(texts, return_tensors="pt").to(next(model.parameters()).device)
    with ws.runtime.precision():
        return model(**batch).logits.float()
