"""Whether perdure chooses as lm-evaluation-harness does: the same items, the same model, in float32.

    python benchmarks/choices.py perdure OURS.json [--set arc_easy] [--rows 100]
    python benchmarks/choices.py harness THEIRS.json [--set arc_easy] [--rows 100]    # needs lm-eval 0.4.13
    python benchmarks/choices.py compare OURS.json THEIRS.json

The prompt is the item's, with a line break and "Answer:" behind it, as in the harness's task arc_easy. `harness` gives each pair
of prompt and choice to its HFLM (batch 8), whose log-likelihoods decide `acc`, and divided by the choice's characters `acc_norm`.
It can run in an environment of its own, with src on PYTHONPATH. Times are of the processor, one thread, without loading.
"""

import argparse
import gzip
import json
import time
from pathlib import Path

DATA = Path("../shared/data/ability")


def items(name: str, rows: int) -> list[dict]:
    """Return the first rows of a set with their prompts."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        read = [json.loads(line) for line, _ in zip(file, range(rows), strict=False)]
    return [{**row, "prompt": f"{row['prompt'].rstrip()}\nAnswer:"} for row in read]


def perdure(name: str, rows: int) -> tuple[list[list[float]], float]:
    """Return log p of each choice of each item, and the seconds."""
    import torch

    from perdure.bridges.embedded import embedded_model
    from perdure.bridges.models import load_base
    from perdure.data.continuations import choice_tokens
    from perdure.data.formats import to_rows
    from perdure.data.read import Record
    from perdure.model.decode import choice_log_likelihoods

    torch.set_num_threads(1)
    base = load_base(embedded_model(), dtype="float32", device="cpu")
    began = time.process_time()
    made = to_rows([Record(row, f"{name}:{n}") for n, row in enumerate(items(name, rows), 1)], "choices")
    pairs = [choice_tokens(row, base.tokenizer) for row in made]
    prompts, choices = [one[0][0] for one in pairs], [[choice for _, choice in one] for one in pairs]
    values = choice_log_likelihoods(base.model, prompts, choices, pad=base.pad, precision=base.precision)
    return values, time.process_time() - began


def harness(name: str, rows: int) -> tuple[list[list[float]], float]:
    """Return the same of lm-evaluation-harness."""
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from perdure.bridges.embedded import embedded_model

    torch.set_num_threads(1)
    model = HFLM(pretrained=str(embedded_model()), dtype="float32", device="cpu", batch_size=8)
    asked = items(name, rows)
    requests = [
        Instance(request_type="loglikelihood", doc=row, arguments=(row["prompt"], f" {choice}"), idx=i)
        for row in asked
        for i, choice in enumerate(row["choices"])
    ]
    began = time.process_time()
    flat = iter(model.loglikelihood(requests, disable_tqdm=True))
    return [[float(next(flat)[0]) for _ in row["choices"]] for row in asked], time.process_time() - began


def compare(ours: dict, theirs: dict) -> None:
    """Print how many items have the same choice, and how far the log-likelihoods are apart."""
    name, rows = ours["set"], ours["rows"]
    if (name, rows) != (theirs["set"], theirs["rows"]):
        raise SystemExit("the two files are not of the same items")
    asked = items(name, rows)
    apart = [
        abs(a - b) for x, y in zip(ours["values"], theirs["values"], strict=True) for a, b in zip(x, y, strict=True)
    ]
    print(f"{name}, {len(asked)} items: log-likelihoods at most {max(apart):.2g} nats apart")
    for scorer in ("acc", "acc_norm"):
        chosen = []
        for side in (ours, theirs):
            lengths = [[len(text) if scorer == "acc_norm" else 1 for text in row["choices"]] for row in asked]
            scaled = [[v / n for v, n in zip(x, y, strict=True)] for x, y in zip(side["values"], lengths, strict=True)]
            chosen.append([max(range(len(x)), key=x.__getitem__) for x in scaled])
        same = sum(a == b for a, b in zip(*chosen, strict=True))
        right = [sum(a == row["gold"] for a, row in zip(side, asked, strict=True)) for side in chosen]
        print(f"  {scorer}: the same choice on {same}; right {right[0]} and {right[1]}")
    print(
        f"  processor seconds {ours['seconds']:.1f} and {theirs['seconds']:.1f}: {ours['seconds'] / theirs['seconds']:.2f}"
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["perdure", "harness", "compare"])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--set", default="arc_easy")
    parser.add_argument("--rows", type=int, default=100)
    given = parser.parse_args()
    if given.command == "compare":
        compare(*(json.loads(file.read_text(encoding="utf-8")) for file in given.files))
        return
    values, seconds = (perdure if given.command == "perdure" else harness)(given.set, given.rows)
    told = {"set": given.set, "rows": given.rows, "seconds": seconds, "values": values}
    given.files[0].write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
