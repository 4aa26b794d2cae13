"""What perdure can do with a base model: measured once, when a workspace is made."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from perdure.bridges.experts import expert_parameters
from perdure.bridges.models import Base, in_words, load_base
from perdure.bridges.targets import linear_layers, without_adapter
from perdure.core.config import CapabilitiesJson
from perdure.core.errors import BadInput, BrokenStore
from perdure.data.chat import DATE, writes_date
from perdure.editing.site import open_site
from perdure.model.batching import Batching
from perdure.model.layers import is_quantized, text_part
from perdure.model.probing import is_small, measure, named, remember


@dataclass(frozen=True)
class Capabilities:
    """What can be done with a base model; one that cannot be trained, scored and exported is refused.

    Args:
        batching: How its rows run in batches.
        no_editing: Why facts cannot be edited; None where they can.
        no_adapter: Which weights get no adapter, and how many; None where these are few.
        experts: How many parameters of experts get factors.
        notes: Further notices.
    """

    batching: Batching
    no_editing: str | None
    no_adapter: str | None
    experts: int
    notes: tuple[str, ...]

    def to_json(self) -> CapabilitiesJson:
        """Return the JSON that `perdure init --json` prints and the workspace stores."""
        return {
            "training": True,
            "prefix": self.batching.prefix,
            "cache": self.batching.decoding != "whole",
            "editing": self.no_editing is None,
            "export": True,
            "no_editing": self.no_editing,
            "no_adapter": self.no_adapter,
            "experts": self.experts,
            "notes": list(self.notes),
            "batching": self.batching.to_json(),
            "transformers": _version(),
        }


def stored_batching(capabilities: CapabilitiesJson) -> Batching | None:
    """Return how rows run in batches as a workspace stored it.

    None where it must be measured again, because another version of transformers is installed.

    Raises:
        BrokenStore: The workspace has something else there.
    """
    if capabilities.get("transformers") != _version():
        return None
    try:
        return Batching.from_json(capabilities["batching"])
    except (KeyError, ValueError) as error:
        raise BrokenStore(
            "perdure.json has no record of how rows run in batches ('capabilities', 'batching'); restore it from a backup"
        ) from error


def capabilities_of(base: Base) -> Capabilities:
    """Return what can be done with a base model.

    Raises:
        BadInput: It cannot be trained or scored: its rows change with the others in a batch, it is not causal, it
            has no output layer or no layer for an adapter, or no gradient reaches its weights.

    Cost: see `measure`; a forward and backward over a few tokens.
    """
    model = base.model
    if model.get_output_embeddings() is None:
        raise BadInput(
            f"{type(model).__name__} has no output layer that predicts tokens; choose a causal language model"
        )
    if not linear_layers(model):
        raise BadInput(f"{type(model).__name__} has no linear layer that could get an adapter; perdure cannot train it")
    with in_words(f"{named(model)} cannot compute"):
        batching = measure(_with_plain_weights(base))
    remember(model, batching)
    _refuse_untrainable(base)
    try:
        with open_site(model, base.tokenizer, base.precision):
            reason = None if base.tokenizer.is_fast else "editing needs a fast tokenizer, to find a subject's tokens"
    except BadInput as error:
        reason = str(error)
    experts = len(expert_parameters(model))
    return Capabilities(batching, reason, without_adapter(model), experts, tuple(_notes(base, batching)))


def _with_plain_weights(base: Base) -> Any:
    """Return the model, or a small one that is quantised with its plain weights: rounding to a few bits hides what batches do."""
    folder = getattr(base.model.config, "_name_or_path", "")
    if base.quantization is None or not is_small(base.model) or not Path(folder).is_dir():
        return base.model
    return load_base(Path(folder), "float32", str(base.device)).model


def _version() -> str:
    import transformers

    return transformers.__version__


def _refuse_untrainable(base: Base) -> None:
    """Refuse a model through which no gradient reaches the first layer that gets an adapter.

    Raises:
        BadInput: None does.
    """
    layer = next(iter(linear_layers(base.model).values()))
    weight: Any = base.model.get_input_embeddings().weight if is_quantized(layer) else layer.weight
    ids = torch.arange(8, device=base.device)[None] % base.model.get_input_embeddings().weight.shape[0]
    weight.requires_grad_(True)
    base.model.train()
    try:
        with base.precision():
            logits = base.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()
        (gradient,) = torch.autograd.grad(logits.logsumexp(-1).mean(), weight)
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise BadInput(f"{type(base.model).__name__} cannot be trained here: {str(error).splitlines()[0]}") from error
    finally:
        base.model.eval()
        weight.requires_grad_(False)
    if not torch.isfinite(gradient).all():
        raise BadInput(f"{type(base.model).__name__} cannot be trained: the gradient of its first layer is not finite")


def _notes(base: Base, batching: Batching) -> list[str]:
    model, notes = base.model, []
    if writes_date(base.tokenizer):
        notes.append(
            f"its chat template writes today's date; rows are trained and scored with {DATE:%d %b %Y} on any day, so that "
            "scores of two days can be compared"
        )
    if not batching.prefix:
        notes.append("a prefix that rows share runs for each of them: its cache cannot serve several rows")
    if batching.decoding == "whole":
        notes.append(
            "answers are generated without a cache, which takes longer: the cache of the model does not fit padded rows"
        )
    if text_part(model):
        notes.append(
            f"only the text part ({text_part(model).rstrip('.')}) is trained; the rest of the model stays as it is"
        )
    return notes
