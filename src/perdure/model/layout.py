"""The layers of a causal language model that editing needs, read from its structure and from a forward, not from its name."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from perdure.core.errors import BadInput
from perdure.model.hooks import hooked
from perdure.model.layers import decoder_blocks, is_linear, weight_of

Precision = Callable[[], AbstractContextManager]


@dataclass(frozen=True)
class Layout:
    """The parts of a decoder that editing and tracing use.

    Args:
        blocks: The decoder blocks, first to last.
        returns_tuple: Whether a block returns a tuple that begins with the hidden states, or these alone.
        down: Name of each block's down-projection (the last linear layer of its MLP), as in the bare base model.
        mixed: Name of each block's attention output projection, as in the bare base model.
        prefix: Prefix of these names in this model: "" or PEFT's own prefix.
        embedding: The input embedding.
        hidden: Width of the residual stream.
        inner: Width of a key: the input of the down-projection.
    """

    blocks: tuple[nn.Module, ...]
    returns_tuple: tuple[bool, ...]
    down: tuple[str, ...]
    mixed: tuple[str, ...]
    prefix: str
    embedding: nn.Module
    hidden: int
    inner: int

    def module(self, model: Any, name: str) -> nn.Module:
        """Return the layer with this name in the base model; it may be wrapped by an adapter."""
        return model.get_submodule(self.prefix + name)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)


@torch.no_grad()
def find_layout(model: Any, precision: Precision = nullcontext) -> Layout:
    """Return the layout of any Hugging Face causal language model whose blocks end in one dense MLP.

    The blocks are the list of modules with the most parameters, in the part that text runs through. One forward over two
    tokens records which linear layers run in each block and in which order: the last one that writes the residual width is the
    MLP's down-projection, and the one before it of that width is attention's output projection.

    Args:
        model: Bare, or wrapped by PEFT.
        precision: Context of the forward.

    Raises:
        BadInput: A mixture of experts, quantised weights, or another structure; the message names it.

    Cost: one forward over two tokens.
    """
    prefix = "base_model.model." if hasattr(model, "peft_config") else ""
    root = model.get_submodule(prefix.rstrip(".")) if prefix else model
    name, blocks = decoder_blocks(root)
    _refuse_experts(blocks)
    kinds: list[bool] = []
    watch = [b.register_forward_hook(lambda _, __, output: kinds.append(isinstance(output, tuple))) for b in blocks]
    with hooked(*watch):
        ran = _linears_in_order(root, name, len(blocks), precision)
    hidden = root.get_input_embeddings().weight.shape[1]
    down, mixed = [], []
    for number, layers in enumerate(ran):
        writers = [(layer, sides) for layer, sides in layers if sides[1] == hidden]
        if len(writers) < 2:
            raise BadInput(
                f"block {number} of this model has {len(writers)} linear layers that write its residual stream of width "
                f"{hidden}; editing needs attention's output and the MLP's. Quantised and fused layers are not supported: "
                "load the model in bfloat16 or float32"
            )
        mixed.append(writers[-2][0])
        down.append(writers[-1][0])
    widths = {dict(layers)[layer][0] for layers, layer in zip(ran, down, strict=True)}
    if len(widths) != 1:
        raise BadInput(f"the MLPs of this model have different widths ({sorted(widths)}); editing needs one")
    embedding = root.get_input_embeddings()
    return Layout(tuple(blocks), tuple(kinds), tuple(down), tuple(mixed), prefix, embedding, hidden, widths.pop())


def _refuse_experts(blocks: list[nn.Module]) -> None:
    """Refuse blocks with several parallel MLPs: a fact would have to be written into each."""
    for block in blocks:
        nested = any(isinstance(m, nn.ModuleList) and any(is_linear(c) for c in m.modules()) for m in block.modules())
        stacked = any(p.ndim > 2 for name, p in block.named_parameters() if ".lora_" not in name)
        if nested or stacked:
            raise BadInput(
                "this model has several experts in a block (mixture of experts), or mixes tokens by other means than "
                "attention; editing supports one dense MLP in each block. Train the facts instead (perdure learn)"
            )


def _linears_in_order(
    root: Any, list_name: str, depth: int, precision: Precision
) -> list[list[tuple[str, tuple[int, int]]]]:
    """Return name and (in, out) of the linear layers that run in each block, in the order in which they end."""
    ran: list[list[tuple[str, tuple[int, int]]]] = [[] for _ in range(depth)]
    handles = []
    for name, module in root.named_modules():
        inside = name.startswith(f"{list_name}.") and ".lora_" not in name
        if not inside or not is_linear(module):
            continue
        weight = weight_of(module)
        if not weight.is_floating_point() or weight.ndim != 2:
            raise BadInput("this model is quantised; editing and tracing facts need its weights in bfloat16 or float32")
        layer = name.removesuffix(".base_layer")
        number = int(layer[len(list_name) + 1 :].split(".")[0])
        sides = (weight.shape[1], weight.shape[0])

        def note(
            _: Any, __: Any, out: Tensor, to: list = ran[number], layer: str = layer, sides: tuple = sides
        ) -> None:
            if out.ndim != 3:
                raise BadInput(
                    f"layer {layer} of this model gets rows and tokens as one dimension, so a subject's token cannot be "
                    "found in it; editing does not support this architecture. Train the facts instead (perdure learn)"
                )
            to.append((layer, sides))

        handles.append(module.register_forward_hook(note))
    with hooked(*handles), precision():
        root(input_ids=torch.zeros(1, 2, dtype=torch.long, device=root.get_input_embeddings().weight.device))
    return ran
