"""How often a request finds its task by its text alone, and how well a request of no task is recognised, on CLINC150.

    python benchmarks/routing.py [--seeds 3] [--model smollm2-135m] [--data ../shared/data]

The tasks are the ten domains of 15 intents each, or 50 mini-tasks of three intents each (of each domain, in order of their
names). Every rule reads the same features: the mean over the tokens of a request of the states behind a third of the frozen
model's blocks. "label" is a Gaussian for each intent with one covariance, "task" one for each task; "k-means" is CoLoR's rule,
the nearest of five centroids a task by cosine. "as shipped" is what the method color stores: "label", a fifth of rows held out.
Its limit for unknown requests is tried for several shares of rows of known tasks that may be above it. "home" are test rows that
are sent to their task, "unknown" those above the limit, "caught" out-of-scope requests above it. "even" is the share of
out-of-scope requests among all requests from which on the limit sends more requests where they belong than no limit does.
Scores are over all test rows (30 an intent); a row's score is its mean over the seeds, which draw the train rows. Requests of no
task are the 1,000 out-of-scope test rows. The area under the curve (AUC) is the chance that such a request is further away than a
test row.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import clinc
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from perdure.bridges.models import find_model
from perdure.bridges.runtime import Runtime
from perdure.core.keyed import keyed
from perdure.maths.clusters import k_means
from perdure.maths.routing import Gaussian, Moments, conformal_limit, fit, nearest_centroid, task_moments
from perdure.maths.statistics import mean_interval
from perdure.workflows.predict.views import LEAST

HERE = Path(__file__).parent
ROWS = (5, 20)  # train rows of an intent
SHARES = (0.01, 0.02, 0.05, 0.1)  # of rows of known tasks, the most that are taken for unknown
RESAMPLES = 500
BINS = 15


@dataclass(frozen=True)
class Request:
    """A request, its intent, and its split."""

    text: str
    label: str
    domain: str
    split: str


@dataclass(frozen=True)
class Found:
    """What a rule says of some requests: the task of each, its two likeliest tasks, and how far it is from all tasks."""

    tasks: list[str]
    two: list[set[str]]
    far: np.ndarray


def mini_tasks(requests: Sequence[Request]) -> dict[str, str]:
    """Return the mini-task of each intent: three intents of a domain, in order of their names."""
    labels: dict[str, list[str]] = defaultdict(list)
    for label, domain in sorted({(one.label, one.domain) for one in requests if one.domain != "oos"}):
        labels[domain].append(label)
    return {label: f"{domain} {n // 3}" for domain, own in labels.items() for n, label in enumerate(own)}


def drawn(requests: Sequence[Request], per_label: int, seed: int) -> list[int]:
    """Return the numbers of train rows, `per_label` of each intent; those of fewer rows are among those of more."""
    by_label: dict[str, list[int]] = defaultdict(list)
    for n, one in enumerate(requests):
        if one.split == "train" and one.domain != "oos":
            by_label[one.label].append(n)
    order = {label: keyed(seed, label).permutation(len(own)) for label, own in by_label.items()}
    return [by_label[label][i] for label in sorted(by_label) for i in order[label][:per_label]]


def gaussian_found(gaussian: Gaussian, features: Tensor) -> Found:
    """Return what a Gaussian says; far is the relative distance."""
    scores, names = gaussian.task_scores(features), gaussian.tasks
    best = scores.topk(2, -1).indices.tolist()
    return Found(
        [names[a] for a, _ in best], [{names[a], names[b]} for a, b in best], gaussian.distances(features).numpy()
    )


def centroid_found(features: Tensor, centroids: Mapping[str, Tensor]) -> Found:
    """Return what the nearest centroid says; far is 1 less its cosine."""
    tasks, cosine = nearest_centroid(features, centroids)
    return Found(tasks, [{task} for task in tasks], 1 - cosine.numpy())


def moments(features: Tensor, labels: Sequence[str], tasks: Sequence[str], rule: str) -> dict[str, Moments]:
    """Return the moments of each task, by "label", by "task", or "as shipped"."""
    made = {}
    for task in sorted(set(tasks)):
        own = [n for n, name in enumerate(tasks) if name == task]
        named = [labels[n] if rule != "task" else task for n in own]
        if rule == "as shipped":
            made[task] = task_moments(features[own], named, keyed("color", task).permutation(len(own)).tolist())
        else:
            made[task] = fit(features[own], named)
    return made


def centroids(features: Tensor, tasks: Sequence[str], seed: int) -> dict[str, Tensor]:
    """Return five centroids of each task: of ten starts of k-means the one whose points are nearest to their centroids."""
    made = {}
    for task in sorted(set(tasks)):
        own = features[[n for n, name in enumerate(tasks) if name == task]]
        starts = [keyed(seed, task, n).permutation(len(own))[:5].tolist() for n in range(10)]
        found = [k_means(own, start) for start in starts]
        made[task] = min(found, key=lambda pair: (own - pair[0][pair[1]]).square().sum().item())[0]
    return made


def auc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Return the chance that an unknown request is further away than a known one; a tie counts one half."""
    ranks = np.concatenate([known, unknown]).argsort(kind="stable").argsort(kind="stable") + 1.0
    return float((ranks[len(known) :].sum() - len(unknown) * (len(unknown) + 1) / 2) / len(known) / len(unknown))


def mean_auc(results: Sequence[dict]) -> tuple[float, float, float]:
    """Return the mean of `auc` over the seeds, with its 95% interval by resampling the requests, the same ones for every seed."""
    draw, known, unknown = keyed("auc"), len(results[0]["known"]), len(results[0]["unknown"])

    def mean(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([auc(made["known"][a], made["unknown"][b]) for made in results]))

    values = [mean(draw.integers(known, size=known), draw.integers(unknown, size=unknown)) for _ in range(RESAMPLES)]
    low, high = np.quantile(values, [0.025, 0.975])
    return mean(np.arange(known), np.arange(unknown)), float(low), float(high)


def measured(
    features: Tensor,
    requests: Sequence[Request],
    train: Sequence[int],
    task_of: Mapping[str, str],
    rule: str,
    seed: int,
) -> dict[str, np.ndarray | list[float]]:
    """Return for each test row whether its task was found, and whether it is among two; the distances, and a limit a share."""
    labels = [requests[n].label for n in train]
    tasks = [task_of[label] for label in labels]
    test = [n for n, one in enumerate(requests) if one.split == "test" and one.domain != "oos"]
    other = [n for n, one in enumerate(requests) if one.split == "test" and one.domain == "oos"]
    limits: list[float] = []
    sureness: dict[str, dict[str, float]] = {}
    if rule == "k-means":
        centres = centroids(features[train], tasks, seed)
        found, far = centroid_found(features[test], centres), centroid_found(features[other], centres).far
    else:
        parts = moments(features[train], labels, tasks, rule)
        gaussian = Gaussian.of(parts)
        found, far = gaussian_found(gaussian, features[test]), gaussian_found(gaussian, features[other]).far
        held = gaussian.distances(torch.cat([part.held for part in parts.values()]))
        limits = [conformal_limit(held, share) for share in SHARES]
        own = torch.tensor([gaussian.tasks.index(task_of[requests[n].label]) for n in test])
        sureness = {
            "temperature": calibrated(gaussian, features[test], own),
            "plain": calibrated(replace(gaussian, temperature=1.0), features[test], own),
        }
    right = [task_of[requests[n].label] for n in test]
    return {
        "right": np.array([a == b for a, b in zip(found.tasks, right, strict=True)], float),
        "two": np.array([a in b for a, b in zip(right, found.two, strict=True)], float),
        "known": found.far,
        "unknown": far,
        "limits": limits,
        "sureness": sureness,
    }


def calibrated(gaussian: Gaussian, features: Tensor, own: Tensor) -> dict[str, float]:
    """Return how sure a router is of the task of some rows, and how often it is right.

    Args:
        gaussian: The router.
        features: Of the rows (rows, d).
        own: Number of the right task of each row (rows,).
    """
    two, tasks = gaussian.posterior(features).topk(2, -1)
    sure, right = two[:, 0], (tasks[:, 0] == own).double()
    bins = (sure * BINS).long().clamp_max(BINS - 1)
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add(0, bins, sure - right)
    return {
        "temperature": gaussian.temperature,
        "sure": sure.mean().item(),
        "right": right.mean().item(),
        "gap": gaps.abs().sum().item() / len(sure),
        "several": (two[:, 1] >= LEAST).double().mean().item(),
    }


def arm(results: Sequence[dict], rule: str) -> dict:
    """Return the numbers of one arm over its seeds."""
    right, two = (np.mean([made[key] for made in results], axis=0) for key in ("right", "two"))
    line = {
        "right": mean_interval(right),
        "n": len(right),
        "seeds": [float(made["right"].mean()) for made in results],
        "auc": mean_auc(results),
    }
    if rule != "k-means":
        line["two"] = mean_interval(two)
    if rule == "as shipped":
        line["limits"] = {f"{share:g}": limited(results, n) for n, share in enumerate(SHARES)}
        line["sureness"] = {
            way: {key: float(np.mean([made["sureness"][way][key] for made in results])) for key in value}
            for way, value in results[0]["sureness"].items()
        }
    return line


def limited(results: Sequence[dict], n: int) -> dict:
    """Return what the limit of the n-th share does to test rows and to out-of-scope requests, over the seeds."""

    def mean(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.mean(values, axis=0)

    known = mean([made["known"] > made["limits"][n] for made in results])
    home = mean([made["right"] * (made["known"] <= made["limits"][n]) for made in results])
    lost = mean([made["right"] for made in results]).mean() - home.mean()
    caught = mean([made["unknown"] > made["limits"][n] for made in results])
    return {
        "home": mean_interval(home),
        "unknown": mean_interval(known),
        "unknown by seed": [float((made["known"] > made["limits"][n]).mean()) for made in results],
        "caught": mean_interval(caught),
        "even": float(lost / (lost + caught.mean())),
    }


def features_of(model: str, texts: Sequence[str], file: Path | None) -> tuple[Tensor, float]:
    """Return the features of texts, and the seconds of processor time of each; from a file of an earlier run, if there is one."""
    if file is not None and file.exists():
        stored = load_file(file)
        return stored["features"], stored["seconds"].item()
    runtime, began = Runtime(find_model(model)), time.process_time()

    def shown(done: int, total: int) -> None:
        print(f"\r{done:,} of {total:,} requests", end="", flush=True)

    features = runtime.features([runtime.base.text_ids(text) for text in texts], shown)
    each = (time.process_time() - began) / len(texts)
    if file is not None:
        save_file({"features": features, "seconds": torch.tensor(each)}, file)
    return features, each


def main() -> None:
    """Compute the features once, try every rule, write the numbers and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data")
    parser.add_argument("--features", type=Path, help="file that keeps the features for another run")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "routing.json")
    options = parser.parse_args()
    records = clinc.read(options.data / "intents" / "clinc150.jsonl.gz")
    every = [Request(r["text"], r["label"], r["domain"], r["split"]) for r in records]
    wanted = {n for seed in range(options.seeds) for n in drawn(every, max(ROWS), seed)}
    requests = [one for n, one in enumerate(every) if one.split == "test" or n in wanted]
    renumbered = {
        old: new for new, old in enumerate(n for n, one in enumerate(every) if one.split == "test" or n in wanted)
    }
    features, each = features_of(options.model, [one.text for one in requests], options.features)
    print(f"\n{1000 * each:.1f} ms of processor time a request; d = {features.shape[1]}", flush=True)
    domains = {one.label: one.domain for one in requests if one.domain != "oos"}
    streams = {"10 tasks": domains, "50 tasks": mini_tasks(requests)}
    lines = {}
    for called, task_of in streams.items():
        for rows in ROWS:
            for rule in ("label", "task", "k-means", "as shipped"):
                trains = [[renumbered[n] for n in drawn(every, rows, seed)] for seed in range(options.seeds)]
                made = [measured(features, requests, train, task_of, rule, seed) for seed, train in enumerate(trains)]
                lines[f"{called}, {rows} rows, {rule}"] = line = arm(made, rule)
                shown = {k: np.round(v, 3).tolist() for k, v in line.items() if k not in ("limits", "sureness")}
                print(f"{called:9} {rows:3} {rule:11}", shown, flush=True)
                for way, found in line.get("sureness", {}).items():
                    print(f"{'':13} {way}", {k: round(v, 3) for k, v in found.items()}, flush=True)
                for share, found in line.get("limits", {}).items():
                    print(f"{'':13} at {share:4}", {k: np.round(v, 3).tolist() for k, v in found.items()}, flush=True)
    options.out.write_text(
        json.dumps({"milliseconds": 1000 * each, "seeds": options.seeds, "arms": lines}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
