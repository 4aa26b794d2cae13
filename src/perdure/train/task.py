"""The trainable model, the inputs of a task, and the state that its updates share and change."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from perdure.core.errors import BadSpec, Diverged
from perdure.core.recipe import Recipe
from perdure.core.seams import State
from perdure.core.slots import measured_slot
from perdure.core.stages import Stages
from perdure.core.step import TopK
from perdure.memory.pool import Pool
from perdure.model.forward import Reader
from perdure.model.head import without_peft
from perdure.model.layers import is_quantized, weight_of
from perdure.train.effects import TrainingLog
from perdure.train.inference import Inference


@dataclass(frozen=True)
class Trainable:
    """A model and its trainable parameters.

    Args:
        model: The model.
        params: Trainable parameters by name.
        reader: Turns rows into batches, and batches into outputs.
        precision: Makes the context in which forwards run, such as autocast.
        weight: Returns the base weight of a module; None where the model's layers have it as it is.
        bare: Makes the context in which the model is the base, without what was learned.
    """

    model: Any
    params: Mapping[str, Tensor]
    reader: Reader
    precision: Callable[[], AbstractContextManager] = nullcontext
    weight: Callable[[str], Tensor] | None = None
    bare: Callable[[], AbstractContextManager] = nullcontext

    @torch.no_grad()
    def features(
        self, rows: Sequence[Any], layer: int | None = None, on_rows: Callable[[int, int], None] | None = None
    ) -> tuple[Tensor, list[str | None]]:
        """Return the features of the rows' own texts under the bare base, and the labels; see `core.seams.Model.features`."""
        with self.bare(), self.inference().eval_mode(), self.precision():
            return self.reader.features(self.model, rows, layer, on_rows)

    def inference(self, on_rows: Callable[[int, int], None] | None = None) -> Inference:
        """Return the model for inference in eval mode; `on_rows` is called with the rows that are done, and with all rows."""
        return Inference(self.model, self.reader, self.precision, on_rows)

    def base_weight(self, module: str) -> Tensor:
        """Return the weight of the base model in a module, (out, in), or (experts, out, in), in float32, on the CPU.

        Raises:
            BadSpec: It is quantised, and nothing here dequantises it.
        """
        if self.weight is not None:
            return self.weight(module)
        layer: Any = without_peft(self.model).get_submodule(module)
        if is_quantized(getattr(layer, "base_layer", layer)):
            raise BadSpec(
                f"the weight of {module} is quantised, and only a workspace reads such a weight; load it plain"
            )
        return weight_of(layer).detach().to("cpu", torch.float32, copy=True)


@dataclass(frozen=True)
class TaskInputs:
    """The inputs of one task: rows, memory and state.

    Args:
        name: Name of the task; part of the key of everything that is random.
        rows: The new rows, in the form that the reader takes.
        validation: Rows that are not trained on; may be empty.
        pools: Memory by pool name.
        columns: Distributions of other models for the new rows, by column name. Those of the model itself are computed when
            the task begins.
        state: The result of each method's `measure` after the last task; of a method with a slot, of this task, where it was
            learned before.
        first: Whether the trained parameters start directly on the base model: they have learned no task yet, and methods have
            nothing to protect.
        beneath: Tensors of each slot that is frozen under the trained parameters, by slot.
        effects: Numbers that describe the start of the adapter, for the heartbeat of the method that planned it.
        own: Tensors of the slot that is trained, as it was before; empty where the slot is new.
        seed: Seed of everything that is random.
        unmeasured: Those of `rows` that no method with a slot has measured at an earlier learn of the task; None for all.
    """

    name: str
    rows: Sequence[Any]
    validation: Sequence[Any] = ()
    pools: Mapping[str, Pool] = field(default_factory=dict)
    columns: Mapping[str, Sequence[TopK]] = field(default_factory=dict)
    state: Mapping[str, State] = field(default_factory=dict)
    first: bool = False
    beneath: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    effects: Mapping[str, float] = field(default_factory=dict)
    own: Mapping[str, Tensor] = field(default_factory=dict)
    seed: int = 0
    unmeasured: Sequence[Any] | None = None


@dataclass(frozen=True)
class Best:
    """The validation with the lowest loss.

    Args:
        loss: Mean loss of the validation rows, in nats per label token.
        update: The update after which it was.
        weights: The weights that were validated, by parameter name.
        state: State of the method that settled on them, if one did.
    """

    loss: float
    update: int
    weights: Mapping[str, Tensor]
    state: State = field(default_factory=dict)


class OpenTask:
    """A task in training: the inputs of its updates, and the state that they change.

    Args:
        trainable: What is trained.
        recipe: Settings and methods.
        inputs: Rows, memory and state that it is learned from.
        stages: Counts the seconds of the parts of the task, and shows how far each is.

    Attributes:
        pools: Memory by pool name, without empty pools.
        columns: Teachers' distributions for the new rows, by column name.
        state: State of each method, by name.
        record: Losses and heartbeats so far.
        validated: Updates after which the weights are validated, in order.
        best: With `keep: best`, the best validation so far.

    Raises:
        BadSpec: A method's state belongs to parameters of other shapes.
    """

    def __init__(self, trainable: Trainable, recipe: Recipe, inputs: TaskInputs, stages: Stages | None = None):
        self.stages = stages or Stages()
        self.trainable, self.recipe, self.inputs = trainable, recipe, inputs
        self.model, self.params = trainable.model, trainable.params
        self.inference = trainable.inference(self.stages.show)
        self.pools = {name: pool for name, pool in inputs.pools.items() if pool.keys}
        self.columns: dict[str, Sequence[TopK]] = dict(inputs.columns)
        self.state: dict[str, State] = {m.name: dict(inputs.state.get(m.name, {})) for m in recipe.methods}
        self.record = TrainingLog()
        self.validated: tuple[int, ...] = ()
        self.best: Best | None = None
        _check_state(self.state, self.params)

    @property
    def measured_state(self) -> dict[str, State]:
        """State that `measure` returned, by method; the next task begins with it. Methods with a slot are in `measured_slots`."""
        return {method.name: self.state[method.name] for method in self.recipe.owners("measure") if not method.slot}

    @property
    def measured_slots(self) -> dict[str, State]:
        """The slots that methods measured (see `Method.slot`), by the slot's whole name."""
        measuring = [method for method in self.recipe.owners("measure") if method.slot]
        return {measured_slot(method.slot, self.inputs.name): self.state[method.name] for method in measuring}


def contiguous(state: State) -> State:
    """Return a state with every tensor in the layout in which a checkpoint stores it.

    On some processors a product with a transposed view rounds differently, so that a resumed learn would end with other bits.
    """
    return {key: value.contiguous() for key, value in state.items()}


def check_finite(values: Mapping[str, Tensor], what: str, update: int, total: int) -> None:
    """Raise Diverged unless all values are finite; `what` is the subject of the message, with its verb."""
    if not all(torch.isfinite(value).all() for value in values.values()):
        raise Diverged(f"{what} not finite at update {update} of {total}; lower the learning rate")


def _check_state(states: Mapping[str, State], params: Mapping[str, Tensor]) -> None:
    for method, state in states.items():
        tied = [key for key in state if "." in key and key.partition(".")[0].isidentifier()]  # <what>.<parameter>
        if tied and not any(key.partition(".")[2] in params for key in tied):
            raise BadSpec(
                f"method {method} stored {tied[0]} and {len(tied) - 1} more, but no parameter of theirs is trained now; "
                "train what was trained before, drop the method, or start: base"
            )
        for key, value in state.items():
            name = key.partition(".")[2]
            shape = params[name].shape if name in params else torch.Size()
            if value.shape[value.dim() - len(shape) :] != shape:  # several of a parameter's shape may be stacked
                raise BadSpec(
                    f"method {method} stored {key} of shape {tuple(value.shape)}, but the parameter has "
                    f"{tuple(shape)} now; keep the adapter's rank, or start: base"
                )
