"""Skills and facts in turn: learn, edit 20 facts, learn, edit 20, learn; what remains of both.

    python benchmarks/edit_stream.py [--seed 0] [--facts 20] [--recipe dual_replay]

Each skill is a domain of CLINC150: 15 labels, 20 train rows and 8 test rows a label. "re-solved" are the facts as `learn` carries
them: asked on the new state and, if one is lost, written again there. "as written" lays each set of facts, as it was solved at
its own edit, over the later states. The result goes to benchmarks/results/edits/stream-RECIPE-SEED.json.
"""

import argparse
import json
import tempfile
from pathlib import Path

import clinc
import counterfact

from perdure import Workspace
from perdure.core.slots import EDITS
from perdure.ledger import Entry
from perdure.workflows.edit.state import Place

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared"


def main() -> None:
    """Run the stream, write what was found, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--facts", type=int, default=20, help="facts an edit")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--recipe", default="dual_replay")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=SHARED / "data")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        found = stream(options, Path(scratch))
    path = HERE / "results" / "edits" / f"stream-{options.recipe}-{options.seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"part": "stream", "method": options.recipe, "seed": options.seed, **found}), encoding="utf-8"
    )
    print(json.dumps(found, indent=1))


def stream(options: argparse.Namespace, scratch: Path) -> dict:
    """Learn and edit in turn; return what is measured behind every step."""
    ws = Workspace.init(scratch / "ws", options.model, seed=options.seed)
    records = clinc.read(options.data / "intents" / "clinc150.jsonl.gz")
    facts = counterfact.read(options.data / "editing", options.facts * (options.tasks - 1), options.seed)
    edits: list[Entry] = []
    stages = []
    for number, domain in enumerate(clinc.DOMAINS[: options.tasks]):
        data = scratch / f"{domain}.jsonl"
        train, test = (clinc.part(records, domain, *what, options.seed) for what in (("train", 20), ("test", 8)))
        clinc.write(data, train, test)
        done = ws.learn(domain, data, recipe=options.recipe, gate=None)
        stages.append({"step": f"learn {domain}", "warnings": list(done.warnings), **state(ws, edits)})
        print(json.dumps(stages[-1]), flush=True)
        if number < options.tasks - 1:
            edited = ws.edit(facts[number * options.facts : (number + 1) * options.facts], score="none")
            edits.append(ws.ledger.resolve("head"))
            refused = [fact.to_json() for fact in edited.refused]
            stages.append({"step": f"edit {len(edited.applied)}", "refused": refused, **state(ws, edits)})
            print(json.dumps(stages[-1]), flush=True)
    return {"facts": options.facts, "stages": stages, "matrix": ws.matrix().to_json()["metrics"]}


def state(ws: Workspace, edits: list[Entry]) -> dict:
    """Return how the tasks are answered at head, and the facts of every edit, re-solved and as written."""
    head = ws.ledger.resolve("head")
    found = ws.evaluate().tasks
    place = Place.at(ws.session, head)
    carried = place.verify(place.in_force(head)) if edits else {}
    lines = []
    for entry in edits:
        mine = entry.data["facts"]
        written = place.verify(place.in_force(entry))
        lines.append(
            {
                "facts": len(mine),
                "re_solved": sum(carried[n].efficacy for n in mine if n in carried),
                "as_written": sum(written[n].efficacy for n in mine if n in written),
            }
        )
    return {
        "tasks": {name: cell.score for name, cell in found.items()},
        "edits": lines,
        "slot": EDITS in ws.ledger.slots(head),
    }


if __name__ == "__main__":
    main()
