"""The official ROME code on the facts of the editing benchmark, each alone, and how ours differs from it, paired.

    git clone https://github.com/kmeng01/rome
    python benchmarks/edits_official.py rome [--facts 200] [--seed 0] [--data FOLDER] [--cache FOLDER] [--table]

Their code runs as it is but for SUBSTITUTIONS, which are made while it is imported, and for the second moment of the keys, which
is ours (of the default precision, as in edits.py) instead of one collected over Wikipedia. The settings are those that they ship
for GPT-J, at layer 5, with the names of the Llama layout. The model is in float32. Each finished fact is saved, so a run that was
stopped goes on; the result is benchmarks/results/edits/official-rome-SEED.json. `edits.py single --methods emmet` is what it is
compared with.
"""

import argparse
import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import counterfact
import torch
from edits import HERE, RESULTS, SHARED, verdict_lines
from edits_table import official

from perdure.bridges.models import find_model, load_base
from perdure.editing.facts import Fact
from perdure.editing.moments import Statistics
from perdure.editing.site import open_site
from perdure.editing.verification import verify

SUBSTITUTIONS = {  # by module: what stands there, and what takes its place
    "rome.compute_u": {'"cuda"': '"cpu"'},
    "rome.compute_v": {'"cuda"': '"cpu"', "config.n_embd": "config.hidden_size"},
    "util.generate": {  # transformers 5 wants the mask of past and present tokens with a cache
        "attention_mask=attention_mask[:, cur_context]": "attention_mask=attention_mask[:, : cur_context.stop]"
    },
}
LAYER = 5
LLAMA = {
    "layers": [LAYER],
    "v_loss_layer": 29,
    "rewrite_module_tmp": "model.layers.{}.mlp.down_proj",
    "layer_module_tmp": "model.layers.{}",
    "mlp_module_tmp": "model.layers.{}.mlp",
    "attn_module_tmp": "model.layers.{}.self_attn",
    "ln_f_module": "model.norm",
    "lm_head_module": "model.embed_tokens",
}
CHANGES = [
    *(f"{module}: {old} -> {new}" for module, pairs in SUBSTITUTIONS.items() for old, new in pairs.items()),
    "module names of the Llama layout in the hyper-parameters; the tied head is read as model.embed_tokens, as for gpt2-xl's wte",
    "layer_stats (collection over Wikipedia) replaced by a lookup of our measured second moment, summed in float64",
    "torch seeded with 0 before the contexts are generated",
    "the driver (ours): one fact at a time, weights restored after each, float32, padding on the right",
]


class Substituted(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules of SUBSTITUTIONS from a folder with their text replaced; a text that is not there is an error."""

    def __init__(self, folder: Path):
        self.folder = folder

    def find_spec(self, name, path=None, target=None):
        """Return a spec for the modules that are changed."""
        return importlib.machinery.ModuleSpec(name, self) if name in SUBSTITUTIONS else None

    def exec_module(self, module):
        """Run the module's text as replaced."""
        path = self.folder / (module.__name__.replace(".", "/") + ".py")
        text = path.read_text(encoding="utf-8")
        for old, new in SUBSTITUTIONS[module.__name__].items():
            if old not in text:
                raise SystemExit(f"{path} has no {old}: this is another version of the code")
            text = text.replace(old, new)
        exec(compile(text, str(path), "exec"), module.__dict__)


def load_official(folder: Path, moment: torch.Tensor):
    """Return their package `rome`, with our second moment in place of their statistics."""
    stats = ModuleType("rome.layer_stats")
    stats.layer_stats = lambda *_, **__: SimpleNamespace(mom2=SimpleNamespace(moment=lambda: moment.float()))
    sys.modules["rome.layer_stats"] = stats
    sys.meta_path.insert(0, Substituted(folder))
    sys.path.insert(0, str(folder))
    os.chdir(folder)  # its util/globals.py reads globals.yml from there
    import rome
    from rome import rome_main

    return rome, rome_main


def edited(site, rome, hparams, fact: Fact):
    """Return the verdict on a fact that their code wrote, the size of the update, and processor seconds."""
    request = {
        "prompt": fact.question[: fact.at] + "{}" + fact.question[fact.at + len(fact.subject) :],
        "subject": fact.subject,
        "target_new": {"str": fact.target},
    }
    began = time.process_time()
    _, before = rome.apply_rome_to_model(site.model, site.tokenizer, [request], hparams, return_orig_weights=True)
    spent = time.process_time() - began
    ((name, old),) = before.items()
    weight = site.model.get_parameter(name)
    size = ((weight - old).norm() / old.norm()).item()
    (verdict,) = verify(site, [fact])
    with torch.no_grad():
        weight.copy_(old)
    return verdict, size, spent


def run(options: argparse.Namespace, path: Path) -> None:
    """Write the facts that are missing in the result file, saving after each."""
    facts = counterfact.read(options.data / "editing", 1000, options.seed)[: options.facts]
    folder = find_model(options.model)
    default = load_base(folder, "auto", "cpu")
    with open_site(default.model, default.tokenizer, default.precision) as site:
        moment = Statistics(options.cache / "moments").moments(site, [LAYER], seed=options.seed)[LAYER]
    base = load_base(folder, "float32", "cpu")
    base.tokenizer.padding_side = "right"
    rome, rome_main = load_official(options.rome.resolve(), moment)
    shipped = json.loads((options.rome / "hparams/ROME/EleutherAI_gpt-j-6B.json").read_text(encoding="utf-8"))
    hparams = rome.ROMEHyperParams(**{**shipped, **LLAMA})
    torch.manual_seed(0)
    contexts = rome_main.get_context_templates(base.model, base.tokenizer, hparams.context_template_length_params)
    head = {"part": "official", "method": "rome (official code)", "seed": options.seed, "changes": CHANGES}
    head |= {"hparams": vars(hparams), "contexts": contexts}
    done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    lines = {key: done.get(key, []) for key in ("cpu_seconds", "relative_norm", "before", "after")}
    with open_site(base.model, base.tokenizer, base.precision) as site:
        for fact in facts[len(lines["after"]) :]:
            before = verify(site, [fact])
            verdict, size, spent = edited(site, rome, hparams, fact)
            lines["before"] += verdict_lines(before)
            lines["after"] += verdict_lines([verdict])
            lines["relative_norm"].append(size)
            lines["cpu_seconds"].append(round(spent, 2))
            path.write_text(json.dumps({**head, "n": len(lines["after"]), **lines}), encoding="utf-8")
            print(len(lines["after"]), fact.subject, verdict.efficacy, f"{spent:.0f} s", flush=True)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rome", type=Path, nargs="?", help="a checkout of their repository; needed unless --table")
    parser.add_argument("--facts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    parser.add_argument("--cache", type=Path, default=HERE.parent / ".bench-edits")
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args()
    path = (RESULTS / f"official-rome-{options.seed}.json").resolve()
    ours = (RESULTS / f"single-emmet-{options.seed}.json").resolve()
    options.data, options.cache = options.data.resolve(), options.cache.resolve()
    if not options.table:
        if options.rome is None:
            parser.error("give a checkout of https://github.com/kmeng01/rome")
        run(options, path)
    print(official(*(json.loads(each.read_text(encoding="utf-8")) for each in (path, ours))))


if __name__ == "__main__":
    main()
