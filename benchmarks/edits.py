"""Knowledge editing on CounterFact: single edits, growing sets, undo, and seconds.

    python benchmarks/edits.py [single sets undo seconds] [--methods emmet memit ...] [--facts 200] [--sizes 10 100 1000]
        [--seed 0] [--data FOLDER] [--table]

Each part leaves one JSON file a method and seed in benchmarks/results/edits/; a finished one is not run again. Settings are the
defaults. They were chosen on other records than those measured here (see counterfact.py). What the optimisation found for a fact
is kept in --cache, since single edits and sets ask for the same.

- single: every fact alone on the unedited model; one that is not said is tried again as `perdure edit` does, in other layers
  and then more gently. A single edit of emmet is one of rome.
- sets: the first 10, 100, 1000 of the facts together; measured on at most --facts of them, evenly spread.
- undo: of 100 facts 30, evenly spread, are dropped one at a time, and the others are asked.
- seconds: facts one by one, then 100 in one command, with the statistics there and without; run it on a machine at rest.
"""

import argparse
import gzip
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import counterfact
import torch
from safetensors.torch import load_file

from perdure.bridges.models import find_model, load_base
from perdure.core.files import save_tensors, write_atomically
from perdure.editing.contexts import contexts_of
from perdure.editing.edit import edit, pin, settle
from perdure.editing.edit_set import EditSet
from perdure.editing.edit_tensors import set_from_tensors, set_to_tensors
from perdure.editing.facts import Fact
from perdure.editing.lora import FactTraining, train_facts
from perdure.editing.measures import Verdict
from perdure.editing.moments import Statistics, second_moments
from perdure.editing.overlay import Overlay, no_overlay, one_each, overlaid
from perdure.editing.site import Site, open_site
from perdure.editing.solve import Factors
from perdure.editing.spec import SPREAD, EditSpec
from perdure.editing.verification import drift, relative_norms, verify
from perdure.workflows.edit.again import tries

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "edits"
SHARED = HERE.parent.parent / "shared"
METHODS = ("emmet", "rome", "memit", "alphaedit", "lora")
CHUNK = 50  # facts searched between two saves
TEXTS, LONGEST = 40, 256  # held-out texts and their most tokens, for drift
LORA_FACTS = 20  # single edits of the trained baseline, which takes far longer
DROPS = 30  # facts dropped of a set of 100


class Lab:
    """The model, the facts, and what was found for them."""

    def __init__(self, options: argparse.Namespace):
        base = load_base(find_model(options.model), "auto", "cpu")
        self.model, self.tokenizer, self.precision = base.model, base.tokenizer, base.precision
        self.facts = counterfact.read(options.data / "editing", max(*options.sizes, options.facts), options.seed)
        self.seed, self.cache = options.seed, options.cache
        self.statistics = Statistics(self.cache / "moments")
        with gzip.open(options.data / "time" / "wikitext2_valid_test.jsonl.gz", "rt", encoding="utf-8") as file:
            texts = [json.loads(line)["text"] for line in islice(file, TEXTS)]
        self.texts = [self.tokenizer(text)["input_ids"][:LONGEST] for text in texts]

    def spec(self, method: str) -> EditSpec:
        """Return the default settings of a method."""
        return EditSpec(method=method, seed=self.seed)  # type: ignore[arg-type]

    def found(self, method: str, count: int) -> EditSet:
        """Return the first facts as a method finds them, not yet settled together."""
        family = "memit" if method in SPREAD else "emmet"  # rome and alphaedit ask a layer for the same as these
        folder = self.cache / f"{family}-{self.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        parts = []
        for start in range(0, count, CHUNK):
            path = folder / f"{start}.safetensors"
            if not path.exists():
                made = self.edit(self.facts[start : start + CHUNK], self.spec(family))
                write_atomically(path, partial(save_tensors, set_to_tensors(made)))
            parts.append(set_from_tensors(load_file(path)))
        written = [w for part in parts for w in part.written][:count]
        return EditSet(parts[0].modules, parts[0].state, tuple(replace(w, spec=self.spec(method)) for w in written))

    def edit(self, facts: Sequence[Fact], spec: EditSpec, onto: EditSet | None = None) -> EditSet:
        """Edit with the statistics of this benchmark's cache."""
        return edit(
            self.model, self.tokenizer, facts, spec, onto=onto, precision=self.precision, statistics=self.statistics
        )

    def together(self, some: EditSet) -> EditSet:
        """Return a set as if its facts had been made in one command."""
        return settle(self.model, self.tokenizer, some, precision=self.precision, statistics=self.statistics)

    def pinned(self, some: EditSet) -> EditSet:
        """Return a set as `perdure revert` leaves it: with the keys of its dropped facts as the model has them now."""
        return pin(self.model, self.tokenizer, some, precision=self.precision, statistics=self.statistics)

    def site(self):
        """Open the model."""
        return open_site(self.model, self.tokenizer, self.precision)

    def ask(self, facts: Sequence[Fact], over: Overlay = no_overlay, *, generation: bool = True) -> list[Verdict]:
        """Ask about facts under an update."""
        with self.site() as site:
            return verify(site, facts, over, generation=generation)


def single(lab: Lab, method: str, options: argparse.Namespace) -> dict:
    """Return how each fact is answered before and after it alone is written."""
    count = min(options.facts, LORA_FACTS) if method == "lora" else options.facts
    facts = lab.facts[:count]
    before = lab.ask(facts)
    if method == "lora":
        after, cost = _trained(lab, facts)
        return {"before": verdict_lines(before), "after": verdict_lines(after), "seconds": round(cost, 2)}
    first = _alone(lab, facts, lab.found(method, count))
    after = list(first)
    with lab.site() as site:
        depth = site.layout.depth
    for spec in tries(lab.spec(method), depth):
        left = [n for n, verdict in enumerate(after) if not verdict.efficacy]
        if left:
            again = _alone(lab, [facts[n] for n in left], lab.edit([facts[n] for n in left], spec))
            for n, verdict in zip(left, again, strict=True):
                after[n] = verdict if verdict.efficacy else after[n]
    return {"before": verdict_lines(before), "first": verdict_lines(first), "after": verdict_lines(after)}


def _alone(lab: Lab, facts: Sequence[Fact], some: EditSet) -> list[Verdict]:
    """Return verdicts on facts of a set, each written alone."""
    return lab.ask(facts, one_each_of(lab, [lab.together(replace(some, written=(w,))).factors() for w in some.written]))


def one_each_of(lab: Lab, factors: Sequence[dict[str, Factors]]) -> Overlay:
    """Return what lays over each row the update of its fact alone."""
    joined = {
        name: Factors(torch.cat([f[name].left for f in factors]), torch.cat([f[name].right for f in factors], 1))
        for name in factors[0]
    }
    with lab.site() as site:
        return one_each(site, joined)


def _trained(lab: Lab, facts: Sequence[Fact]) -> tuple[list[Verdict], float]:
    """Return verdicts on facts that a LoRA was trained for, one adapter a fact, and processor seconds a fact."""
    after, seconds = [], 0.0
    spec = lab.spec("emmet")
    with lab.site() as site:
        contexts, layers = contexts_of(site, spec), spec.at(site.layout.depth)
        for fact in facts:
            began = time.process_time()
            update = train_facts(site, [fact], contexts, layers, lab.texts, FactTraining(seed=lab.seed))
            seconds += time.process_time() - began
            with overlaid(site, update):
                after += verify(site, [fact])
    return after, seconds / len(facts)


def sets(lab: Lab, method: str, options: argparse.Namespace, size: int) -> dict:
    """Return how the facts of a set are answered, and what the set does to other text."""
    facts = lab.facts[:size]
    began = time.process_time()
    if method == "lora":
        with lab.site() as site:
            spec = lab.spec("emmet")
            layers, contexts = spec.at(site.layout.depth), contexts_of(site, spec)
            # Half of the texts: the others are what drift is measured on.
            kept, steps = lab.texts[: TEXTS // 2], max(40, 4 * size)
            update = train_facts(site, facts, contexts, layers, kept, FactTraining(steps=steps, seed=lab.seed))
    else:
        update = lab.together(lab.found(method, size)).factors()
    spent = time.process_time() - began
    return {"size": size, **_measured(lab, _spaced(facts, options.facts), update), "solve_seconds": round(spent, 1)}


def _measured(lab: Lab, asked: Sequence[Fact], update: dict[str, Factors]) -> dict:
    with lab.site() as site:
        before = verify(site, asked, generation=False)
        with overlaid(site, update):
            after = verify(site, asked)
        cost = drift(site, lab.texts[TEXTS // 2 :], lambda: overlaid(site, update))
        norms = relative_norms(site, update)
    return {"before": verdict_lines(before), "after": verdict_lines(after), "drift": cost.to_json(), "norms": norms}


def undo(lab: Lab, method: str, options: argparse.Namespace) -> dict:
    """Return what is left of each of 100 facts when it is dropped, and whether the others hold."""
    count = min(100, max(options.sizes))
    whole = lab.together(lab.found(method, count))
    facts = [replace(fact, paraphrases=(), neighbours=()) for fact in lab.facts[:count]]
    lines = []
    with lab.site() as site:
        plain = verify(site, facts)
        old = _logits(site, facts)
        with overlaid(site, whole.factors()):
            held = verify(site, facts, generation=False, forms=False)
        for n in _evenly(count, DROPS):
            w = whole.written[n]
            if any(i != w.id for i in w.shared):
                lines.append({"shared": True})
                continue
            rest = lab.pinned(whole.drop(w.id))
            gone = rest.find(w.id)
            patch = rest.patches()
            left = max(
                (patch[rest.modules[layer]].delta @ gone.keys[d]).norm().item() / w.residuals[d].norm().item()
                for d, layer in enumerate(w.layers)
            )
            with overlaid(site, rest.factors()):
                now = verify(site, facts, generation=False, forms=False)
                (own,) = verify(site, [facts[n]])
                new = _logits(site, [facts[n]])[0]
            lost = [facts[i].subject for i in range(count) if i != n and held[i].efficacy and not now[i].efficacy]
            lines.append(
                {
                    "left": left,
                    "still_preferred": own.prompt.preferred,
                    "preferred_before_the_edit": plain[n].prompt.preferred,
                    "same_words": own.generated == plain[n].generated,
                    "same_token": int(new.argmax()) == int(old[n].argmax()),
                    "kl": (old[n].exp() * (old[n] - new)).sum().item(),
                    "others_lost": lost,
                }
            )
            print("dropped", n, lines[-1], flush=True)
    return {"efficacy_before": sum(v.efficacy for v in held) / count, "drops": lines}


def _logits(site: Site, facts: Sequence[Fact]) -> torch.Tensor:
    """Return the log-probabilities (facts, vocab) of what comes behind each fact's prompt."""
    found = []
    with torch.no_grad(), site.precision():
        for fact in facts:
            ids = torch.tensor([site.tokenizer(fact.question)["input_ids"]], device=site.device)
            found.append(site.model(input_ids=ids, use_cache=False).logits[0, -1].float().log_softmax(-1))
    return torch.stack(found)


def seconds(lab: Lab, method: str, options: argparse.Namespace) -> dict:
    """Return seconds by the clock of edits one by one, of 100 at once, and of the statistics where there are none."""
    spec, cold = lab.spec(method), time.perf_counter()
    with lab.site() as site:
        second_moments(site, spec.at(site.layout.depth), seed=spec.seed)
    cold = time.perf_counter() - cold
    held, each = lab.edit(lab.facts[:1], spec), []
    for fact in lab.facts[1:21]:
        began = time.perf_counter()
        held = lab.edit([fact], spec, held)
        held.factors()
        each.append(round(time.perf_counter() - began, 3))
    began = time.perf_counter()
    lab.edit(lab.facts[21:121], spec).factors()
    hundred = time.perf_counter() - began
    return {
        "statistics": round(cold, 1),
        "one_by_one": each,
        "hundred": round(hundred, 1),
        "threads": torch.get_num_threads(),
    }


def verdict_lines(verdicts: Sequence[Verdict]) -> list[dict]:
    """Return verdicts without the losses."""
    return [
        {
            "preferred": v.prompt.preferred,
            "efficacy": v.efficacy,
            "generation": v.generation,
            "paraphrase": v.paraphrase,
            "paraphrase_said": [a.said for a in v.paraphrases],
            "neighbourhood": [not a.preferred for a in v.neighbours],
            "chat": None if v.chat is None else v.chat.preferred,
            "chat_said": None if v.chat is None else v.chat.said,
        }
        for v in verdicts
    ]


def _spaced(facts: Sequence[Fact], most: int) -> list[Fact]:
    """Return at most so many facts, evenly spread."""
    return [facts[i] for i in _evenly(len(facts), most)]


def _evenly(count: int, most: int) -> list[int]:
    return [i * count // min(most, count) for i in range(min(most, count))]


PARTS = {"single": single, "sets": sets, "undo": undo, "seconds": seconds}


def runs(options: argparse.Namespace) -> Iterator[tuple[str, str, tuple[int, ...], Path]]:
    """Yield part, method, size of the set if it is one, and file of what is to be run."""
    for part in options.parts:
        for method in options.methods:
            if (part, method) == ("single", "rome") or (part in ("undo", "seconds") and method == "lora"):
                continue
            for size in [(n,) for n in options.sizes] if part == "sets" else [()]:
                yield part, method, size, RESULTS / f"{'-'.join(map(str, (part, method, *size, options.seed)))}.json"


def main() -> None:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is named")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--facts", type=int, default=200)
    parser.add_argument("--sizes", nargs="+", type=int, default=[10, 100, 1000])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".bench-edits")
    parser.add_argument("--table", action="store_true", help="only print the tables")
    options = parser.parse_args()
    options.parts = options.parts or list(PARTS)
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    missing = [] if options.table else [run for run in runs(options) if not run[-1].exists()]
    if missing:
        lab = Lab(options)
        RESULTS.mkdir(parents=True, exist_ok=True)
        for part, method, size, path in missing:
            began = time.process_time()
            told = PARTS[part](lab, method, options, *size)
            head = {
                "part": part,
                "method": method,
                "seed": options.seed,
                "spec": lab.spec("emmet" if method == "lora" else method).to_json(),
            }
            text = json.dumps({**head, "cpu_seconds": round(time.process_time() - began, 1), **told})
            path.write_text(text, encoding="utf-8")
            print(f"{path.stem}: {time.process_time() - began:.0f} s of processor", flush=True)
    from edits_table import tables

    print(tables(RESULTS))


if __name__ == "__main__":
    main()
