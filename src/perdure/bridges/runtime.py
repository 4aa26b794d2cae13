"""A base model in memory, and the state that is loaded over it: one combined adapter, or a whole set of weights."""

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perdure.bridges import experts
from perdure.bridges.models import Base, load_base
from perdure.bridges.quantization import dequantized, every_weight_of_quantized
from perdure.bridges.targets import ALL, chosen, known_later, taken_for_experts
from perdure.core.errors import BadSpec
from perdure.core.keyed import seed_of
from perdure.core.plan import PREFIX, AdapterPlan, Factors
from perdure.core.seams import State
from perdure.core.settings import Settings
from perdure.core.slots import is_dense
from perdure.core.step import TopK
from perdure.data.encode import Encoded
from perdure.maths.low_rank import Patch, Patches, combine, from_tensors, to_tensors
from perdure.model.batching import Batching
from perdure.model.forward import Tokens
from perdure.model.layers import is_quantized, shape_of, text_part, weight_of
from perdure.model.probing import batching_of, remember
from perdure.model.recompute import recompute_blocks, store_activations
from perdure.model.text_features import default_layer, text_features
from perdure.train.inference import Inference
from perdure.train.task import Trainable

Slots = Mapping[str, Mapping[str, Tensor]]  # slot name -> its tensors, as the ledger stores them

Shape = Mapping[str, tuple[int, float]]  # rank and scale by module
BASE_BLOCK, OWN_BLOCK = "default", "new"  # names of adapters in PEFT: what is loaded, and what trains over it


class Runtime:
    """One base model and the states that are loaded over it; the base weights are never written while adapters are used.

    Args:
        folder: Local folder of the base model.
        dtype: "auto" (the checkpoint's own), "float32", "bfloat16" or "float16", of the frozen weights.
        device: "auto" or a torch device.
        batching: How rows run in batches, where that is known; else it is measured.
        quantization: "nf4" or "int8" to quantise the frozen weights; None leaves them plain.
        attn_implementation: What computes attention, as transformers names it; None for its own choice.
        initial: The adapter of layers that a workspace was made with, which is part of its reference; nothing without one.
    """

    def __init__(
        self,
        folder: Path,
        dtype: str = "auto",
        device: str = "auto",
        *,
        batching: Batching | None = None,
        quantization: str | None = None,
        attn_implementation: str | None = None,
        initial: Mapping[str, Patch] | None = None,
    ):
        self.folder, self.dtype, self.device, self.batching = folder, dtype, device, batching
        self.quantization, self.attn_implementation, self.initial = quantization, attn_implementation, initial or {}
        self.base: Base = self._load(dtype)
        self.model: Any = self.base.model
        self.dense = False
        self.loaded: str | None = (
            None  # name of the state that the model is, where `load` was given one; set here alone
        )
        self._shape: Any = None
        self._own: dict[str, tuple[int, float]] | None = None  # of the second block, where one trains over a frozen one

    def load(self, slots: Slots, state: str | None = None) -> None:
        """Make the model the one that `slots` describe: base plus combined adapter, or dense weights plus adapter.

        Args:
            slots: Tensors by slot name.
            state: Name of this state, which `loaded` then is; None for a state that nobody looks for again.
        """
        self.loaded = None
        if self._own is not None:
            self._remove_adapter()
        self._load_dense(next((slots[name] for name in slots if is_dense(name)), None))
        patches = combine([from_tensors(slots[name]) for name in sorted(slots) if not is_dense(name)])
        if patches:
            self._load_adapter(patches)
        else:
            self._remove_adapter()
        self.loaded = state

    def _load_adapter(self, patches: Patches) -> None:
        self._fit(_shape_of(patches))
        self._write(BASE_BLOCK, self._shape, patches)
        self.model.eval()

    def begin(self, plan: AdapterPlan, slots: Slots, settings: Settings, seed: int, task: str) -> dict[str, Tensor]:
        """Return the trainable parameters of a plan by name, over the frozen slots under them.

        Without an adapter under it, the adapter of its slot trains itself, or a fresh one. Otherwise all adapters under it are
        one frozen block, and a second block over it trains: no optimizer has the frozen parameters.

        Args:
            plan: Which slot trains, and which are frozen under it.
            slots: Content of the slots that the plan names.
            settings: Rank, scale, modules and dropout of what trains.
            seed: Seed of the learn.
            task: Name of the task; with the seed the key of a fresh adapter.

        Raises:
            BadSpec: The slot goes on with another rank, scale or modules than the settings have.
        """
        beneath = {name: slots[name] for name in plan.beneath if name in slots}
        own = slots.get(plan.slot)
        over_adapters = any(not is_dense(name) for name in beneath)
        self.load(beneath if over_adapters or own is None else {**beneath, plan.slot: own})
        start = plan.start() if plan.start else {}  # which may depend on the model as it is loaded now
        if over_adapters:
            self._add_block(settings, seed, task, None if own is None else from_tensors(own))
        else:
            self.start_adapter(settings, seed, task)
        self._set_start(start)
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def trained(self) -> dict[str, Tensor]:
        """Return the parameters that `begin` made trainable, as the tensors of their slot."""
        return self._tensors_of(self._block)

    def as_trained(self, states: Mapping[str, State]) -> dict[str, State]:
        """Return the methods' states with keys that name the parameters which `begin` made trainable."""
        return _renamed(states, BASE_BLOCK, self._block)

    def as_stored(self, states: Mapping[str, State]) -> dict[str, State]:
        """Return the methods' states with keys that do not depend on whether the adapter trained over a frozen one."""
        return _renamed(states, OWN_BLOCK, BASE_BLOCK)

    def start_adapter(self, settings: Settings, seed: int, task: str) -> dict[str, Tensor]:
        """Return the trainable LoRA parameters by name: the ones loaded, or fresh ones (B = 0) where none are.

        Raises:
            BadSpec: The loaded adapter has another rank, scale or modules than the settings have, or no module fits.
        """
        self.loaded = None
        fresh = self._fresh_shape(settings)
        if self._shape is None:
            with torch.random.fork_rng():
                torch.manual_seed(seed_of(seed, task, "adapter"))
                self._fit(fresh)
        elif self._shape != fresh:
            raise BadSpec(_differs(self._shape))
        self._train(BASE_BLOCK, fresh, settings)
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def start_dense(self) -> dict[str, Tensor]:
        """Return every weight as a float32 trainable parameter, by name.

        Raises:
            BadSpec: An adapter is loaded over the base; its tasks would be lost. Or the base is quantised.
        """
        if self.quantization:
            raise BadSpec(every_weight_of_quantized(self.quantization))
        if self._shape is not None:
            raise BadSpec(
                "the recipe trains every weight, but head already carries an adapter; begin a new workspace for it, "
                "or use a LoRA recipe"
            )
        self.loaded = None
        if not self.dense:
            self._reload("float32")
            self.dense = True  # from here on the weights are written, and only a reload brings the base back
        self.model.requires_grad_(True)
        return dict(self.model.named_parameters())

    def skill(self) -> dict[str, Tensor]:
        """Return the loaded adapter as the tensors of a slot."""
        return self._tensors_of(BASE_BLOCK)

    def _tensors_of(self, block: str) -> dict[str, Tensor]:
        patches = {}
        for module in (self._shape if block == BASE_BLOCK else self._own) or {}:
            layer = self._layer(module)
            down, up = layer.lora_A[block].weight, layer.lora_B[block].weight
            patches[module] = Patch(down.detach().clone(), up.detach().clone(), layer.scaling[block])
        return to_tensors(patches)

    @property
    def _block(self) -> str:
        """Name of the adapter, as PEFT has it, that trains."""
        return BASE_BLOCK if self._own is None else OWN_BLOCK

    def weights(self) -> dict[str, Tensor]:
        """Return every weight, as the tensors of the slot `dense`: values, since (w + d) - d differs from w."""
        return {name: value.detach().clone() for name, value in self.model.named_parameters()}

    def freeze(self) -> None:
        """End training: nothing is trainable, eval mode, and the memory it took is free."""
        store_activations(self.model)
        self.model.requires_grad_(False)
        self.model.eval()
        self.release()

    def release(self) -> None:
        """Give freed memory back to the system between phases.

        The allocator retains what one phase freed in pieces that the next cannot use, so that peaks add up (measured: 420 MB
        after six updates of a 135M model).
        """
        if self.base.device.type == "cuda":
            torch.cuda.empty_cache()
        elif sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)

    @contextmanager
    def precision(self) -> Iterator[None]:
        """The context of a forward.

        Under autocast, PEFT's own cast of every input to float32 is undone at once; leaving both out changes no bit and takes
        a quarter off a step. The adapter's scale is taken where its rows are narrow, which takes another 4% off.
        """
        layers = self._peft_layers()
        for layer in layers:
            layer.cast_input_dtype_enabled = self.base.dtype == torch.float32
            for block in layer.lora_A:
                layer.lora_variant[block] = NarrowScale
        try:
            with self.base.precision():
                yield
        finally:
            for layer in layers:
                layer.cast_input_dtype_enabled = True
                for block in (BASE_BLOCK, OWN_BLOCK):
                    layer.lora_variant.pop(block, None)

    def top_k(
        self,
        rows: Sequence[Encoded],
        k: int,
        on_rows: Callable[[int, int], None] | None = None,
        *,
        labels: bool = False,
    ) -> list[TopK]:
        """Return the k most likely tokens of the loaded model at the label positions of each row. Cost: a forward a row.

        Args:
            rows: The rows as tokens.
            k: Tokens a label position.
            on_rows: Called with the number of rows that are done, and of all rows.
            labels: The label itself is the first of the k, as `Column.labels` has it.
        """
        return Inference(self.model, self.reader, self.precision, on_rows).top_k(rows, k, labels=labels)

    @property
    def reader(self) -> Tokens:
        """What turns rows of tokens into batches, and batches into outputs of the loaded model."""
        return Tokens(self.base.pad, batching_of(self.model).prefix, opening=self.base.opening, alone=self.base.alone)

    def trainable(
        self, params: Mapping[str, Tensor], *, gradient_checkpointing: bool = False, packing: bool = False
    ) -> Trainable:
        """Return the model with `params` as what a learner trains: what `start_adapter` or `start_dense` returned.

        Args:
            params: The trainable parameters by name.
            gradient_checkpointing: Let the model's blocks run again in the backward; rows then share no prefix, since such
                blocks read no cache.
            packing: Let short rows share a line, where the model can.
        """
        batching = batching_of(self.model)
        if gradient_checkpointing:
            recompute_blocks(self.model, self.precision)
        else:
            store_activations(self.model)
        prefix = batching.prefix and not gradient_checkpointing
        reader = Tokens(
            self.base.pad,
            prefix,
            packing=packing and batching.packing,
            opening=self.base.opening,
            alone=self.base.alone,
        )
        return Trainable(self.model, params, reader, self.precision, self.weight, self.bare)

    @property
    def layer(self) -> int:
        """Number of blocks behind which features of texts are taken."""
        return default_layer(self.model)

    def features(self, texts: Sequence[Sequence[int]], on_rows: Callable[[int, int], None] | None = None) -> Tensor:
        """Return the features of texts under the base, whatever adapter is loaded (texts, d); see `text_features`.

        Args:
            texts: Token ids of each text, without its template.
            on_rows: Called with the number of texts that are done, and of all texts.

        Raises:
            BadSpec: Dense weights are loaded in the place of the base.
        """
        base = self.base
        with self.bare(), self.precision():
            alone = [base.alone(text) for text in texts]  # as it is read in a row of the train data, or in a request
            return text_features(self.model, alone, opening=base.opening, pad=base.pad, on_rows=on_rows)

    @contextmanager
    def bare(self) -> Iterator[None]:
        """Inside, the model is the base: the adapter is off. No second copy of a model exists."""
        if self.dense:
            raise BadSpec("the base cannot be run while dense weights are loaded over it; use a LoRA recipe")
        if self._shape is None:
            yield
        else:
            trainable = {value: value.requires_grad for value in self.model.parameters()}
            try:
                with (
                    self.model.disable_adapter() if self._peft_layers() else nullcontext(),
                    experts.disabled(self.model),
                ):
                    yield
            finally:  # PEFT makes every adapter trainable that it turns on again
                for value, was in trainable.items():
                    value.requires_grad_(was)

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Inside, the model is the one that the workspace began with: the base, and the adapter that it was made with."""
        with self.bare():
            root = self._root()
            added = [
                root.get_submodule(name).register_forward_hook(partial(_plus, _on(patch, self.base.device)))
                for name, patch in self.initial.items()
            ]
            try:
                yield
            finally:
                for hook in added:
                    hook.remove()

    def _add_block(self, settings: Settings, seed: int, task: str, content: Patches | None) -> None:
        """Add a second adapter over the loaded one, which stays frozen; fresh, or with `content`."""
        shape = self._chosen_shape(settings)
        if content is not None and _shape_of(content) != shape:
            raise BadSpec(_differs(_shape_of(content)))
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(seed, task, "adapter"))  # the key of a first adapter: so are the bits
            named, alone, stacked = self._kinds(shape)
            self.model.add_adapter(OWN_BLOCK, _config(named), autocast_adapter_dtype=True)
            self._attach(OWN_BLOCK, alone, stacked)
        self._own = shape
        self.model.base_model.set_adapter([BASE_BLOCK, OWN_BLOCK])
        self.freeze()  # PEFT makes every adapter trainable that it turns on
        for module in self._shape or {}:  # a block that trained before has the dropout of its training
            self._layer(module).lora_dropout[BASE_BLOCK] = torch.nn.Identity()
        self._write(OWN_BLOCK, shape, content or {})
        self._train(OWN_BLOCK, shape, settings)

    def _train(self, block: str, modules: Iterable[str], settings: Settings) -> None:
        """Make the factors of a block trainable."""
        for layer in (self._layer(module) for module in modules):
            layer.lora_dropout[block] = (
                torch.nn.Dropout(settings.lora_dropout) if settings.lora_dropout else torch.nn.Identity()
            )
            layer.lora_A[block].weight.requires_grad_(True)
            layer.lora_B[block].weight.requires_grad_(True)

    def _set_start(self, start: Mapping[str, Factors]) -> None:
        """Write the factors that a plan starts from, and freeze those that it does not train."""
        for module, factors in start.items():
            layer = self._layer(module)
            down, up = layer.lora_A[self._block].weight, layer.lora_B[self._block].weight
            with torch.no_grad():
                down.copy_(factors.down)
                up.copy_(factors.up)
            down.requires_grad_(factors.trains != "up")
            up.requires_grad_(factors.trains != "down")

    def _write(self, block: str, shape: Mapping[str, tuple[int, float]], content: Patches) -> None:
        """Write scales, and the factors of `content`, into a block."""
        with torch.no_grad():
            for module, (_, scale) in shape.items():
                layer = self._layer(module)
                layer.scaling[block] = scale
                if patch := content.get(module):
                    layer.lora_A[block].weight.copy_(patch.down)
                    layer.lora_B[block].weight.copy_(patch.up)

    def _peft_layers(self) -> list[Any]:
        """Return the layers of the adapter that are PEFT's own: those of experts are ours."""
        layers = [self._layer(module) for module in {**(self._shape or {}), **(self._own or {})}]
        return [layer for layer in layers if not isinstance(layer, experts.ExpertFactors)]

    def _layer(self, module: str) -> Any:
        """Return what holds the factors of a layer, or of a parameter of experts."""
        return experts.factors(self.model, PREFIX + module) or self.model.get_submodule(PREFIX + module)

    def _fresh_shape(self, settings: Settings) -> dict[str, tuple[int, float]]:
        """Return rank and scale of each module of an adapter that goes on from what is loaded, or of a fresh one."""
        # Adapters loaded before these parts were left out, which nothing ever trained, stay as they are.
        text = text_part(self._root())
        idle = {name: known for name, known in (self._shape or {}).items() if not name.startswith(text)}
        fresh = self._chosen_shape(settings)
        if self._shape is not None and settings.lora_target_modules == ALL:
            later = known_later(self._root())  # an adapter that was begun before experts got one goes on without
            if later.isdisjoint(self._shape):
                fresh = {name: own for name, own in fresh.items() if name not in later}
        return idle | fresh

    def _chosen_shape(self, settings: Settings) -> dict[str, tuple[int, float]]:
        """Return rank and scale of each module that the settings give an adapter."""
        own = (settings.lora_r, settings.lora_scale)
        return {name: own for name in chosen(self._root(), settings.lora_target_modules)}

    def _root(self) -> Any:
        """Return the base model under the adapter."""
        return self.base.model if self._shape is None else self.model.get_base_model()

    def shapes(self, settings: Settings) -> dict[str, tuple[int, ...]]:
        """Return (out, in) of each module that the settings give an adapter, and (experts, out, in) of experts."""
        root = self._root()
        stacked = experts.expert_parameters(root)
        return {
            name: tuple(experts.weights_of(root, name).shape) if name in stacked else shape_of(root.get_submodule(name))
            for name in self._chosen_shape(settings)
        }

    def weight(self, module: str) -> Tensor:
        """Return the weight of the base model in a module, (out, in), or (experts, out, in), as a float32 copy on the CPU.

        A quantised weight is dequantised.
        """
        root = self._root()
        if module in experts.expert_parameters(root):
            value = experts.weights_of(root, module)
        else:
            layer = root.get_submodule(module)
            layer = getattr(layer, "base_layer", layer)
            value = dequantized(layer) if is_quantized(layer) else weight_of(layer)
        return value.detach().to("cpu", torch.float32, copy=True)

    def _fit(self, shape: dict[str, tuple[int, float]]) -> None:
        """Give the model an adapter of this shape; a fitting one stays, any other is replaced."""
        if shape == self._shape:
            return
        from peft import get_peft_model

        self._remove_adapter()
        named, alone, stacked = self._kinds(shape)
        self.model = get_peft_model(self.base.model, _config(named), autocast_adapter_dtype=True)
        self._attach(BASE_BLOCK, alone, stacked)
        self._shape = shape
        for module, (_, scale) in shape.items():
            self._layer(module).scaling["default"] = scale
        self.freeze()

    def _kinds(self, shape: Shape) -> tuple[Shape, Shape, Shape]:
        """Split a shape into layers that PEFT finds by name, layers whose names it takes for experts, and experts."""
        root = self._root()
        stacked = experts.expert_parameters(root).keys() & shape
        alone = taken_for_experts(root, shape.keys() - stacked)
        parts = (shape.keys() - stacked - alone, alone, stacked)
        return tuple({name: shape[name] for name in sorted(part)} for part in parts)  # type: ignore[return-value]

    def _attach(self, block: str, alone: Shape, stacked: Shape) -> None:
        """Add a block to layers that PEFT does not find by name, and to experts."""
        root = self.model.get_base_model()
        for module, own in alone.items():
            parent, _, end = module.rpartition(".")
            owner = root.get_submodule(parent)
            config = _config({module: own})  # PEFT adds the block to its layer, or makes the layer one of its own
            self.model.base_model._create_and_replace(
                config, block, getattr(owner, end), end, owner, current_key=module
            )
            getattr(owner, end).lora_A.float()
            getattr(owner, end).lora_B.float()
        for module, (rank, _) in stacked.items():
            experts.attach(root, module, rank, block)

    def _remove_adapter(self) -> None:
        if self._shape is not None:
            experts.detach(self.base.model)
            self.base.model = self.model.unload()
            self.model, self._shape, self._own = self.base.model, None, None

    def _load_dense(self, weights: Mapping[str, Tensor] | None) -> None:
        if weights is None and not self.dense:
            return
        self._remove_adapter()
        if weights is None or not self.dense:
            self._reload(self.dtype if weights is None else "float32")
        if weights is not None:
            with torch.no_grad():
                for name, value in self.model.named_parameters():
                    value.copy_(weights[name])
            self.dense = True

    def _reload(self, dtype: str) -> None:
        self.base = self._load(dtype)
        self.model, self.dense = self.base.model, False

    def _load(self, dtype: str) -> Base:
        base = load_base(self.folder, dtype, self.device, self.quantization, self.attn_implementation)
        if self.batching is not None:
            remember(base.model, self.batching)
        return base


def _renamed(states: Mapping[str, State], old: str, new: str) -> dict[str, State]:
    """Return states in whose keys the factors of one block have the names of another's."""
    pairs = [(f".lora_{factor}.{old}", f".lora_{factor}.{new}") for factor in "AB"]
    return {
        method: {key.replace(*pairs[0]).replace(*pairs[1]): value for key, value in state.items()}
        for method, state in states.items()
    }


def _on(patch: Patch, device: torch.device) -> Patch:
    """Return the patch on a device."""
    return Patch(patch.down.to(device), patch.up.to(device), patch.scale)


def _plus(patch: Patch, module: Any, given: tuple[Any, ...], output: Tensor) -> Tensor:
    """Return the output of a layer with a patch added, as a forward hook does."""
    linear = torch.nn.functional.linear
    narrow = linear(given[0].to(patch.down.dtype), patch.down) * patch.scale
    return output + linear(narrow, patch.up).to(output.dtype)


class NarrowScale:
    """PEFT's forward of a LoRA layer, as one of its variants, with the scale taken at the rank, not at the width of the output.

    For a scale that is a power of two the bits are PEFT's own.
    """

    @staticmethod
    def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **_: Any) -> Tensor:
        """Return `result` + B (scale A x)."""
        down, up = module.lora_A[active_adapter], module.lora_B[active_adapter]
        return result + up(down(module.lora_dropout[active_adapter](x)) * module.scaling[active_adapter])


def _config(shape: Mapping[str, tuple[int, float]]) -> Any:
    """Return PEFT's configuration of an adapter with these ranks; scales are set afterwards."""
    from peft import LoraConfig
    from peft.utils.constants import DUMMY_TARGET_MODULES

    ranks = {module: rank for module, (rank, _) in shape.items()}
    most = max(ranks.values(), default=1)
    return LoraConfig(
        r=most,
        lora_alpha=most,
        target_modules=sorted(shape) or DUMMY_TARGET_MODULES,
        rank_pattern={f"^{m}$".replace(".", r"\."): r for m, r in ranks.items() if r != most},
        task_type="CAUSAL_LM",
    )


def _differs(shape: Mapping[str, tuple[int, float]]) -> str:
    """Return the error for a recipe that does not go on with an adapter of this shape."""
    rank, scale = next(iter(shape.values()))
    return (
        "the recipe's LoRA rank, scale or modules differ from the adapter that head goes on training "
        f"({len(shape)} modules, rank {rank}, lora_alpha {rank * scale:g}); keep lora_r, lora_alpha and "
        "lora_target_modules as they were, or start from the base with start: base"
    )


def _shape_of(patches: Patches) -> dict[str, tuple[int, float]]:
    return {module: (patch.rank, patch.scale) for module, patch in patches.items()}
