"""Facts of CounterFact to edit in, with neighbours of the same relation and the same true answer."""

import gzip
import json
from collections import defaultdict
from pathlib import Path

from perdure.core.keyed import keyed
from perdure.editing.facts import Fact, Neighbour

NEAR = 4  # neighbours a fact beside the one that its record brings
TUNING = 1000  # records that settings are tuned on, from the first; the others are measured


def read(folder: Path, count: int, seed: int, *, tuning: bool = False, near: int = NEAR) -> list[Fact]:
    """Return `count` facts with one subject each, drawn without replacement.

    A neighbour asks in the fact's own words about another subject with the same true answer, as in the paper (Meng et al.
    2022, section 3.4): from the records with the same words, and from `relations_facts` where that knows the fact.

    Args:
        folder: Has counterfact.jsonl.gz and relations_facts.jsonl.gz.
        count: Number of facts.
        seed: Of the draw.
        tuning: Draw from the first records, those that settings were tuned on; otherwise from the rest.
        near: Most neighbours drawn for a fact.
    """
    records = [r for r in _lines(folder / "counterfact.jsonl.gz") if r["subject"] in r["prompt"]]
    relations = [r for r in _lines(folder / "relations_facts.jsonl.gz") if r["category"] == "factual"]
    relation_of = {(r["subject"], r["completion"]): r["relation"] for r in relations}
    alike: dict[tuple[str, str], set[str]] = defaultdict(set)
    for r in relations:
        alike[r["relation"], r["completion"]].add(r["subject"])
    for r in records:
        alike[_words(r), r["ground_truth"]].add(r["subject"])
    usable = {r["subject"]: r for r in (records[:TUNING] if tuning else records[TUNING:])}
    draw = keyed(seed, "counterfact")
    chosen = draw.permutation(sorted(usable))[:count]
    return [_fact(usable[name], relation_of, alike, near, seed) for name in chosen.tolist()]


def _fact(record: dict, relation_of: dict, alike: dict, near: int, seed: int) -> Fact:
    subject, truth = record["subject"], record["ground_truth"]
    relation = relation_of.get((subject, truth))
    others = (alike[relation, truth] | alike[_words(record), truth]) - {subject}
    picked = keyed(seed, "neighbours", subject).permutation(sorted(others))[:near].tolist()
    asked = [Neighbour(_words(record).replace("{}", other), truth) for other in picked]
    return Fact(
        subject=subject,
        prompt=record["prompt"],
        target=record["completion"],
        ground_truth=truth,
        relation=relation,
        paraphrases=(record["rephrase"],),
        neighbours=(Neighbour(record["locality"], record["locality_answer"]), *asked),
    )


def _words(record: dict) -> str:
    return record["prompt"].replace(record["subject"], "{}")


def _lines(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
