"""Edits on a workspace that has learned two tasks, with the statistics of which model and text the keys are weighed by.

    python benchmarks/edits_learned.py [--methods emmet memit] [--statistics own other text base] [--facts 100] [--sizes 20 100]
        [--seed 0] [--data FOLDER]

The tasks are two domains of CLINC150: 15 labels, 10 train rows and 8 test rows a label. Every fact is found once on the learned
state; what differs is the second moment of the keys that it is written with:

- own: of the learned state on text of its own;
- other: the same, on other text of its own: what the text alone makes of it;
- text: of the learned state on text of the base model;
- base: of the base model on text of its own, as published editors take it for thousands of edits.

Each fact alone, at the first try; then the first 20 and 100 together, and how both tasks are answered under them. Each method
leaves one JSON file in benchmarks/results/edits/.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import clinc
import torch
from edits import HERE, RESULTS, SHARED, TEXTS, Lab, one_each_of, verdict_lines

from perdure import Workspace
from perdure.editing.contexts import contexts_of
from perdure.editing.edit_set import EditSet
from perdure.editing.moments import Statistics, Store, measured, own_texts
from perdure.editing.overlay import overlaid
from perdure.editing.site import open_site
from perdure.editing.solve import Factors, metric
from perdure.editing.spec import SPREAD, EditSpec
from perdure.editing.spread import spread
from perdure.editing.verification import drift, relative_norms, verify
from perdure.workflows.scoring import measure

DOMAINS = clinc.DOMAINS[:2]
STATISTICS = ("own", "other", "text", "base")
Moments = dict[int, torch.Tensor]


class LearnedLab(Lab):
    """The same on a workspace's head."""

    def __init__(self, options: argparse.Namespace):
        super().__init__(options)
        self.ws = _learned(options)
        self.head = self.ws.ledger.resolve("head")
        self.base = self.model
        self.ws.session.load(self.head)
        self.model, self.precision = self.ws.runtime.model, self.ws.runtime.precision
        self.base_statistics, self.cache = self.statistics, options.cache / "learned"
        self.statistics = Statistics(self.cache / "moments")

    def moments(self, layers: Sequence[int], wanted: Sequence[str]) -> dict[str, Moments]:
        """Return the second moments of each kind wanted."""
        found = {}
        with self.site() as site:
            for number, name in enumerate(("own", "other")):
                if name in wanted:
                    found[name] = self.statistics.moments(site, layers, seed=self.seed + number)
        with open_site(self.base, self.tokenizer, self.precision) as site:
            base = self.base_statistics.moments(site, layers, seed=self.seed)
            texts = own_texts(site, self.seed, Store.of(site, self.seed, self.base_statistics.cache, None))
        with self.site() as site:
            text = measured(site, layers, texts, Store(None, ()))
        return {name: {**found, "text": text, "base": base}[name] for name in wanted}

    def tasks(self) -> dict[str, list[float]]:
        """Return the score of each test row of each task under what is laid."""
        session = self.ws.session
        return {name: measure(session.runtime, session.task(name, self.head)).score.items for name in self.head.tasks}


def _learned(options: argparse.Namespace) -> Workspace:
    """Return a workspace that learned the tasks; a finished one is not made again."""
    folder = options.cache / f"learned-{options.seed}"
    done = (folder / "perdure.json").exists()
    ws = Workspace.open(folder) if done else Workspace.init(folder, options.model, seed=options.seed)
    records = clinc.read(options.data / "intents" / "clinc150.jsonl.gz")
    for domain in DOMAINS:
        if domain not in ws.ledger.resolve("head").tasks:
            data = options.cache / f"{domain}.jsonl"
            clinc.write(
                data, *(clinc.part(records, domain, *what, options.seed) for what in (("train", 10), ("test", 8)))
            )
            ws.learn(domain, data, gate=None)
    return ws


def learned(lab: LearnedLab, method: str, options: argparse.Namespace) -> Iterator[dict]:
    """Yield more and more of how the facts are answered, each alone and together, by the statistics they were written with."""
    with lab.site() as site:
        spec, layers = lab.spec(method), lab.spec(method).at(site.layout.depth)
    moments = lab.moments(layers, options.statistics)
    count = max(options.facts, *options.sizes)
    found, facts = lab.found(method, count), lab.facts[: options.facts]
    alone = [lab.together(replace(found, written=(w,))) for w in found.written[: options.facts]]
    told: dict = {
        "unlike": _unlike(moments, alone),
        "before": verdict_lines(lab.ask(facts)),
        "tasks_before": lab.tasks(),
    }
    told["single"] = {
        name: verdict_lines(lab.ask(facts, one_each_of(lab, [weighed(lab, one, spec, own).factors() for one in alone])))
        for name, own in moments.items()
    }
    told["sets"] = []
    yield told
    for size in options.sizes:
        whole = lab.together(lab.found(method, size))
        for name, own in moments.items():
            made = _together(lab, lab.facts[:size], weighed(lab, whole, spec, own).factors())
            told["sets"].append({"size": size, "moments": name, **made})
            yield told


def weighed(lab: LearnedLab, some: EditSet, spec: EditSpec, moments: Moments) -> EditSet:
    """Return a set with the same changes, written with other statistics."""
    reaches = {layer: metric(moment, spec.method, spec.ridge, spec.energy) for layer, moment in moments.items()}
    if spec.method in SPREAD:
        with lab.site() as site:
            return spread(site, some, contexts_of(site, spec), reaches)
    written = [
        replace(
            w,
            reaches=torch.stack([reaches[layer](k[:, None])[:, 0] for layer, k in zip(w.layers, w.keys, strict=True)]),
        )
        for w in some.written
    ]
    return replace(some, written=tuple(written))


def _together(lab: LearnedLab, facts: Sequence, update: Mapping[str, Factors]) -> dict:
    with lab.site() as site:
        before = verify(site, facts, generation=False)
        cost = drift(site, lab.texts[TEXTS // 2 :], lambda: overlaid(site, update))
        norms = relative_norms(site, update)
        with overlaid(site, update):
            after, tasks = verify(site, facts), lab.tasks()
    return {
        "before": verdict_lines(before),
        "after": verdict_lines(after),
        "drift": cost.to_json(),
        "norms": norms,
        "tasks": tasks,
    }


def _unlike(moments: Mapping[str, Moments], alone: Sequence[EditSet]) -> dict[str, dict]:
    """Return how far each moment lies from the state's own: Frobenius norms, and the angle of what facts' keys reach."""
    lines = {}
    for name in (name for name in moments if name != "own"):
        apart, cosines = {}, []
        for layer, own in moments["own"].items():
            apart[layer] = ((moments[name][layer] - own).norm() / own.norm()).item()
            reaches = [metric(m[layer], "emmet", EditSpec().ridge, 0.3) for m in (moments["own"], moments[name])]
            for one in alone:
                w = one.written[0]
                a, b = (reach(w.keys[w.layers.index(layer)][:, None])[:, 0] for reach in reaches)
                cosines.append(torch.cosine_similarity(a, b, dim=0).item())
        lines[name] = {"apart": apart, "reach_cosine": sum(cosines) / len(cosines), "reach_cosine_least": min(cosines)}
    return lines


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["emmet", "memit"])
    parser.add_argument("--statistics", nargs="+", choices=STATISTICS, default=list(STATISTICS))
    parser.add_argument("--facts", type=int, default=100)
    parser.add_argument("--sizes", nargs="+", type=int, default=[20, 100])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".bench-edits")
    options = parser.parse_args()
    lab = LearnedLab(options)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for method in options.methods:
        path = RESULTS / f"learned-{method}-{options.seed}.json"
        if not path.exists():
            began = time.process_time()
            head = {"part": "learned", "method": method, "seed": options.seed, "spec": lab.spec(method).to_json()}
            for told in learned(lab, method, options):
                text = json.dumps({**head, "cpu_seconds": round(time.process_time() - began, 1), **told})
                path.write_text(text, encoding="utf-8")
                print(f"{path.stem}: {time.process_time() - began:.0f} s of processor", flush=True)


if __name__ == "__main__":
    main()
