"""What an edit must show before it is recorded: of each fact, and of all of them together."""

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from perdure.core.errors import BadSpec
from perdure.core.plain_json import is_number
from perdure.ledger.records import Drift

if TYPE_CHECKING:
    from perdure.editing.measures import Verdict


@dataclass(frozen=True)
class EditGate:
    """Thresholds of an edit. The target must always be said, and be likelier than the ground truth.

    Args:
        paraphrase: Least share of the paraphrases that prefer the target.
        neighbours: Largest share of the neighbours right before the edit that may be wrong after it.
        generation: The text that the model goes on with must begin with the target.
        chat: The target must be preferred in the chat template too, where the tokenizer has one.
        perplexity: Largest rise of the perplexity of held-out text by all facts together, as a share.
    """

    paraphrase: float = 0.5
    neighbours: float = 0.5
    generation: bool = False
    chat: bool = False
    perplexity: float = 0.1

    def __post_init__(self) -> None:
        """Refuse values of a wrong type or out of range."""
        for name in ("paraphrase", "neighbours", "perplexity"):
            if not is_number(getattr(self, name)):
                raise BadSpec(f"{name} is {getattr(self, name)!r}; it is a number")
        for name in ("generation", "chat"):
            if not isinstance(getattr(self, name), bool):
                raise BadSpec(f"{name} is {getattr(self, name)!r}; write true or false")
        for name in ("paraphrase", "neighbours"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadSpec(f"{name} is {getattr(self, name)}; it is a share, from 0 to 1")
        if not self.perplexity >= 0:
            raise BadSpec(f"perplexity is {self.perplexity}; it is the largest rise, 0 or more")

    def problem(self, verdict: "Verdict", before: "Verdict | None" = None) -> str | None:
        """Return why a fact does not pass; None if it does.

        Args:
            verdict: With the edit.
            before: Without it; None counts every neighbour as right before.
        """
        prompt = verdict.prompt
        if prompt.other is not None and not prompt.preferred:
            return (
                f"its target is less likely than the ground truth ({prompt.target:.2f} against {prompt.other:.2f} nats)"
            )
        if not prompt.said:
            own_answer = f", it says {verdict.generated.strip()!r}" if verdict.generated else ""
            return f"the model does not say its target{own_answer}"
        if self.generation and verdict.generation is False:
            return f"in free generation, the model says {(verdict.generated or '').strip()!r}"
        if self.chat and verdict.chat is not None and not verdict.chat.preferred:
            return "in the chat template its target is not preferred"
        if verdict.paraphrase is not None and verdict.paraphrase < self.paraphrase:
            return f"only {verdict.paraphrase:.0%} of its paraphrases prefer its target, below {self.paraphrase:.0%}"
        lost = lost_neighbours(verdict, before)
        if lost is not None and lost > self.neighbours:
            return f"it changes the answer to {lost:.0%} of its neighbours, above {self.neighbours:.0%}"
        return None

    def too_far(self, drift: Drift) -> str | None:
        """Return why all facts together change too much; None if they do not."""
        if log(drift.perplexity) - log(drift.perplexity_before) <= log(1 + self.perplexity):
            return None
        return (
            f"all facts together raise the perplexity of held-out text by {drift.rise:.1%}, above {self.perplexity:.1%}"
        )


def lost_neighbours(verdict: "Verdict", before: "Verdict | None") -> float | None:
    """Return the share of the neighbours that preferred their own answer before and do not now; None if there are none."""
    right = [before is None or not answer.preferred for answer in (before or verdict).neighbours]
    now = [answer.preferred for answer, was in zip(verdict.neighbours, right, strict=True) if was]
    return sum(now) / len(now) if now else None
