"""The rows of the plain script's stream: one intent-classification task per domain of CLINC150, chosen by its rules."""

import gzip
import json
import random
from pathlib import Path

from perdure.core.rows import Row
from perdure.data.spec import TaskSpec
from perdure.data.task import TaskData

DOMAINS = ["banking", "credit_cards", "kitchen_and_dining", "home", "auto_and_commute"]
DOMAINS += ["travel", "utility", "work", "small_talk", "meta"]
PROMPT = "Classify the user's request.\nRequest: {}\nIntent:"


def read(path: Path) -> list[dict[str, str]]:
    """Return the records of the data file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def part(records: list[dict[str, str]], domain: str, split: str, per_label: int, seed: int) -> list[Row]:
    """Return `per_label` rows of each label of a domain, the ones the plain script takes."""
    rows = []
    for label in sorted({r["label"] for r in records if r["domain"] == domain}):
        texts = [r["text"] for r in records if (r["domain"], r["split"], r["label"]) == (domain, split, label)]
        random.Random(seed).shuffle(texts)
        for text in texts[:per_label]:
            rows.append(Row(PROMPT.format(text), " " + label.replace("_", " "), label=label, task=domain))
    return rows


def write(path: Path, train: list[Row], test: list[Row]) -> None:
    """Write a data file that `learn` reads."""
    with path.open("w", encoding="utf-8") as file:
        for split, rows in (("train", train), ("test", test)):
            for row in rows:
                fields = {"prompt": row.prompt, "completion": row.completion, "label": row.label, "split": split}
                file.write(json.dumps(fields) + "\n")


def task(domain: str, test: list[Row]) -> TaskData:
    """Return a task of test rows alone, to be scored."""
    return TaskData(
        TaskSpec(name=domain, train=Path("-"), scorer="exact", max_new_tokens=10), (), (), tuple(test), "text_label"
    )
