"""How a model answers the prompts of a fact, and the measures over many facts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perdure.ledger.records import Answer
from perdure.maths.statistics import Interval, mean_interval


@dataclass(frozen=True)
class Verdict:
    """The answers of a model to the prompts of one fact.

    Args:
        prompt: The fact's own prompt.
        paraphrases: Its paraphrases.
        neighbours: Prompts about something else; here the wanted answer is the neighbour's own, `other`.
        chat: The prompt as a user's turn; None where the tokenizer has no chat template.
        generated: The text that the model generates after the prompt; None where it was not generated.
        generation: Whether that text begins with the target.
    """

    prompt: Answer
    paraphrases: tuple[Answer, ...] = ()
    neighbours: tuple[Answer, ...] = ()
    chat: Answer | None = None
    generated: str | None = None
    generation: bool | None = None

    @property
    def efficacy(self) -> bool:
        """Whether the target is likelier than the ground truth, and is the model's greedy answer."""
        return self.prompt.preferred and self.prompt.said

    @property
    def paraphrase(self) -> float | None:
        """Share of the paraphrases that prefer the target."""
        return float(np.mean([a.preferred for a in self.paraphrases])) if self.paraphrases else None

    @property
    def neighbourhood(self) -> float | None:
        """Share of the neighbours that still prefer their own answer to the target."""
        return float(np.mean([not a.preferred for a in self.neighbours])) if self.neighbours else None


def summary(verdicts: Sequence[Verdict], seed: int = 0) -> dict[str, Interval]:
    """Return mean and interval of every measure over facts; a measure that no fact has is left out.

    Keys: "preferred" (the efficacy score of the literature), "efficacy" (also the greedy answer), "generation", "paraphrase",
    "paraphrase_said", "neighbourhood", "neighbour_said", "chat", "chat_said". "said" means that the target is the greedy answer.
    """
    items: dict[str, list[float | bool | None]] = {
        "preferred": [v.prompt.preferred for v in verdicts],
        "efficacy": [v.efficacy for v in verdicts],
        "generation": [v.generation for v in verdicts],
        "paraphrase": [v.paraphrase for v in verdicts],
        "paraphrase_said": [_share(v.paraphrases) for v in verdicts],
        "neighbourhood": [v.neighbourhood for v in verdicts],
        "neighbour_said": [_share(v.neighbours) for v in verdicts],
        "chat": [None if v.chat is None else v.chat.preferred for v in verdicts],
        "chat_said": [None if v.chat is None else v.chat.said for v in verdicts],
    }
    known = {name: [float(x) for x in values if x is not None] for name, values in items.items()}
    return {name: mean_interval(values, seed=seed) for name, values in known.items() if values}


def _share(answers: Sequence[Answer]) -> float | None:
    return float(np.mean([a.said for a in answers])) if answers else None
