"""A recipe for a user's situation, with the reasons: hard constraints first, then our own numbers, then what the field advises.

The numbers are in advice.json, which benchmarks/advice.py makes from the results of `perdure bench`. Everything here is a
pure function of the needs, that table and the registry. Where a number and the field disagree, both are told, and the
number decides; where nothing was measured, that is told too.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from perdure.core.errors import BadSpec
from perdure.core.recipe import Recipe, build_recipe
from perdure.core.seams import Method
from perdure.workflows.advise.guidance import FIELD, Needs, Rule

Json = dict[str, Any]
TABLE = Path(__file__).parent / "advice.json"
DEFAULT = "dual_replay"
REHEARSING = "instruction_replay"
LAST_RESORTS = ("lwf", "naive")  # recipes that keep no rows, the better idea first
FAR = 4.0  # a model this many times larger or smaller than the measured one may rank methods otherwise


@dataclass(frozen=True)
class Candidate:
    """A recipe that could be advised.

    Args:
        name: Its name, or the arm's.
        written: As a file would have it.
        recipe: The same, built.
        measured: What the table says of it, None where it was not measured.
    """

    name: str
    written: Json
    recipe: Recipe
    measured: Json | None = None

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """Names of its methods."""
        return tuple(method.name for method in self.recipe.methods)


def read_table(path: Path = TABLE) -> list[Json]:
    """Return the measured suites; benchmarks/advice.py says what stands in one."""
    suites: list[Json] = json.loads(path.read_text(encoding="utf-8"))["suites"]
    return suites


def read_rehearsal(path: Path = TABLE) -> list[Json]:
    """Return what rehearsing general instructions was measured to keep, pair of arms by pair."""
    pairs: list[Json] = json.loads(path.read_text(encoding="utf-8")).get("rehearsal", [])
    return pairs


def advise(
    needs: Needs,
    suites: Sequence[Json],
    registry: Mapping[str, type[Method]],
    shipped: Mapping[str, Json],
    rehearsal: Sequence[Json] = (),
) -> Json:
    """Return the advice, as `perdure recipe advise --json` prints it.

    Args:
        needs: What the user said.
        suites: The measured table.
        registry: The methods there are.
        shipped: Shipped recipes as they are written, by name.
        rehearsal: What `read_rehearsal` returned.

    Returns:
        "recipe" (a file's content), "from" (the recipe or arm it rests on), "measured" (its line of the table or None), "suite",
        "reasons" ({"says", "source"}), "rivals" (others whose ACC cannot be told apart; "acc_minus" is theirs minus the
        recipe's, by test row over "seeds" shared seeds, or None), "refused" ({"recipe", "why"}), "not_here" ({"what", "says",
        "source"}), "cautions".
    """
    suite = nearest_suite(needs, suites)
    field = [rule for rule in FIELD if rule.holds(needs)]
    everything = candidates(suite, field, registry, shipped)
    refused = {c.name: why for c in everything if (why := refusal(c, needs))}
    fitting = [c for c in everything if c.name not in refused]
    chosen, how = choose(fitting, [rule for rule in field if not missing(rule, registry)])
    return {
        "recipe": fitted(chosen, needs, registry),
        "from": chosen.name,
        "measured": chosen.measured,
        "suite": suite and {key: suite[key] for key in ("name", "about", "model", "tasks")},
        "reasons": [
            how,
            *_reasons(chosen, everything, refused, field, registry, suite),
            *changes(chosen, needs, registry, rehearsal),
        ],
        "rivals": [_told(c, chosen) for c in rivals(chosen, fitting)],
        "refused": [{"recipe": name, "why": why} for name, why in refused.items()],
        "not_here": [
            {"what": what, "says": f"{rule.situation}: {rule.says}", "source": rule.source}
            for rule in field
            for what in missing(rule, registry)
        ],
        "cautions": cautions(chosen, needs, suite),
    }


# ---- what there is to choose from


def nearest_suite(needs: Needs, suites: Iterable[Json]) -> Json | None:
    """Return the measured suite most like the work ahead: its kind of tasks first, then their number, then how many arms."""

    def distance(suite: Json) -> tuple[bool, float, int]:
        other = needs.similarity in ("alike", "different") and suite["tasks_are"] != needs.similarity
        return other, abs(math.log((needs.tasks or suite["tasks"]) / suite["tasks"])), -len(suite["arms"])

    return min((suite for suite in suites if suite["arms"]), key=distance, default=None)


def candidates(
    suite: Json | None, field: Sequence[Rule], registry: Mapping[str, type[Method]], shipped: Mapping[str, Json]
) -> list[Candidate]:
    """Return the measured arms, the default and the last resorts, and what the field advises, each set of methods once."""
    found: dict[str, Candidate] = {}
    for arm in suite["arms"] if suite else ():
        try:
            found[arm["arm"]] = Candidate(arm["arm"], arm["recipe"], build_recipe(arm["recipe"], registry), arm)
        except BadSpec:  # an arm of methods that are no longer there says nothing of those that are
            continue
    for name in (DEFAULT, *LAST_RESORTS):
        if name not in found and name in shipped:
            found[name] = Candidate(name, dict(shipped[name]), build_recipe(shipped[name], registry))
    known = {c.methods for c in found.values()}
    for rule in field:
        if not missing(rule, registry) and tuple(sorted(rule.parts)) not in known:
            name = " + ".join(rule.parts) + " (defaults)"
            written = {"name": name, "methods": {part: {} for part in rule.parts}}
            found[name] = Candidate(name, written, build_recipe(written, registry))
            known.add(found[name].methods)
    return list(found.values())


def missing(rule: Rule, registry: Mapping[str, type[Method]]) -> list[str]:
    """Return what a rule advises that no method here does yet."""
    return [what for name, what in rule.parts.items() if name not in registry]


# ---- hard constraints


def refusal(candidate: Candidate, needs: Needs) -> str | None:
    """Return why a recipe cannot be advised whatever its score; None where nothing stands against it."""
    settings, measured = candidate.recipe.settings, candidate.measured or {}
    if settings.data == "all":
        return "it learns all tasks again each time, from all their rows: the upper bound, and no way to go on"
    if settings.train == "full":
        return "it trains and stores every weight of the model for each task: a baseline"
    if candidate.recipe.remembers and not needs.rows_allowed:
        drawing = [method.name for method in candidate.recipe.drawing_from("replay")]
        return f"{', '.join(drawing) or 'it'} would keep rows of older tasks"
    if needs.time is not None and (ratio := measured.get("train_ratio")) and ratio["value"] > needs.time:
        return f"training took {ratio['value']:.2f} times as long as naive, and you allow {needs.time:g}"
    if needs.memory_mb is not None and measured.get("state_bytes", 0) > 1e6 * needs.memory_mb:
        return f"its methods keep {measured['state_bytes'] / 1e6:.1f} MB, and you allow {needs.memory_mb:g}"
    if rows_within(candidate, needs) == 0 and candidate.recipe.remembers:
        return "not one row fits beside what its methods keep"
    return None


def rows_within(candidate: Candidate, needs: Needs) -> int | None:
    """Return how many rows the memory budget holds; None where there is none, or where bytes a row were not measured."""
    limits = [] if needs.memory_rows is None else [needs.memory_rows]
    measured = candidate.measured or {}
    if needs.memory_mb is not None and measured.get("memory_rows"):
        each = measured["memory_bytes"] / measured["memory_rows"]
        limits.append(max(0, int((1e6 * needs.memory_mb - measured["state_bytes"]) / each)))
    return min(limits, default=None)


# ---- what was measured, and what the field says


def choose(fitting: Sequence[Candidate], field: Sequence[Rule]) -> tuple[Candidate, Json]:
    """Return the recipe with the best measured ACC, and why; without numbers, what the field advises, else the default.

    One that another stands above by test row is passed over: its ACC may be of easier seeds. A baseline that merely was the
    only one measured is no best: it then has nothing to be better than.
    """
    measured = [c for c in fitting if c.measured]
    if any(c.methods for c in measured):
        return _best(sorted(measured, key=lambda c: -c.measured["acc"]["value"]))  # type: ignore[index]
    for rule in field:
        if advised := of_rule(rule, fitting):
            says = f"{rule.situation} the field advises {rule.says}; this rests on the literature alone"
            return advised, {"says": says, "source": rule.source}
    first = next(c for name in (DEFAULT, *LAST_RESORTS) for c in fitting if c.name == name)
    return first, {
        "says": f"{first.name}: nothing that fits was measured, and no advice of the field fits",
        "source": "none",
    }


def _best(ranked: Sequence[Candidate]) -> tuple[Candidate, Json]:
    """Return the first that no other stands above, and why; the first where each has another above it."""
    first = ranked[0]
    best = next((c for c in ranked if not any(above(other, c) for other in ranked)), first)
    others = "1 other fits" if len(ranked) == 2 else f"{len(ranked) - 1} others fit"
    if best is first:
        return best, _reason(f"{best.name} has the best ACC measured of what fits: {_acc(best)}; {others}", best)
    better = next(c for c in ranked if above(c, first))
    passed = f"{first.name} reached {_acc(first)}, but {_apart(better, first)}"
    return best, _reason(f"{best.name} reached {_acc(best)}; {passed}; {others}", best)


def acc_minus(ours: Candidate, theirs: Candidate) -> Json | None:
    """Return our ACC minus theirs, paired by test row ("value", "low", "high", over "seeds" shared); None where not told."""
    mine, other = ours.measured or {}, theirs.measured or {}
    seeds = len(set(mine.get("seeds", ())) & set(other.get("seeds", ())))
    if gap := mine.get("acc_minus", {}).get(theirs.name):
        return {**gap, "seeds": seeds}
    if gap := other.get("acc_minus", {}).get(ours.name):
        return {"value": -gap["value"], "low": -gap["high"], "high": -gap["low"], "seeds": seeds}
    return None


def above(ours: Candidate, theirs: Candidate) -> bool:
    """Say whether our measured ACC is above theirs: by test row where the table has that, else by intervals that do not meet."""
    if ours.measured is None or theirs.measured is None:
        return False
    if gap := acc_minus(ours, theirs):
        return bool(gap["low"] > 0)
    return bool(ours.measured["acc"]["low"] > theirs.measured["acc"]["high"])


def rivals(chosen: Candidate, fitting: Sequence[Candidate]) -> list[Candidate]:
    """Return the measured candidates that cannot be told apart from the chosen one, the best first."""
    if not chosen.measured:
        return []
    others = [c for c in fitting if c is not chosen and c.measured]
    near = [c for c in others if not above(chosen, c) and not above(c, chosen)]
    return sorted(near, key=lambda c: -c.measured["acc"]["value"])  # type: ignore[index]


def _reasons(
    chosen: Candidate,
    everything: Sequence[Candidate],
    refused: Mapping[str, str],
    field: Sequence[Rule],
    registry: Mapping[str, type[Method]],
    suite: Json | None,
) -> list[Json]:
    """Return where the field and the numbers agree, disagree, or cannot be compared."""
    reasons = []
    if suite is None:
        says = "nothing was measured here yet, so no number of ours stands behind this"
        reasons.append({"says": says, "source": "none"})
    for rule in (rule for rule in field if not missing(rule, registry)):
        advised = of_rule(rule, [c for c in everything if c.name not in refused]) or of_rule(rule, everything)
        if advised is None:
            continue
        if advised.name in refused:
            says = f"{rule.situation} the field advises {rule.says}; but {refused[advised.name]}"
        elif advised is not chosen:
            says = against(rule, advised, chosen)
        elif chosen.measured:
            says = f"the field agrees: {rule.situation}, {rule.says}"
        else:
            continue  # it is the reason that was given
        reasons.append({"says": says, "source": rule.source})
    return reasons


def of_rule(rule: Rule, among: Iterable[Candidate]) -> Candidate | None:
    """Return the recipe of a rule's methods and no others: the arm that it names, else the best measured of several."""
    same = [candidate for candidate in among if candidate.methods == tuple(sorted(rule.parts))]
    same = [candidate for candidate in same if candidate.name == rule.arm] or same
    return max(same, key=lambda c: c.measured["acc"]["value"] if c.measured else -1.0, default=None)


def against(rule: Rule, advised: Candidate, chosen: Candidate) -> str:
    """Return in words how the field's advice and the choice compare in our numbers."""
    says = f"{rule.situation} the field advises {rule.says}"
    if advised.measured is None or chosen.measured is None:
        return f"{says}; {advised.name} was not measured here, so no number of ours says whether it would do better"
    if above(chosen, advised):
        verdict = "go further" if {*rule.parts} < {*chosen.methods} else "disagree"
        return f"{says}; our numbers {verdict}: {_apart(chosen, advised)}"
    gap = acc_minus(advised, chosen)
    told = f": {_signed(gap)}, {_pairs(gap)}" if gap else ""
    both = f"{advised.name} ({_acc(advised)}) and {chosen.name} ({_acc(chosen)})"
    return f"{says}; in our numbers {both} cannot be told apart{told}"


# ---- the recipe


def fitted(chosen: Candidate, needs: Needs, registry: Mapping[str, type[Method]]) -> Json:
    """Return the recipe as a file, with what the needs change."""
    written = {**chosen.written, "name": "advised"}
    rows = rows_within(chosen, needs)
    if chosen.recipe.remembers and rows is not None:
        written["memory_size"] = min(rows, chosen.recipe.settings.memory_size)
    if needs.instructions and REHEARSING in registry and REHEARSING not in chosen.methods:
        written["methods"] = {**(written.get("methods") or {}), REHEARSING: {}}
    build_recipe(written, registry)
    return written


def changes(
    chosen: Candidate, needs: Needs, registry: Mapping[str, type[Method]], rehearsal: Sequence[Json] = ()
) -> list[Json]:
    """Return why the recipe differs from the one it rests on, and what the user has to bring."""
    told = []
    rows, measured = rows_within(chosen, needs), chosen.measured or {}
    if chosen.recipe.remembers and rows is not None:
        had = measured.get("memory_rows")
        less = f"; it was measured with {had} rows, so expect less" if had and had > rows else ""
        size = chosen.recipe.settings.memory_size
        says = f"memory_size {rows} is what your memory budget holds{less}"
        says = says if rows < size else f"your memory budget would hold {rows} rows; the recipe keeps at most {size}"
        told.append({"says": says, "source": "your answers"})
    if needs.instructions and REHEARSING in registry:
        says = (
            "instruction_replay holds the model to what the base says of general instructions, and does nothing without them: "
            "name a file of them as `general:` in the task file. Replay of tasks alone keeps the tasks, and still loses "
            "helpfulness"
        )
        told.append(
            {
                "says": says,
                "source": "Wang et al. 2023 (TRACE), arXiv 2310.06762; Scialom et al. 2022, arXiv 2205.12393",
            }
        )
        told += _rehearsed(chosen, rehearsal)
    return told


def _rehearsed(chosen: Candidate, rehearsal: Sequence[Json]) -> list[Json]:
    """Return what the rehearsal kept and cost where it was measured: with the chosen recipe, else with the first that was."""
    pair = next((pair for pair in rehearsal if pair["arm"] == chosen.name), next(iter(rehearsal), None))
    if pair is None:
        return []
    kept = "; ".join(
        f"{name} {told['with']:.3f} with it and {told['without']:.3f} without ({told['base']:.3f} before any task; by row "
        f"{_signed(told['minus'])}, n = {told['minus']['n']})"
        for name, told in pair["watched"].items()
    )
    cost = f"{pair['train_ratio']:.2f} times the training time, and ACC {_signed(pair['acc_minus'])}"
    says = f"measured with {pair['arm']} on {pair['suite']}: {kept}; for {cost}"
    seeds = len(pair["seeds"])
    return [{"says": says, "source": f"perdure bench, {seeds} seed{'s' if seeds != 1 else ''}"}]


def cautions(chosen: Candidate, needs: Needs, suite: Json | None) -> list[str]:
    """Return what could make the advice wrong."""
    told = []
    if suite and needs.parameters and suite.get("parameters"):
        times = needs.parameters / suite["parameters"]
        if not 1 / FAR <= times <= FAR:
            told.append(f"measured on {suite['model']}; a model {times:.2g} times its size may rank methods otherwise")
    if suite and needs.tasks and needs.tasks > 1.5 * suite["tasks"]:
        told.append(
            f"measured over {suite['tasks']} tasks; over {needs.tasks} more is forgotten, and memory is spread thinner"
        )
    if suite and needs.similarity in ("alike", "different") and suite["tasks_are"] != needs.similarity:
        told.append(
            f"measured on tasks that are {suite['tasks_are']}; on tasks that are {needs.similarity} too few recipes were "
            "measured to choose from them"
        )
    if needs.similarity == "different" and "lwf" in chosen.methods:
        told.append(
            "LwF protects through the new rows, and the less they resemble the old ones the less it does (arXiv 1606.09282)"
        )
    if not needs.keep_rows:
        told.append(
            "test rows stay in the workspace with their text, to score; of train rows it keeps hashes alone, to find leaks, "
            "unless it was made with --keep-rows all, or by an older perdure ('perdure memory prune' drops the text)"
        )
    if needs.time is not None and not (chosen.measured or {}).get("train_ratio"):
        told.append("its training time beside naive was not measured; 'perdure recipe explain' counts its forwards")
    if needs.memory_mb is not None and not chosen.measured:
        told.append(
            "its bytes were not measured, so the megabytes are no promise; 'perdure recipe explain' counts them"
        )
    return told


# ---- words


def _acc(candidate: Candidate) -> str:
    acc = (candidate.measured or {})["acc"]
    return f"{acc['value']:.3f} ({acc['low']:.3f} to {acc['high']:.3f})"


def _apart(ours: Candidate, theirs: Candidate) -> str:
    """Return in words how far we are above them."""
    if gap := acc_minus(ours, theirs):
        return f"{ours.name} stands {_signed(gap)} above {theirs.name}, {_pairs(gap)}"
    return f"{theirs.name} reached {_acc(theirs)}, {ours.name} {_acc(ours)}"


def _signed(gap: Json) -> str:
    return f"{gap['value']:+.3f} ({gap['low']:+.3f} to {gap['high']:+.3f})"


def _pairs(gap: Json) -> str:
    return f"paired by test row over {gap['seeds']} shared seed{'s' if gap['seeds'] != 1 else ''}"


def _reason(says: str, candidate: Candidate) -> Json:
    measured = candidate.measured or {}
    seeds = measured.get("seeds", [])
    return {
        "says": says,
        "source": f"perdure bench, {len(seeds)} seed{'s' if len(seeds) != 1 else ''}, n = {measured['acc']['n']}",
    }


def _told(rival: Candidate, chosen: Candidate) -> Json:
    measured, gap = rival.measured or {}, acc_minus(rival, chosen)
    return {"recipe": rival.name, "acc": measured["acc"], "acc_minus": gap, "train_ratio": measured.get("train_ratio")}
