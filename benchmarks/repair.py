"""Repair a refused learn in two ways: scale its whole update, or its intruder directions alone.

    python benchmarks/repair.py [--labels 5] [--rows 10] [--test 20] [--rate 3e-3] [--data ../shared/data] [--out FILE]

Two CLINC domains are learned one after the other on the embedded model with the recipe `naive`, whose gate refuses the second.
Each repair is then run on a copy of that workspace, with every share tried. The file has the verdict of the gate at each share
and the score of both tasks; the table shows them. Small on purpose: a few minutes on one core, and no benchmark of the methods.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from clinc import DOMAINS, part, read, write

from perdure import Gate, Workspace
from perdure.core.errors import BadInput
from perdure.workflows.learn.repair import SCALES, SHARES, repair

HERE = Path(__file__).parent
SHARED = HERE.parent.parent / "shared" / "data"
TASK = {"scorer": "exact", "max_new_tokens": 10}


def main() -> None:
    """Learn, repair in both ways, write the file, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, default=5)
    parser.add_argument("--rows", type=int, default=10, help="Train rows a label")
    parser.add_argument("--test", type=int, default=20, help="Test rows a label")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "repair.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        result = {
            "options": {k: str(v) for k, v in vars(options).items() if k not in ("data", "out")},
            **measured(options, Path(place)),
        }
    options.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(table(result))


def measured(options: argparse.Namespace, folder: Path) -> dict:
    """Return what the refused learn scored, and what each share of each repair scores."""
    records = read(options.data / "intents" / "clinc150.jsonl.gz")
    ws = Workspace.init(folder / "ws", guards="none")
    for domain in DOMAINS[:2]:
        chosen = sorted({r["label"] for r in records if r["domain"] == domain})[: options.labels]
        some = [r for r in records if r["domain"] == domain and r["label"] in chosen]
        train, test = (part(some, domain, s, n, 0) for s, n in (("train", options.rows), ("test", options.test)))
        write(folder / f"{domain}.jsonl", train, test)
        gate = Gate() if domain != DOMAINS[0] else None
        overrides = {"learning_rate": options.rate}
        learned = ws.learn(
            domain, folder / f"{domain}.jsonl", recipe="naive", overrides=overrides, settings=TASK, gate=gate
        )
    found: dict = {"refused": {"gate": learned.gate.verdict, "scores": {n: s.score for n, s in learned.scores.items()}}}
    head = ws.ledger.resolve("head")
    found["before"] = {n: s.score for n in head.tasks if (s := ws.ledger.score(ws.ledger.seen(head, n), head.tasks[n]))}
    for by, shares in (("scale", SCALES), ("intruders", SHARES)):
        found[by] = []
        for share in shares:  # each alone, so that a share which passes does not end the list
            copy = Workspace.open(shutil.copytree(ws.ledger.root, folder / f"{by}{share}"))
            try:
                made = repair(copy.session, by=by, scales=[share]).repair
            except BadInput as error:
                found[by] = str(error)
                break
            found[by].append({**made.tried[0].to_json(), "directions": made.directions})
    return found


def table(result: dict) -> str:
    """Return the table in Markdown."""
    tasks = list(result["refused"]["scores"])
    lines = ["| update | " + " | ".join(tasks) + " | gate |", "|---|" + "---|" * (len(tasks) + 1)]

    def row(name: str, scores: dict, gate: str) -> str:
        return f"| {name} | " + " | ".join(f"{scores[t]:.3f}" if t in scores else "-" for t in tasks) + f" | {gate} |"

    lines += [
        row("none (head)", result["before"], "-"),
        row("as trained", result["refused"]["scores"], result["refused"]["gate"]),
    ]
    for by, name in (("scale", "scaled by"), ("intruders", "intruder directions scaled by")):
        if isinstance(result[by], str):
            lines.append(f"{name}: refused, {result[by]}")
            continue
        lines += [row(f"{name} {one['scale']:g}", one["scores"], one["verdict"]) for one in result[by]]
    if not isinstance(result["intruders"], str):
        lines.append(f"\n{result['intruders'][0]['directions']} intruder directions in all weights together")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
