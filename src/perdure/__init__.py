"""perdure: continual fine-tuning for language models that keeps what it learned.

ws = perdure.Workspace.init("support", model="smollm2-135m")
ws.learn("broadband", "broadband.jsonl")
ws.matrix()
ws.rollback("head~1")
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["ContinualTrainer", "Gate", "Workspace", "__version__"]

_HOMES = {
    "Workspace": "perdure.workspace.facade",
    "Gate": "perdure.evaluate.gate",
    "ContinualTrainer": "perdure.bridges.continual_trainer",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for, so that `import perdure` stays fast."""
    if name not in _HOMES:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
