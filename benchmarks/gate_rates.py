"""How often the rule for guards errs, by simulation: rates of pass and fail, with and without Holm's correction.

Each line draws `--draws` families of guards. A row flips both ways with a chance of 15% together (more where the drop is larger),
so that its true drop is that of the line. No model is loaded.

    python benchmarks/gate_rates.py --draws 2000 [--out FILE]
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from perdure.evaluate.family import judge_guards
from perdure.ledger.records import Gate, GuardItems
from perdure.maths.families import look_confidence
from perdure.maths.statistics import mean_interval

FLIPS = 0.15
FAMILIES = (
    ("nothing lost", 6, 100, [0.0] * 6),
    ("nothing lost", 6, 200, [0.0] * 6),
    ("nothing lost", 6, 400, [0.0] * 6),
    ("nothing lost", 12, 200, [0.0] * 12),
    ("each lost 3 points", 6, 200, [0.03] * 6),
    ("each lost 3 points", 12, 200, [0.03] * 12),
    ("one lost 10 points", 6, 200, [0.10] + [0.0] * 5),
    ("one lost 20 points", 6, 100, [0.20] + [0.0] * 5),
)


def family(generator: np.random.Generator, drops: list[float], n: int) -> dict[str, GuardItems]:
    """Return guards of n rows each whose true drops are these."""
    guards = {}
    for k, drop in enumerate(drops):
        flipped = max(FLIPS, abs(drop))
        lost, won, _ = generator.multinomial(n, [(flipped + drop) / 2, (flipped - drop) / 2, 1 - flipped])
        guards[f"guard {k}"] = guard(n, lost, won)
    return guards


def guard(n: int, lost: int, won: int) -> GuardItems:
    """Return a guard of n rows of which some are lost and some are won."""
    before = (1.0,) * (n - won) + (0.0,) * won
    now = (0.0,) * lost + (1.0,) * (n - lost)
    return GuardItems("other", "v", "base", "quick", 0.0, tuple(map(str, range(n))), before, now)


def share(hits: int, draws: int) -> str:
    """Return a rate with its 95% interval."""
    value, low, high = mean_interval([1.0] * hits + [0.0] * (draws - hits))
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def families(draws: int) -> list[dict]:
    """Print the rates of each family, and return their counts."""
    found = []
    print("| guards | rows each | truth | passes | fails | fails uncorrected | mean's bound within 3 points |")
    print("|---|---|---|---|---|---|---|")
    for truth, number, n, drops in FAMILIES:
        generator = np.random.default_rng([number, n, int(1000 * sum(drops))])
        passed = failed = plain = mean = 0
        for _ in range(draws):
            verdict = judge_guards(Gate(), family(generator, drops, n))
            passed += verdict.verdict == "pass"
            failed += verdict.verdict == "fail"
            plain += any(one.low > one.tolerance for one in verdict.guards)
            mean += verdict.mean is not None and verdict.mean.verdict == "pass"
        rates = " | ".join(share(hits, draws) for hits in (passed, failed, plain, mean))
        print(f"| {number} | {n} | {truth} | {rates} |", flush=True)
        counts = {"passes": passed, "fails": failed, "fails uncorrected": plain, "mean within 3 points": mean}
        found.append({"guards": number, "rows": n, "truth": truth, **counts})
    return found


def looks(draws: int) -> dict[str, int]:
    """Print how often a guard that lost the 10 points which just pass is passed at one of three looks."""
    generator, spent, same = np.random.default_rng(0), 0, 0
    for _ in range(draws):
        changes = generator.choice([1.0, -1.0, 0.0], size=400, p=[0.125, 0.025, 0.85])
        seen = [(n, int((changes[:n] > 0).sum()), int((changes[:n] < 0).sum())) for n in (100, 200, 400)]
        spent += any(passes(*counts, look_confidence(look)) for look, counts in enumerate(seen, start=1))
        same += any(passes(*counts, 0.95) for counts in seen)
    print(f"\nthree looks at 100, 200 and 400 rows: passed by mistake in {share(spent, draws)}, and in")
    print(f"{share(same, draws)} where each look has 95% confidence ({draws} streams)")
    return {"passed, confidence spent": spent, "passed, 95% at each look": same}


def passes(n: int, lost: int, won: int, confidence: float) -> bool:
    """Return whether one guard of n rows passes."""
    gate = Gate(confidence=confidence, mean_drop=0.5)
    return judge_guards(gate, {"guard": guard(n, lost, won)}).verdict == "pass"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gate_rates.json")
    given = parser.parse_args()
    began = time.process_time()
    rates = {"draws": given.draws, "families": families(given.draws), "three looks": looks(given.draws)}
    rates["seconds"] = round(time.process_time() - began, 1)
    given.out.write_text(json.dumps(rates, indent=1) + "\n", encoding="utf-8")
