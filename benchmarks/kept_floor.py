"""How far `kept` falls where nothing was forgotten: facts that the base knows in one wording, asked in another.

    python benchmarks/kept_floor.py [--facts 400] [--data ../shared/data] [--out FILE]

A checkup says of a guard of facts how many of those that the reference answered rightly are still right. Some were right by
chance, so that the share falls although nothing was forgotten. The facts of the guard `relations_facts` have two wordings. Each
fact is a choice between its object and three objects of its relation, the same for both wordings; the facts that are right in
one wording are scored in the other, on the base model. Intervals are 95%.
"""

import argparse
import gzip
import json
from collections import defaultdict
from pathlib import Path

from perdure.bridges.embedded import embedded_model
from perdure.bridges.models import load_base
from perdure.core.keyed import keyed
from perdure.data.continuations import choice_tokens
from perdure.data.formats import to_rows
from perdure.data.read import Record
from perdure.maths.statistics import mean_interval
from perdure.model.decode import choice_log_likelihoods

HERE = Path(__file__).parent
WORDINGS = ("prompt", "zs_prompt")


def drawn(data: Path, count: int) -> list[dict]:
    """Return facts, each with its object among three others of its relation."""
    with gzip.open(data / "editing" / "relations_facts.jsonl.gz", "rt", encoding="utf-8") as file:
        every = [row for row in map(json.loads, file) if row["category"] != "bias" and row["zs_prompt"]]
    objects: dict[str, list[str]] = defaultdict(list)
    for row in every:
        if row["completion"] not in objects[row["relation"]]:
            objects[row["relation"]].append(row["completion"])
    enough = [row for row in every if len(objects[row["relation"]]) > 3]
    facts = []
    for n in keyed("kept floor").permutation(len(enough))[:count].tolist():
        row = enough[n]
        others = [text for text in objects[row["relation"]] if text != row["completion"]]
        wrong = [others[i] for i in keyed("kept floor", n).permutation(len(others))[:3].tolist()]
        facts.append({**row, "choices": [row["completion"], *wrong], "gold": 0})
    return facts


def right(base: object, facts: list[dict], wording: str) -> list[float]:
    """Return whether the object of each fact is its likeliest choice."""
    asked = [Record({"prompt": f[wording], "choices": f["choices"], "gold": 0}, str(n)) for n, f in enumerate(facts)]
    pairs = [choice_tokens(row, base.tokenizer) for row in to_rows(asked, "choices")]
    prompts, choices = [one[0][0] for one in pairs], [[choice for _, choice in one] for one in pairs]
    values = choice_log_likelihoods(base.model, prompts, choices, pad=base.pad, precision=base.precision)
    return [float(max(range(len(one)), key=one.__getitem__) == 0) for one in values]


def main() -> None:
    """Score the facts in both wordings, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=400)
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "kept_floor.json")
    given = parser.parse_args()
    facts, base = drawn(given.data, given.facts), load_base(embedded_model(), device="cpu")
    found = {wording: right(base, facts, wording) for wording in WORDINGS}
    record = {"facts": len(facts), "right": {name: mean_interval(items) for name, items in found.items()}}
    for first, second in (WORDINGS, WORDINGS[::-1]):
        kept = [then for now, then in zip(found[first], found[second], strict=True) if now]
        record[f"right in {first}, of these in {second}"] = {"n": len(kept), "share": mean_interval(kept)}
    print(json.dumps(record, indent=1))
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
