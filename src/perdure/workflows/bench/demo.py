"""The demo: four customer-support product lines learned one after the other, with and without a method against forgetting."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from perdure.core.errors import BadInput
from perdure.core.progress import Tick
from perdure.evaluate.matrix import plain_text
from perdure.workflows.workspace import DEFAULT_MODEL, Workspace

LINES = ("broadband", "mobile", "smart_home", "tv")
SETTINGS = {"per_device_train_batch_size": 8, "num_train_epochs": 5}  # 96 rows a line are few: smaller, more updates
MEMORY = {
    "memory_per_label": 6,
    "methods.replay.mix": 0.4,
}  # half of the rows, for intents that are easily confused
Say = Callable[[str], None]


def demo(folder: Path, *, model: str = DEFAULT_MODEL, say: Say, tick: Tick | None = None) -> dict[str, Any]:
    """Learn the stream with `dual_replay` and with `naive`, show both matrices, and roll back once.

    Args:
        folder: Made by the demo; holds both workspaces afterwards.
        model: Base model.
        say: Gets the talk.
        tick: Gets the progress.

    Returns:
        Both workspaces, and whether the rollback gave the logits it had, to the bit.

    Raises:
        BadInput: The folder is there already.
    """
    if folder.exists():
        raise BadInput(f"{folder} is there already; remove it, or choose another folder with --out")
    ours = Workspace.init(folder / "dual_replay", model)
    plain = Workspace.init(folder / "naive", model)
    data = files("perdure.data") / "demo"
    for line in LINES:
        for ws, recipe, overrides in ((ours, "dual_replay", {**SETTINGS, **MEMORY}), (plain, "naive", SETTINGS)):
            plain.session.runtime = ours.session.runtime  # one model in memory serves both
            done = ws.learn(line, Path(str(data / f"{line}.yaml")), recipe=recipe, overrides=overrides, tick=tick)
            say(f"{recipe:>12} learned {line}: {_scores(done)}; gate: {done['gate']['verdict']}")
            if not done["moved"]:
                ws.accept()  # a user would stop here; the demo goes on to show what happens
    say(f"\nWith dual_replay:\n{plain_text(ours.matrix())}\n\nWith naive fine-tuning:\n{plain_text(plain.matrix())}")
    exact = _roll_back(ours)
    say(f"\nRolled back to the entry before the last and forward again: the same logits to the bit: {exact}")
    return {"workspace": ours, "beside": plain, "rollback_exact": exact}


def _roll_back(ws: Workspace) -> bool:
    """Move head back by one entry and forward again; say whether the model came back to the bit."""
    import torch

    def logits() -> torch.Tensor:
        ids = ws.tokenizer("My bill is wrong again", return_tensors="pt")["input_ids"].to(ws.runtime.base.device)
        with torch.no_grad(), ws.runtime.precision():
            return ws.model()(input_ids=ids).logits

    newest, before = ws.ledger.resolve("head").id, logits()
    ws.rollback("head~1")
    earlier = logits()
    ws.rollback(newest)
    return torch.equal(before, logits()) and not torch.equal(before, earlier)


def _scores(done: dict[str, Any]) -> str:
    return ", ".join(f"{name} {score['score']:.0%}" for name, score in done["scores"].items())
