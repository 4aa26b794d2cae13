"""The demo: four customer-support product lines learned one after the other, with and without a method against forgetting."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from perdure.core.defaults import DEFAULT_RECIPE
from perdure.core.device import ANY
from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.evaluate.matrix import plain_text
from perdure.ledger.records import Gate
from perdure.methods.registry import load_recipe
from perdure.workflows import upkeep
from perdure.workflows.init import DEFAULT_MODEL, init
from perdure.workflows.inspect.matrix import matrix
from perdure.workflows.learn.learn import learn
from perdure.workflows.learn.plan import plan
from perdure.workflows.learn.record import LearnResult
from perdure.workflows.learn.request import Request
from perdure.workflows.session import Session

LINES = ("broadband", "mobile", "smart_home", "tv")
SETTINGS = {"per_device_train_batch_size": 8, "num_train_epochs": 5}  # 96 rows a line are few: smaller, more updates
MEMORY = {
    "memory_per_label": 6,
    "methods.replay.mix": 0.4,
}  # half of the rows, for intents that are easily confused
Say = Callable[[str], None]


@dataclass(frozen=True)
class Demo:
    """What the demo made.

    Args:
        ours: The workspace with the default recipe.
        plain: The workspace with `naive`.
        exact: Whether the rollback gave the logits that it had, to the bit.
    """

    ours: Session
    plain: Session
    exact: bool


def demo(folder: Path, *, model: str = DEFAULT_MODEL, device: str = ANY, say: Say, tick: Tick | None = None) -> Demo:
    """Learn the stream with the default recipe and with `naive`, show both matrices, and roll back once.

    Args:
        folder: Made by the demo; holds both workspaces afterwards.
        model: Base model.
        device: Where it is loaded.
        say: Gets the talk.
        tick: Gets the progress.

    Raises:
        BadInput: The folder is there already, or there is no such device.
    """
    if folder.exists():
        raise BadInput(f"{folder} is there already; remove it, or choose another folder with --out")
    ours = Session(init(folder / DEFAULT_RECIPE, model, device=device), device)
    plain = Session(init(folder / "naive", model, device=device), device)
    data = files("perdure.data") / "demo"
    for line in LINES:
        for session, name, overrides in ((ours, DEFAULT_RECIPE, {**SETTINGS, **MEMORY}), (plain, "naive", SETTINGS)):
            plain.runtime = ours.runtime  # one model in memory serves both
            request = Request(line, Path(str(data / f"{line}.yaml")), load_recipe(name, overrides))
            done = learn(session, plan(session, request), gate=Gate(), tick=tick)
            say(f"{name:>12} learned {line}: {_scores(done)}; gate: {done.gate.verdict}")
            if not done.moved:
                upkeep.accept(session)  # a user would stop here; the demo goes on to show what happens
    tables = [plain_text(matrix(session.ledger)) for session in (ours, plain)]
    say(f"\nWith {DEFAULT_RECIPE}:\n{tables[0]}\n\nWith naive fine-tuning:\n{tables[1]}")
    exact = _roll_back(ours)
    say(f"\nRolled back to the entry before the last and forward again: the same logits to the bit: {exact}")
    return Demo(ours, plain, exact)


def _roll_back(session: Session) -> bool:
    """Move head back by one entry and forward again; say whether the model came back to the bit."""
    import torch

    def logits() -> torch.Tensor:
        session.load(session.ledger.resolve("head"))
        runtime = session.runtime
        ids = session.tokenizer("My bill is wrong again", return_tensors="pt")["input_ids"].to(runtime.base.device)
        with torch.no_grad(), runtime.precision():
            return runtime.model(input_ids=ids).logits

    newest, before = session.ledger.resolve("head").id, logits()
    upkeep.rollback(session, "head~1")
    earlier = logits()
    upkeep.rollback(session, newest)
    return torch.equal(before, logits()) and not torch.equal(before, earlier)


def _scores(done: LearnResult) -> str:
    return ", ".join(f"{name} {score.score:.0%}" for name, score in done.scores.items())
