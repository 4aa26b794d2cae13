"""The outsider's check: what perdure exports scores in lm-evaluation-harness what perdure says that it scores.

A task is learned and exported, and the harness' own `hf` model loads the adapter with PEFT, in float32. Both score the same items
of ARC-easy; the likelihoods of every choice are compared. Needs the extra `eval`, and no network.

python benchmarks/outsider.py --data ../shared/data [--items 100] [--model smollm2-135m] [--out FILE]
"""

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path

from perdure import Workspace
from perdure.bridges.harness import HarnessTask, evaluate_harness

TASK = """
task: arc_easy_local
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}, cache_dir: {cache}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{prompt}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
target_delimiter: " "
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
NAME = "arc_easy_local"


def rows(file: Path, most: int, **where: str) -> list[dict]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        found = (json.loads(line) for line in lines)
        return [row for row in found if where.items() <= row.items()][:most]


def write(file: Path, some: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    return file


def likelihoods(found: dict) -> list[list[float]]:
    samples = sorted(found["samples"][NAME], key=lambda sample: sample["doc_id"])
    return [[float(value) for value, _ in sample["filtered_resps"]] for sample in samples]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--rows", type=int, default=64, help="train rows of the task that is learned")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "outsider.json")
    given = parser.parse_args()
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ws = Workspace.init(folder / "ws", given.model, dtype="float32", guards="none")
        intents = rows(given.data / "intents/clinc150.jsonl.gz", given.rows + 16, split="train")
        ws.learn(
            "intents",
            write(folder / "intents.jsonl", intents),
            recipe="naive",
            gate=None,
            overrides={"num_train_epochs": 1},
        )
        ws.export(folder / "adapter")
        (folder / "tasks").mkdir()
        file = write(folder / "arc.jsonl", rows(given.data / "ability/arc_easy.jsonl.gz", given.items))
        (folder / "tasks/arc.yaml").write_text(TASK.format(file=file, cache=folder / "cache"))
        began = time.process_time()
        ws.session.load(ws.ledger.resolve("head"))
        ours = evaluate_harness(ws.runtime, [HarnessTask(NAME, folder / "tasks")])
        middle = time.process_time()
        theirs = simple_evaluate(
            model="hf",
            model_args=f"pretrained={ws.session.base_folder},peft={folder / 'adapter'},dtype=float32",
            tasks=[NAME],
            task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
            batch_size=8,
            device="cpu",
            bootstrap_iters=0,
        )
        ended = time.process_time()
        ws.session.load(ws.ledger.resolve("base"))
        base = evaluate_harness(ws.runtime, [HarnessTask(NAME, folder / "tasks")])
    mine, others, before = likelihoods(ours), likelihoods(theirs), likelihoods(base)
    pairs = [(a, b) for own, other in zip(mine, others, strict=True) for a, b in zip(own, other, strict=True)]
    same = sum(a.index(max(a)) == b.index(max(b)) for a, b in zip(mine, others, strict=True))
    moved = max(abs(a - b) for own, other in zip(mine, before, strict=True) for a, b in zip(own, other, strict=True))
    record = {
        "items": len(mine),
        "perdure": {key: ours["results"][NAME][f"{key},none"] for key in ("acc", "acc_norm")},
        "harness": {key: theirs["results"][NAME][f"{key},none"] for key in ("acc", "acc_norm")},
        "base": {key: base["results"][NAME][f"{key},none"] for key in ("acc", "acc_norm")},
        "same choice": same,
        "largest difference in nats": max(abs(a - b) for a, b in pairs),
        "largest difference from the base in nats": moved,
        "processor seconds": {"perdure": round(middle - began, 1), "harness": round(ended - middle, 1)},
    }
    print(json.dumps(record, indent=1))
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
