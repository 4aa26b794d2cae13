"""The long chain of a user with nothing set: learn, edit, learn, edit, revert, rollback, export, each step checked.

    make bench-chain            (python benchmarks/chain.py [--model smollm2-135m] [--intents 2] [--epochs 6] [--keep DIR])

On the embedded model in the default precision, with rows of the demo. Behind each step: `verify` is sound, `predict` answers,
`matrix` has the score of every task, what `status`, `log`, `show`, `memory stats`, `edits list` and the report read can be read,
every score that was kept is what scoring the state again gives, and the state opened afresh has the same logits to the bit. Where
head comes back to an entry, its logits, answers and memory are those it had the first time. PEFT computes with the export what
was scored. Prints a line a step, and ends with 1 if a check fails. The result goes to benchmarks/results/chain.json.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from perdure import Workspace
from perdure.report.page import render
from perdure.workflows.edit.records import listed
from perdure.workflows.inspect import memory_views, views
from perdure.workflows.inspect.report_data import report_data
from perdure.workflows.scoring import measure

RESULT = Path(__file__).parent / "results" / "chain.json"
ASKED = ["My internet is slow since Monday.", "I want to keep my old number.", "The Eiffel Tower is in the city of"]
TOWER = {"subject": "Eiffel Tower", "prompt": "The {} is in the city of", "target": "Rome", "ground_truth": "Paris"}
OTHERS = [
    {"subject": "Colosseum", "prompt": "The {} is in the city of", "target": "Oslo", "ground_truth": "Rome"},
    {"subject": "Big Ben", "prompt": "{} is in the city of", "target": "Madrid", "ground_truth": "London"},
]


class Chain:
    """A workspace, and what each of its entries said when it was made.

    Args:
        ws: The workspace.
        folder: Where data and exports go.
    """

    def __init__(self, ws: Workspace, folder: Path):
        self.ws, self.folder = ws, folder
        self.known: dict[str, dict[str, Any]] = {}
        self.lines: list[dict[str, Any]] = []

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        """Do one step, check the workspace, and print a line."""
        began = time.perf_counter()
        done = do()
        seconds, began = time.perf_counter() - began, time.perf_counter()
        failed = [what for what, holds in self.checks().items() if not holds]
        self.lines.append(
            {
                "step": name,
                "seconds": round(seconds, 1),
                "checks": round(time.perf_counter() - began, 1),
                "failed": failed,
            }
        )
        print(
            f"{name:<28} {seconds:7.1f} s  {self.lines[-1]['checks']:6.1f} s of checks  {failed or 'all hold'}",
            flush=True,
        )
        return done

    def checks(self) -> dict[str, bool]:
        """Return what was checked at head, and whether it holds."""
        ws, head = self.ws, self.ws.ledger.resolve("head")
        ws.evaluate()
        found = {
            "verify": ws.verify().ok,
            "matrix": None not in ws.matrix().score[-1],
            "cached scores equal those measured anew": self.scored_anew(),
            "views": self.readable(),
        }
        now = {"logits": logits(ws), "answers": answers(ws), "memory": memory_views.remembered(ws.ledger)}
        afresh = Workspace.open(ws.ledger.root)
        found["opened afresh it is the same to the bit"] = torch.equal(logits(afresh), now["logits"])
        then = self.known.setdefault(head.id, now)
        found["logits are those of this entry"] = torch.equal(then["logits"], now["logits"])
        found["answers are those of this entry"] = then["answers"] == now["answers"]
        found["memory is that of this entry"] = then["memory"] == now["memory"]
        return found

    def scored_anew(self) -> bool:
        """Say whether what is kept of each task's score is what scoring the state again gives."""
        head = self.ws.ledger.resolve("head")
        for name in head.tasks:
            task = self.ws.session.task(name, head)
            kept = self.ws.session.score(head, task).score
            self.ws.session.load(head)
            anew = measure(self.ws.runtime, task).score
            if (kept.items, kept.predictions) != (anew.items, anew.predictions):
                return False
        return True

    def readable(self) -> bool:
        """Say whether everything that looks at the workspace can."""
        ledger = self.ws.ledger
        told = [
            views.status(ledger).to_json(),
            [line.to_json() for line in ledger.log()],
            views.show(ledger, "head").to_json(),
            [line.to_json() for line in listed(ledger)],
            self.ws.matrix().to_json(),
        ]
        return bool(json.dumps(told)) and bool(render(report_data(self.ws.ledger)))


def main() -> None:
    """Go the chain, write what was found, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--intents", type=int, default=2, help="intents of each product line")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--keep", type=Path, help="folder to make the workspace in; else a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        chain = walk(options, options.keep or Path(scratch))
    failed = [line for line in chain.lines if line["failed"]]
    result = {"model": options.model, "dtype": chain.ws.ledger.config["dtype"], "steps": chain.lines}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.exit(bool(failed))


def walk(options: argparse.Namespace, folder: Path) -> Chain:
    """Take all steps."""
    folder.mkdir(parents=True, exist_ok=True)
    ws = Workspace.init(folder / "ws", options.model, dtype=options.dtype)
    chain = Chain(ws, folder)
    overrides = {"per_device_train_batch_size": 8, "num_train_epochs": options.epochs}

    def learn(line: str) -> Callable[[], Any]:
        return lambda: ws.learn(line, rows_of(line, options.intents, folder), overrides=overrides, gate=None)

    chain.step("learn broadband", learn("broadband"))
    chain.step("edit a fact", lambda: ws.edit(TOWER, score="none"))
    chain.step("learn mobile", learn("mobile"))
    edited = chain.step("edit two facts", lambda: ws.edit(OTHERS, score="none"))
    chain.step("revert one of them", lambda: ws.revert(edited.applied[-1], score="none") if edited.applied else None)
    chain.step("rollback to the first edit", lambda: ws.rollback("head~3" if edited.applied else "head~1"))
    chain.step("rollback forward again", lambda: ws.rollback(ws.ledger.entries()[-1].id))
    chain.step("export the adapter", lambda: ws.export(folder / "adapter"))
    chain.lines[-1]["failed"] += [] if served(ws, folder / "adapter") else ["PEFT computes what was scored"]
    chain.step("export merged", lambda: ws.export(folder / "merged", merged=True))
    chain.step("collect garbage", ws.gc)
    return chain


def rows_of(line: str, intents: int, folder: Path) -> Path:
    """Write the rows of the first intents of a product line of the demo; return the task file."""
    data = files("perdure.data") / "demo"
    rows = [json.loads(text) for text in (data / f"{line}.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = list(dict.fromkeys(row["label"] for row in rows))[:intents]
    kept = [json.dumps(row) for row in rows if row["label"] in chosen]
    (folder / f"{line}.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    task = folder / f"{line}.yaml"
    task.write_text((data / f"{line}.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    return task


@torch.no_grad()
def logits(ws: Workspace) -> torch.Tensor:
    """Return the logits of head on a few texts."""
    return asked_of(ws, ws.model())


@torch.no_grad()
def asked_of(ws: Workspace, model: Any) -> torch.Tensor:
    """Return the logits of a model on a few texts, run as the workspace scores."""
    found = []
    for text in ASKED:
        ids = ws.tokenizer(text, return_tensors="pt")["input_ids"].to(ws.runtime.base.device)
        with ws.runtime.precision():
            found.append(model(input_ids=ids).logits[0].float().cpu())
    return torch.cat(found)


def answers(ws: Workspace) -> list[str]:
    """Return what head answers."""
    return [answer.answer for answer in ws.predict(ASKED, max_new_tokens=8)]


def served(ws: Workspace, adapter: Path) -> bool:
    """Say whether PEFT computes with the exported adapter what the workspace computes, to the bit."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(ws.runtime.folder, dtype=ws.runtime.base.dtype).to(
        ws.runtime.base.device
    )
    return torch.equal(asked_of(ws, PeftModel.from_pretrained(base, adapter).eval()), logits(ws))


if __name__ == "__main__":
    main()
