"""Factors of experts as perdure runs them, beside PEFT's, which adds their product to the weights before each forward.

`python benchmarks/experts.py` prints the tables of docs/design/experts.md; some minutes on one core, 3 GB of memory.
"""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeExperts

from perdure.bridges.experts import attach, expert_parameters

EXPERTS, WIDTH, INNER, CHOSEN, LAYERS, RANK, TOKENS, STEPS = 64, 512, 512, 4, 4, 8, 512, 3
KINDS = {"none": "no factors", "own": "perdure", "peft": "PEFT"}


class Blocks(nn.Module):
    """Layers of experts alone, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        sizes = {"num_experts": EXPERTS, "hidden_size": WIDTH, "moe_intermediate_size": INNER}
        config = Qwen3MoeConfig(**sizes, num_experts_per_tok=CHOSEN)  # type: ignore[arg-type]
        config._experts_implementation = "grouped_mm"
        self.layers = nn.ModuleList(nn.ModuleDict({"experts": Qwen3MoeExperts(config)}) for _ in range(LAYERS))
        for value in self.parameters():
            nn.init.normal_(value, std=0.02)
        self.requires_grad_(False)

    def forward(self, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """Return what the layers make of tokens that go to given experts."""
        for layer in self.layers:
            x = x + layer["experts"](x, index, weights)  # type: ignore[index,operator]
        return x


def measure(kind: str, dtype: torch.dtype) -> dict[str, float]:
    """Return the seconds of a forward and backward, the least of some, and the memory in MiB that they take at most."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_default_dtype(dtype)
    model: nn.Module = Blocks()
    torch.set_default_dtype(torch.float32)
    weights_mib = sum(value.nbytes for value in model.parameters()) / 2**20
    names = list(expert_parameters(model))
    if kind == "own":
        for name in names:
            attach(model, name, RANK)
    elif kind == "peft":
        model = get_peft_model(model, LoraConfig(r=RANK, target_modules=[], target_parameters=names))  # type: ignore[arg-type]
    x = torch.randn(TOKENS, WIDTH).to(dtype).requires_grad_(True)
    index, weights = torch.randint(0, EXPERTS, (TOKENS, CHOSEN)), torch.rand(TOKENS, CHOSEN).to(dtype)
    wanted = [x, *(value for value in model.parameters() if value.requires_grad)]
    before, seconds = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20, []
    for _ in range(STEPS):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model(x, index, weights).float().square().mean()
        torch.autograd.grad(loss, wanted)
        seconds.append(time.perf_counter() - start)
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    return {"weights": weights_mib, "more": more, "s": min(seconds)}


def rounded(size: float) -> list[float]:
    """Return what is lost of an update of bfloat16 weights, given the standard deviation of B.

    Returns:
        The size of the update in parts of the weights'; the share of weights that their sum with it leaves as they are; the
        relative error of the update in the sum; that of the update whose factors are rounded.
    """
    torch.manual_seed(0)
    weight = (0.02 * torch.randn(EXPERTS, 2 * INNER, WIDTH)).bfloat16()
    down, up = (
        torch.empty(EXPERTS, RANK, WIDTH).uniform_(-(WIDTH**-0.5), WIDTH**-0.5),
        size * torch.randn(EXPERTS, 2 * INNER, RANK),
    )
    exact = up @ down
    kept = torch.baddbmm(weight, up.bfloat16(), down.bfloat16()).float() - weight.float()
    own = up.bfloat16().float() @ down.bfloat16().float()
    errors = [((found - exact).norm() / exact.norm()).item() for found in (kept, own)]
    return [(exact.norm() / weight.float().norm()).item(), (kept == 0).float().mean().item(), *errors]


def main() -> None:
    """Print both tables; each measurement of memory is a process of its own."""
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], getattr(torch, sys.argv[2]))))
        return
    print(
        "| dtype | factors | time to no factors | weights, MiB | more memory at most, MiB |",
        "|---|---|---|---|---|",
        sep="\n",
    )
    for dtype in ("float32", "bfloat16"):
        runs = {}
        for kind in KINDS:
            done = subprocess.run(
                [sys.executable, __file__, kind, dtype], stdout=subprocess.PIPE, check=True, text=True
            )
            runs[kind] = json.loads(done.stdout.splitlines()[-1])
        for kind, found in runs.items():
            ratio = found["s"] / runs["none"]["s"]
            print(f"| {dtype} | {KINDS[kind]} | {ratio:.1f} | {found['weights']:,.0f} | {found['more']:,.0f} |")
    print(
        "\n| update / weights | weights that stay as they are | error of the sum | error of the factors |",
        "|---|---|---|---|",
        sep="\n",
    )
    for size in (1e-4, 1e-3, 1e-2):
        part, same, total, factors = rounded(size)
        print(f"| {part:.2%} | {same:.0%} | {total:.0%} | {factors:.1%} |")


if __name__ == "__main__":
    main()
